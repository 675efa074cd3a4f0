"""Every built-in backend declares its options as a model: defaults, descriptions and errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import textwrap
from dataclasses import is_dataclass
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from support.source import parse_source

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.backends.causal_lm import CausalLMOptions
from rerank_plugins.backends.cohere import CohereOptions, SpansOptions
from rerank_plugins.backends.http import HTTPOptions
from rerank_plugins.backends.onnx import OnnxOptions
from rerank_plugins.config import registry
from rerank_plugins.config.registry import builtin_entries, options_model
from rerank_plugins.core import Capabilities, HostedBackend, LocalBackend, Scorer
from rerank_plugins.core.redaction import MASK
from rerank_plugins.core.scorer import Backend
from rerank_plugins.core.secret import Secret
from rerank_plugins.engine.causal_lm.templates import TEMPLATES
from rerank_plugins.options import HostedOptions, LocalOptions, Options, Seconds, parse

SECRET = "sk-very-secret-1234567890"


def class_of(name: str) -> Any:
    """Return the class of a built-in backend, whether its packages are installed or not."""
    module, _, attribute = builtin_entries()[name].path.partition(":")
    return getattr(importlib.import_module(module), attribute)


CLASSES = {name: class_of(name) for name in builtin_entries()}
MODELS = {name: options_model(kind) for name, kind in CLASSES.items()}
DIFFERENT = {MODELS[name]: name for name in builtin_entries()}
"""One backend for each options model: most presets share theirs."""
FIELDS = [(name, field) for model, name in DIFFERENT.items() for field in model.model_fields]
ANYTHING = {("voyage", "client")}
"""Options that take any object."""


def plain_types(annotation: Any) -> list[Any]:
    """Return the types of an annotation, without what is added to them."""
    if get_origin(annotation) is Annotated:
        return plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for branch in get_args(annotation) for kind in plain_types(branch)]
    return [annotation]


def documented(model: type[Options]) -> set[str]:
    """Return the fields of a model with a docstring. It is read from the source, which pydantic does not do here."""
    names = set[str]()
    own = model.__mro__[: model.__mro__.index(Options)]
    for kind in (*own, *filter(is_dataclass, model.__mro__)):  # the columns of `http` are those of a dataclass
        (definition,) = parse_source(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str())):
                    names.add(name)
    return names


def backend(reranker: Any) -> Any:
    scorer: Scorer = reranker.scorer
    while not isinstance(scorer, Backend):
        scorer = scorer.inner
    return scorer


@pytest.mark.parametrize("name", CLASSES)
def test_every_option_of_the_model_has_a_docstring(name: str) -> None:
    model = MODELS[name]
    assert issubclass(model, Options)
    assert model.__doc__
    assert documented(model) == set(model.model_fields)


@pytest.mark.parametrize("name", CLASSES)
def test_the_defaults_are_valid(name: str) -> None:
    model = MODELS[name]
    assert parse(model, {}) == model()
    written = {field: getattr(model(), field) for field in model.model_fields}
    assert parse(model, written) == model()


@pytest.mark.parametrize("name", CLASSES)
def test_constructors_take_model_and_options(name: str) -> None:
    parameters = inspect.signature(CLASSES[name]).parameters
    assert set(parameters) <= {"model", "options"}
    assert "options" in parameters
    assert all(parameter.default is None for parameter in parameters.values())


@pytest.mark.parametrize("name", CLASSES)
def test_there_is_a_json_schema(name: str) -> None:
    schema = MODELS[name].model_json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert set(schema.get("properties", {})) == set(MODELS[name].model_fields)


@pytest.mark.parametrize("name", builtin_entries())
def test_an_unknown_option_raises(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no option of {name} 'nothing_like_it'"):
        load_reranker({"use": name, name: {"nothing_like_it": 1}})


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_misspelled_option_raises_with_the_nearest_name(name: str, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"no option of {name} '{field}x'\. Did you mean '{field}'\?"):
        load_reranker({"use": name, name: {f"{field}x": 1}})


@pytest.mark.parametrize(("name", "field"), [each for each in FIELDS if each not in ANYTHING])
def test_a_value_of_another_type_raises_with_the_name(name: str, field: str) -> None:
    wrong: Any = "fast" if float in plain_types(MODELS[name].model_fields[field].annotation) else 5.5
    # Keys are checked before the backends' tables.
    place = rf"({name}\.)?api_key" if field == "api_key" else rf"{name}\.{field}"
    with pytest.raises(ConfigError, match=rf"^{place} ") as caught:
        load_reranker({"use": name, name: {field: wrong}})
    assert "cannot be created" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "http", "timeout": -1}, "^timeout must be a number of seconds"),
        ({"use": "http", "http": {"timeout": -1}}, r"^http\.timeout must be a number of seconds"),
        ({"use": "http", "base_url": "h:80"}, "^base_url must start with http:// or https://"),
        ({"use": "http", "base_url": "http://"}, "^base_url names no host"),
        ({"use": "http", "base_url": "http://h:port"}, "^base_url has a port that is not a number"),
        ({"use": "http", "base_url": f"http://h/?key={MASK}"}, "^base_url holds .*was stored"),
        ({"use": "http", "price": {}}, "^price .*per_million_tokens"),
        ({"use": "http", "price": {"per_million_tokens": -1}}, r"^price\.per_million_tokens must be a finite number"),
        ({"use": "http", "http": {"max_documents": 0}}, r"^http\.max_documents must be an integer of at least 1"),
        ({"use": "http", "http": {"scale": "percent"}}, r"^http\.scale .*unit"),
        (
            {"use": "http", "http": {"headers": {"x key": "1"}}},
            r"^http\.headers .*'x key'.*letters, digits and hyphens",
        ),
        ({"use": "http", "http": {"headers": {"x": "1\n2"}}}, r"^http\.headers .*'x'.*one line"),
        ({"use": "http", "http": {"headers": {"x": 1}}}, r"^http\.headers\.x must be a string, got 1"),
        ({"use": "http", "http": {"headers": {"x": MASK}}}, r"^http\.headers\.x holds .*was stored"),
        ({"use": "http", "http": {"body": {"x": [{"y": MASK}]}}}, r"^http\.body\.x holds .*was stored"),
        (
            {"use": "vllm", "vllm": {"truncate_prompt_tokens": True}},
            r"^vllm\.truncate_prompt_tokens must be an integer",
        ),
        ({"use": "vllm", "vllm": {"truncate_prompt_tokens": -2}}, r"^vllm\.truncate_prompt_tokens must be an integer"),
        ({"use": "mixedbread", "mixedbread": {"rank_fields": "title"}}, r"^mixedbread\.rank_fields "),
        ({"use": "zeroentropy", "zeroentropy": {"latency": "medium"}}, r"^zeroentropy\.latency .*fast.*slow"),
        ({"use": "cohere", "cohere": {"priority": -1}}, r"^cohere\.priority must be an integer of at least 0"),
        ({"use": "cohere", "cohere": {"client": object()}}, r"^cohere\.client must be a client of API v2"),
        ({"use": "cohere", "cohere": {"relevant_spans": {"max_spans": 0}}}, r"^cohere\.relevant_spans\.max_spans must"),
        (
            {"use": "cohere", "cohere": {"relevant_spans": {"max_span": 1}}},
            r"no option of cohere\.relevant_spans 'max_span'\. Did you mean 'max_spans'",
        ),
        ({"use": "embedded", "max_tokens": 513}, "^max_tokens must be an integer from 16 to 512"),
        ({"use": "embedded", "device": "cuda"}, "^device .*cpu"),
        ({"use": "onnx:a/b", "device": []}, "^device must not be an empty list"),
        ({"use": "bge", "device": ["cuda:0", "cpu"]}, "^device names 'cpu' beside others"),
        ({"use": "bge", "device": True}, "^device must be a name"),
        ({"use": "bge", "max_tokens": 15}, "^max_tokens must be an integer of at least 16"),
        ({"use": "bge", "runtime": "tensorrt"}, "^runtime .*onnxruntime.*openvino.*torch"),
        ({"use": "causal-lm:a/b", "causal-lm": {"template": "gpt"}}, r"^causal-lm\.template .*qwen3"),
        (
            {"use": "sentence-transformers:a/b", "sentence-transformers": {"trust_remote_code": True}},
            r"^sentence-transformers\.trust_remote_code runs code .*40 digits",
        ),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_a_wrong_value_raises_with_its_place(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reranker(spec)


def test_a_list_of_one_device_is_that_device() -> None:
    assert parse(LocalOptions, {"device": ["cuda:1"]}).device == "cuda:1"
    assert parse(LocalOptions, {"device": ["cuda:0", "cuda:1"]}).device == ("cuda:0", "cuda:1")
    assert parse(OnnxOptions, {"device": ["cpu"]}).device == "cpu"


def test_templates_are_those_of_the_engine() -> None:
    annotation = CausalLMOptions.model_fields["template"].annotation
    offered = {value for part in get_args(annotation) for value in get_args(part)}
    assert offered == set(TEMPLATES)


def test_relevant_spans_take_true_or_a_mapping() -> None:
    assert parse(CohereOptions, {"relevant_spans": False}).relevant_spans is None
    assert parse(CohereOptions, {"relevant_spans": True}).relevant_spans == SpansOptions()
    described = parse(CohereOptions, {"relevant_spans": {"threshold": 0.5}}).relevant_spans
    assert described == SpansOptions(threshold=0.5)
    schema = CohereOptions.model_json_schema()["properties"]["relevant_spans"]
    assert {"type": "boolean"} in schema["anyOf"]


def test_the_repr_of_options_shows_no_credential() -> None:
    options = parse(
        HTTPOptions,
        {
            "api_key": SECRET,
            "base_url": f"http://user:{SECRET}@h/?key={SECRET}",
            "headers": {"x-jwt": SECRET},
            "body": {"token": SECRET, "deep": [{"token": SECRET}], "stream": False},
        },
    )
    assert (
        SECRET
        not in f"{options!r} {options} {options.model_copy()!r} {vars(options)['headers']} {vars(options)['body']}"
    )
    assert options.headers == {"x-jwt": Secret(SECRET)}
    assert options.body == {"token": Secret(SECRET), "deep": [{"token": Secret(SECRET)}], "stream": False}


@pytest.mark.parametrize(
    "values",
    [
        {"api_key": [SECRET]},
        {"base_url": SECRET},
        {"base_url": f"http://user:{SECRET}@h:port"},
        {"headers": [SECRET]},
        {"headers": {"x": [SECRET]}},
        {"headers": {"x": f"{SECRET}\n"}},
        {"body": SECRET},
        {"body": {"x": {5: SECRET}}},
    ],
    ids="-".join,
)
def test_an_error_shows_no_credential(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(HTTPOptions, values, "http")
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


class TunedOptions(HostedOptions):
    """Options of a third party's vendor."""

    region: str = "eu"
    """Region in which the vendor computes."""
    patience: Seconds = 5.0
    """Seconds that a request may wait in the vendor's queue."""


class Tuned(HostedBackend):
    """A third party's vendor with a model of options."""

    Options = TunedOptions
    base_url = "https://api.tuned.invalid"
    key_variables = ("TUNED_API_KEY",)
    model = "tuned-1"
    capabilities = Capabilities(scale="unit")

    def __init__(self, model: str | None = None, options: TunedOptions | None = None) -> None:
        self.options = options or TunedOptions()
        super().__init__(model, **self.options.shared())

    def encode(self, request: Any) -> Any:
        return f"/{self.options.region}", {}

    def decode(self, body: Any) -> Any:
        return []


class DeepOptions(LocalOptions):
    """Options of a third party's model."""

    depth: int
    """Number of layers that are computed. It has no default."""


class Deep(LocalBackend):
    """A third party's backend with one model."""

    Options = DeepOptions

    def __init__(self, options: DeepOptions) -> None:
        super().__init__()
        self.options = options

    def score(self, query: str, documents: Any) -> Any:
        return [float(self.options.depth)] * len(documents)


@pytest.fixture
def _third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Tuned, Deep):
        entry = registry.BackendEntry(f"{__name__}:{kind.__name__}", "a test's")
        monkeypatch.setitem(registry.BUILTIN, kind.__name__.lower(), entry)


@pytest.mark.usefixtures("_third_party")
def test_a_third_party_declares_its_options() -> None:
    spec = {"use": "tuned:tuned-2", "api_key": SECRET, "timeout": 3, "tuned": {"region": "us"}}
    tuned = backend(load_reranker(spec))
    assert isinstance(tuned, Tuned)
    assert (tuned.model, tuned.timeout, tuned.options.region, tuned.options.patience) == ("tuned-2", 3.0, "us", 5.0)
    assert tuned.options.api_key == Secret(SECRET)
    for wrong, message in (
        ({"regoin": "us"}, "no option of tuned 'regoin'.*Did you mean 'region'"),
        ({"patience": 0}, r"^tuned\.patience must be a number of seconds above 0"),
        ({"region": 5}, r"^tuned\.region "),
    ):
        with pytest.raises(ConfigError, match=message):
            load_reranker({**spec, "tuned": wrong})
    with pytest.raises(ConfigError, match=r"^timeout must be"):
        load_reranker({**spec, "timeout": 0})


@pytest.mark.usefixtures("_third_party")
def test_a_third_partys_option_may_be_required() -> None:
    deep = backend(load_reranker({"use": "deep", "dtype": "float32", "deep": {"depth": 3}}))
    assert isinstance(deep, Deep)
    assert (deep.options.depth, deep.options.dtype) == (3, "float32")
    with pytest.raises(ConfigError, match=r"^deep\.depth "):
        load_reranker("deep")
    with pytest.raises(ConfigError, match="deep has no models"):
        load_reranker({"use": "deep:x", "deep": {"depth": 3}})


COMPILED = """
import json, sys
import rerank_plugins
assert "pydantic" not in sys.modules
{code}
from rerank_plugins.options import Options

def below(kind):
    for each in kind.__subclasses__():
        yield each
        yield from below(each)

print(json.dumps(sorted({{
    kind.__name__ for kind in below(Options)
    if kind.__module__.startswith("rerank_plugins.backends.") and kind.__pydantic_complete__
}})))
"""


@pytest.mark.parametrize(
    ("code", "compiled"),
    [
        ("import rerank_plugins.backends.families, rerank_plugins.backends.http, rerank_plugins.backends.cohere", []),
        ("rerank_plugins.load_reranker('embedded')", []),
        ("rerank_plugins.load_reranker('embedded', embedded={'cache_mb': 0})", ["EmbeddedOptions"]),
        ("rerank_plugins.load_reranker('tei', base_url='http://127.0.0.1:9')", ["TEIOptions"]),
    ],
    ids=["import", "embedded", "embedded with options", "tei"],
)
def test_only_the_options_of_the_used_backend_are_compiled(code: str, compiled: list[str]) -> None:
    """Pydantic takes a millisecond or more to compile a model, so only the backends in use may be compiled."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED.format(code=code)], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout) == compiled

"""From spec to reranker: every form, every mistake, and no key in a repr, spec, pickle or error."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys

import pytest

from rerank_plugins import ConfigError, MissingExtra, Reranker, RerankError, load_reranker
from rerank_plugins.config import backends as find_all
from rerank_plugins.config import registry, shared
from rerank_plugins.core import Backend, Capabilities, HostedBackend, LocalBackend
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.fallback import Fallback
from rerank_plugins.policies.retry import Retry
from rerank_plugins.policies.split import Split
from rerank_plugins.policies.truncate import Truncate

KEY = "sk-very-secret-1234567890"


class Acme(HostedBackend):
    """A vendor that needs a key."""

    base_url = "https://api.acme.invalid"
    key_variables = ("ACME_API_KEY", "ACME_KEY")
    model = "acme-1"
    capabilities = Capabilities(scale="unit", max_documents=100, max_tokens=512)

    def __init__(self, model=None, *, api_key=None, base_url=None, timeout=30.0, max_in_flight=8, region="eu"):
        super().__init__(model, api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight)
        self.region = region

    def encode(self, request):
        return "/rerank", {}

    def decode(self, body):
        return []


class Logit(LocalBackend):
    """A local backend with its own scale and one shared option."""

    model = "logit"
    capabilities = Capabilities(scale="logit")

    def __init__(self, model=None, *, batch_tokens: int | None = None, depth: int = 1) -> None:
        super().__init__(model)
        self.batch_tokens = batch_tokens
        self.depth = 1 + depth  # a string raises TypeError

    def score(self, query, documents):
        return [0.0] * len(documents)


class Ordinal(Logit):
    model = "ordinal"
    capabilities = Capabilities(scale="ordinal")


@pytest.fixture(autouse=True)
def _backends(monkeypatch):
    for kind, where in ((Acme, "hosted"), (Logit, "local"), (Ordinal, "local")):
        monkeypatch.setitem(
            registry.BUILTIN,
            kind.__name__.lower(),
            registry.BackendEntry(f"{__name__}:{kind.__name__}", "a test's", where),
        )


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return the path of a configuration file that the environment does not name."""
    path = tmp_path / "rerank.toml"
    path.write_text(
        """
        [rerankers.production]
        use = "lexical"
        top_n = 2
        fallback = ["backup", "passthrough"]

        [rerankers.backup]
        use = "acme:acme-2"
        api_key = "env:BACKUP"

        [rerankers.round]
        use = "lexical"
        fallback = ["round"]
        """,
        "utf-8",
    )
    monkeypatch.setenv("BACKUP", KEY)
    return path


def find(reranker: Reranker, kind: type) -> list:
    return [part for part in reranker.scorer.walk() if isinstance(part, kind)]


# --- forms of a spec ---


def test_keyword_arguments_replace_options_of_the_spec():
    assert load_reranker("lexical").top_n is None
    assert load_reranker({"use": "lexical", "top_n": 5}).top_n == 5
    assert load_reranker({"use": "lexical", "top_n": 5}, top_n=2).top_n == 2
    assert load_reranker({"use": "lexical", "top_n": 5}, top_n=None).top_n is None
    spec = {"use": "http", "base_url": "http://h", "http": {"instruction_field": "instruction"}}
    assert load_reranker(spec, instruction="be brief").instruction == "be brief"


def test_the_callers_spec_is_not_changed():
    spec = {"use": "lexical", "fallback": ["passthrough"], "retry": {"attempts": 2}}
    before = json.dumps(spec)
    load_reranker(spec, top_n=1)
    assert json.dumps(spec) == before


def test_a_model_follows_the_first_colon():
    (backend,) = find(load_reranker("logit:org/name:tag"), Backend)
    assert (backend.name, backend.model, backend.label) == ("logit", "org/name:tag", "logit:org/name:tag")
    (backend,) = find(load_reranker("logit"), Backend)
    assert backend.label == "logit"


def test_a_local_folder_is_a_model(cross_encoder_folder):
    response = load_reranker(f"onnx:{cross_encoder_folder}").rerank("tides", ["the moon", "bananas"])
    assert str(cross_encoder_folder) in response.model
    assert "onnxruntime float32" in response.model


def test_a_model_for_a_backend_without_models_raises():
    with pytest.raises(ConfigError, match="lexical has no models"):
        load_reranker("lexical:large")


def test_spec_from_the_environment(monkeypatch):
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
    assert load_reranker().rerank("a", ["a"]).model == "lexical"
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", '{"use": "passthrough", "top_n": 1}')
    assert load_reranker().rerank("a", ["a", "b"]).model == "passthrough"
    assert load_reranker().top_n == 1
    assert load_reranker("lexical").top_n is None
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "nobody")
    with pytest.raises(ConfigError, match="no backend 'nobody'"):
        load_reranker()


def test_spec_from_a_file(file, monkeypatch):
    assert load_reranker("production", config=file).top_n == 2
    assert load_reranker("production", config=str(file), top_n=7).top_n == 7
    assert load_reranker("lexical", config=file).top_n is None  # names of backends stay valid
    monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(file))
    assert load_reranker("production").top_n == 2
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "production")
    assert load_reranker().top_n == 2
    with pytest.raises(ConfigError, match=r"'prodution'.*Did you mean 'production'"):
        load_reranker("prodution")
    with pytest.raises(ConfigError, match="round → round"):
        load_reranker("round")


# --- mistakes ---


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "^use must name a backend.*got None"),
        ({"use": None}, "^use must name a backend.*got None"),
        ({"use": 5}, "^use must be a string, got 5"),
        ({"use": ""}, "^use must name a backend.*got an empty string"),
        ({"use": "acmee"}, "Did you mean 'acme'"),
        ({"use": "lexical", "topn": 5}, "no option 'topn'.*Did you mean 'top_n'.*score_threshold"),
        ({"use": "lexical", 5: 6}, "no option 5"),
        ({"use": "lexical", "top_n": "5"}, "top_n"),
        ({"use": "lexical", "top_n": True}, "top_n"),
        ({"use": "lexical", "top_n": 0}, "top_n"),
        ({"use": "lexical", "instruction": 5}, "^instruction must be a string, got 5"),
        ({"use": "lexical", "score_threshold": "high"}, "score_threshold"),
        ({"use": "lexical", "score_threshold": 1.5}, "score_threshold"),
        ({"use": "lexical", "deadline": "2"}, "^deadline must be a number of seconds above 0.*got a string"),
        ({"use": "lexical", "deadline": 0}, "deadline"),
        ({"use": "lexical", "deadline": True}, "deadline"),
        ({"use": "lexical", "deadline": float("nan")}, "deadline"),
        ({"use": "lexical", "retry": 0}, "^retry.attempts must be an integer of at least 1, got 0"),
        ({"use": "lexical", "retry": True}, "retry"),
        ({"use": "lexical", "retry": 1.5}, "retry"),
        ({"use": "lexical", "retry": {"attempt": 2}}, "option of retry 'attempt'.*Did you mean 'attempts'"),
        ({"use": "lexical", "retry": {"wait_max": -1}}, r"retry\.wait_max"),
        ({"use": "lexical", "on_error": "ignore"}, "^on_error must be one of degrade or raise, got a string"),
        ({"use": "lexical", "long_documents": "cut"}, "long_documents.*truncate"),
        ({"use": "lexical", "long_documents": ["error"]}, "long_documents"),
        (
            {"use": "lexical", "fallback": "embedded"},
            r"^fallback must be a list, such as \[\'embedded\', \'passthrough\'\], or a mapping, got a string",
        ),
        ({"use": "lexical", "fallback": 5}, "^fallback must be a list, .* got 5"),
        ({"use": "lexical", "fallback": {"spec": []}}, "option of fallback 'spec'.*Did you mean 'specs'"),
        ({"use": "lexical", "fallback": {"specs": [], "on": "deadline"}}, "^fallback.on must be a list, got a string"),
        (
            {"use": "lexical", "fallback": {"specs": [], "on": ["deadlin"]}},
            r"^fallback.on\[0\].*did you mean 'deadline'",
        ),
        ({"use": "lexical", "fallback": ["lexicall"]}, "Did you mean 'lexical'"),
        ({"use": "lexical", "fallback": [{"use": "lexical", "topn": 1}]}, "Did you mean 'top_n'"),
        ({"use": "lexical", "fallback": [{}]}, r"^fallback\[0\]\.use must name a backend"),
        ({"use": "logit", "logit": {"dpth": 1}}, "option of logit 'dpth'.*Did you mean 'depth'"),
        ({"use": "logit", "logit": {"depth": "deep"}}, "logit cannot be created with these options"),
        ({"use": "logit", "logit": 5}, "^logit must be a mapping of logit's options, got 5"),
        ({"use": "lexical", "logit": 5}, "^logit must be a mapping of logit's options, got 5"),
        ({"use": "acme"}, "needs a key: set the environment variable ACME_API_KEY or ACME_KEY"),
        ({"use": "acme", "api_key": 5}, "^api_key must be a string.*got 5"),
        ({"use": "acme", "api_key": "env:NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL is not set"),
        ({"use": "acme", "api_key": KEY, "timeout": 0}, "timeout"),
        ({"use": "acme", "api_key": KEY, "timeout": "fast"}, "timeout"),
        ({"use": "acme", "api_key": KEY, "timeout": float("nan")}, "timeout"),
        ({"use": "acme", "api_key": KEY, "max_in_flight": 0}, "max_in_flight"),
        ({"use": "acme", "api_key": KEY, "max_in_flight": 0.5}, "max_in_flight"),
        ({"use": "http", "base_url": "http://h", "http": {"headers": "x-team"}}, "^http.headers"),
        ({"use": "acme", "api_key": KEY, "max_in_flight": "8"}, "max_in_flight"),
        (
            {"use": "acme", "api_key": KEY, "max_in_flight": float("inf")},
            "max_in_flight must be a finite number, got inf",
        ),
        ({"use": "embedded", "embedded": {"cache_mb": float("inf")}}, r"embedded\.cache_mb must be a finite number"),
        ({"use": "onnx:" + "x" * 4000}, "File name too long"),
        ({"use": "acme", "api_key": KEY, "base_url": "api.acme.com"}, "base_url must start with"),
        ({"use": "acme", "api_key": KEY, "base_url": "http://[::1"}, "base_url"),
        ({"use": "http"}, "http needs a base_url"),
        ({"use": "onnx"}, "onnx needs a model"),
        ({"use": "onnx:/nowhere"}, "There is no folder /nowhere"),
    ],
    ids=str,
)
def test_every_mistake_raises_with_advice(spec, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_reranker(spec)
    assert KEY not in str(caught.value)


NUMBERS = {
    "deadline": lambda value: {"deadline": value},
    "timeout": lambda value: {"timeout": value},
    "max_in_flight": lambda value: {"max_in_flight": value},
    "price.per_million_tokens": lambda value: {"price": {"per_million_tokens": value}},
    "price.per_million_output_tokens": lambda value: {"price": {"per_million_output_tokens": value}},
    "price.per_million_cached_tokens": lambda value: {"price": {"per_million_cached_tokens": value}},
    "price.per_search_unit": lambda value: {"price": {"per_search_unit": value}},
    "top_n": lambda value: {"top_n": value},
    "score_threshold": lambda value: {"score_threshold": value},
    "retry": lambda value: {"retry": value},
    "retry.wait_initial": lambda value: {"retry": {"wait_initial": value}},
    "retry.wait_max": lambda value: {"retry": {"wait_max": value}},
    "limit.requests_per_minute": lambda value: {"limit": {"requests_per_minute": value}},
    "limit.tokens_per_minute": lambda value: {"limit": {"tokens_per_minute": value}},
    "breaker.failures": lambda value: {"breaker": {"failures": value}},
    "breaker.reset_s": lambda value: {"breaker": {"reset_s": value}},
    "cache.max_entries": lambda value: {"cache": {"max_entries": value}},
    "cache.ttl_s": lambda value: {"cache": {"ttl_s": value}},
    "long_documents.tokens": lambda value: {"long_documents": {"mode": "chunk", "tokens": value}},
    "long_documents.overlap": lambda value: {"long_documents": {"mode": "chunk", "overlap": value}},
    "fuse.k": lambda value: {"fuse": {"with": "retrieval", "k": value}},
    "fuse.weights": lambda value: {"fuse": {"with": "retrieval", "weights": [value, 1.0]}},
    "diversify.lambda": lambda value: {"diversify": {"lambda": value}},
    "diversify.top_n": lambda value: {"diversify": {"top_n": value}},
    "http.max_documents": lambda value: {"http": {"max_documents": value}},
    "http.max_tokens": lambda value: {"http": {"max_tokens": value}},
    "http.max_total_tokens": lambda value: {"http": {"max_total_tokens": value}},
    "http.max_bytes": lambda value: {"http": {"max_bytes": value}},
}
CASCADE = {
    "cascade.keep": lambda value: {"keep": [value]},
    "cascade.gate": lambda value: {"keep": [1], "gate": value},
}
LOCAL_NUMBERS = ("max_tokens", "batch_tokens", "cache_mb")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, 10**5000, -1, "5", True, [5]], ids=type)
def test_unusable_numbers_raise_for_every_option(value):
    for name, options in NUMBERS.items():
        with pytest.raises(ConfigError, match=name.split(".")[-1]):
            load_reranker({"use": "http", "base_url": "http://127.0.0.1:1", **options(value)})
    for name, options in CASCADE.items():
        with pytest.raises(ConfigError, match=name.split(".")[-1]):
            load_reranker({"cascade": {"stages": ["lexical", "passthrough"], **options(value)}})
    for name in LOCAL_NUMBERS:
        with pytest.raises(ConfigError, match=name):
            load_reranker({"use": "embedded", "embedded": {name: value}})


def test_large_numbers_are_accepted():
    spec = {"use": "lexical", "deadline": 86_400 * 30, "cache": {"max_entries": 10**9, "ttl_s": 86_400 * 365}}
    with load_reranker(spec) as reranker:
        assert reranker.rerank("moon", ["the moon"])[0].index == 0


def test_a_backend_constructed_directly_checks_its_numbers():
    for value in (math.nan, math.inf, 10**400, 0, "5"):
        for name in ("timeout", "max_in_flight"):
            with pytest.raises(ConfigError, match=name):
                Acme(api_key=KEY, **{name: value})


def test_a_spec_that_contains_itself_or_too_many_others_raises(file, monkeypatch):
    circle = {"use": "lexical"}
    circle["fallback"] = [circle]
    deep = {"use": "lexical"}
    for _ in range(300):
        deep = {"use": "lexical", "fallback": [deep]}
    body = {"a": 1}
    body["b"] = [body]
    inside = {"use": "http", "base_url": "http://127.0.0.1:1", "http": {"body": body}}
    for spec in (circle, deep, inside):
        for build in (load_reranker, shared):
            with pytest.raises(ConfigError, match="too large, or contains itself"):
                build(spec)
    with pytest.raises(ConfigError, match="too large, or contains itself"):
        load_reranker("lexical", fallback=[circle])
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", '{"a":' * 20_000)
    with pytest.raises(ConfigError, match="starts like JSON but does not parse"):
        load_reranker()
    # Each of 40 rerankers names the next one twice: that is not deep, but 2 ** 40 specs.
    tables = [f'[rerankers.r{n}]\nuse = "lexical"\nfallback = ["r{n + 1}", "r{n + 1}"]\n' for n in range(40)]
    file.write_text("".join(tables) + '[rerankers.r40]\nuse = "lexical"\n', "utf-8")
    with pytest.raises(ConfigError, match="1,000 specs"):
        load_reranker("r0", config=file)
    tables = [f'[rerankers.r{n}]\nuse = "lexical"\nfallback = ["r{n + 1}"]\n' for n in range(300)]
    file.write_text("".join(tables) + '[rerankers.r300]\nuse = "lexical"\n', "utf-8")
    with pytest.raises(ConfigError, match="nested 64 deep"):
        load_reranker("r0", config=file)
    file.write_text(f"a = {'[' * 2000}{']' * 2000}", "utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_reranker(config=file)
    file.write_text(f"[rerankers.a]\nuse = 'lexical'\ntop_n = {'9' * 5000}", "utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_reranker("a", config=file)


def test_twenty_nested_fallbacks_work():
    spec = {"use": "lexical"}
    for _ in range(20):
        spec = {"use": "lexical", "fallback": [spec]}
    with load_reranker(spec) as reranker:
        assert reranker.rerank("moon", ["the moon"])[0].index == 0


@pytest.mark.parametrize("config", ["x" * 4000, "a\0b", 5, b"bytes", ["rerank.toml"]], ids=repr)
def test_a_config_that_is_not_the_path_of_a_file_raises(config):
    with pytest.raises(ConfigError, match="config"):
        load_reranker("lexical", config=config)


LONG = "/tmp/" + "x" * 4000


@pytest.mark.parametrize(
    "spec",
    [
        {"use": f"onnx:{LONG}"},
        {"use": f"causal-lm:{LONG}"},
        {"use": f"sentence-transformers:{LONG}"},
        {"use": f"bge:{LONG}"},
        {"use": f"flashrank:{LONG}"},
        {"use": f"jina:{LONG}"},
        {"use": "lexical", "calibration": LONG},
        {"use": "embedded", "calibration": LONG},
        {"use": "onnx:a\0b"},
        {"use": "embedded", "calibration": "a\0b"},
        {"use": "embedded", "cache": {"kind": "disk", "path": LONG}},
        {"use": "embedded", "cache": {"kind": "disk", "path": "a\0b"}},
        {"use": f"./{LONG}"},
    ],
    ids=lambda spec: str(spec)[:40],
)
def test_a_path_that_no_file_can_have_raises(spec):
    with pytest.raises(RerankError) as caught:
        load_reranker(spec).rerank("moon", ["the moon", "bananas"])
    assert isinstance(caught.value, ConfigError)


def test_keyword_options_are_checked():
    with pytest.raises(ConfigError, match="Did you mean 'top_n'"):
        load_reranker("lexical", topn=5)


def test_a_key_in_the_wrong_place_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        load_reranker({"use": "acme", "acme": KEY})
    assert KEY not in str(caught.value)


def test_a_missing_extra_names_the_pip_command(monkeypatch):
    entry = registry.BackendEntry(
        "nowhere:Nothing", "a vendor", "hosted", extra="acme", packages=("not_installed_anywhere",)
    )
    monkeypatch.setitem(registry.BUILTIN, "acme", entry)
    with pytest.raises(MissingExtra, match=r"pip install 'rerank-plugins\[acme\]'") as caught:
        load_reranker("acme")
    assert caught.value.extra == "acme"
    assert isinstance(caught.value, ImportError)


# --- options of one vendor, of hosted and of local ones ---


def test_tables_of_other_backends_have_no_effect():
    spec = {"logit": {"depth": 4}, "acme": {"region": "us", "api_key": KEY, "base_url": "http://h"}}
    (local,) = find(load_reranker({"use": "logit", "batch_tokens": 99, **spec}), Backend)
    assert (local.depth, local.batch_tokens) == (5, 99)
    (hosted,) = find(load_reranker({"use": "acme", **spec}), Backend)
    assert hosted.region == "us"
    assert find(load_reranker({"use": "lexical", **spec}), Backend)  # the tables have no effect on it


@pytest.mark.parametrize("option", ["api_key", "base_url", "timeout", "max_in_flight", "price"])
@pytest.mark.parametrize("use", ["logit", "lexical", "passthrough", "embedded"])
def test_a_hosted_option_for_a_local_backend_raises(use, option):
    with pytest.raises(ConfigError, match=f"{use} has no option '{option}', and nothing inside this spec inherits it"):
        load_reranker({"use": use, option: "a-key" if option == "api_key" else 5})


@pytest.mark.parametrize(
    "option", ["device", "runtime", "dtype", "max_tokens", "batch_tokens", "revision", "local_files_only"]
)
def test_a_local_option_for_a_hosted_backend_raises(option):
    spec = {"use": "acme", "api_key": KEY, option: 5}
    with pytest.raises(ConfigError, match=f"acme has no option '{option}'.*'use': …, '{option}': …") as raised:
        load_reranker(spec)
    assert KEY not in str(raised.value)
    with pytest.raises(ConfigError, match="acme has no option"):
        load_reranker({**spec, "fallback": ["logit"]})  # a string does not inherit options of local models
    with pytest.raises(ConfigError, match="acme has no option"):
        load_reranker({"use": "passthrough", "fallback": [spec]})
    load_reranker({**spec, option: None})


def test_a_similar_option_of_the_backend_is_suggested():
    with pytest.raises(ConfigError, match=r"write cohere = \{max_tokens_per_doc = …\}"):
        load_reranker({"use": "cohere", "api_key": KEY, "max_tokens": 512})


def test_an_option_that_only_an_entry_inside_uses_is_accepted(monkeypatch):
    monkeypatch.setenv("ACME_KEY", KEY)
    for inside in ({"fallback": ["acme"]}, {"fallback": {"specs": ["acme"]}}, {"fuse": {"with": ["acme"]}}):
        local, hosted = find_all(load_reranker({"use": "logit", "timeout": 7, **inside}))
        assert (local.label, hosted.timeout) == ("logit", 7)
    with pytest.raises(ConfigError, match="logit has no option 'timeout'"):
        load_reranker({"use": "logit", "timeout": 7, "fallback": ["lexical"]})
    load_reranker({"cascade": {"stages": ["lexical", "acme"], "keep": [3]}, "timeout": 7})
    with pytest.raises(ConfigError, match="cascade has no option 'timeout'"):
        load_reranker({"cascade": {"stages": ["lexical", "logit"], "keep": [3]}, "timeout": 7})


def test_local_files_only_is_accepted_by_models_without_downloads():
    load_reranker({"use": "embedded", "local_files_only": True})
    load_reranker({"use": "lexical", "local_files_only": True})


def test_another_vendors_table_is_not_checked():
    load_reranker({"use": "lexical", "logit": {"no_such_option": 1}})


def test_options_in_the_table_replace_shared_ones():
    (backend,) = find(load_reranker({"use": "logit", "batch_tokens": 99, "logit": {"batch_tokens": 7}}), Backend)
    assert backend.batch_tokens == 7


# --- policies ---


def test_hosted_defaults():
    reranker = load_reranker({"use": "acme", "api_key": KEY})
    (retry,) = find(reranker, Retry)
    (backend,) = find(reranker, Backend)
    assert (retry.attempts, backend.timeout, backend.max_in_flight) == (3, 30.0, 8)
    assert not find(reranker, Deadline)
    assert not find(reranker, Fallback)
    kinds = [type(part) for part in reranker.scorer.walk()]
    assert kinds.index(Truncate) < kinds.index(Split) < kinds.index(Retry)  # one part is retried, not the whole call


def test_local_defaults():
    assert not find(load_reranker("logit"), Retry)


def test_retry_forms():
    assert not find(load_reranker({"use": "acme", "api_key": KEY, "retry": 1}), Retry)
    (retry,) = find(load_reranker({"use": "acme", "api_key": KEY, "retry": {"wait_initial": 0, "wait_max": 2}}), Retry)
    assert (retry.attempts, retry.wait_initial, retry.wait_max) == (3, 0.0, 2.0)


def test_the_deadline_is_outermost():
    reranker = load_reranker({"use": "logit", "deadline": 2, "fallback": ["passthrough"]})
    assert isinstance(reranker.scorer, Deadline)
    assert isinstance(reranker.scorer.inner, Fallback)


def test_a_string_in_a_fallback_inherits_and_a_mapping_does_not(monkeypatch):
    monkeypatch.setenv("ACME_KEY", KEY)
    spec = {"use": "acme", "retry": 5, "timeout": 7, "fallback": ["acme:acme-2", {"use": "acme:acme-3"}]}
    reranker = load_reranker(spec)
    assert [each.attempts for each in find(reranker, Retry)] == [5, 5, 3]
    assert [each.timeout for each in find(reranker, Backend)] == [7, 7, 30.0]
    assert [each.model for each in find(reranker, Backend)] == ["acme-1", "acme-2", "acme-3"]


def test_a_named_reranker_in_a_fallback_inherits_nothing(file):
    reranker = load_reranker("production", config=file, retry=9)
    assert [each.label for each in find(reranker, Backend)] == ["lexical", "acme:acme-2", "passthrough"]
    assert [each.attempts for each in find(reranker, Retry)] == [9, 3]  # passthrough has no retry


def test_on_error_degrade_adds_passthrough_once():
    def labels(**options) -> list[str]:
        return [each.label for each in find(load_reranker("lexical", on_error="degrade", **options), Backend)]

    assert labels() == ["lexical", "passthrough"]
    assert labels(fallback=["logit"]) == ["lexical", "logit", "passthrough"]
    assert labels(fallback=["passthrough"]) == ["lexical", "passthrough"]


# --- thresholds ---


def test_a_threshold_over_one_scale_is_accepted():
    assert load_reranker({"use": "lexical", "score_threshold": 0.5, "fallback": ["passthrough"]}).score_threshold == 0.5
    load_reranker({"use": "lexical", "score_threshold": 0, "fallback": [{"use": "acme", "api_key": KEY}]})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "lexical", "fallback": ["logit"]}, r"different things for lexical \(unit\), logit \(logit\)"),
        ({"use": "lexical", "fallback": ["passthrough", "logit"]}, "different things"),
        ({"use": "ordinal"}, "only orders"),
        ({"use": "passthrough"}, "only orders"),
        ({"use": "lexical", "fallback": ["ordinal"]}, "ordinal only orders"),
    ],
)
def test_a_threshold_without_a_common_scale_raises(spec, message):
    load_reranker(spec)
    with pytest.raises(ConfigError, match=message):
        load_reranker({**spec, "score_threshold": 0.5})


# --- keys ---


def test_the_order_of_keys_in_spec_and_environment(monkeypatch):
    def key(**options) -> str:
        (backend,) = find(load_reranker({"use": "acme", **options}), Backend)
        return backend.headers()["authorization"]

    monkeypatch.setenv("ACME_KEY", "second")
    assert key() == "Bearer second"
    monkeypatch.setenv("ACME_API_KEY", "first")
    assert key() == "Bearer first"
    assert key(api_key="env:ACME_KEY") == "Bearer second"
    assert key(api_key="given") == "Bearer given"


def test_no_key_in_repr_spec_or_pickle(monkeypatch):
    spec = {
        "use": "acme",
        "api_key": KEY,
        "base_url": f"https://user:{KEY}@127.0.0.1:1/v1",
        "fallback": [{"use": "http", "base_url": "http://h", "http": {"headers": {"x-api-key": KEY}}, "api_key": KEY}],
    }
    reranker = load_reranker(spec)
    pickled = pickle.dumps(reranker)
    for text in (repr(reranker), repr(reranker.spec), repr(reranker.scorer), str(reranker.__dict__)):
        assert KEY not in text
    assert KEY.encode() not in pickled
    with pytest.raises(ConfigError, match="needs a key"):
        pickle.loads(pickled)
    monkeypatch.setenv("ACME_API_KEY", "from the environment")
    again = pickle.loads(pickled)
    assert find(again, Backend)[0].headers() == {"authorization": "Bearer from the environment"}
    assert again.spec == {**reranker.spec}


def test_a_pickle_finds_its_named_key_again(monkeypatch):
    monkeypatch.setenv("TEAM_KEY", KEY)
    reranker = load_reranker({"use": "acme", "api_key": "env:TEAM_KEY", "top_n": 3})
    pickled = pickle.dumps(reranker)
    assert KEY.encode() not in pickled
    again = pickle.loads(pickled)
    assert again.top_n == 3
    assert find(again, Backend)[0].headers() == {"authorization": f"Bearer {KEY}"}


def test_a_pickle_needs_no_configuration_file(file):
    pickled = pickle.dumps(load_reranker("production", config=file))
    file.unlink()
    again = pickle.loads(pickled)
    assert [each.label for each in find(again, Backend)] == ["lexical", "acme:acme-2", "passthrough"]


def test_a_pickled_reranker_gives_the_same_answer():
    reranker = load_reranker("lexical", top_n=1, score_threshold=0.01)
    again = pickle.loads(pickle.dumps(reranker))
    documents = ["cat", "cat cat", "dog"]
    assert again.rerank("cat", documents).results == reranker.rerank("cat", documents).results


# --- shared ---


def test_shared_returns_one_reranker_per_spec_and_key(monkeypatch):
    monkeypatch.setenv("ACME_API_KEY", "old")
    one = shared("acme")
    assert shared("acme") is shared({"use": "acme"}) is one
    assert shared({"use": "acme", "top_n": 3}) is shared({"top_n": 3, "use": "acme"}) is not one
    monkeypatch.setenv("ACME_API_KEY", "rotated")
    rotated = shared("acme")
    assert rotated is not one
    assert find(rotated, Backend)[0].headers() == {"authorization": "Bearer rotated"}
    monkeypatch.setenv("ACME_API_KEY", "old")
    assert shared("acme") is one


def test_shared_follows_a_changed_variable_of_any_name(monkeypatch):
    spec = {"use": "acme", "api_key": "env:MY_OWN"}
    monkeypatch.setenv("MY_OWN", "old")
    one = shared(spec)
    assert shared(dict(spec)) is one
    monkeypatch.setenv("MY_OWN", "rotated")
    assert find(shared(spec), Backend)[0].headers() == {"authorization": "Bearer rotated"}


def test_shared_follows_the_environment_and_the_file(file, monkeypatch):
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
    one = shared(None)
    assert one is shared("lexical")
    monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(file))
    production = shared("production")
    assert production.top_n == 2
    file.write_text(file.read_text("utf-8").replace("acme-2", "acme-3"), "utf-8")
    os.utime(file, ns=(1, 1))
    assert [each.label for each in find(shared("production"), Backend)][1] == "acme:acme-3"


def test_shared_is_bounded():
    first = shared({"use": "lexical", "top_n": 1})
    for top_n in range(2, 65):
        shared({"use": "lexical", "top_n": top_n})
    assert shared({"use": "lexical", "top_n": 1}) is first  # used again, so it is not the oldest one
    shared({"use": "lexical", "top_n": 65})
    assert shared({"use": "lexical", "top_n": 1}) is first
    for top_n in range(66, 130):
        shared({"use": "lexical", "top_n": top_n})
    assert shared({"use": "lexical", "top_n": 1}) is not first


def test_shared_does_not_cache_errors():
    with pytest.raises(ConfigError, match="needs a key"):
        shared("acme")
    with pytest.raises(ConfigError, match="needs a key"):
        shared("acme")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_shared_works_in_a_forked_child_while_a_thread_holds_the_table():
    code = """
import os, threading
from rerank_plugins.config import load as config
holding, done = threading.Event(), threading.Event()
def hold():
    with config._table_lock:
        holding.set()
        done.wait(30)
thread = threading.Thread(target=hold)
thread.start()
holding.wait(30)
child = os.fork()
if not child:
    os._exit(0 if config.shared("lexical").rerank("a", ["a"])[0].index == 0 else 1)
_, status = os.waitpid(child, 0)
done.set()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False).returncode == 0

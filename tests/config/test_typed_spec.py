"""The typed spec: every kind of mistake from every source, JSON Schema, generated files, paths and advice."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.pages import blocks
from support.source import parse_source

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.cli import main
from rerank_plugins.config import backends, generate, registry, shared
from rerank_plugins.core import Capabilities, HostedBackend, LocalBackend

ROOT = Path(__file__).parents[2]
KEY = "sk-very-secret-1234567890"
SCHEMA = generate.json_schema(plugins=False)
SPEC = Draft202012Validator({"$schema": SCHEMA["$schema"], "$defs": SCHEMA["$defs"], "$ref": "#/$defs/Spec"})

# A wrong spec, and what the message says of it.
BROKEN = [
    # wrong type
    ({"use": 5}, "use must be a string, got 5"),
    ({"use": "lexical", "top_n": "five"}, "top_n must be an integer of at least 1, got a string"),
    ({"use": "lexical", "top_n": True}, "top_n must be an integer of at least 1, got True"),
    ({"use": "lexical", "top_n": 2.5}, "top_n must be an integer of at least 1, got 2.5"),
    ({"use": "lexical", "instruction": ["a"]}, "instruction must be a string, got a list"),
    ({"use": "lexical", "fields": "title"}, "fields must be a list of different field names.*got a string"),
    ({"use": "lexical", "retry": "3"}, "retry.attempts must be an integer of at least 1, got a string"),
    ({"use": "lexical", "cache": "disk"}, "cache must be True, False or a mapping, got a string"),
    ({"use": "lexical", "breaker": 3}, "breaker must be True, False or a mapping, got 3"),
    ({"use": "lexical", "limit": True}, "limit must be a mapping, got True"),
    ({"use": "lexical", "fallback": "embedded"}, "fallback must be a list, such as .*, or a mapping, got a string"),
    ({"use": "lexical", "cascade": True}, "cascade must be a mapping, got True"),
    ({"use": "lexical", "local_files_only": "yes"}, "local_files_only must be True or False, got a string"),
    (
        {"use": "http", "price": 3},
        "price must be a mapping or 'list', got 3. Its options are: per_million_.*, per_search_unit",
    ),
    ({"use": "lexical", "api_key": 5}, "api_key must be a string.*got 5"),
    ({"use": "lexical", "cohere": KEY}, "cohere must be a mapping of cohere's options, got a string"),
    # out of range
    ({"use": "lexical", "top_n": 0}, "top_n must be an integer of at least 1, got 0"),
    ({"use": "lexical", "score_threshold": 1.5}, "score_threshold must be a finite number from 0 to 1, got 1.5"),
    ({"use": "lexical", "deadline": 0}, "deadline must be a number of seconds above 0.*got 0"),
    ({"use": "http", "timeout": -1}, "timeout must be a number of seconds above 0.*got -1"),
    ({"use": "lexical", "retry": {"attempts": 0}}, "retry.attempts must be an integer of at least 1, got 0"),
    ({"use": "lexical", "limit": {"requests_per_minute": 0}}, "limit.requests_per_minute must be an integer"),
    ({"use": "lexical", "limit": {}}, "limit needs requests_per_minute, tokens_per_minute or both"),
    ({"use": "lexical", "diversify": {"lambda": 2}}, "diversify.lambda must be a finite number from 0 to 1, got 2"),
    ({"use": "lexical", "fuse": {"with": []}}, "fuse.with must be 'retrieval' or a list of specs, got an empty list"),
    ({"cascade": {"stages": ["lexical"], "keep": []}}, "cascade must have two stages or more"),
    # unknown and misspelled
    ({"use": "lexical", "topn": 5}, "no option 'topn'. Did you mean 'top_n'"),
    ({"use": "lexical", "zzzz": 5}, "no option 'zzzz'. Choose one of: api_key"),
    ({"use": "lexical", "cohre": {}}, "no option 'cohre'. Did you mean the table 'cohere'"),
    ({"use": "lexicla"}, "no backend 'lexicla'. Did you mean 'lexical'"),
    ({"use": "lexical:large"}, "use: lexical has no models"),
    ({"use": "lexical", "retry": {"attempt": 3}}, "no option of retry 'attempt'. Did you mean 'attempts'"),
    ({"use": "lexical", "cache": {"ttl": 3}}, "no option of cache 'ttl'. Did you mean 'ttl_s'"),
    ({"use": "http", "price": {"per_token": 3}}, "no option of price 'per_token'"),
    ({"use": "lexical", "on_error": "degrad"}, "on_error must be one of degrade or raise, got 'degrad': did you mean"),
    ({"use": "lexical", "long_documents": KEY}, "long_documents.mode must be one of .*, got a string"),
    ({"use": "lexical", "fuse": {"method": "rrf"}}, "fuse.with is missing"),
    ({"use": "tei", "tei": {"raw_score": True}}, "no option of tei 'raw_score'. Did you mean 'raw_scores'"),
    ({"use": "tei", "tei": {"max_documents": 0}}, "tei.max_documents must be an integer of at least 1, got 0"),
    ({"use": "embedded", "embedded": {"cache_mb": "x"}}, "embedded.cache_mb must be a finite number.*got a string"),
    ({"top_n": 3}, "use must name a backend"),
    ({"use": "lexical", "cascade": {"stages": ["lexical", "embedded"], "keep": 3}}, "A cascade has no use of its own"),
    # inside others
    (
        {
            "cascade": {
                "stages": ["lexical", {"use": "embedded", "fallback": [{"use": "lexical", "retry": 0}]}],
                "keep": 3,
            }
        },
        r"cascade.stages\[1\].fallback\[0\].retry.attempts must be an integer of at least 1, got 0",
    ),
    (
        {"use": "lexical", "fallback": {"specs": [{"use": "lexical", "topn": 3}]}},
        r"no option of fallback.specs\[0\] 'topn'. Did you mean 'top_n'",
    ),
    (
        {"use": "lexical", "fuse": {"with": [{"use": "lexical", "top_n": 0}]}},
        r"fuse.with\[0\].top_n must be an integer",
    ),
    ({"use": "lexical", "fallback": [{"cascade": {"keep": 3}}]}, r"fallback\[0\].cascade.stages is missing"),
]
# Conditions between options, which the JSON Schema checks too.
CONDITIONS = [
    ({"cascade": {"stages": ["lexical", "embedded"], "keep": [3, 2]}}, "cascade must have one number in keep"),
    ({"cascade": {"stages": ["lexical", "embedded", "lexical"], "keep": 3}}, "cascade must have one number in keep"),
    ({"use": "lexical", "fuse": {"with": "retrieval", "weights": [1]}}, "fuse must have 2 numbers in weights"),
    ({"use": "lexical", "fuse": {"with": ["embedded"], "weights": [1, 1, 1]}}, "fuse must have 2 numbers in weights"),
    ({"use": "lexical", "fuse": {"with": "retrieval", "weights": [0, 0]}}, "fuse has only 0 in weights"),
    ({"use": "lexical", "fuse": {"with": "retrieval", "method": "weighted", "k": 60}}, "fuse has k, which belongs"),
    ({"use": "lexical", "long_documents": {"mode": "error", "tokens": 9}}, "long_documents has tokens, which belongs"),
    ({"use": "lexical", "cache": {"path": "x"}}, r"cache\.path belongs to kind 'disk'"),
    ({"use": "http", "price": {}}, "price needs one or more of per_million_tokens, "),
    ({"use": "lexical", "instruction": "newest first"}, "lexical cannot follow an instruction"),
    ({"use": "lexical", "fallback": [None]}, "holds None"),
]
# What JSON Schema cannot express. The schema accepts these specs.
BEYOND_A_SCHEMA = [
    # A comparison of two numbers.
    ({"use": "lexical", "long_documents": {"tokens": 9, "overlap": 9}}, "long_documents must have an overlap"),
    # A string in a list of specs may be any name of a reranker in the file.
    ({"use": "lexical", "fallback": ["lexicla"]}, "no backend( or named reranker)? 'lexicla'. Did you mean 'lexical'"),
    # The length of one list in relation to another one: the schema lists up to 8 stages.
    ({"cascade": {"stages": ["lexical"] * 9, "keep": [3]}}, "cascade must have one number in keep"),
]


def written(value: Any) -> str:
    """Return a plain value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


@pytest.mark.parametrize(("spec", "message"), [*BROKEN, *CONDITIONS, *BEYOND_A_SCHEMA], ids=str)
def test_a_broken_spec_raises_from_every_source(spec, message, tmp_path, monkeypatch):
    def error(match: str, *arguments: Any, **options: Any) -> str:
        with pytest.raises(ConfigError, match=match) as caught:
            load_reranker(*arguments, **options)
        return str(caught.value)

    texts = [error(f"^(There is |A list of specs |)({message})", spec)]
    keywords = {key: value for key, value in spec.items() if key.isidentifier()}
    if keywords == spec:
        texts.append(error(message, {}, **keywords))
    with pytest.raises(ConfigError, match=message):
        shared(spec)
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", json.dumps(spec))
    texts.append(error(f"^RERANK_PLUGINS_RERANKER: .*({message})"))
    if spec.get("fallback") != [None]:  # TOML has no null
        file = tmp_path / "rerank.toml"
        file.write_text(f"rerankers.sound.use = 'lexical'\nrerankers.broken = {written(spec)}\n", "utf-8")
        texts.append(error(rf"^{re.escape(str(file))} \[rerankers\.broken\]: .*({message})", "broken", config=file))
        load_reranker("sound", config=file)
    assert not any(KEY in text for text in texts)


@pytest.mark.parametrize("spec", [spec for spec, _ in [*BROKEN, *CONDITIONS]], ids=str)
def test_the_schema_rejects_a_broken_spec(spec):
    assert not SPEC.is_valid(spec)


@pytest.mark.parametrize("spec", [spec for spec, _ in BEYOND_A_SCHEMA], ids=str)
def test_the_schema_accepts_what_it_cannot_express(spec):
    """A spec that fails here can move to CONDITIONS."""
    assert SPEC.is_valid(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"cascade": {"stages": ["lexical", "embedded"], "keep": 3}},
        {"cascade": {"stages": ["lexical"] * 4, "keep": [9, 6, 3]}},
        {"use": "lexical", "fuse": {"with": "retrieval", "weights": [0, 1], "k": 1}},
        {"use": "lexical", "fuse": {"with": ["embedded", "passthrough"], "method": "weighted", "weights": [2, 1, 1]}},
        {"use": "lexical", "long_documents": {"tokens": 99, "overlap": 9, "aggregate": "mean_top_k"}},
        {"use": "lexical", "long_documents": {"mode": "head_tail"}},
        {"use": "lexical", "cache": {"kind": "disk", "ttl_s": 9}},
        {"use": "lexical", "limit": {"tokens_per_minute": 9}},
        {"use": "lexical", "instruction": ""},
    ],
    ids=str,
)
def test_the_schema_and_the_parser_accept_a_valid_spec(spec):
    assert SPEC.is_valid(spec)
    load_reranker(spec).close()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"inner": {"use": "lexical", "top_n": 0}}, "top_n must be an integer of at least 1, got 0"),
        ({"inner": {"use": "lexical", "retry": {"attempt": 3}}}, "There is no option of retry 'attempt'"),
        (
            {"inner": {"use": "lexicla"}},
            "There is no backend or named reranker 'lexicla'|There is no backend 'lexicla'",
        ),
        ({"inner": {"use": "lexical", "fallback": ["lexicla"]}}, "There is no backend or named reranker 'lexicla'"),
        ({"inner": {"use": "http"}}, "http needs a base_url"),
        ({"inner": {"use": "lexical", "fallback": [{"use": "lexical", "top_n": 0}]}}, r"fallback\[0\]\.top_n must be"),
    ],
    ids=str,
)
def test_an_error_in_a_nested_named_reranker_names_its_table(tables, message, tmp_path):
    file = tmp_path / "rerank.toml"
    tables = {
        "outer": {"use": "lexical", "fallback": ["middle"]},
        "middle": {"use": "lexical", "fallback": ["inner"]},
        **tables,
    }
    file.write_text("".join(f"rerankers.{name} = {written(spec)}\n" for name, spec in tables.items()), "utf-8")
    for spec in ("outer", {"use": "lexical", "fuse": {"with": ["outer"]}}):
        for load in (load_reranker, shared):
            with pytest.raises(ConfigError, match=rf"^{re.escape(str(file))} \[rerankers\.inner\]: ({message})"):
                load(spec, config=file)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "lexical", "fallback": ["http"], "retry": 0}, r"^retry\.attempts must be an integer"),
        (
            {"use": "lexical", "fallback": {"specs": ["http"]}, "cache": "disk"},
            "^cache must be True, False or a mapping",
        ),
        ({"use": "lexical", "fuse": {"with": ["http"]}, "breaker": {"failures": 0}}, r"^breaker\.failures must be an"),
        ({"use": "lexical", "fallback": ["http"], "timeout": "30"}, "^timeout must be a number of seconds"),
        (
            {"use": "lexical", "fallback": [{"use": "lexical", "retry": 0, "fallback": ["http"]}]},
            r"^fallback\[0\]\.retry\.attempts must be an integer",
        ),
    ],
    ids=str,
)
def test_an_error_in_an_inherited_option_names_where_it_is_written(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_reranker(spec)


def test_an_error_in_a_shared_option_of_a_nested_spec_names_that_spec():
    with pytest.raises(ConfigError, match=r"^fallback\[0\]\.runtime must be one of"):
        load_reranker({"use": "lexical", "fallback": [{"use": "bge", "runtime": "jax"}]})


def specs_of(source: str) -> Iterator[dict[str, Any]]:
    """Yield the specs in Python source that are plain data."""
    for node in ast.walk(parse_source(source)):
        if isinstance(node, ast.Dict) and {"use", "cascade"} & {getattr(key, "value", None) for key in node.keys}:
            try:
                yield ast.literal_eval(node)
            except ValueError:  # a variable in it
                continue


def examples() -> Iterator[tuple[str, Any]]:
    for block in blocks("python"):
        yield from ((str(block), spec) for spec in specs_of(block.text))
    for block in blocks("toml"):
        yield from ((str(block), spec) for spec in tomllib.loads(block.text).get("rerankers", {}).values())
    for file in sorted((ROOT / "examples").rglob("*.py")):
        yield from ((file.name, spec) for spec in specs_of(file.read_text("utf-8")))


EXAMPLES = list(examples())


def test_the_schema_is_valid_and_accepts_every_example():
    Draft202012Validator.check_schema(SCHEMA)
    assert len(EXAMPLES) > 5
    for where, spec in EXAMPLES:
        errors = [f"{error.json_path}: {error.message}" for error in SPEC.iter_errors(spec)]
        assert not errors, (where, spec)


def test_the_schema_of_a_file_checks_its_tables():
    file = Draft202012Validator(SCHEMA)
    assert file.is_valid({"rerankers": {"a": {"use": "lexical", "fallback": ["b", "bge:x"]}}, "other": 1})
    assert not file.is_valid({"rerankers": {"a": {"use": "lexical", "topn": 3}}})
    assert not file.is_valid({})


def test_generated_files_are_up_to_date():
    """`python -m rerank_plugins.config.generate` writes them."""
    for path, text in generate.files(ROOT).items():
        assert path.read_text("utf-8") == text, path


def test_every_option_is_described():
    for name, definition in SCHEMA["$defs"].items():
        for option, schema in definition.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{option} has no docstring"


def test_the_schema_command_includes_plugins(capsys, monkeypatch):
    class Point:
        value, dist = "nowhere:Acme", None

    monkeypatch.setattr(registry, "_plugins", lambda: {"acme": Point})
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$defs"]["RerankerOptions"]["properties"]["acme"]["type"] == "object"
    assert Draft202012Validator(schema).is_valid({"rerankers": {"a": {"use": "acme:x", "acme": {"depth": 3}}}})


# --- the command `check` over a file ---


def test_check_of_a_file_reports_every_broken_table(tmp_path, capsys):
    file = tmp_path / "rerank.toml"
    file.write_text(
        """
        [rerankers.sound]
        use = "embedded"
        [rerankers.server]
        use = "http"
        base_url = "http://127.0.0.1:1"
        [rerankers.typo]
        use = "lexical"
        topn = 3
        [rerankers.inert]
        use = "lexical"
        tei = { raw_score = true }
        """,
        "utf-8",
    )
    assert main(["check", "--config", str(file)]) == 2
    sound, server, typo, inert = capsys.readouterr().out.splitlines()
    assert (sound, server) == ("ok: sound: embedded [onnxruntime float32]", "ok: server: http")
    assert typo.startswith(f"broken: typo: {file} [rerankers.typo]: There is no option 'topn'. Did you mean 'top_n'?")
    assert inert.startswith("broken: inert: There is no option of tei 'raw_score'. Did you mean 'raw_scores'?")
    load_reranker("inert", config=file)  # inert, so it does no harm


# --- paths ---


def test_paths_in_a_file_are_relative_to_its_folder(tmp_path, monkeypatch, cross_encoder_folder):
    folder, elsewhere = tmp_path / "settings", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "model").symlink_to(cross_encoder_folder, target_is_directory=True)
    (folder / "key.txt").write_text("from-a-file\n", "utf-8")
    file = folder / "rerank.toml"
    file.write_text(
        """
        [rerankers.model]
        use = "onnx:./model"
        cache = { kind = "disk", path = "scores.sqlite3" }
        fallback = ["onnx:../settings/model", { use = "onnx:./model" }]
        [rerankers.calibrated]
        use = "lexical"
        calibration = "missing.json"
        [rerankers.hosted]
        use = "http"
        base_url = "http://127.0.0.1:1"
        api_key = "file:key.txt"
        """,
        "utf-8",
    )
    monkeypatch.chdir(elsewhere)
    with load_reranker("model", config="../settings/rerank.toml") as reranker:
        assert reranker.rerank("tides", ["the moon", "bananas"]).degraded is False
        assert reranker.spec["use"] == f"onnx:{folder / 'model'}" or reranker.spec["use"].endswith("settings/model")
    assert (folder / "scores.sqlite3").is_file()
    assert list(elsewhere.iterdir()) == []
    with pytest.raises(ConfigError, match=re.escape(str(folder / "missing.json"))):
        load_reranker("calibrated", config=file)
    hosted = load_reranker("hosted", config=file)
    assert hosted.spec["api_key"] == f"file:{folder / 'key.txt'}"
    # In Python they count from the working folder.
    with pytest.raises(ConfigError, match="There is no folder"):
        load_reranker("onnx:./model").warmup()


def test_a_key_file_without_a_key_is_refused_when_the_reranker_is_built(tmp_path):
    file = tmp_path / "key"
    file.write_text("first\n", "utf-8")
    spec = {"use": "http", "base_url": "http://127.0.0.1:1", "api_key": f"file:{file}"}
    load_reranker(spec)
    file.write_text(" \n", "utf-8")
    with pytest.raises(ConfigError, match="which is empty"):
        load_reranker(spec)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_reranker(spec)


def test_file_is_only_read_for_keys(tmp_path):
    file = tmp_path / "key"
    file.write_text("secret", "utf-8")
    spec = {"use": "http", "base_url": "http://127.0.0.1:1", "http": {"headers": {"x-a": f"file:{file}"}}}
    (backend,) = backends(load_reranker(spec))
    values = [value.reveal() if hasattr(value, "reveal") else value for value in vars(backend)["_headers"].values()]
    assert "secret" not in repr(values)


# --- what people try first ---


@pytest.mark.parametrize(
    ("spec", "write"),
    [
        ("BAAI/bge-reranker-base", "'bge:BAAI/bge-reranker-base' or 'onnx:BAAI/bge-reranker-base'"),
        ("cross-encoder/ms-marco-MiniLM-L-6-v2", "'onnx:cross-encoder/ms-marco-MiniLM-L-6-v2'"),
        ({"use": "someone/their-model"}, "'onnx:someone/their-model' or 'sentence-transformers:someone/their-model'"),
    ],
)
def test_a_model_of_the_hub_without_a_backend_raises_with_advice(spec, write):
    with pytest.raises(ConfigError, match="Name the backend that runs it too") as caught:
        load_reranker(spec)
    assert write in str(caught.value)


def test_an_unknown_name_without_a_file_names_the_variable():
    for load in (load_reranker, shared):
        with pytest.raises(
            ConfigError, match=r"configuration file: none is set\. Pass .*RERANK_PLUGINS_CONFIG.*install that"
        ):
            load("production")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"model": "rerank-v4.0-fast"}, "The model is a part of `use`"),
        ({"reranker": "embedded"}, "The backend is named by `use`"),
        ({"backend": "embedded"}, "The backend is named by `use`"),
        ({"top_k": 3}, "The number of results is `top_n`"),
        ({"fetch_k": 50}, "A reranker finds no candidates: their number is `fetch_k` of LangChain's RerankRetriever"),
        ({"max_retries": 2}, "The number of attempts, the first one included, is `retry`"),
        ({"proxy": "http://127.0.0.1:9"}, "The proxy is named by the environment variables HTTPS_PROXY, "),
    ],
)
def test_option_names_of_other_packages_raise_with_advice(options, advice):
    with pytest.raises(ConfigError, match=f"There is no option '{next(iter(options))}'. {advice}"):
        load_reranker({"use": "lexical", **options})


class Follows(LocalBackend):
    model = "follows"
    capabilities = Capabilities(scale="unit", instructions=True)

    def score(self, query, documents):
        return [0.5] * len(documents)


class Keywords(HostedBackend):
    """A third party's backend without a constructor or a model of options of its own."""

    base_url = "https://api.acme.invalid"
    key_required = False
    capabilities = Capabilities(scale="unit")

    def encode(self, request):
        return "/rerank", {}

    def decode(self, body):
        return []


def test_an_instruction_raises_at_load_if_no_backend_follows_it(monkeypatch):
    monkeypatch.setitem(registry.BUILTIN, "follows", registry.BackendEntry(f"{__name__}:Follows", "a test's"))
    with pytest.raises(ConfigError, match="lexical cannot follow an instruction"):
        load_reranker("lexical", instruction="newest first")
    with pytest.raises(ConfigError, match="cannot follow an instruction"):
        load_reranker({"use": "lexical", "fallback": ["follows"]}, instruction="newest first")
    load_reranker("follows", instruction="newest first", fallback=["lexical"])
    load_reranker({"cascade": {"stages": ["lexical", "follows"], "keep": 3}}, instruction="newest first")
    load_reranker("lexical", instruction="")


def test_a_third_partys_backend_takes_shared_options_by_keyword(monkeypatch):
    monkeypatch.setitem(
        registry.BUILTIN, "keywords", registry.BackendEntry(f"{__name__}:Keywords", "a test's", "hosted")
    )
    reranker = load_reranker({"use": "keywords:m", "timeout": 3, "keywords": {"max_in_flight": 2}})
    (backend,) = backends(reranker)
    assert (backend.model, backend.timeout, backend.max_in_flight) == ("m", 3.0, 2)
    with pytest.raises(ConfigError, match=r"^keywords\.max_in_flight must be an integer of at least 1, got 0"):
        load_reranker({"use": "keywords", "keywords": {"max_in_flight": 0}})
    with pytest.raises(ConfigError, match=r"no option of keywords 'max_in_flght'\. Did you mean 'max_in_flight'"):
        load_reranker({"use": "keywords", "keywords": {"max_in_flght": 1}})


def test_pyright_rejects_a_misspelled_option(tmp_path):
    pyright = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--version"], capture_output=True, text=True, check=False
    )
    if pyright.returncode:
        pytest.skip("needs basedpyright, which brings pyright and Node.js as wheels")
    file = tmp_path / "user.py"
    file.write_text(
        "from rerank_plugins import load_reranker\n"
        'load_reranker("embedded", top_n=3, retry=2, cache={"kind": "memory"})\n'
        'load_reranker("embedded", topn=3)\n'
        'load_reranker("embedded", top_n="three")\n'
        'load_reranker("embedded", cache={"kinds": "memory"})\n',
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    diagnostics = json.loads(done.stdout)["generalDiagnostics"]
    lines = {each["range"]["start"]["line"] + 1 for each in diagnostics if each["severity"] == "error"}
    assert lines == {3, 4, 5}

"""Specs as plain data: reading, resolving names, removing keys, and the hash of a spec."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle

import pytest

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.backends.lexical import Lexical
from rerank_plugins.config.sources import canonical, guarded, parse, profiles, spelled_out, without_keys
from rerank_plugins.core.redaction import MASK
from rerank_plugins.core.secret import Secret
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.vendors import VENDORS

KEY = "sk-very-secret-1234567890"

NAMED = {
    "production": {"use": "lexical", "top_n": 5, "fallback": ["backup", "passthrough"]},
    "backup": {"use": "http", "base_url": "http://127.0.0.1:1", "api_key": KEY},
}


# --- where specs come from ---


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("lexical", {"use": "lexical"}),
        ("onnx:/models/a:b", {"use": "onnx:/models/a:b"}),
        ({"use": "lexical", "top_n": 3}, {"use": "lexical", "top_n": 3}),
        ("production", NAMED["production"]),
    ],
)
def test_parse(spec, expected):
    assert parse(spec, NAMED) == expected


def test_spelled_out_copies_the_spec():
    spec = {"use": "lexical", "fallback": [{"use": "http", "http": {"path": "/x"}}]}
    copy = spelled_out(parse(spec, {}), {})
    copy["fallback"][0]["http"]["path"] = "/y"
    assert spec["fallback"][0]["http"]["path"] == "/x"


def test_the_default_is_from_the_environment_the_file_or_embedded(monkeypatch):
    assert parse(None, {}) == {"use": "embedded"}
    assert parse(None, NAMED) == {"use": "embedded"}
    assert parse(None, {"default": {"use": "lexical"}}) == {"use": "lexical"}
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "production")
    assert parse(None, NAMED)["top_n"] == 5
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "")
    assert parse(None, {}) == {"use": "embedded"}


def test_the_environment_may_hold_json(monkeypatch):
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", ' {"use": "lexical", "top_n": 2}')
    assert parse(None, {}) == {"use": "lexical", "top_n": 2}
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", '{"use": "lexical"')
    with pytest.raises(ConfigError, match="RERANK_PLUGINS_RERANKER starts like JSON but does not parse"):
        parse(None, {})


@pytest.mark.parametrize("spec", [5, 1.5, ["lexical"], b"lexical", True])
def test_a_spec_of_another_type_raises(spec):
    with pytest.raises(ConfigError, match="A reranker must be a string such as"):
        parse(spec, {})


@pytest.mark.parametrize("spec", [Lexical, Lexical()], ids=["class", "object"])
def test_a_backend_in_place_of_its_name_raises_with_advice(spec):
    with pytest.raises(ConfigError, match="A backend is named by its entry point: install its package"):
        parse(spec, {})


def test_unknown_names_list_the_valid_ones_and_the_nearest():
    with pytest.raises(ConfigError, match=r"no backend 'lexicale'.*Did you mean 'lexical'.*embedded.*passthrough"):
        parse("lexicale:model", {})
    with pytest.raises(
        ConfigError, match=r"no backend or named reranker 'prodction'.*Did you mean 'production'.*backup"
    ):
        parse("prodction", NAMED)


def test_a_file_without_a_default_needs_a_name():
    with pytest.raises(ConfigError, match=r"The file has no reranker named `default`.*backup, production"):
        parse(None, NAMED, explicit=True)


# --- the file ---


def test_profiles_reads_named_rerankers(tmp_path, monkeypatch):
    file = tmp_path / "rerank.toml"
    file.write_text('[rerankers.production]\nuse = "lexical"\n', "utf-8")
    assert profiles(None) == {}
    assert profiles(file) == profiles(str(file)) == {"production": {"use": "lexical"}}
    monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(file))
    assert profiles(None) == {"production": {"use": "lexical"}}


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "rerank.toml"
    file.write_text('[rerankers.a]\nuse = "lexical"\n', "utf-8")
    assert "a" in profiles(file)
    file.write_text('[rerankers.b]\nuse = "lexical"\n', "utf-8")
    os.utime(file, ns=(1, 1))
    assert "b" in profiles(file)


def test_a_file_replaced_with_the_same_size_and_time_is_read_again(tmp_path):
    file, other = tmp_path / "rerank.toml", tmp_path / "other.toml"
    file.write_text('[rerankers.a]\nuse = "lexical"\n', "utf-8")
    os.utime(file, ns=(1, 1))
    assert "a" in profiles(file)
    other.write_text('[rerankers.b]\nuse = "lexical"\n', "utf-8")
    os.utime(other, ns=(1, 1))
    other.replace(file)
    assert "b" in profiles(file)
    file.write_text(
        '[rerankers.c]\nuse = "lexical"\n', "utf-8"
    )  # written in place, so that the inode stays the same too
    os.utime(file, ns=(1, 1))
    assert "c" in profiles(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[rerankers.a\nuse = 1", "not valid TOML.*line 1"),
        (b'[rerankers.a]\nuse = "\xff"', "not valid TOML"),
        (b"", "names no rerankers"),
        (b"rerankers = 5", "names no rerankers"),
        (b"[rerankers]\na = 'lexical'", "names no rerankers"),
        (b"[[rerankers]]\nuse = 'lexical'", "names no rerankers"),
    ],
)
def test_a_broken_file_raises(content, message, tmp_path):
    file = tmp_path / "rerank.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        profiles(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_raises_with_the_variable_that_names_it(tmp_path, monkeypatch):
    file = tmp_path / "nowhere.toml"
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        profiles(file)
    monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(file))
    with pytest.raises(ConfigError, match="named by RERANK_PLUGINS_CONFIG"):
        profiles(None)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        profiles(tmp_path)


# --- named rerankers in a fallback ---


def test_spelled_out_does_not_need_the_file():
    copy = spelled_out(parse("production", NAMED), NAMED)
    assert copy["fallback"] == [guarded(NAMED["backup"]), "passthrough"]
    assert spelled_out(copy, {}) == copy
    in_a_mapping = spelled_out({"use": "lexical", "fallback": {"specs": ["backup"], "on": ["deadline"]}}, NAMED)
    assert in_a_mapping["fallback"] == {"specs": [guarded(NAMED["backup"])], "on": ["deadline"]}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"a": {"use": "lexical", "fallback": ["a"]}}, "'a' contains itself"),
        (
            {
                "a": {"use": "lexical", "fallback": ["b"]},
                "b": {"use": "lexical", "fallback": {"specs": [{"use": "lexical", "fallback": ["a"]}]}},
            },
            "'b' contains itself (b → a → b)",
        ),
    ],
)
def test_a_reranker_that_contains_itself_raises(named, message):
    with pytest.raises(ConfigError) as caught:
        spelled_out(parse("a", named), named)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [("bakcup", "Did you mean 'backup'"), (5, "A reranker must be a string such as"), (None, "None")],
)
def test_a_wrong_entry_raises(entry, message, monkeypatch):
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
    with pytest.raises(ConfigError, match=message):
        spelled_out({"use": "lexical", "fallback": [entry]}, NAMED)


# --- keys ---


def holding_keys() -> dict:
    return {
        "use": "http",
        "api_key": KEY,
        "base_url": f"https://user:{KEY}@host:8443/v1?api-key={KEY}",
        "http": {"headers": {"X-Api-Key": KEY, "Authorization": KEY, "X-Team": "red", "X-Token": "env:TEAM_TOKEN"}},
        "fallback": {
            "specs": ["lexical", {"use": "http", "api_key": Secret(KEY), "fallback": [{"use": "http", "api_key": KEY}]}]
        },
        "client": object(),
    }


def test_guarded_hides_every_key():
    copy = guarded({**holding_keys(), "base_url": "http://h", "http": {}})
    assert KEY not in repr(copy)
    assert copy["api_key"].reveal() == KEY
    assert copy["fallback"]["specs"][1]["fallback"][0]["api_key"] == Secret(KEY)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(copy["api_key"])


@pytest.mark.parametrize("before", [holding_keys, lambda: guarded(holding_keys())])
def test_without_keys_removes_keys_only(before):
    copy = without_keys(before())
    assert KEY not in json.dumps(copy)
    assert copy == {
        "use": "http",
        "base_url": "https://host:8443/v1",
        "http": {"headers": {"X-Team": MASK, "X-Token": "env:TEAM_TOKEN"}},
        "fallback": {"specs": ["lexical", {"use": "http", "fallback": [{"use": "http"}]}]},
    }


def test_without_keys_leaves_the_name_of_a_variable():
    assert without_keys(guarded({"use": "http", "api_key": "env:ACME_KEY"}))["api_key"] == "env:ACME_KEY"


@pytest.mark.parametrize(
    ("address", "stored"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://h/v1?api-version=2024-05-01", "http://h/v1?api-version=2024-05-01"),
        ("http://h/v1?tenant=red&key=env:K", f"http://h/v1?tenant={MASK}&key=env:K"),
        ("http://user:env:PASSWORD@h/v1", "http://user:env:PASSWORD@h/v1"),
        (f"http://user:{KEY}@h", "http://h"),
        (f"http://{KEY}@h", "http://h"),
        (f"http://h/?{KEY}", "http://h/"),
        (f"http://h/?api_key={KEY}", "http://h/"),
        (f"http://h/#{KEY}", "http://h/"),
        (f"http://h/?api-version={KEY}{KEY}", f"http://h/?api-version={MASK}"),
    ],
)
def test_without_keys_removes_credentials_from_an_address(address, stored):
    assert without_keys({"base_url": address}) == {"base_url": stored}
    assert without_keys({"base_url": stored}) == {"base_url": stored}
    assert without_keys({"watsonx": {"token_url": address}}) == {"watsonx": {"token_url": stored}}


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": f"http://h?tenant={KEY}"},
        {"http": {"headers": {"x-team": KEY}}},
        {"http": {"body": {"team": KEY}}},
        {"http": {"body": {"deep": [{"team": KEY}]}}},
    ],
)
def test_a_spec_with_masks_raises(options):
    """Sending less than before without an error could reach the wrong tenant, or give a wrong answer."""
    reranker = load_reranker({"use": "http", "base_url": "http://h", **options})
    with pytest.raises(ConfigError, match=r"stored.*env:NAME"):
        pickle.loads(pickle.dumps(reranker))


def test_variables_in_address_headers_and_body_are_read(monkeypatch):
    for name in ("PASSWORD", "TOKEN", "TENANT", "JWT"):
        monkeypatch.setenv(name, f"{name.lower()} &secret")
    spec = {
        "use": "http",
        "http": {"headers": {"x-jwt": "env:JWT"}, "body": {"deep": {"token": "env:TOKEN"}, "truncate": True, "n": 3}},
    }
    with CohereLike(key="") as server:
        server.authorized = lambda headers: True
        server.optional = {**server.optional, "deep": dict, "truncate": bool, "n": int}
        spec["base_url"] = server.url.replace("://", "://user:env:PASSWORD@") + "?tenant=env:TENANT"
        for each in (reranker := load_reranker(spec), pickle.loads(pickle.dumps(reranker))):
            each.rerank("tides", ["moon", "sea"])
        assert server.refused == []
    first, second = server.requests
    assert first.path == second.path == "/rerank?tenant=tenant%20%26secret"
    assert first.headers["authorization"] == "Basic " + base64.b64encode(b"user:password &secret").decode()
    assert first.headers["x-jwt"] == "jwt &secret"
    assert (
        second.body
        == first.body
        == {
            "query": "tides",
            "documents": ["moon", "sea"],
            "deep": {"token": "token &secret"},
            "truncate": True,
            "n": 3,
        }
    )
    assert "secret" not in repr(reranker.spec)


@pytest.mark.parametrize("use", ["jina-api", "cohere", "http"])
@pytest.mark.parametrize("has_key", [True, False])
def test_the_order_of_keys_in_spec_address_and_environment(use, has_key, monkeypatch):
    monkeypatch.setenv("JINA_API_KEY", "from-the-environment")
    monkeypatch.setenv("CO_API_KEY", "from-the-environment")
    with VENDORS[use]() if use in VENDORS else CohereLike() as server:
        server.authorized = lambda headers: True
        spec = {"use": use, "base_url": server.url.replace("://", "://u:p@")} | (
            {"api_key": "given"} if has_key else {}
        )
        load_reranker(spec).rerank("tides", ["moon", "sea"])
        basic = "Basic " + base64.b64encode(b"u:p").decode()
        assert server.requests[0].headers["authorization"] == ("Bearer given" if has_key else basic)


def test_an_invalid_address_raises():
    with pytest.raises(ConfigError, match="base_url is not a URL"):
        without_keys({"base_url": "http://[::1"})


@pytest.mark.parametrize("key", [5, "", "  ", b"bytes", ["k"]])
def test_a_key_that_is_not_a_string_raises(key):
    with pytest.raises(ConfigError, match="api_key must be a string"):
        guarded({"api_key": key})


def test_pydantics_secret_is_accepted():
    pydantic = pytest.importorskip("pydantic")
    assert guarded({"api_key": pydantic.SecretStr(KEY)})["api_key"] == Secret(KEY)


# --- canonical ---


def test_canonical_does_not_depend_on_the_order_of_options():
    one, two = {"use": "lexical", "top_n": 3}, {"top_n": 3, "use": "lexical"}
    assert canonical(one) == canonical(two) != canonical({"use": "lexical", "top_n": 4})


def test_canonical_depends_on_keys_and_does_not_show_them(monkeypatch):
    def name() -> str:
        return canonical(guarded({"use": "http", "api_key": KEY}))

    before = name()
    assert before == name() != canonical(guarded({"use": "http", "api_key": "another"}))
    assert KEY not in before
    monkeypatch.setenv("ACME_API_KEY", "new")
    assert name() != before


@pytest.mark.parametrize("spec", [{"api_key": "env:MY_OWN"}, {"http": {"headers": {"x-team": "env:MY_OWN"}}}])
def test_canonical_depends_on_variables_in_the_spec(spec, monkeypatch):
    before = canonical(guarded(spec))
    monkeypatch.setenv("MY_OWN", "rotated")
    assert canonical(guarded(spec)) != before


def test_a_reranker_with_a_users_client_is_not_pickled():
    cohere = pytest.importorskip("cohere", reason="needs the extra cohere")
    reranker = load_reranker({"use": "cohere:rerank-v3.5", "cohere": {"client": cohere.AsyncClientV2("a-key")}})
    with pytest.raises(TypeError, match="client"):
        pickle.dumps(reranker)


def test_a_copy_in_the_process_is_the_same_reranker():
    reranker = load_reranker("lexical")
    assert copy.deepcopy({"reranker": reranker})["reranker"] is reranker


def test_a_shallow_copy_keeps_the_key_and_may_be_changed():
    with CohereLike() as server:
        reranker = load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1})
        copied = copy.copy(reranker)
        copied.top_n = 1
        assert len(copied.rerank("query", ["a", "b"])) == 1
        assert len(reranker.rerank("query", ["a", "b"])) == 2
        assert copied.scorer is reranker.scorer
        reranker.close()

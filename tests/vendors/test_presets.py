"""Every preset against a strict server in the form that its vendor documents, one file each in `exchanges/`.

Presets are data: one class encodes and decodes them all, and `test_preset_contract.py` runs the whole contract over
each. What may differ between presets is tested here: path, headers, fields, scale, limits, errors.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.token_server import API_KEY, token_server

from rerank_plugins import (
    AuthenticationFailed,
    BadResponse,
    ConfigError,
    RateLimited,
    Rejected,
    TransientError,
    cli,
    load_reranker,
)
from rerank_plugins.backends.preset_backend import preset_class
from rerank_plugins.backends.presets import PRESETS, Setting
from rerank_plugins.backends.prices import PRICES
from rerank_plugins.config.registry import builtin_entries
from rerank_plugins.testing.documented import FIRST_SCORE, SECOND_SCORE, DocumentedServer, documented_server
from rerank_plugins.testing.laws import backend_of, raw_scores, scored_by
from rerank_plugins.testing.script import JSON, Duplicate, Gap, Shuffled, Status

EXCHANGES = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted(Path(__file__).with_name("exchanges").glob("*.json"))
}
SDKS = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted((Path(__file__).parents[1] / "interop" / "sdks").glob("*.json"))
}
"""What vendors' own packages sent, recorded by `tests/interop/vendor_sdks.py`."""
QUERY = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "Paris is in France."]
AWS = {"AWS_ACCESS_KEY_ID": "an-access-key-id", "AWS_SECRET_ACCESS_KEY": "a-secret-access-key-0123456789"}
KEYED = [name for name, preset in PRESETS.items() if preset.authentication == "key"]
pytestmark = pytest.mark.thorough
each_preset = pytest.mark.parametrize("name", EXCHANGES)


@pytest.fixture
def server(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DocumentedServer]:
    """The preset's server. After the test no request may have been refused as malformed."""
    for variable, value in AWS.items():
        monkeypatch.setenv(variable, value)
    with documented_server(EXCHANGES[name])() as running, token_server(running.key) as tokens:
        monkeypatch.setenv("WATSONX_IAM_URL", tokens.url)
        yield running
        assert running.refused == []


def key_of(name: str, server: Any) -> dict[str, Any]:
    """Return `api_key` as the vendor takes it."""
    keys = {"key": server.key, "google": server.key, "ibm": API_KEY, "aws": None}
    key = keys[PRESETS[name].authentication]
    return {} if key is None else {"api_key": key}


def spec_of(name: str, server: Any, **more: Any) -> dict[str, Any]:
    """Return the spec of the documented exchange, at the server's address and with its key."""
    return {"base_url": server.url, **key_of(name, server), "retry": 1, **EXCHANGES[name]["spec"], **more}


def test_every_preset_has_an_exchange_and_every_exchange_a_preset() -> None:
    assert set(EXCHANGES) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_row_names_its_source_and_date(name: str) -> None:
    preset, exchange = PRESETS[name], EXCHANGES[name]
    assert re.search(r"https://\S+|\w+ \d+\.\d+", preset.source)
    assert re.search(r"https://\S+|\w+ \d+\.\d+", exchange["source"])
    for date in (preset.read, exchange["date"]):
        assert dt.date(2026, 9, 1) <= dt.date.fromisoformat(date) <= dt.date.today()
    assert preset.confirmed == exchange["confirmed"]
    assert preset.confirmed in ("docs", "sdk", "server")
    assert bool(preset.confirmed_by) == (preset.confirmed != "docs"), "name the package or the server, with its version"
    assert re.search(r"\d", preset.confirmed_by) or preset.confirmed == "docs"
    assert preset.price
    assert builtin_entries()[name].confirmed.startswith(preset.confirmed)


@each_preset
def test_documented_exchange_is_sent_and_read(name: str, server: DocumentedServer) -> None:
    """The request is the documented one to the byte of its JSON, and the documented reply reads right."""
    exchange = EXCHANGES[name]
    server.play(JSON(exchange["reply"]))
    with load_reranker(spec_of(name, server)) as reranker:
        response = reranker.rerank("QUERY", ["FIRST", "SECOND"])
    (sent,) = server.requests
    assert sent.path == exchange["request"]["path"]
    assert sent.body == exchange["request"]["body"]
    for header, value in exchange["request"]["headers"].items():
        assert sent.headers[header] == value.replace("KEY", server.key)
    assert [(result.index, result.raw_score) for result in response] == [(1, SECOND_SCORE), (0, FIRST_SCORE)]
    assert {key: getattr(response.usage, key) for key in exchange["usage"]} == exchange["usage"]
    assert response.usage.requests == 1


@pytest.mark.parametrize("name", sorted(PRICES.keys() & PRESETS.keys()))
def test_list_price_is_that_of_what_the_documented_reply_bills(name: str, server: DocumentedServer) -> None:
    """A price by tokens is of no use where a vendor's reply has no count of them."""
    in_path = "{model" in PRESETS[name].format.path  # the documented server has the path of one model
    models = [PRESETS[name].model] if in_path else PRICES[name]
    for model, listed in ((model, PRICES[name][model]) for model in models):
        server.play(JSON(EXCHANGES[name]["reply"]))
        with load_reranker(spec_of(name, server, use=f"{name}:{model}", price="list")) as reranker:
            usage = reranker.rerank("QUERY", ["FIRST", "SECOND"]).usage
        assert usage.cost_usd
        assert usage.cost_usd == listed.price.of_usage(usage).cost_usd


@pytest.mark.parametrize("name", SDKS)
def test_vendors_own_package_sends_the_documented_request(name: str) -> None:
    """Recorded by `make interop`: the path, the authentication and the body are those of our request."""
    preset = SDKS[name].get("preset", name)
    recorded, documented = SDKS[name]["request"], EXCHANGES[preset]["request"]
    path, _, query = recorded["path"].partition("?")
    if name == "google-langchain":  # it takes the alpha version of the same route
        path = path.replace("/v1alpha/", "/v1/")
    assert path == documented["path"].partition("?")[0]
    assert preset == "google" or query == documented["path"].partition("?")[2]  # Google's client asks for another JSON
    assert recorded["body"] == documented["body"]
    if PRESETS[preset].authentication == "aws":
        assert "/us-west-2/bedrock/aws4_request, " in recorded["headers"]["authorization"]
        assert recorded["headers"]["authorization"].startswith("AWS4-HMAC-SHA256 Credential=an-access-key-id/")
        return
    key = "api-key" if "api-key" in documented["headers"] else "authorization"
    assert recorded["headers"][key] == documented["headers"][key]


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.confirmed == "sdk"])
def test_preset_confirmed_by_a_package_has_its_recording(name: str) -> None:
    assert PRESETS[name].confirmed_by == f"{SDKS[name]['package']} {SDKS[name]['version']}"


@each_preset
async def test_scores_belong_to_their_documents(name: str, server: DocumentedServer) -> None:
    server.play(Shuffled())
    async with load_reranker(spec_of(name, server)) as reranker:
        response = await reranker.arerank(QUERY, TEXTS)
    assert response[0].index == 2
    assert raw_scores(response) == pytest.approx(scored_by(server.score, QUERY, TEXTS))


WRONG = {"gap": Gap(), "duplicate": Duplicate(), "another shape": JSON({"hello": ["world"]})}
CAN_BE_WRONG = [
    (name, kind)
    for name in EXCHANGES
    for kind in WRONG
    if PRESETS[name].format.index_field or kind != "duplicate"  # bare scores have no positions
]


@pytest.mark.parametrize(("name", "kind"), CAN_BE_WRONG)
def test_wrong_reply_is_a_bad_response(name: str, kind: str, server: DocumentedServer) -> None:
    server.play(WRONG[kind])
    with load_reranker(spec_of(name, server)) as reranker, pytest.raises(BadResponse, match=re.escape(name)):
        reranker.rerank(QUERY, TEXTS)


@each_preset
@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (422, Rejected)])
def test_error_has_its_class_and_the_vendors_words(
    name: str, status: int, kind: type[Exception], server: DocumentedServer
) -> None:
    server.play(Status(status, message="played by the test"))
    with load_reranker(spec_of(name, server)) as reranker, pytest.raises(kind, match="played by the test"):
        reranker.rerank(QUERY, TEXTS)


@pytest.mark.parametrize("name", KEYED)
def test_wrong_key_names_the_variable(name: str, server: DocumentedServer) -> None:
    with (
        load_reranker(spec_of(name, server, api_key="wrong-key-0123456789")) as reranker,
        pytest.raises(AuthenticationFailed, match="`api_key`") as raised,
    ):
        reranker.rerank(QUERY, TEXTS)
    assert PRESETS[name].key_variables[0] in str(raised.value)
    assert "invalid api key" in str(raised.value)
    assert "wrong-key-0123456789" not in str(raised.value)
    assert len(server.refused) == 1
    server.refused.clear()


@each_preset
def test_wrong_path_names_the_address(name: str, server: DocumentedServer) -> None:
    with (
        load_reranker(spec_of(name, server, base_url=f"{server.url}/elsewhere")) as reranker,
        pytest.raises(Rejected, match=r"model's name and `base_url`.*/elsewhere/") as raised,
    ):
        reranker.rerank(QUERY, TEXTS)
    for setting in PRESETS[name].settings:
        assert f"`{name}.{setting}`" in str(raised.value)
    server.refused.clear()


@each_preset
def test_path_of_the_spec_replaces_the_whole_path_of_the_preset(name: str, server: DocumentedServer) -> None:
    """The documented path, written out, is the one that is sent; with another one, a 404 names the option."""
    own = EXCHANGES[name]["spec"].get(name, {})
    documented = EXCHANGES[name]["request"]["path"]
    with load_reranker(spec_of(name, server, **{name: {**own, "path": documented}})) as reranker:
        reranker.rerank(QUERY, TEXTS)
    assert server.requests[0].path == documented
    with (
        load_reranker(spec_of(name, server, **{name: {**own, "path": "/v9/other"}})) as reranker,
        pytest.raises(Rejected, match=rf"Check also `{name}\.path`.* went to {server.url}/v9/other\."),
    ):
        reranker.rerank(QUERY, TEXTS)
    server.refused.clear()


@pytest.mark.parametrize("name", [name for name in PRESETS if urlsplit(PRESETS[name].base_url).path])
def test_path_of_the_spec_replaces_the_path_of_the_vendors_address(name: str) -> None:
    own = {**EXCHANGES[name]["spec"].get(name, {}), "path": "/v9/other"}
    with load_reranker({"use": name, "api_key": API_KEY, name: own}) as reranker:
        backend = backend_of(reranker)
        assert urlsplit(backend._address).path.strip("/") == ""
        assert backend._address.startswith(PRESETS[name].base_url.rpartition("://")[0])
        assert backend._path == "/v9/other"


IN_PATH = [name for name, preset in PRESETS.items() if "{model" in preset.format.path]


@pytest.mark.parametrize("name", IN_PATH)
@pytest.mark.parametrize("model", ["..", ".", "../../v9/other", "a/../../other", "%2e%2e/other", "a/%2E.", "a\\..\\b"])
def test_model_cannot_select_another_route(name: str, model: str) -> None:
    with pytest.raises(ConfigError, match=rf"The model of {name} is a part of the path.*write the model's name after"):
        load_reranker({**EXCHANGES[name]["spec"], "use": f"{name}:{model}", "api_key": API_KEY})


def test_placeholder_that_is_no_setting_of_the_preset_is_refused() -> None:
    spec = {"use": "bedrock", "api_key": API_KEY, "bedrock": {"region": "eu-west-1", "path": "/{regoin}/{model}"}}
    with pytest.raises(ConfigError, match=r"bedrock\.path has \{regoin\}.*\{model_path\}, \{region\}"):
        load_reranker(spec)


@each_preset
@pytest.mark.parametrize("status", [400, 404])
def test_wrong_model_names_the_model(name: str, status: int, server: DocumentedServer) -> None:
    """Vendors answer 404 or 400 to a model that they do not have, and say so in words of their own."""
    server.play(Status(status, message="the model m-0 does not exist"))
    with load_reranker(spec_of(name, server)) as reranker, pytest.raises(Rejected, match="Check the model's name"):
        reranker.rerank(QUERY, TEXTS)


IN_HOST = {
    (name, setting)
    for name, preset in PRESETS.items()
    for setting in preset.settings
    if f"{{{setting}}}" in preset.base_url
}


@pytest.mark.parametrize(("name", "setting"), sorted(IN_HOST))
def test_host_that_does_not_exist_names_the_setting_in_it(
    name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong region is a host that no DNS server knows."""

    getaddrinfo = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        if "eu-nowhere-9" in str(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *arguments, **more)

    for variable, value in AWS.items():
        monkeypatch.setenv(variable, value)
    spec = EXCHANGES[name]["spec"]
    own = {**spec.get(name, {}), setting: "eu-nowhere-9"}
    key = {} if PRESETS[name].authentication == "aws" else {"api_key": API_KEY}
    with token_server("a token") as tokens:
        monkeypatch.setenv("WATSONX_IAM_URL", tokens.url)
        with load_reranker({**spec, **key, "retry": 1, name: own}) as reranker:
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            with pytest.raises(TransientError, match=rf"eu-nowhere-9.*DNS.*`{name}\.{setting}`") as raised:
                reranker.rerank(QUERY, TEXTS)
    for variable in PRESETS[name].settings[setting].variables:
        assert variable in str(raised.value)


@each_preset
def test_wrong_scheme_is_an_error_that_says_so(name: str, server: DocumentedServer) -> None:
    with (
        load_reranker(spec_of(name, server, base_url=server.url.replace("http:", "https:"))) as reranker,
        pytest.raises(TransientError, match=r"TLS failed.*`base_url` starts with http"),
    ):
        reranker.rerank(QUERY, TEXTS)
    with pytest.raises(ConfigError, match="must start with http"):
        load_reranker(spec_of(name, server, base_url="ftp://host"))


@pytest.mark.parametrize("name", KEYED)
def test_missing_key_names_the_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS[name]
    for variable in (*preset.key_variables, *preset.base_url_variables):
        monkeypatch.delenv(variable, raising=False)
    spec = {"base_url": "http://127.0.0.1:9", **EXCHANGES[name]["spec"]}
    if preset.key_required:
        with pytest.raises(ConfigError, match=preset.key_variables[0]):
            load_reranker(spec)
    monkeypatch.setenv(preset.key_variables[-1], "from-the-environment")
    with load_reranker(spec) as reranker:
        assert backend_of(reranker).credentials()[0] == "from-the-environment"


@each_preset
def test_address_is_the_documented_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset without an address says that it needs one, or reads it from its variable."""
    preset, spec = PRESETS[name], EXCHANGES[name]["spec"]
    spec = spec if preset.authentication == "aws" else {"api_key": "a key", **spec}
    if preset.base_url:
        with load_reranker(spec) as reranker:
            address = backend_of(reranker)._address
        assert address.startswith("https://")
        assert "{" not in address
    else:
        with pytest.raises(ConfigError, match=f"{name} needs a base_url"):
            load_reranker(spec)
    for variable in preset.base_url_variables:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        with load_reranker(spec) as reranker:
            assert backend_of(reranker)._address == "http://127.0.0.1:9"


@each_preset
def test_limit_of_documents_splits(name: str, server: DocumentedServer) -> None:
    with load_reranker(
        spec_of(name, server, **{name: {**EXCHANGES[name]["spec"].get(name, {}), "max_documents": 3}})
    ) as reranker:
        response = reranker.rerank(QUERY, TEXTS)
    assert sorted(len(server.texts(request.body)) for request in server.requests) == [1, 3]
    assert raw_scores(response) == pytest.approx(scored_by(server.score, QUERY, TEXTS))


@each_preset
def test_instruction_is_sent_or_refused(name: str, server: DocumentedServer) -> None:
    field = PRESETS[name].format.instruction_field
    if field is None:
        with pytest.raises(ConfigError, match="cannot follow an instruction"):
            load_reranker(spec_of(name, server, instruction="prefer facts"))
        return
    with load_reranker(spec_of(name, server, instruction="prefer facts")) as reranker:
        reranker.rerank(QUERY, TEXTS)
    sent, documented = server.requests[0].body, EXCHANGES[name]["optional"]
    for part in field.split("."):
        sent, documented = sent[part], documented[part]
    assert (sent, documented) == ("prefer facts", "INSTRUCTION")


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.model_required])
def test_missing_model_says_how_to_name_it(name: str) -> None:
    with pytest.raises(ConfigError, match=f"use = '{name}:MODEL'"):
        load_reranker({"use": name, "base_url": "http://127.0.0.1:9", "api_key": "a key"})


@pytest.mark.parametrize(
    ("use", "scale"),
    [
        ("llama-cpp:bge-reranker-v2-m3", "logit"),
        ("llama-cpp:Qwen3-Reranker-0.6B-Q8_0", "unit"),
        ("llama-cpp", "logit"),
        ("nvidia", "logit"),
        ("siliconflow", "unit"),
        ("scaleway", "cosine"),
        ("scaleway:bge-reranker-v2-m3", "unit"),
    ],
)
def test_scale_follows_the_model(use: str, scale: str) -> None:
    with load_reranker({"use": use, "base_url": "http://127.0.0.1:9", "api_key": "a key"}) as reranker:
        assert reranker.scorer.capabilities.scale == scale
    table = {use.partition(":")[0]: {"scale": "ordinal"}}
    with load_reranker({"use": use, "base_url": "http://127.0.0.1:9", "api_key": "a key", **table}) as reranker:
        assert reranker.scorer.capabilities.scale == "ordinal"


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.retired])
def test_retired_model_is_named_in_the_error(name: str, server: DocumentedServer) -> None:
    server.play(Status(404))
    model, what = next(iter(PRESETS[name].retired.items()))
    body_model = EXCHANGES[name]["request"]["body"].get("model")
    assert body_model != model
    with (
        load_reranker(spec_of(name, server, use=f"{name}:{model}")) as reranker,
        pytest.raises(Rejected, match=re.escape(what)),
    ):
        reranker.rerank(QUERY, TEXTS)


def test_row_with_a_setting_that_is_no_option_says_where_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "acme", replace(PRESETS["siliconflow"], name="acme", settings={"region": Setting()}))
    with pytest.raises(TypeError, match=r"'region', which is no option of PresetOptions: .* preset_options\.py"):
        preset_class("acme")


def test_server_of_an_exchange_refuses_what_the_exchange_does_not_show() -> None:
    """The server can fail a backend: each of these would pass a server that only answers."""
    exchange = EXCHANGES["pinecone"]
    with documented_server(exchange)() as server:
        headers = {"api-key": server.key, "x-pinecone-api-version": "2026-07"}
        body = exchange["request"]["body"]
        assert server.validate(body, headers) is None
        wrong = [
            ({**body, "extra": 1}, headers),
            ({key: value for key, value in body.items() if key != "rank_fields"}, headers),
            ({**body, "documents": ["FIRST"]}, headers),
            ({**body, "return_documents": "no"}, headers),
            ({**body, "query": {"text": "QUERY"}}, headers),
            (body, {**headers, "api-key": "another"}),
            (body, {"api-key": server.key}),
        ]
        assert [server.validate(*each).status for each in wrong] == [400, 400, 400, 400, 400, 401, 400]


def test_end_of_an_api_is_named_where_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroEntropy announced the end of its API: no answer, or a refusal, may come from that."""
    spec = {"use": "zeroentropy", "api_key": "a key", "base_url": "http://127.0.0.1:9", "retry": 1}
    with load_reranker(spec) as reranker, pytest.raises(TransientError, match=r"ends on 2026-09-04.*`zerank`"):
        reranker.rerank(QUERY, TEXTS)
    assert "2026-09-04" in builtin_entries()["zeroentropy"].notice


def test_list_says_what_was_confirmed_and_what_is_retired(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    for name, entry in builtin_entries().items():
        assert bool(entry.confirmed) == (entry.kind != "local"), name
        assert rows[name]["confirmed"] == (entry.confirmed or None)
    assert "2026-09-04" in rows["zeroentropy"]["notice"]
    assert cli.main(["list"]) == 0
    assert "[sdk: pinecone 10.2.0]" in capsys.readouterr().out
    assert cli.main(["list", "--models", "--json"]) == 0
    models = {row["spec"]: row for row in json.loads(capsys.readouterr().out)}
    assert models["together:Salesforce/Llama-Rank-V1"]["state"] == "Together retired it on 2026-02-06"
    assert models["siliconflow:Qwen/Qwen3-Reranker-8B"]["confirmed"] == "docs"
    assert models["cohere:rerank-v5.0-fast"]["confirmed"] == "sdk: cohere 7.3.1"

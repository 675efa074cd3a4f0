"""A key may be set in many places of a spec and appears in no error, log, repr, pickle, span, page or file."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rerank_plugins import ConfigError, RerankError, load_reranker, telemetry
from rerank_plugins.config import backends
from rerank_plugins.core.address import Address, looks_secret, storable_url
from rerank_plugins.core.redaction import MASK, holds, one_line, redact
from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.serving.app import application
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import HTML, JSON, CutJSON, Reset, Status, Step
from rerank_plugins.testing.server import VendorServer
from rerank_plugins.testing.vendors import VENDORS

pytestmark = pytest.mark.thorough

PATH_SECRET = "Zk3q9VbT7xLw2NcR8sHy"
SECRET = "sk-very/secret+1234567890"
QUERY, DOCUMENTS = "how do tides work", ["the moon pulls the sea", "bananas"]

KEY_VARIABLES = {
    "cohere": "CO_API_KEY",
    "voyage": "VOYAGE_API_KEY",
    "jina-api": "JINA_API_KEY",
    "mixedbread": "MXBAI_API_KEY",
    "zeroentropy": "ZEROENTROPY_API_KEY",
    "vllm": "VLLM_API_KEY",
    "infinity": "INFINITY_API_KEY",
}
ADDRESS_VARIABLES = {
    "cohere": "CO_API_URL",
    "mixedbread": "MIXEDBREAD_BASE_URL",
    "zeroentropy": "ZEROENTROPY_BASE_URL",
}
BACKENDS = {**VENDORS, "http": CohereLike}


def places() -> Iterator[Any]:
    """Yield a test parameter for every backend and every place that can hold its key."""
    for name in BACKENDS:
        places_of_backend = ["api_key", "env:", "proxy", "path", "path env:"]
        places_of_backend += ["variable"] if name in KEY_VARIABLES else []
        places_of_backend += ["user", "query", "query without name", "query env:"] if name != "voyage" else []
        places_of_backend += ["address variable"] if name in ADDRESS_VARIABLES else []
        places_of_backend += (
            ["header", "header env:", "body", "deep body", "body env:", "api_key in body"] if name == "http" else []
        )
        for place in places_of_backend:
            # Backends that share the code of `http` are tested with every place only in slow runs.
            marks = () if name in ("http", "cohere", "voyage") or place == "api_key" else (pytest.mark.slow,)
            yield pytest.param(name, place, id=f"{name}-{place}", marks=marks)


def spec_of(name: str, place: str, server: VendorServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TEAM_SECRET", SECRET)
    address = server.url
    spec: dict[str, Any] = {"use": name, "api_key": "env:PLAIN"}
    monkeypatch.setenv("PLAIN", "plain-key")
    match place:
        case "api_key":
            spec["api_key"] = SECRET
        case "env:":
            spec["api_key"] = "env:TEAM_SECRET"
        case "variable":
            del spec["api_key"]
            monkeypatch.setenv(KEY_VARIABLES[name], SECRET)
        case "user":
            address = address.replace("://", f"://user:{quote(SECRET, safe='')}@")
            del spec["api_key"]
        case "path":
            address += f"/{SECRET}"
        case "path env:":
            address += "/env:TEAM_SECRET"
        case "query":
            address += f"?key={quote(SECRET, safe='')}"
        case "query without name":
            address += f"?{quote(SECRET, safe='')}"
        case "query env:":
            address += "?key=env:TEAM_SECRET"
        case "address variable":
            monkeypatch.setenv(ADDRESS_VARIABLES[name], f"{address}?key={quote(SECRET, safe='')}")
            return spec
        case "proxy":
            monkeypatch.setenv("HTTP_PROXY", server.url.replace("://", f"://user:{quote(SECRET, safe='')}@"))
            address = "http://acme.invalid"
        case "header" | "header env:":
            spec["http"] = {"headers": {"X-JWT": "env:TEAM_SECRET" if "env" in place else f"Bearer {SECRET}"}}
        case "body" | "body env:":
            spec["http"] = {"body": {"token": "env:TEAM_SECRET" if "env" in place else SECRET}}
        case "deep body":
            spec["http"] = {"body": {"options": [{"team": SECRET}]}}
        case "api_key in body":
            spec["http"] = {"body": {"api_key": SECRET}}
    return spec | {"base_url": address}


class Echo(Step):
    """Refuse the request and repeat the key in every encoding, in the body and in a header that clients log."""

    def __init__(self, code: int) -> None:
        self.code = code

    def play(self, exchange: Any) -> None:
        sent = exchange.request.headers
        basic = " ".join(sent.get(name, "") for name in ("authorization", "proxy-authorization"))
        words = f"{SECRET} {quote(SECRET, safe='')} {quote_plus(SECRET)} {basic} may not"
        headers = {"location": f"http://h/?key={quote(SECRET, safe='')}", "x-echo": SECRET}
        if self.code == 200:
            exchange.send(200, {"error": {"message": words}}, headers)
            return
        reply = exchange.server.refuse(self.code, words)
        exchange.send(reply.status, reply.body, headers)


OUTCOMES = (
    Step(),
    Echo(400),
    Echo(401),
    Echo(503),
    Echo(307),
    Echo(200),
    Status(404),
    HTML(501),
    JSON({"results": SECRET, "data": SECRET}),
    JSON(SECRET),
    CutJSON(),
    Reset(),
)


def error_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + f"{error!r} {vars(error)!r} {pickle.dumps(error)!r}"


def state_of(reranker: Any) -> str:
    backend = backends(reranker)[0]
    return (
        f"{reranker!r} {reranker.spec!r} {vars(reranker)!r} {reranker.scorer!r} {backend!r} {vars(backend)!r} "
        f"{pickle.dumps(reranker)!r} {reranker.stats()!r}"
    )


def server_pages(spec: Any) -> str:
    """Return a reranking response and every page of a server for `spec`, headers included."""

    async def pages() -> str:
        app = application(spec)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://us") as client:
            call = {"query": QUERY, "documents": DOCUMENTS}
            replies = [await client.post("/v2/rerank", json=call)]
            replies += [await client.get(page) for page in ("/healthz", "/metrics", "/openapi.json", "/docs")]
        return " ".join(f"{reply.headers!r} {reply.text}" for reply in replies)

    return asyncio.run(pages())


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instruments = telemetry._Instruments()
    instruments.tracer = tracers.get_tracer("test")
    monkeypatch.setattr(telemetry, "_instruments", lambda: instruments)
    return exporter


def encodings() -> set[str]:
    basic = base64.b64encode(f"user:{SECRET}".encode()).decode()
    return {SECRET, quote(SECRET), quote(SECRET, safe=""), quote_plus(SECRET), basic}


@pytest.mark.parametrize(("name", "place"), places())
def test_key_never_appears_in_any_output(
    name: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    spans: InMemorySpanExporter,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    if place == "path":  # a path segment is masked only if it looks like a key
        monkeypatch.setitem(globals(), "SECRET", PATH_SECRET)
    shown: dict[str, str] = {}
    with BACKENDS[name]() as server:
        server.authorized = lambda headers: True  # type: ignore[method-assign]
        server.optional = {**server.optional, "token": str, "options": list, "api_key": str}  # type: ignore[misc]
        starts = ("http://acme.invalid", f"/{quote(SECRET, safe='')}")
        server.paths = (*server.paths, *(f"{start}{path}" for start in starts for path in server.paths))  # type: ignore[misc]
        spec = spec_of(name, place, server, monkeypatch) | {"retry": 1}
        with load_reranker({**spec, "cache": {"kind": "disk", "path": str(tmp_path / "scores.sqlite3")}}) as reranker:
            for number, step in enumerate(OUTCOMES):
                server.play(step)
                if number == 0:
                    shown["answer"] = repr(reranker.rerank(f"{QUERY} {number}", DOCUMENTS))
                    continue
                with pytest.raises(RerankError) as raised:
                    reranker.rerank(f"{QUERY} {number}", DOCUMENTS)
                shown[f"error {number}"] = error_text(raised.value)
            shown["reranker"] = state_of(reranker)
        assert any(secret in repr(server.requests[0]) for secret in encodings()), "the key was sent"

        with_fallback = {**spec, "fallback": ["passthrough"]}
        server.play(Echo(503))
        with load_reranker(with_fallback) as reranker:
            degraded = reranker.rerank(QUERY, DOCUMENTS)
            assert degraded.degraded
            shown["degraded"] = repr(degraded) + state_of(reranker)
        for kind in (spec, with_fallback):
            server.play(Echo(503))
            shown[f"served {len(kind)}"] = server_pages(kind)
        compressor = RerankCompressor(reranker=spec)
        documents = compressor.compress_documents([Document(each) for each in DOCUMENTS], QUERY)
        shown["langchain"] = (
            f"{compressor!r} {compressor} {dumps(compressor)} {compressor.model_dump_json()} {documents!r}"
        )
        shown["langchain pickle"] = repr(pickle.dumps(compressor))
        server.always(Step())
        question = Question("q", QUERY, (Candidate("a", DOCUMENTS[0]), Candidate("b", DOCUMENTS[1])))
        compared = compare(
            Dataset.of("d", [question], {"q": {"a": 1}}), [spec, "lexical"], answer_cache=tmp_path / "answers"
        )
        shown["compare"] = json.dumps(compared.to_dict()) + compared.to_html()
    gc.collect()
    shown["logs"] = caplog.text + "".join(f"{vars(record)!r}" for record in caplog.records)
    shown["spans"] = " ".join(span.to_json() for span in spans.get_finished_spans())
    shown["terminal"] = "".join(capfd.readouterr())
    for file in tmp_path.iterdir():
        shown[file.name] = file.read_bytes().decode("latin-1")
    assert "503" in shown["logs"]
    assert spans.get_finished_spans()
    for where, text in shown.items():
        for secret in encodings():
            assert secret not in text, f"{where}: …{text[max(0, text.index(secret) - 300) :][:700]}…"


@pytest.mark.parametrize(
    "segment",
    [
        *("Zk3q9VbT7xLw2NcR8sHy", "sk-proj-Ab12Cd34Ef56Gh78Ij90", "9f86d081884c7d659a2feaa0c55ad015"),
        *("d41d8cd98f00b204e9800998ecf8427e", "pplx-9f8a7B6c5D4e3F2a1B0c9D8e", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"),
    ],
)
def test_path_segment_like_a_key_is_masked(segment: str) -> None:
    assert looks_secret(segment)
    assert storable_url(f"https://h/v1/{segment}/rerank") == f"https://h/v1/{MASK}/rerank"
    address = Address.of(f"https://h/v1/{segment}/rerank")
    assert str(address.url) == f"https://h/v1/{segment}/rerank"
    assert segment not in f"{address!r} {address.public}"
    assert address.public != Address.of(f"https://h/v1/{segment[::-1]}/rerank").public


@pytest.mark.parametrize(
    "segment",
    [
        *("", "v1", "rerank", "2024-05-01-preview", "bge-reranker-v2-m3", "jina-reranker-v2-base-multilingual"),
        *(
            "Qwen3-Reranker-0.6B-w8a8",
            "MyRerankerProductionEndpoint",
            "gte-multilingual-reranker-base-onnx-op14-opt-gpu-int8",
        ),
        *(
            "123e4567-e89b-12d3-a456-426614174000",
            "12345678901234567890",
            "chat-completions",
            "serverlessinference2024",
        ),
        *(
            "cohere-rerank-v4.0-fast-2026-01-31",
            "text-embeddings-inference",
            "projects",
            "llama3.3-70b-instruct-fp8-dynamic",
        ),
    ],
)
def test_path_segment_like_a_name_is_not_masked(segment: str) -> None:
    assert not looks_secret(segment)
    assert storable_url(f"https://h/v1/{segment}/rerank") == f"https://h/v1/{segment}/rerank"


def test_unpickling_a_masked_path_advises_an_env_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = pickle.dumps(load_reranker({"use": "http", "base_url": f"http://h/{PATH_SECRET}"}))
    with pytest.raises(ConfigError, match="env:NAME"):
        pickle.loads(stored)
    monkeypatch.setenv("PATH_KEY", PATH_SECRET)
    with CohereLike() as server:
        server.paths = (f"/{PATH_SECRET}/rerank",)  # type: ignore[misc]
        reranker = load_reranker({"use": "http", "base_url": f"{server.url}/env:PATH_KEY", "api_key": server.key})
        assert reranker.spec["base_url"].endswith("/env:PATH_KEY")
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == 2


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    "address", [f"http://h:{SECRET}", f"http://[{SECRET}", f"ftp://user:{SECRET}@h", f"http://user:{SECRET}@"]
)
def test_error_about_an_invalid_address_does_not_quote_it(name: str, address: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError) as raised:
        load_reranker({"use": name, "base_url": address, "api_key": "plain"})
    assert SECRET not in error_text(raised.value) + caplog.text


def test_short_key_is_not_masked_inside_words() -> None:
    with CohereLike(key="x") as server:
        server.play(Status(400, message="the text is too complex, x"))
        reranker = load_reranker({"use": "http", "base_url": server.url, "api_key": "x", "retry": 1})
        with pytest.raises(RerankError, match="the text is too complex, x"):
            reranker.rerank(QUERY, DOCUMENTS)


def test_redact_masks_every_encoding_of_a_secret() -> None:
    assert redact("a sk-12345/6 b sk-12345%2F6 c", ["sk-12345/6"]) == f"a {MASK} b {MASK} c"
    assert redact("abcdef abcdefghi", ["abcdef", "abcdefghi"]) == f"{MASK} {MASK}"
    assert redact("abcde", ["abcde"]) == "abcde"
    assert redact(json.dumps('key"éé'), ['key"éé']) == f'"{MASK}"'
    assert one_line("a\r\n\x1b[31mb\u2028c\u202e") == "a  [31mb c"
    inner = ValueError("abcdefgh")
    outer = TypeError("fine")
    outer.__cause__ = inner
    assert holds(outer, ["abcdefgh"])
    assert not holds(outer, ["ijklmnop"])

"""HTTP transport: connections, URLs, reply limits, and errors for statuses and bodies."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import logging
import re
import tomllib
import traceback
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from rerank_plugins import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    RateLimited,
    Rejected,
    TransientError,
    load_reranker,
)
from rerank_plugins.core.reply import reply_limit
from rerank_plugins.core.tokens import estimate_tokens
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.core.wire import HTTPResponse, error_for, join_url, parse_json
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import HTML, JSON, Hang, Status, Step
from rerank_plugins.testing.server import VendorServer
from rerank_plugins.testing.vendors import VENDORS

DOCUMENTS = ["the moon", "bananas", "the sea"]


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with CohereLike() as running:
        yield running


def reranker_for(server: VendorServer, **options):
    return load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, **options})


def test_calls_reuse_one_connection(server: VendorServer) -> None:
    with reranker_for(server) as reranker:
        for _ in range(5):
            reranker.rerank("tides", DOCUMENTS)
        assert server.connections == 1


def test_close_closes_the_connections_of_every_loop(server: VendorServer) -> None:
    async def call_on_two_loops() -> None:
        reranker = reranker_for(server)
        await reranker.arerank("tides", DOCUMENTS)
        await asyncio.to_thread(reranker.rerank, "tides", DOCUMENTS)
        assert server.connections == 2
        await reranker.aclose()
        assert await asyncio.to_thread(server.wait_until, lambda: server.connections == 0)

    asyncio.run(call_on_two_loops())


def test_end_of_a_loop_closes_its_connections(server: VendorServer) -> None:
    reranker = reranker_for(server)
    asyncio.run(reranker.arerank("tides", DOCUMENTS))
    assert server.wait_until(lambda: server.connections == 0)


def test_call_after_the_server_closed_the_connection_reconnects(server: VendorServer) -> None:
    """A pooled connection that the server has closed in the meantime must not fail the next call."""
    with reranker_for(server) as reranker:
        reranker.rerank("tides", DOCUMENTS)
        server._http.hang_up()
        assert server.wait_until(lambda: server.connections == 0)
        assert len(reranker.rerank("tides", DOCUMENTS)) == 3


def test_cancelled_call_cancels_all_its_requests(server: VendorServer) -> None:
    server.always(Hang())

    async def start_and_cancel() -> None:
        async with reranker_for(server, http={"max_documents": 1}) as reranker:
            call = asyncio.create_task(reranker.arerank("tides", DOCUMENTS))
            assert await asyncio.to_thread(server.wait_until, lambda: len(server.requests) == 3)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(
                server.wait_until, lambda: all(request.disconnected for request in server.requests)
            )

    asyncio.run(start_and_cancel())


def test_connection_refused_raises_a_transient_error() -> None:
    spec = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1}
    with load_reranker(spec) as reranker, pytest.raises(TransientError, match=r"127\.0\.0\.1:9.*base_url") as raised:
        reranker.rerank("tides", DOCUMENTS)
    assert raised.value.__cause__ is not None


def test_redirect_is_reported_and_not_followed(server: VendorServer) -> None:
    server.play(Status(307, {"location": "http://127.0.0.1:9/elsewhere"}))
    with reranker_for(server) as reranker, pytest.raises(Rejected, match="redirects: set `base_url`"):
        reranker.rerank("tides", DOCUMENTS)


def test_gzip_reply_is_decompressed(server: VendorServer) -> None:
    class Gzipped(Step):
        def play(self, exchange) -> None:
            body = gzip.compress(json.dumps(exchange.answer(exchange.pairs())).encode())
            exchange.send_raw(200, body, {"content-type": "application/json", "content-encoding": "gzip"})

    server.play(Gzipped())
    with reranker_for(server) as reranker:
        assert len(reranker.rerank("tides", DOCUMENTS)) == 3


def test_proxy_of_the_environment_is_used(server: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    spec = {"use": "http", "base_url": "http://acme.invalid", "retry": 1}
    with load_reranker(spec) as reranker, pytest.raises(Rejected):
        reranker.rerank("tides", DOCUMENTS)
    assert server.requests[0].headers["host"] == "acme.invalid"


SECRETS = {
    "a line break in the key": {"api_key": "sk-very\nsecret"},
    "a letter that no header holds": {"api_key": "sk-very-secret-é"},
    "a key in a header": {"headers": {"x-key": "sk-very\r\nsecret"}},
}


@pytest.mark.parametrize("kind", SECRETS)
def test_error_about_an_unsendable_key_does_not_show_it(
    server: VendorServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = SECRETS[kind]
    settings = {"api_key": options["api_key"]} if "api_key" in options else {"http": options}
    with (
        pytest.raises(ConfigError, match=r"api_key|http\.headers") as raised,
        reranker_for(server, **settings) as reranker,
    ):
        reranker.rerank("tides", DOCUMENTS)
    logged = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "secret" not in logged


@pytest.mark.parametrize("base_url", ["http://user:pa55word@127.0.0.1:9", "http://127.0.0.1:9/v1?key=pa55word"])
def test_error_about_an_address_does_not_show_its_password(base_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="rerank_plugins")
    with load_reranker({"use": "http", "base_url": base_url, "retry": 1}) as reranker:
        with pytest.raises(TransientError, match=r"127\.0\.0\.1:9") as raised:
            reranker.rerank("tides", DOCUMENTS)
        assert "pa55word" not in "".join(traceback.format_exception(raised.value)) + caplog.text + repr(reranker.spec)


@pytest.mark.parametrize("base_url", ["http://", "http://[", "http://127.0.0.1:port"])
def test_invalid_base_url_raises_a_config_error(base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        load_reranker({"use": "http", "base_url": base_url, "retry": 1}).rerank("tides", DOCUMENTS)


# --- URLs, statuses, JSON ---


@pytest.mark.parametrize(
    ("base", "path", "joined"),
    [
        ("http://h", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/v1", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/v1/", "v1/rerank", "http://h/v1/rerank"),
        ("http://h/v1/rerank", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/gateway", "/v1/rerank", "http://h/gateway/v1/rerank"),
        ("http://h/gateway/v1", "/v1/rerank", "http://h/gateway/v1/rerank"),
        ("http://h:8080", "rerank", "http://h:8080/rerank"),
        ("http://h/v1?tenant=a", "/v1/rerank", "http://h/v1/rerank?tenant=a"),
        ("http://h/v2", "/v1/rerank", "http://h/v2/v1/rerank"),
    ],
)
def test_join_url_does_not_repeat_path_segments(base: str, path: str, joined: str) -> None:
    assert join_url(base, path) == joined


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, BadResponse),
        (301, Rejected),
        (400, Rejected),
        (401, AuthenticationFailed),
        (402, Rejected),
        (403, AuthenticationFailed),
        (404, Rejected),
        (408, TransientError),
        (409, TransientError),
        (413, Rejected),
        (418, Rejected),
        (422, Rejected),
        (425, TransientError),
        (429, RateLimited),
        (498, AuthenticationFailed),
        (500, TransientError),
        (503, TransientError),
        (529, TransientError),
        (599, TransientError),
    ],
)
def test_each_http_status_becomes_its_error(status: int, kind: type[BackendError]) -> None:
    reply = HTTPResponse(status, b"", {"x-request-id": "req-7", "retry-after": "3"})
    error = error_for(reply, backend="acme:one", explanation="because")
    assert type(error) is kind
    assert (error.status, error.backend, error.request_id) == (status, "acme:one", "req-7")
    assert error.retry_after == (3.0 if isinstance(error, TransientError) else None)
    assert str(error).startswith(f"acme:one answered {status}: because. ")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_body_other_than_json_raises_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse, match="base_url"):
        parse_json(HTTPResponse(200, body), backend="acme")


# --- replies ---

BACKENDS = {**VENDORS, "http": CohereLike}


@functools.cache
def gzip_of_spaces(megabytes: int) -> bytes:
    """Return gzip of `megabytes` of white space, with which JSON may start."""
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    piece = b" " * 2**20
    return b"".join(packer.compress(piece) for _ in range(megabytes)) + packer.flush()


@dataclass(frozen=True)
class Raw(Step):
    """Reply with the given bytes and headers."""

    body: bytes
    headers: Mapping[str, str]
    code: int = 200

    def play(self, exchange) -> None:
        exchange.send_raw(self.code, self.body, {"content-type": "application/json", **self.headers})


@pytest.mark.parametrize("code", [200, 400])
@pytest.mark.parametrize("name", BACKENDS)
def test_decompression_bomb_is_refused_early(name: str, code: int) -> None:
    body = gzip_of_spaces(128)
    assert len(body) < 2**20
    with BACKENDS[name]() as server:
        server.play(Raw(body, {"content-encoding": "gzip"}, code))
        tracemalloc.start()
        try:
            with pytest.raises(BackendError) as raised:
                call(name, server)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert name in str(raised.value)
    if name != "voyage":  # its SDK does not decompress replies
        assert isinstance(raised.value, BadResponse)
        assert "larger than 16 MB" in str(raised.value)
    assert peak < 100 * 2**20


class Endless(Step):
    """Reply with very many chunks: no header announces the length of the reply."""

    def __init__(self, code: int) -> None:
        self.code = code

    def play(self, exchange) -> None:
        start = f"HTTP/1.1 {self.code} OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        exchange.write(start.encode())
        chunk = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
        for _ in range(200):  # the client closes the connection long before
            exchange.write(chunk)
        exchange.hang_up()


@pytest.mark.parametrize("code", [200, 400])
@pytest.mark.parametrize("name", BACKENDS)
def test_endless_chunked_reply_is_refused_at_the_limit(name: str, code: int) -> None:
    with BACKENDS[name]() as server:
        server.play(Endless(code))
        tracemalloc.start()
        try:
            with pytest.raises(BadResponse, match=f"{name}.*larger than 16 MB"):
                call(name, server)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 100 * 2**20
        assert len(call(name, server)) == len(DOCUMENTS)  # the backend works after the error


def test_voyage_client_of_the_user_has_the_reply_limit() -> None:
    import voyageai

    with VENDORS["voyage"]() as server:
        server.play(Endless(200))
        client = voyageai.AsyncClient(server.key, base_url=f"{server.url}/v1")
        spec = {"use": "voyage", "voyage": {"client": client}, "retry": 1}
        with load_reranker(spec) as reranker, pytest.raises(BadResponse, match="larger than 16 MB"):
            reranker.rerank("tides", DOCUMENTS)


def test_reply_limit_grows_with_the_request() -> None:
    small = RerankRequest(query="q", documents=("a",))
    assert reply_limit(small) < 17 * 2**20
    assert reply_limit(RerankRequest(query="q", documents=("a" * 10**6,) * 50)) > 300 * 2**20


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate"])
@pytest.mark.parametrize("name", ["http", "cohere"])
def test_reply_with_encoding_not_requested_is_refused(name: str, encoding: str) -> None:
    with BACKENDS[name]() as server:
        server.play(Raw(b"{}", {"content-encoding": encoding}))
        with pytest.raises(BadResponse, match=r"encoded as .*not requested"):
            call(name, server)
        assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_reply_that_is_not_gzip_raises_bad_response(server: VendorServer) -> None:
    server.play(Raw(b"{}", {"content-encoding": "gzip"}))
    with pytest.raises(BadResponse, match="cannot be decompressed"):
        call("http", server)


def call(name: str, server: VendorServer, **options):
    spec = {"use": name, "base_url": server.url, "api_key": server.key, "retry": 1, **options}
    with load_reranker(spec) as reranker:
        return reranker.rerank("tides", DOCUMENTS)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "quota exceeded: top up"}}, BadResponse),
        ({"error": "quota exceeded: top up"}, BadResponse),
        ({"error": {"message": "quota exceeded: top up", "code": 402}}, Rejected),
        ({"error": {"message": "quota exceeded: top up", "code": "429"}}, RateLimited),
        ({"code": 503, "message": "quota exceeded: top up"}, TransientError),
        ({"errors": [{"message": "quota exceeded: top up"}]}, BadResponse),
        ({"errors": {"documents": ["quota exceeded: top up"]}}, BadResponse),
        ({"success": False, "error_msg": "quota exceeded: top up"}, BadResponse),
        ({"statusCode": 429, "Message": "quota exceeded: top up"}, RateLimited),
        ({"detail": [{"loc": ["body"], "msg": "quota exceeded: top up"}]}, BadResponse),
        ({"message": {"account": "quota exceeded: top up"}}, BadResponse),
        ({"error": {"detail": "quota exceeded: top up"}}, BadResponse),
        ({"error": {"code": None, "what": "quota exceeded: top up"}}, BadResponse),
        ({"fault": {"faultstring": "quota exceeded: top up", "detail": {"errorcode": "QuotaViolation"}}}, RateLimited),
        ({"error": {"type": "rate_limit_error", "message": "quota exceeded: top up"}}, RateLimited),
        ({"errors": [{"code": "RATE_LIMITED", "message": "quota exceeded: top up"}]}, RateLimited),
        ({"type": "https://h/problems/no-permission", "title": "quota exceeded: top up"}, AuthenticationFailed),
    ],
)
def test_error_message_with_status_200_is_quoted(name: str, body, kind: type[BackendError]) -> None:
    with BACKENDS[name]() as server:
        server.play(JSON(body))
        with pytest.raises(kind, match="quota exceeded: top up") as raised:
            call(name, server)
    assert type(raised.value) is kind


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("rate_limit_exceeded", RateLimited),
        ("TooManyRequestsException", RateLimited),
        ("insufficient_quota", RateLimited),  # OpenAI sends it with 429
        ("overloaded", TransientError),
        ("overloaded_error", TransientError),
        ("SERVICE_UNAVAILABLE", TransientError),
        ("internal_server_error", TransientError),
        ("gateway_timeout", TransientError),
        ("authentication_error", AuthenticationFailed),
        ("invalid_api_key", AuthenticationFailed),
        ("PERMISSION_DENIED", AuthenticationFailed),
        ("payment_required", Rejected),
        ("model_not_found", Rejected),
        ("invalid_request_error", Rejected),
        ("list", BadResponse),
    ],
)
def test_error_name_with_status_200_selects_the_error_class(name: str, error: str, kind) -> None:
    with BACKENDS[name]() as server:
        server.play(JSON({"type": error}))
        with pytest.raises(BackendError) as raised:
            call(name, server)
    assert type(raised.value) is kind
    assert kind is BadResponse or error in str(raised.value)


@pytest.mark.parametrize("field", ["code", "status", "statusCode", "error", "error_code", "errorType", "__type"])
def test_error_name_is_read_from_each_known_field(server: VendorServer, field: str) -> None:
    server.play(JSON({field: "com.acme#ThrottlingException"}))
    with pytest.raises(RateLimited, match=r"com\.acme#ThrottlingException"):
        call("http", server)


@pytest.mark.parametrize(
    "body",
    [
        {"results": [{"index": 0, "relevance_score": None, "document": {"type": "timeout", "code": 429}}]},
        {"type": "list", "documents": [{"error": "forbidden"}]},
    ],
)
def test_error_words_inside_a_document_are_ignored(server: VendorServer, body) -> None:
    server.play(JSON(body))
    with pytest.raises(BadResponse):
        call("http", server)


def test_deeply_nested_error_raises_bad_response(server: VendorServer) -> None:
    body: object = "deep"
    for _ in range(100):
        body = {"error": [body]}
    server.play(JSON(body))
    with pytest.raises(BadResponse, match="unknown shape"):
        call("http", server)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "voyage"])
def test_query_string_of_the_base_url_follows_the_path(name: str) -> None:
    with BACKENDS[name]() as server:
        spec = {"use": name, "base_url": f"{server.url}/?api-version=2024-05-01&tenant=red", "api_key": server.key}
        with load_reranker(spec) as reranker:
            reranker.rerank("tides", DOCUMENTS)
        path, _, query = server.requests[0].path.partition("?")
    assert path in server.paths
    assert query == "api-version=2024-05-01&tenant=red"


def test_voyage_base_url_with_a_query_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="backend `http`"):
        load_reranker({"use": "voyage", "base_url": "http://h/?a=b", "api_key": "k"})


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("code", [404, 405])
def test_error_about_a_wrong_path_shows_the_url(name: str, code: int) -> None:
    with BACKENDS[name]() as server:
        server.play(Status(code))
        with pytest.raises(
            Rejected, match=rf"`base_url`\. The request went to {server.url}/\S*(rerank|decisions|systemone)"
        ):
            call(name, server)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "voyage"])
def test_error_about_an_html_reply_advises_to_check_base_url(name: str) -> None:
    with BACKENDS[name]() as server:
        server.always(HTML(501))
        with pytest.raises(TransientError, match="does not look like a rerank API: check `base_url`"):
            call(name, server, retry={"attempts": 2, "wait_initial": 0})


# --- lengths and scales ---


@pytest.mark.parametrize(
    "text", ["the moon pulls the sea. " * 12_500, "月は海を引く" * 20_000, "a1" * 50_000, "a" * 100_000]
)
def test_document_longer_than_max_tokens_is_truncated_before_sending(server: VendorServer, text: str) -> None:
    with reranker_for(server, http={"max_tokens": 512}) as reranker:
        response = reranker.rerank("tides", [text, "bananas"])
    (long, short) = server.requests[0].documents
    assert text.startswith(long)
    assert 64 < len(long) < 2100
    assert estimate_tokens(long)[1] <= 512
    assert short == "bananas"
    assert {result.index: result.truncated for result in response} == {0: True, 1: False}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (413, "Payload Too Large"),
        (400, "This model's maximum context length is 512 tokens"),  # vLLM
        (422, "Input validation error: `inputs` must have less than 512 tokens. Given: 9000"),
        (413, "`inputs` must have less than 512 tokens"),  # TEI
        (400, "input (9000 tokens) is too large to process. increase the physical batch size"),  # llama.cpp
        (400, "the request exceeds the available context size"),  # llama.cpp
    ],
)
def test_error_about_a_too_long_text_advises_max_tokens(server: VendorServer, code: int, words: str) -> None:
    server.always(Status(code, message=words))
    with reranker_for(server) as reranker, pytest.raises(Rejected, match=r"`max_tokens`.*`truncated`.*'rejected'"):
        reranker.rerank("tides", DOCUMENTS)
    strict = {"specs": ["lexical"], "on": ["rejected"]}
    with reranker_for(server, fallback=strict) as reranker:
        assert reranker.rerank("tides", DOCUMENTS).model == "lexical"
    server.reset()
    server.always(Status(400, message="the model's name is wrong"))
    with reranker_for(server) as reranker, pytest.raises(Rejected, match="sending it again will not help"):
        reranker.rerank("tides", DOCUMENTS)


@pytest.mark.parametrize(
    ("scale", "values", "message"),
    [
        ("unit", [7.7, 3.8, -2.3], "outside 0…1, from -2.3 to 7.7"),
        ("cosine", [7.7, 3.8, -2.3], "outside -1…1"),
        ("unit", [1.0000001, 0.5, -1e-7], None),
        ("logit", [7.7, 3.8, -2.3], None),
        ("ordinal", [7.7, 3.8, -2.3], None),
    ],
)
def test_scores_outside_their_scale_are_reported(scale: str, values, message, caplog: pytest.LogCaptureFixture) -> None:
    scores = dict(zip(DOCUMENTS, values, strict=True))
    with (
        CohereLike(score=lambda _, text: scores[text]) as server,
        reranker_for(server, http={"scale": scale}) as reranker,
    ):
        for _ in range(3):
            response = reranker.rerank("tides", DOCUMENTS)
            assert [result.raw_score for result in response] == values
            assert not response.degraded
            if message is None:
                assert response.reason is None
            else:
                assert message in response.reason
                assert 'http = {scale = "logit"}' in response.reason
    assert len(caplog.records) == (message is not None)


@pytest.mark.parametrize("name", BACKENDS)
def test_advice_about_the_scale_works_when_followed(name: str) -> None:
    """A spec changed as the reason advises gives distinct relevance scores."""
    logits = dict(zip(DOCUMENTS, [7.7, 3.8, -2.3], strict=True))
    with BACKENDS[name](score=lambda _, text: logits[text]) as server:
        reason = call(name, server).reason
        (table,) = re.findall(r"([\w-]+) = \{(.*?)\}", reason)
        option = tomllib.loads(table[1])
    if name in ("http", "vllm", "tei", "infinity"):
        assert table[0] == name
    else:  # backends without an option for the scale
        assert f"{name} has no option for another scale" in reason
        assert "`base_url`" in reason
        assert "`calibration`" in reason
        assert table[0] == "http"
    with BACKENDS[table[0]](score=lambda _, text: logits[text]) as server:
        response = call(table[0], server, **{table[0]: option})
    assert response.reason is None
    assert response.scale == "logit"
    assert len({result.relevance_score for result in response}) == len(DOCUMENTS)


@pytest.mark.parametrize("value", [False, 0, None])
def test_vllm_truncation_can_be_turned_off(value) -> None:
    with VENDORS["vllm"]() as server:
        call("vllm", server, vllm={"truncate_prompt_tokens": value})
        assert "truncate_prompt_tokens" not in server.requests[0].body
    with pytest.raises(ConfigError, match="truncate_prompt_tokens must be an integer"):
        load_reranker({"use": "vllm", "base_url": "http://h", "vllm": {"truncate_prompt_tokens": True}})


# --- logs ---


@pytest.mark.parametrize("name", BACKENDS)
def test_vendor_message_is_in_no_log_and_no_statistics(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    words = "your text was:\nthe moon\n\x1b[31mERROR forged line"
    with BACKENDS[name]() as server:
        server.play(Status(503, message=words))
        response = call(name, server, fallback=["passthrough"])
        spec = {"use": name, "base_url": server.url, "api_key": server.key, "retry": 1, "fallback": ["passthrough"]}
        server.play(Status(503, message=words))
        with load_reranker(spec) as reranker:
            reranker.rerank("tides", DOCUMENTS)
            stats = json.dumps(reranker.stats(), ensure_ascii=False)
    assert "the moon" in response.reason
    assert response.reason.isprintable()
    logged = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    for text in (logged, stats):
        assert "the moon" not in text
        assert "forged" not in text
    assert "TransientError (HTTP 503)" in logged
    assert "TransientError (HTTP 503)" in stats


def test_attempts_cache_and_breaker_are_logged(server: VendorServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="rerank_plugins")
    with reranker_for(server, cache=True, breaker={"failures": 2, "reset_s": 0.001}) as reranker:
        reranker.rerank("tides", DOCUMENTS)
        reranker.rerank("tides", DOCUMENTS)
        for query in ("one", "two"):
            server.play(Status(503))
            with pytest.raises(TransientError):
                reranker.rerank(query, DOCUMENTS)
        while reranker.stats()["backends"]["http"]["breaker"] == "open":
            pass
        reranker.rerank("three", DOCUMENTS)
    records = [(record.levelname, record.getMessage()) for record in caplog.records]
    debug = " ".join(text for level, text in records if level == "DEBUG")
    assert "http: answered (HTTP 200), 3 documents" in debug
    assert "http: TransientError (HTTP 503), 3 documents" in debug
    assert "http: 3 of 3 documents are in the cache" in debug
    warnings = [text for level, text in records if level == "WARNING"]
    assert [text.split(":")[0] for text in warnings] == [
        "The circuit breaker of http opens",
        "The circuit breaker of http is half open",
        "The circuit breaker of http closes",
    ]
    assert "tides" not in caplog.text
    assert "moon" not in caplog.text

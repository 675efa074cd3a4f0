"""Sending: connections, addresses, what cannot be sent, and what statuses mean."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import traceback
from collections.abc import Iterator

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
from rerank_plugins.core.wire import HTTPResponse, error_for, join_url, parse_json
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Hang, Status, Step
from rerank_plugins.testing.server import VendorServer

DOCUMENTS = ["the moon", "bananas", "the sea"]


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with CohereLike() as running:
        yield running


def reranker_for(server: VendorServer, **options):
    return load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, **options})


def test_calls_share_a_connection(server: VendorServer) -> None:
    with reranker_for(server) as reranker:
        for _ in range(5):
            reranker.rerank("tides", DOCUMENTS)
        assert server.connections == 1


def test_close_ends_the_connections_of_every_loop(server: VendorServer) -> None:
    async def both() -> None:
        reranker = reranker_for(server)
        await reranker.arerank("tides", DOCUMENTS)
        await asyncio.to_thread(reranker.rerank, "tides", DOCUMENTS)
        assert server.connections == 2
        await reranker.aclose()
        assert await asyncio.to_thread(server.wait_until, lambda: server.connections == 0)

    asyncio.run(both())


def test_a_loop_that_ends_closes_its_connections(server: VendorServer) -> None:
    reranker = reranker_for(server)
    asyncio.run(reranker.arerank("tides", DOCUMENTS))
    assert server.wait_until(lambda: server.connections == 0)


def test_a_server_that_went_away_between_calls_is_found_again(server: VendorServer) -> None:
    """A kept connection that the server has closed in the meantime is no failure of the next call."""
    with reranker_for(server) as reranker:
        reranker.rerank("tides", DOCUMENTS)
        server._http.hang_up()
        assert server.wait_until(lambda: server.connections == 0)
        assert len(reranker.rerank("tides", DOCUMENTS)) == 3


def test_cancelling_a_call_cancels_all_its_parts(server: VendorServer) -> None:
    server.always(Hang())

    async def leave() -> None:
        async with reranker_for(server, http={"max_documents": 1}) as reranker:
            call = asyncio.create_task(reranker.arerank("tides", DOCUMENTS))
            assert await asyncio.to_thread(server.wait_until, lambda: len(server.requests) == 3)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            gone = lambda: all(request.disconnected for request in server.requests)  # noqa: E731
            assert await asyncio.to_thread(server.wait_until, gone)

    asyncio.run(leave())


def test_nobody_listens() -> None:
    spec = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1}
    with load_reranker(spec) as reranker, pytest.raises(TransientError, match=r"127\.0\.0\.1:9.*base_url") as raised:
        reranker.rerank("tides", DOCUMENTS)
    assert raised.value.__cause__ is not None


def test_a_redirect_is_not_followed_but_told(server: VendorServer) -> None:
    server.play(Status(307, {"location": "http://127.0.0.1:9/elsewhere"}))
    with reranker_for(server) as reranker, pytest.raises(Rejected, match="redirects: set `base_url`"):
        reranker.rerank("tides", DOCUMENTS)


def test_a_compressed_reply_is_read(server: VendorServer) -> None:
    class Gzipped(Step):
        def play(self, exchange) -> None:
            body = gzip.compress(json.dumps(exchange.answer(exchange.pairs())).encode())
            exchange.send_raw(200, body, {"content-type": "application/json", "content-encoding": "gzip"})

    server.play(Gzipped())
    with reranker_for(server) as reranker:
        assert len(reranker.rerank("tides", DOCUMENTS)) == 3


def test_a_proxy_of_the_environment_is_used(server: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_key_that_cannot_be_sent_is_told_without_the_key(
    server: VendorServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = SECRETS[kind]
    settings = {"api_key": options["api_key"]} if "api_key" in options else {"http": options}
    with reranker_for(server, **settings) as reranker, pytest.raises(ConfigError, match="api_key") as raised:
        reranker.rerank("tides", DOCUMENTS)
    told = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "secret" not in told


@pytest.mark.parametrize("base_url", ["http://user:pa55word@127.0.0.1:9", "http://127.0.0.1:9/v1?key=pa55word"])
def test_an_address_is_told_without_what_is_secret_in_it(base_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="rerank_plugins")
    with load_reranker({"use": "http", "base_url": base_url, "retry": 1}) as reranker:
        with pytest.raises(TransientError, match=r"127\.0\.0\.1:9") as raised:
            reranker.rerank("tides", DOCUMENTS)
        assert "pa55word" not in "".join(traceback.format_exception(raised.value)) + caplog.text + repr(reranker.spec)


@pytest.mark.parametrize("base_url", ["http://", "http://[", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_a_config_error(base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        load_reranker({"use": "http", "base_url": base_url, "retry": 1}).rerank("tides", DOCUMENTS)


# Data ---------------------------------------------------------------------------------------------------------------


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
def test_addresses_join_without_repeating(base: str, path: str, joined: str) -> None:
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
def test_what_a_status_means(status: int, kind: type[BackendError]) -> None:
    reply = HTTPResponse(status, b"", {"x-request-id": "req-7", "retry-after": "3"})
    error = error_for(reply, backend="acme:one", explanation="because")
    assert type(error) is kind
    assert (error.status, error.backend, error.request_id) == (status, "acme:one", "req-7")
    assert error.retry_after == (3.0 if isinstance(error, TransientError) else None)
    assert str(error).startswith(f"acme:one answered {status}: because. ")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json(body: bytes) -> None:
    with pytest.raises(BadResponse, match="base_url"):
        parse_json(HTTPResponse(200, body), backend="acme")

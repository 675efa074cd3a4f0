"""Proxies, certificates, netrc and DNS: a typed error or the right answer, for every backend that sends requests."""

from __future__ import annotations

import base64
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import ConfigError, Rejected, RerankError, TransientError, load_reranker, transport
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status
from rerank_plugins.testing.vendors import VENDORS

BACKENDS = {**VENDORS, "http": CohereLike}
QUERY, DOCUMENTS = "how do tides work", ["the moon pulls the sea", "bananas"]


@pytest.fixture(params=BACKENDS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for variable in ("NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return request.param


def call(name: str, base_url: str, **options: Any) -> Any:
    spec = {"use": name, "base_url": base_url, "api_key": "test-key-0123456789", "retry": 1, **options}
    with load_reranker(spec) as reranker:
        return reranker.rerank(QUERY, DOCUMENTS)


@pytest.mark.parametrize(
    ("variable", "proxy"),
    [
        ("HTTP_PROXY", "socks5://user:pa55word@127.0.0.1:9"),
        ("HTTP_PROXY", "ftp://user:pa55word@127.0.0.1:9"),
        ("http_proxy", "http://user:pa55word@127.0.0.1:port"),
    ],
)
def test_an_unusable_proxy_raises_with_its_variable(
    name: str, variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(ConfigError, match=variable) as raised:
        call(name, "http://acme.invalid")
    assert "pa55word" not in "".join(traceback.format_exception(raised.value))


def test_a_socks_proxy_in_all_proxy_raises_with_the_pip_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable ALL_PROXY is read by httpx and not by aiohttp."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    kind, message = (
        (TransientError, "DNS") if name == "voyage" else (ConfigError, r"ALL_PROXY.*pip install 'httpx\[socks\]'")
    )
    with pytest.raises(kind, match=message):
        call(name, "http://acme.invalid")


def test_a_host_in_no_proxy_does_not_use_the_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with BACKENDS[name]() as server:
        assert len(call(name, server.url)) == 2


def test_a_dead_proxy_is_transient_and_the_fallback_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match=r"Nothing listens there.* that HTTP_PROXY names") as raised:
        call(name, "http://acme.invalid")
    assert "base_url" not in str(raised.value)
    assert call(name, "http://acme.invalid", fallback=["passthrough"]).degraded


@pytest.mark.parametrize(
    ("variable", "scheme"), [("HTTP_PROXY", "http"), ("https_proxy", "https"), ("ALL_PROXY", "http")]
)
def test_an_unknown_proxy_host_raises_with_its_variable(
    name: str, variable: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "voyage" and variable == "ALL_PROXY":
        return  # aiohttp does not read it
    monkeypatch.setenv(variable, "http://user:pa55word@proxy.invalid:3128")
    with pytest.raises(TransientError, match=rf"proxy that {variable} names cannot be resolved \(DNS\)") as raised:
        call(name, f"{scheme}://127.0.0.1:9")
    assert "base_url" not in str(raised.value)
    assert "pa55word" not in "".join(traceback.format_exception(raised.value))
    monkeypatch.setenv("NO_PROXY", "acme.invalid")  # so that the proxy is not used
    with pytest.raises(TransientError, match=r"spelling of `base_url`") as raised:
        call(name, f"{scheme}://acme.invalid")
    assert variable not in str(raised.value)


def test_a_proxy_without_its_password_raises_with_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with BACKENDS[name]() as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        server.paths = tuple(f"http://acme.invalid{path}" for path in server.paths)  # type: ignore[misc]
        server.play(Status(407))
        with pytest.raises(
            Rejected, match=r"asks for a user and a password: write them into HTTP(S_PROXY or HTTP)?_PROXY"
        ):
            call(name, "http://acme.invalid")


def test_the_proxy_gets_its_password_and_the_vendor_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with BACKENDS[name]() as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.replace("://", "://user:pa55word@"))
        server.paths = tuple(f"http://acme.invalid{path}" for path in server.paths)  # type: ignore[misc]
        assert len(call(name, "http://acme.invalid")) == 2
        headers = server.requests[0].headers
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:pa55word").decode()
    assert headers["authorization"] == "Bearer test-key-0123456789"


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_unreadable_certificates_raise(
    name: str, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "voyage":
        return  # aiohttp trusts what Python's ssl module trusts when it is imported
    file = tmp_path / "certificates.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    transport._ssl_context.cache_clear()
    transport._prepared.clear()
    try:
        with pytest.raises(ConfigError, match=r"SSL_CERT_FILE.*certificates\.pem"):
            call(name, "https://127.0.0.1:9")
        with BACKENDS[name]() as server:  # http needs none
            assert len(call(name, server.url)) == 2
    finally:
        transport._prepared.clear()


@pytest.mark.parametrize(
    "content", ["default login somebody password pa55word\n", "machine 127.0.0.1 login a password b\n", "%?"]
)
def test_netrc_does_not_replace_the_key(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(content)
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with BACKENDS[name]() as server:
        assert len(call(name, server.url)) == 2
        assert server.requests[0].headers["authorization"] == f"Bearer {server.key}"


def test_an_unknown_host_raises(name: str) -> None:
    with pytest.raises(TransientError, match=r"cannot be resolved \(DNS\): check the spelling of `base_url`"):
        call(name, "http://acme.invalid")
    assert call(name, "http://acme.invalid", fallback=["passthrough"]).degraded


def test_tls_on_a_plain_port_raises(name: str) -> None:
    with BACKENDS[name]() as server, pytest.raises(TransientError, match="may speak plain HTTP"):
        call(name, server.url.replace("http://", "https://"))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "127.0.0.1:99999"])
def test_an_invalid_host_raises(name: str, host: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(RerankError, match="base_url"):
        call(name, f"http://{host}")

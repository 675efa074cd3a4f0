"""What every test shares: no network but this machine, no keys, no configuration of whoever runs them."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("rerank_plugins.testing")

# Before any library reads them: models come from this machine, and a library that asks a hub is a bug.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

# What is started in the background of a shell ignores Ctrl-C, and so would every process that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from environments import wheel  # noqa: E402, F401 (a fixture)
from models import cross_encoder_folder  # noqa: E402, F401 (a fixture)

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


def _local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True, scope="session")
def only_this_machine() -> Iterator[None]:
    """Refuse every connection that would leave the machine."""

    def refuse(address: object) -> None:
        if not _local(address):
            raise AssertionError(f"a test tried to reach {address}: tests talk to 127.0.0.1 only")

    def connect(self: socket.socket, address: object) -> None:
        refuse(address)
        _connect(self, address)

    def connect_ex(self: socket.socket, address: object) -> int:
        refuse(address)
        return _connect_ex(self, address)

    socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
    yield
    socket.socket.connect, socket.socket.connect_ex = _connect, _connect_ex


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away keys, proxies and configuration."""
    for name in list(os.environ):
        upper = name.upper()
        if upper.startswith("RERANK_PLUGINS_") or upper.endswith(("_API_KEY", "_PROXY", "_TOKEN", "_BASE_URL")):
            monkeypatch.delenv(name)
        if upper in {"CO_API_URL", "MXBAI_API_URL"}:
            monkeypatch.delenv(name)

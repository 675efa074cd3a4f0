"""Shared by all tests: no network but loopback, and no keys or configuration from the environment."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import tempfile
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("rerank_plugins.testing")

# Set before libraries read them: models are local, and a request to a hub is a bug.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

# A process in the background of a shell ignores SIGINT, and so would all processes that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from support.browser import browser  # noqa: E402, F401 (a fixture)
from support.environments import wheel  # noqa: E402, F401 (a fixture)
from support.models import cross_encoder_folder  # noqa: E402, F401 (a fixture)

LONGEST = ("test_pythons.py", "test_oldest.py", "test_training.py", "test_examples.py", "test_oldest_sdks.py")
"""Files with tests of minutes. They run first: as the last ones, they would keep one worker busy and the other idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest tests to the front; the others keep their order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


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
    """Refuse connections to other machines."""

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


@pytest.fixture(scope="session")
def graph_cache_folder() -> Iterator[str]:
    """A folder for the graph of `embedded`, which the processes of all tests share: they load it in half the time."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, graph_cache_folder: str) -> None:
    """Remove keys, proxies and configuration from the environment, and write no cache to the home folder."""
    for name in list(os.environ):
        upper = name.upper()
        if upper.startswith("RERANK_PLUGINS_") or upper.endswith(("_API_KEY", "_PROXY", "_TOKEN", "_BASE_URL")):
            monkeypatch.delenv(name)
        if upper in {"CO_API_URL", "MXBAI_API_URL"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("RERANK_PLUGINS_GRAPH_CACHE", graph_cache_folder)

"""Connecting to a cluster of Ray: an address with nothing behind it is an error at once, not after minutes."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rerank_plugins import BackendError
from rerank_plugins.ray_cluster import _check_listening, _endpoint


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of all addresses of this machine that nobody else takes, and where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("10.0.0.7:6379", ("10.0.0.7", 6379)),
        ("head.example:6379", ("head.example", 6379)),
        ("localhost:6379", ("192.0.2.1", 6379)),
        ("127.0.0.1:6379", ("192.0.2.1", 6379)),
        ("[::1]:6379", ("192.0.2.1", 6379)),
        ("ray://127.0.0.1:10001", ("127.0.0.1", 10001)),
        ("ray://head:10001/name", ("head", 10001)),
        ("[fd00::7]:6379", ("fd00::7", 6379)),
        (None, None),
        ("auto", None),
        ("local", None),
        ("ray://head", None),
        ("head:0", None),
        ("head:99999", None),
        ("anyscale://cluster:1", None),
    ],
)
def test_endpoint_is_where_ray_connects_to(address, endpoint):
    """Ray replaces `localhost` by the address of the machine, except for its client (`ray://`)."""
    assert _endpoint(address, lambda: "192.0.2.1") == endpoint


def test_address_is_checked_with_a_tcp_connection(unused_port):
    with pytest.raises(
        BackendError, match=rf"does not answer at 127.0.0.1:{unused_port} \(.*\): check its address, RAY"
    ):
        _check_listening("127.0.0.1", unused_port)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _check_listening(*listener.getsockname())


@pytest.mark.slow  # two processes that import Ray
@pytest.mark.parametrize("command", ["compare", "batch"])
def test_command_ends_where_nothing_listens_at_the_address(command, unused_port, tmp_path):
    """It takes a quarter of an hour if Ray alone finds out. The process may connect to the machine's own address."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    file = tmp_path / "lists.jsonl"
    file.write_text(
        json.dumps({"query": "cat", "documents": ["a cat"], "candidates": ["a cat"], "labels": [1]}), "utf-8"
    )
    options = {
        "compare": [str(file), "--keep", str(tmp_path / "answers.sqlite3")],
        "batch": ["--input", str(file), "--output", str(tmp_path / "out")],
    }
    done = subprocess.run(
        [sys.executable, "-m", "rerank_plugins", command, *options[command], "-r", "lexical", "--ray"],
        env=os.environ | {"RAY_ADDRESS": f"127.0.0.1:{unused_port}"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f":{unused_port} (" in done.stderr
    assert "check its address, RAY_ADDRESS, and its versions of Ray and Python, or start one with" in done.stderr

"""Connects this process to a cluster of Ray, or starts a local one.

`ray.init` tries an address again and again: where no cluster answers, Ray 2.60 gives up after a quarter of an hour
(`Node._init_gcs_client` in ray/_private/node.py: 20 tries of 40 seconds). So a TCP connection is tried first, and Ray
tries once. Tested with Ray 2.60.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from .core.errors import BackendError, clause

__all__ = ["CONNECT_SECONDS", "connect"]

CONNECT_SECONDS = 10.0
"""Seconds that the address has to accept a TCP connection."""
TRIES = 1
"""How often Ray tries to talk to the cluster, for 40 seconds each."""
_TRIES_VARIABLE = "RAY_gcs_server_port_wait_time_s"
"""Ray reads the number of tries there. A value of the user's stays as it is."""
_LOCALHOST = ("localhost", "127.0.0.1", "::1")
_ADVICE = "check its address, RAY_ADDRESS, and its versions of Ray and Python, or start one with `ray start --head`."


def connect(address: str | None = None) -> None:
    """Connect to a cluster of Ray. Does nothing if this process is connected.

    Args:
        address: The address of a cluster. `None` uses RAY_ADDRESS, or starts a local cluster without usage reports.

    Raises:
        BackendError: The cluster does not answer, or none can be started. An address where nothing listens is an error
            within `CONNECT_SECONDS`; where something else than Ray listens, within a minute.
    """
    import ray
    from ray.util import get_node_ip_address

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    wanted = (os.environ.get("RAY_ADDRESS") if address in (None, "auto") else None) or address
    ours = not wanted
    where = "A local cluster of Ray does not start" if ours else "The cluster of Ray does not answer"
    try:
        with contextlib.nullcontext() if ours else _limited_tries():
            if (endpoint := _endpoint(wanted, get_node_ip_address)) is not None:
                _check_listening(*endpoint)
            ray.init(address=address, log_to_driver=False, include_dashboard=False if ours else None)
    except BackendError:
        raise
    except Exception as error:  # ray.init raises ConnectionError, RuntimeError, ValueError and others
        raise BackendError(f"{where} ({clause(error)}): {_ADVICE}") from error


def _endpoint(address: str | None, own_ip: Callable[[], str]) -> tuple[str, int] | None:
    """Return host and port that Ray will connect to; `None` where only Ray can tell.

    Args:
        address: `host:port`, `ray://host:port`, or another form.
        own_ip: Returns the address of this machine, which Ray takes in place of `localhost`, except with `ray://`.
    """
    scheme, is_client, rest = (address or "").rpartition("://")
    host, _, port = rest.partition("/")[0].rpartition(":")
    host = host.strip("[]")
    if scheme not in ("", "ray") or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return (own_ip() if host in _LOCALHOST and not is_client else host), int(port)


def _check_listening(host: str, port: int) -> None:
    """Check that something accepts connections.

    Raises:
        BackendError: Nothing does.
    """
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # a name that has no IDNA form
        raise BackendError(
            f"The cluster of Ray does not answer at {host}:{port} ({clause(error)}): {_ADVICE}"
        ) from error


@contextlib.contextmanager
def _limited_tries() -> Iterator[Any]:
    if _TRIES_VARIABLE in os.environ:
        yield
        return
    os.environ[_TRIES_VARIABLE] = str(TRIES)
    try:
        yield
    finally:
        os.environ.pop(_TRIES_VARIABLE, None)

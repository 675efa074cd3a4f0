"""The application on uvicorn: one process or several, no slow headers, and what is in flight is finished at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ConfigError, MissingExtra
from ..reranker import Reranker
from .app import application, refused
from .limits import Limits
from .metrics import gone
from .sending import DROP

try:
    import h11
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.supervisors import Multiprocess
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="uvicorn") from error

__all__ = ["Served", "Settings", "run"]

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Served:
    """What a worker process needs to make the application: plain data, so that it travels. Calling it makes it."""

    reranker: str | Mapping[str, Any] | Reranker | None
    """A spec; for one process a ready reranker will do."""
    config: str | None = None
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __call__(self) -> Any:
        """Return the application."""
        return application(
            self.reranker, limits=self.limits, api_key=self.api_key, models=self.models, config=self.config
        )


class Settings(uvicorn.Config):
    """uvicorn's, as this application needs them; they travel to worker processes."""

    def __init__(self, app: Any, limits: Limits, *, grace: float = 30.0, **options: Any) -> None:
        """Serve `app` within `limits`; `options` are uvicorn's."""
        self.patience = limits.body_timeout
        # Connections that only wait are no calls, and are not without limit either.
        self.most_connections = limits.max_queue * 4 + 64
        super().__init__(
            app,
            http=Patient,
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(grace)),
            **options,
        )


def run(
    served: Served, *, host: str, port: int, workers: int = 1, grace: float = 30.0, told: Callable[[str], object]
) -> None:
    """Serve until SIGINT or SIGTERM; then take no more, finish what is in flight, and return.

    Args:
        served: What to serve.
        host: The address to listen at.
        port: The port; 0 takes a free one.
        workers: Processes; one that dies is replaced. Each loads the model and has a queue of its own.
        grace: Seconds for what is in flight at the end.
        told: Called with the address, as soon as clients can connect.

    Raises:
        ConfigError: The address cannot be used.
        SystemExit: The application could not start.
    """
    settings = Settings(served, served.limits, factory=True, host=host, port=port, workers=workers, grace=grace)
    with _bound(settings) as bound:
        address = _address(bound)
        if workers == 1:
            bound.listen(settings.backlog)
            told(address)
            uvicorn.Server(settings).run(sockets=[bound])
            return
        with tempfile.TemporaryDirectory(prefix="rerank-plugins-metrics-") as folder, _variable(_MULTIPROCESS, folder):
            supervisor = _Workers(settings, bound, lambda: told(address))
            supervisor.run()
            if any(each.exitcode == STARTUP_FAILURE for each in supervisor.processes):
                raise SystemExit(1)  # a worker's log says why


class _Workers(Multiprocess):
    """Worker processes; says when the first one listens."""

    def __init__(self, settings: Settings, bound: _Bound, told: Callable[[], object]) -> None:
        super().__init__(settings, sockets=[bound])
        self._at, self._told = bound.getsockname()[:2], told

    def init_processes(self) -> None:
        super().init_processes()
        while not self.signal_queue and all(each.process.is_alive() for each in self.processes):
            with contextlib.suppress(OSError), socket.create_connection(self._at, timeout=1):
                self._told()
                return
            time.sleep(0.05)

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for each in before:
            if each not in self.processes and each.pid is not None:
                gone(each.pid)


class _Bound(socket.socket):
    """A socket with an address. Each worker gets its own at the same address, and the kernel deals clients out among them.

    Of one socket that all share, a worker takes every client that is waiting at that moment, and the others none.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _bind, (self.family, self.getsockname()[:2], True)


def _bind(family: int, at: tuple[str, int], shared: bool) -> _Bound:
    made = _Bound(family, socket.SOCK_STREAM)
    if os.name == "posix":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Accepted sockets inherit it. By default the system buffers megabytes for each client, and does not say how slowly
    # they are read.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    made.bind(at)
    return made


_SEND_BUFFER = 131_072


@contextlib.contextmanager
def _bound(settings: uvicorn.Config) -> Iterator[_Bound]:
    at, shared = (settings.host, settings.port), settings.workers > 1
    if shared and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(
            "This system deals clients out to one process only. Use --workers 1, and a proxy before more."
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        if shared:  # a second server would otherwise share the port of the first, and take half of its clients
            _bind(family, at, shared=False).close()
        made = _bind(family, at, shared)
    except (OSError, TypeError, UnicodeError, OverflowError) as error:  # a host that does not encode, a large port
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigError(f"Nobody can listen at {at[0]}:{at[1]}: {why}. Name another --host or --port.") from error
    with made:
        yield made


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class Patient(H11Protocol):
    """uvicorn's HTTP/1.1, which by itself waits for ever for a client that sends, or reads, a byte now and then."""

    config: Settings
    _clock: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, DROP: transport.abort}
        if len(self.connections) >= self.config.most_connections:
            self.app = _crowded
        self._wind()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a request is whole; begin again where the next one is not."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE or self._answered_early():
            self._wind()
        else:
            self._stop()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was answered before it was there, and for the client to read the answer."""
        super().on_response_complete()
        if self._answered_early():
            self._wind()
        self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        for clock in (self._reading, self._stalled):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP, once: not after an answer has begun, and not beside the application's own."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        super().send_400_response(msg)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # as when the client goes: what is being done for it ends
            self.cycle.message_event.set()

    def pause_writing(self) -> None:
        """Drop the client if it does not read on within the patience: the rest of its answer is held for it."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.config.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """Give the client its whole patience for the next part."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _answered_early(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _wind(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.config.patience, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _watch_reader(self) -> None:
        if self._reading is None:
            self._wait_for_reader(self.transport.get_write_buffer_size())

    def _wait_for_reader(self, left: int) -> None:
        self._reading = self.loop.call_later(self.config.patience, self._look_at_reader, left) if left else None

    def _look_at_reader(self, before: int) -> None:
        """Go on while the client reads; else drop the answer and the connection, which `close` would keep until it is read."""
        left = self.transport.get_write_buffer_size()
        if left > max(0, before - _READ):
            self.transport.abort()
        else:
            self._wait_for_reader(left)


_READ = 64 * 1024
"""Bytes of an answer that a client has to read within the patience."""


async def _crowded(scope: Any, receive: Any, send: Any) -> None:
    answer = refused(
        503,
        "More clients are connected than this server takes. Come back later.",
        {"retry-after": "1", "connection": "close"},
    )
    await answer(scope, receive, send)

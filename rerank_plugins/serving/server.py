"""The application on uvicorn: one process or several, no slow headers, and what is in flight is finished at the end."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ConfigError, MissingExtra
from ..reranker import Reranker
from .app import application
from .connections import Connections, Watched
from .limits import Limits

try:
    import uvicorn
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
        self.max_connections = limits.max_queue * 4 + 64
        super().__init__(
            app,
            http="h11",
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(grace)),
            **options,
        )

    def load(self) -> None:
        """Load the application, and put our limits before uvicorn's protocol and around the application."""
        super().load()
        self.http_protocol_class = Connections(  # type: ignore[assignment]  # uvicorn only calls it
            self.http_protocol_class, patience=self.patience, maximum=self.max_connections
        )
        self.loaded_app = Watched(self.loaded_app)


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
        folder = tempfile.TemporaryDirectory(prefix="rerank-plugins-metrics-")
        with folder as path, _variable(_MULTIPROCESS, path), _when_listening(bound, lambda: told(address)):
            supervisor = Multiprocess(settings, sockets=[bound])
            supervisor.run()
        if any(
            (process.exitcode or 0) > 0 for process in supervisor.processes
        ):  # one that a signal ended has less than 0
            raise SystemExit(1)  # a worker's log says why


@contextlib.contextmanager
def _when_listening(bound: socket.socket, listening: Callable[[], object]) -> Iterator[None]:
    """Call `listening` on a thread as soon as the first worker process accepts clients."""
    ended = threading.Event()

    def wait() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(OSError), socket.create_connection(bound.getsockname()[:2], timeout=1):
                listening()
                return

    thread = threading.Thread(target=wait, name="rerank-plugins-listening", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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

"""Run the application on uvicorn, in one process or several, with a graceful shutdown."""

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
from .connections import ConnectionMiddleware, ProtocolFactory
from .limits import Limits
from .readiness import StartReport

try:
    import uvicorn
    from uvicorn.supervisors import Multiprocess
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="uvicorn") from error

__all__ = ["ApplicationFactory", "Settings", "run"]

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class ApplicationFactory:
    """Create the application in a worker process. It is plain data, so that it can be pickled."""

    reranker: str | Mapping[str, Any] | Reranker | None
    """A spec; for one process a ready reranker will do."""
    config: str | None = None
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    check_every: float | None = None
    report: StartReport | None = None

    def __call__(self) -> Any:
        """Return the application."""
        return application(
            self.reranker,
            limits=self.limits,
            api_key=self.api_key,
            models=self.models,
            config=self.config,
            check_every=self.check_every,
            report=self.report,
        )


class Settings(uvicorn.Config):
    """uvicorn's configuration with the settings of this application; it can be pickled for worker processes."""

    def __init__(self, app: Any, limits: Limits, *, grace: float = 30.0, **options: Any) -> None:
        """Serve `app` within `limits`; `options` are uvicorn's."""
        self.timeout = limits.body_timeout
        # Idle connections are no calls, but need a limit too.
        self.max_factory = limits.max_queue * 4 + 64
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
        self.http_protocol_class = ProtocolFactory(  # type: ignore[assignment]  # uvicorn only calls it
            self.http_protocol_class, timeout=self.timeout, max_connections=self.max_factory
        )
        self.loaded_app = ConnectionMiddleware(self.loaded_app)


def run(
    factory: ApplicationFactory,
    *,
    host: str,
    port: int,
    workers: int = 1,
    grace: float = 30.0,
    on_listening: Callable[[str], object],
) -> None:
    """Serve until SIGINT or SIGTERM; then accept no more requests, finish the running ones, and return.

    Args:
        factory: Creates the application.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        workers: Processes; one that dies is replaced. Each loads the model and has a queue of its own.
        grace: Seconds for the running requests at the end.
        on_listening: Called with the address as soon as clients can connect.

    Raises:
        ConfigError: The address cannot be used.
        SystemExit: The application could not start.
    """
    settings = Settings(factory, factory.limits, factory=True, host=host, port=port, workers=workers, grace=grace)
    with _open_listener(settings) as listener:
        address = _url_of(listener)
        if workers == 1:
            listener.listen(settings.backlog)
            on_listening(address)
            uvicorn.Server(settings).run(sockets=[listener])
            return
        folder = tempfile.TemporaryDirectory(prefix="rerank-plugins-metrics-")
        with (
            folder as path,
            _environment_variable(_MULTIPROCESS, path),
            _call_when_listening(listener, lambda: on_listening(address)),
        ):
            supervisor = Multiprocess(settings, sockets=[listener])
            supervisor.run()
        if any(
            (process.exitcode or 0) > 0 for process in supervisor.processes
        ):  # one that a signal ended has less than 0
            raise SystemExit(1)  # a worker's log says why


@contextlib.contextmanager
def _call_when_listening(listener: socket.socket, listening: Callable[[], object]) -> Iterator[None]:
    """Call `listening` on a thread as soon as the first worker process accepts clients."""
    ended = threading.Event()

    def wait() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname()[:2], timeout=1):
                listening()
                return

    thread = threading.Thread(target=wait, name="rerank-plugins-listening", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _ListeningSocket(socket.socket):
    """A socket that pickles as its address, so that each worker process opens its own one (SO_REUSEPORT).

    The kernel distributes the clients. From one shared socket, one worker would accept all clients that wait at a
    moment.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _bind, (self.family, self.getsockname()[:2], True)


def _bind(family: int, at: tuple[str, int], shared: bool) -> _ListeningSocket:
    listener = _ListeningSocket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Accepted sockets inherit it. By default the kernel buffers megabytes for each client, which hides how slowly the
    # client reads.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    listener.bind(at)
    return listener


_SEND_BUFFER = 131_072


@contextlib.contextmanager
def _open_listener(settings: uvicorn.Config) -> Iterator[_ListeningSocket]:
    at, shared = (settings.host, settings.port), settings.workers > 1
    if shared and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(
            "This system has no SO_REUSEPORT, so only one process can listen on a port. Use --workers 1, or several "
            "servers behind a proxy."
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        if shared:  # otherwise a second server would share the port of the first and get half of its clients
            _bind(family, at, shared=False).close()
        listener = _bind(family, at, shared)
    except (OSError, TypeError, UnicodeError, OverflowError) as error:  # a host that does not encode, a large port
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigError(f"Cannot listen on {at[0]}:{at[1]}: {why}. Choose another --host or --port.") from error
    with listener:
        yield listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _environment_variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

"""The contract: a scorer turns a query and documents into one score per document, in input order.

An author of a backend writes one of three:

- `LocalBackend`: `score(query, documents)`, plain and blocking; the core runs it on a worker thread.
- `HostedBackend`: `encode(request)` and `decode(body)`, two pure functions; the core sends, times and checks.
- `SDKBackend`: `open()` and `ask(client, request)`, for a vendor whose own async client is used.

Policies subclass `Wrapper`: they are what they wrap.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from .errors import ConfigError, TransientError
from .loop import PerLoop, Workers
from .secret import Secret
from .types import Capabilities, RerankRequest, Scores, Span, Usage, aligned, checked
from .wire import HTTPResponse, Transport, error_for, join_url, parse_json

__all__ = ["Backend", "HostedBackend", "LocalBackend", "SDKBackend", "Scorer", "Wrapper"]

TIMEOUT = 30.0
MAX_IN_FLIGHT = 8


class Scorer(ABC):
    """Anything that scores: a backend, or a policy around scorers."""

    capabilities: Capabilities = Capabilities()
    """What it takes and what its scores mean."""
    keeps_deadline: ClassVar[bool] = False
    """Whether it watches the deadline of the call itself (a fallback does, so that its last entry can still answer)."""

    instant: bool = False
    """Whether it answers at once and cannot fail: a fallback then asks it even when no time is left."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The spec of who answers, for people."""

    @abstractmethod
    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document of `request`.

        Raises:
            BackendError: No answer, a refusal, or an answer that is not one finite score for every document.
        """

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Return the (start, end) characters of the tokens of `text`, or `None` where the tokenizer is not at hand."""
        return None

    async def awarmup(self) -> None:
        """Load what the first call would load."""

    async def aclose(self) -> None:
        """Give back connections, threads and models; a later call makes them anew."""


class Wrapper(Scorer):
    """A scorer around a scorer; delegates everything and changes nothing."""

    def __init__(self, inner: Scorer) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.capabilities = inner.capabilities
        self.instant = inner.instant

    @property
    def label(self) -> str:
        """The inner scorer's."""
        return self.inner.label

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer."""
        return await self.inner.ascore(request)

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Ask the inner scorer."""
        return self.inner.tokens(text)

    async def awarmup(self) -> None:
        """Warm up the inner scorer."""
        await self.inner.awarmup()

    async def aclose(self) -> None:
        """Close the inner scorer."""
        await self.inner.aclose()


class Backend(Scorer):
    """A model or a vendor, by name."""

    name: str = ""
    """The backend's name in specs; set by the registry."""
    model: str = ""
    """The model asked for; the class attribute is the default."""
    remote: ClassVar[bool] = False
    """Whether requests leave the process."""
    by_model: ClassVar[Mapping[str, Capabilities]] = {}
    """Rows for the models that differ from the class's `capabilities`."""

    def __init__(self, model: str | None = None) -> None:
        """Take the model's name, or the default one."""
        self.model = model or self.model
        self.capabilities = self.by_model.get(self.model, self.capabilities)

    @property
    def detail(self) -> str | None:
        """How a local model is run, for the label."""
        return None

    @property
    def label(self) -> str:
        """`name:model`, and how it is run."""
        name = self.name or type(self).__name__
        spec = f"{name}:{self.model}" if self.model and self.model != name else name
        return f"{spec} [{self.detail}]" if self.detail else spec


class LocalBackend(Backend):
    """A model in this process. An author writes `score` (blocking is fine: it runs on the backend's own thread)."""

    def __init__(self, model: str | None = None) -> None:
        """Take the model's name or folder, or the default one."""
        super().__init__(model)
        self._workers = Workers(1, f"rerank-{type(self).__name__.lower()}")

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Return one finite raw score per document, in input order."""
        raise NotImplementedError(f"{type(self).__name__} has to define score(query, documents).")

    async def ascore(self, request: RerankRequest) -> Scores:
        """Run `score` on the backend's worker thread and check what it gives."""
        values = await self._workers.run(self.score, request.query, request.documents)
        return Scores(
            values=checked(values, len(request.documents), self.label),
            model=self.label,
            capabilities=self.capabilities,
        )

    async def aclose(self) -> None:
        """Let the worker thread end."""
        self._workers.close()


class Remote(Backend):
    """What every hosted backend shares: key, timeout of one attempt, requests in flight."""

    remote = True
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may hold the key, in order."""
    key_required: ClassVar[bool] = True
    """Whether calls without a key are refused (self-hosted servers mostly need none)."""
    timeout: float = TIMEOUT
    max_in_flight: int = MAX_IN_FLIGHT

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """Prepare a client for a vendor.

        Args:
            model: The model's name at the vendor, or the default one.
            api_key: The key, or `"env:NAME"`; without it the variables in `key_variables` are read, in order.
            timeout: Seconds for one attempt, from sending to the last byte.
            max_in_flight: Requests under way at once on one event loop.

        Raises:
            ConfigError: There is no key and the vendor wants one, or a number is out of range.
        """
        super().__init__(model)
        self._key = self._find_key(Secret.of(api_key))
        self.timeout = _positive(timeout, "timeout")
        self.max_in_flight = int(_positive(max_in_flight, "max_in_flight"))
        self._gate: PerLoop[asyncio.Semaphore] = PerLoop(lambda: asyncio.Semaphore(self.max_in_flight))

    def _find_key(self, given: Secret | None) -> Secret | None:
        if given is not None:
            return given.resolved()
        for variable in self.key_variables:
            if value := os.environ.get(variable):
                return Secret(value)
        if self.key_required:
            names = " or ".join(self.key_variables) or "api_key"
            raise ConfigError(
                f"{self.name or type(self).__name__} needs a key: set the environment variable {names}, "
                'or give `api_key` (a value, or "env:NAME") in the spec.'
            )
        return None

    def _redacted(self, text: str) -> str:
        """Cut the key out of a text that came from outside."""
        return text.replace(self._key.reveal(), "**********") if self._key is not None else text

    async def _within_limits(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for a place, then give one attempt its time."""
        async with await self._gate.get():
            try:
                async with asyncio.timeout(self.timeout):
                    return await ask()
            except TimeoutError as error:
                raise TransientError(
                    f"{self.label} did not answer within {self.timeout:g} s. It may pass: raise `timeout` or `retry`, "
                    "or name a `fallback` in the spec.",
                    backend=self.label,
                ) from error


class HostedBackend(Remote):
    """A vendor over HTTP. An author writes `encode` and `decode`; everything else has a sane default."""

    base_url: str = ""
    """The vendor's address; a `base_url` in the spec replaces scheme and host."""
    transport: Transport | None = None
    """Sends the requests; set by the configuration."""

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """See `Remote`; `base_url` replaces the vendor's scheme and host, its own path stays."""
        super().__init__(model, api_key=api_key, timeout=timeout, max_in_flight=max_in_flight)
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url has to begin with http:// or https://, and {base_url!r} does not.")
        self._address = base_url or self.base_url

    @abstractmethod
    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the path and the JSON body of a request."""

    @abstractmethod
    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of every document, in any order, from the JSON of a reply."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request; by default the key as a bearer token."""
        return {"authorization": f"Bearer {self._key.reveal()}"} if self._key is not None else {}

    def usage(self, body: Any) -> Usage:
        """Return what the vendor says it charged."""
        return Usage()

    def spans(self, body: Any, count: int) -> tuple[tuple[Span, ...], ...] | None:
        """Return the best passages of each document, where the vendor tells."""
        return None

    def explain(self, body: Any) -> str:
        """Return what the vendor says went wrong, from the JSON of an error reply."""
        return explanation(body)

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request and read its reply."""
        path, payload = self.encode(request)
        own_path = self.base_url.partition("://")[2].partition("/")[2]
        url = join_url(self._address, f"{own_path}/{path}")
        reply: HTTPResponse = await self._within_limits(lambda: self._post(url, payload))
        if not 200 <= reply.status < 300:
            raise error_for(reply, backend=self.label, explanation=self._explanation(reply))
        body = parse_json(reply, backend=self.label)
        count = len(request.documents)
        return Scores(
            values=aligned(read(self.decode, body, self.label), count, self.label),
            model=self.label,
            capabilities=self.capabilities,
            usage=self.usage(body) if isinstance(body, dict) else Usage(),
            spans=self.spans(body, count),
        )

    async def _post(self, url: str, payload: Mapping[str, Any]) -> HTTPResponse:
        if self.transport is None:
            raise ConfigError(f"{type(self).__name__} has no transport: build it with load_reranker().")
        return await self.transport.post(url, payload, self.headers())

    def _explanation(self, reply: HTTPResponse) -> str:
        try:
            told = self.explain(parse_json(reply, backend=self.label))
        except Exception:  # an error page in any form must not hide the status
            told = ""
        return self._redacted(told)[:300]

    async def aclose(self) -> None:
        """Close the connections."""
        if self.transport is not None:
            await self.transport.aclose()


class SDKBackend(Remote):
    """A vendor through its own package's async client, one client per event loop."""

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        client: Any = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """See `Remote`; `client` is a client that the user made (it is used as it is, and never closed here)."""
        self._given = client
        super().__init__(model, api_key=api_key, timeout=timeout, max_in_flight=max_in_flight)
        self._clients: PerLoop[Any] = PerLoop(self.open, self.shut)

    def _find_key(self, given: Secret | None) -> Secret | None:
        return None if self._given is not None else super()._find_key(given)

    @abstractmethod
    def open(self) -> Any:
        """Return a new async client for the running loop, its own retries off."""

    async def shut(self, client: Any) -> None:
        """Close a client that `open` made."""

    @abstractmethod
    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        """Send one request and read its reply."""

    @abstractmethod
    def translate(self, error: Exception) -> Exception:
        """Return our error for one of the SDK's; whatever it does not know it returns as it is."""

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request through the SDK."""
        client = self._given if self._given is not None else await self._clients.get()
        try:
            scores: Scores = await self._within_limits(lambda: self.ask(client, request))
        except Exception as error:
            ours = self.translate(error)
            if ours is error:
                raise
            raise ours from error
        return scores

    async def aclose(self) -> None:
        """Close the clients made here."""
        await self._clients.aclose()


def read(decode: Callable[[Any], Iterable[tuple[int, float]]], body: Any, backend: str) -> list[tuple[int, float]]:
    """Return `decode(body)` as a list; a body of another shape is `BadResponse`, not a KeyError."""
    from .errors import BadResponse

    try:
        return list(decode(body))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadResponse(
            f"{backend} answered JSON of an unknown shape ({type(error).__name__}: {error}). Check that `base_url` is "
            "the address of this vendor's rerank API.",
            backend=backend,
        ) from error


def explanation(body: Any) -> str:
    """Return the sentence in which the vendors say what went wrong: `message`, `detail` or `error`, nested or not."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, (explanation(each) for each in body[:3])))
    if isinstance(body, dict):
        return next((told for key in ("message", "detail", "error", "msg") if (told := explanation(body.get(key)))), "")
    return ""


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ConfigError(f"{name} has to be a number above 0, and {value!r} is not.")
    return value

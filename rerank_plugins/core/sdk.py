"""Backends that leave the process through the vendor's own package."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from .call import bind_response_metadata, response_metadata
from .errors import BackendError, RerankError
from .hosted import TIMEOUT, Remote
from .loop import PerLoop, Workers
from .reply import reply_limit
from .scorer import MAX_IN_FLIGHT
from .secret import Secret
from .types import RerankRequest, Scores, checked

__all__ = ["SDKBackend"]


class SDKBackend(Remote):
    """A vendor through its own package's client, one for each event loop."""

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        client: Any = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
    ) -> None:
        """See `Remote`; `client` is one that the user made: used as it is, never closed here, and it has its own key."""
        self._given = client
        self._loaded = False
        super().__init__(
            model, api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight, price=price
        )
        self._key_is_hidden = client is not None and self._key is None
        self._clients: PerLoop[Any] = PerLoop(self.open, self.shut)
        self._workers = Workers(self.max_in_flight, f"rerank-{type(self).__name__.lower()}")

    @property
    def account(self) -> Hashable:
        """As every remote backend's; of a user's client whose key cannot be read, that client."""
        return super().account if self._given is None or self._key else (self.name, id(self._given))

    def _find_key(self, given: Secret | None) -> Secret | None:
        return self.key_of(self._given) if self._given is not None else super()._find_key(given)

    def key_of(self, client: Any) -> Secret | None:
        """Return the key of a client that the user made, where its public attributes tell it: no message shows it then."""
        return None

    def load(self) -> None:
        """Import the SDK; called once, on a worker thread, since such imports take up to a second."""

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

    async def run(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Await the SDK's method, or run it on a worker thread where the user's client is a blocking one."""
        if inspect.iscoroutinefunction(method):
            return await method(**arguments)
        return await self._workers.run(lambda: method(**arguments))

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request through the SDK."""
        with bind_response_metadata():
            return await super().ascore(request)

    async def _ask(self, request: RerankRequest) -> Scores:
        await self.awarmup()
        if (reply := response_metadata()) is not None:
            reply.limit = reply_limit(request)
        try:
            client = self._given if self._given is not None else await self._clients.get()
            scores = await self._in_time(self.ask(client, request))
            values = checked(scores.values, request, self.label)
            return replace(scores, values=values, usage=self._price.of_usage(scores.usage))
        except BackendError as error:
            raise self._named(error) from error.__cause__
        except RerankError:
            raise
        except Exception as error:
            ours = self.translate(error)
            if ours is error:
                raise
            raise ours from error

    async def awarmup(self) -> None:
        """Import the SDK without stopping the event loop."""
        if not self._loaded:
            await self._workers.run(self.load)
            self._loaded = True

    async def aclose(self) -> None:
        """Close the clients made here."""
        self._workers.close()
        await self._clients.aclose()

"""`SDKBackend`: a vendor that is reached through its own SDK."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from ._runtime.background_loop import PerLoop, Workers
from .alignment import checked
from .call import response_metadata, response_metadata_scope
from .credentials import FunctionKey, KeyFunction, KeySource
from .defaults import MAX_IN_FLIGHT, TIMEOUT
from .errors import BackendError, RerankError
from .remote import Remote
from .reply import reply_limit
from .secret import Secret
from .types import RerankRequest, Scores

__all__ = ["SDKBackend"]


class SDKBackend(Remote):
    """A vendor that is reached through its own SDK. Implement `open`, `ask` and `translate`.

    There is one client per event loop, since async clients cannot move between loops.

    >>> class Acme(SDKBackend):
    ...     name = "acme"
    ...     model = "acme-rerank-1"
    ...     key_variables = ("ACME_API_KEY",)
    ...
    ...     def open(self) -> Any:
    ...         import acme_sdk
    ...
    ...         return acme_sdk.AsyncClient(api_key=self._key.reveal(), max_retries=0)
    ...
    ...     async def ask(self, client: Any, request: RerankRequest) -> Scores:
    ...         reply = await client.rerank(query=request.query, documents=list(request.documents))
    ...         return Scores(values=tuple(reply.scores), model=self.label, capabilities=self.capabilities)
    ...
    ...     def translate(self, error: Exception) -> Exception:
    ...         return error
    >>> Acme(api_key="a key").label
    'acme:acme-rerank-1'
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | FunctionKey | KeyFunction | None = None,
        client: Any = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | str | None = None,
    ) -> None:
        """Resolve the key and the address, and check the numbers. Nothing is imported or sent.

        Args:
            model: The model's name at the vendor; `None` is the default of the class.
            api_key: The key, `"env:NAME"`, `"file:PATH"`, or a function that returns the key; `None` reads the
                variables in `key_variables`.
            client: A client of the SDK that the user has built. It has its own key, and is never closed here.
            base_url: Replaces the vendor's scheme and host.
            timeout: Seconds for one attempt.
            max_in_flight: How many requests of one call run at the same time, if the call needs several.
            price: What you pay, for `usage.cost_usd`: `{"per_million_tokens": 0.05}`, `{"per_search_unit": 0.002}`, or
                `"list"` for the price in `list_prices`.

        Raises:
            ConfigError: The key is missing, the address is not a URL, or a number is out of range.
        """
        self._user_client = client
        self._loaded = False
        super().__init__(
            model, api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight, price=price
        )
        self._key_is_unknown = client is not None and self._fixed_key is None
        self._clients: PerLoop[Any] = PerLoop(self.open, self.shut)
        self._workers = Workers(self.max_in_flight, f"rerank-{type(self).__name__.lower()}")

    @property
    def account(self) -> Hashable:
        """Vendor, address and key; or the user's client itself if its key cannot be read."""
        return super().account if self._user_client is None or self._fixed_key else (self.name, id(self._user_client))

    def _find_key(self, api_key: Secret | FunctionKey | None) -> Secret | KeySource | None:
        return self.key_of(self._user_client) if self._user_client is not None else super()._find_key(api_key)

    def key_advice(self) -> str:
        """Return what to check if the key is refused."""
        return super().key_advice() if self._user_client is None else "Check the key of the `client`."

    def key_of(self, client: Any) -> Secret | None:
        """Return the key of a client that the user built, so that it can be masked in logs and errors.

        Args:
            client: The user's client.

        Returns:
            The key; `None` if no public attribute of the client holds it.
        """
        return None

    def load(self) -> None:
        """Import the SDK. It is called once, on a worker thread, because the import may take a second."""

    @abstractmethod
    def open(self) -> Any:
        """Return a new async client for the running event loop, without retries of its own."""

    async def shut(self, client: Any) -> None:
        """Close a client that `open` returned.

        Args:
            client: The client of the running event loop.
        """

    @abstractmethod
    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        """Send one request and read its reply. The core applies the timeout and checks the scores.

        Args:
            client: The client of the running event loop, or the user's own.
            request: The query and the documents.

        Returns:
            One score per document, in the order of the request.
        """

    @abstractmethod
    def translate(self, error: Exception) -> Exception:
        """Return the `BackendError` for an error of the SDK.

        Args:
            error: Anything that `ask` raised, except errors of this package.

        Returns:
            The error to raise in its place; `error` itself if it is unknown.
        """

    async def run(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call a method of the client, whether the client is async or blocking.

        Args:
            method: A method of the client. A blocking one runs on a worker thread.
            arguments: Its keyword arguments.

        Returns:
            What the method returns.
        """
        if inspect.iscoroutinefunction(method):
            return await method(**arguments)
        return await self._workers.run(lambda: method(**arguments))

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request through the SDK and return its scores."""
        with response_metadata_scope():
            return await super().ascore(request)

    async def _ask(self, request: RerankRequest) -> Scores:
        await self.awarmup()
        if (metadata := response_metadata()) is not None:
            metadata.max_bytes = reply_limit(request)
        try:
            client = self._user_client if self._user_client is not None else await self._clients.get()
            scores = await self._in_time(self.ask(client, request))
            values = scores.values
            if scores.reasons is None:  # with reasons, some documents have no score by design
                values = checked(values, request, self.label)
            return replace(scores, values=values, usage=self._price.of_usage(scores.usage))
        except BackendError as error:
            raise self._named(error) from error.__cause__
        except RerankError:
            raise
        except Exception as error:
            translated = self.translate(error)
            if translated is error:
                raise
            raise translated from error

    async def awarmup(self) -> None:
        """Import the SDK on a worker thread, so that the event loop is not blocked."""
        if not self._loaded:
            await self._workers.run(self.load)
            self._loaded = True

    async def aclose(self) -> None:
        """Close the clients that `open` returned. The user's client stays open."""
        self._workers.close()
        await self._clients.aclose()

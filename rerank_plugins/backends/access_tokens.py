"""Access tokens that expire: fetched at the first call, and again before they expire, once for all callers."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..core._runtime.background_loop import Workers
from ..core._runtime.shared_work import SharedWork
from ..core.errors import RerankError
from ..core.redaction import summary
from ..core.secret import Secret

__all__ = ["AccessToken", "AccessTokens"]

EARLY = 300.0
"""Seconds before its end at which a token is replaced, so that none expires on its way; a tenth of its life if that is
less."""
PAUSE = 5.0
"""Seconds after a failed renewal, or after the replacement of a refused token, until a token that is still valid is
replaced."""
LAST = 10.0
"""A token with fewer seconds left may end on its way: a call waits for the next one."""
PATIENCE = 1.0
"""Seconds for which such a call waits. After that it uses the token that it has."""
_WARN_EVERY = 60.0

_log = logging.getLogger("rerank_plugins")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and until when it is used."""

    secret: Secret
    renew_at: float
    """The time (`time.time()`) from which a new token is fetched."""
    ends_at: float
    """The time until which the vendor accepts it."""

    @classmethod
    def of(cls, value: str, expires_at: float) -> AccessToken:
        """Return the token `value`, which the vendor accepts until `expires_at`."""
        now = time.time()
        return cls(Secret(value), expires_at - min(EARLY, max(0.0, expires_at - now) / 10), expires_at)


class AccessTokens:
    """The current token of one account, shared by all backends and event loops of the process.

    Tokens are fetched on one worker thread. While a token is valid, the next one is fetched beside the calls. Callers
    without a valid token wait for the same fetch, and get its token or its error.
    """

    def __init__(self, fetch: Callable[[], AccessToken]) -> None:
        """Set the function that fetches a token. It may block, and raises a `BackendError`."""
        self._fetch = fetch
        self._workers = Workers(1, "rerank-access-token")
        self._renewal = SharedWork(self._workers, self._renewed)
        self._current: AccessToken | None = None
        """Written by the worker thread, and by `forget`. Readers take one reference, so they need no lock."""
        self._renew_after = -math.inf
        """The time (`time.monotonic()`) of the next renewal after one that failed. Only the worker thread writes it."""
        self._forgotten_at = -math.inf
        """When a refused token was last dropped. Not locked: two threads at once drop the same token."""
        self._warned_at = -math.inf

    async def current(self) -> Secret:
        """Return a token that is valid for a while; if it cannot be renewed, until it ends."""
        token = self._current
        if token is None or time.time() >= token.ends_at:
            token = await self._renewal.run()
        elif self._is_due(token):
            try:
                renewal = self._renewal.start()
            except (RerankError, RuntimeError):  # no thread can be started, or the interpreter ends: the token is valid
                return token.secret
            if token.ends_at - time.time() < LAST:
                await asyncio.wait([asyncio.wrap_future(renewal)], timeout=PATIENCE)
                token = self._current or token
        return token.secret

    def _is_due(self, token: AccessToken) -> bool:
        moment = time.time()
        return moment >= token.ends_at or (moment >= token.renew_at and time.monotonic() >= self._renew_after)

    def _renewed(self) -> AccessToken:
        token = self._current
        if token is not None and not self._is_due(token):
            return token
        try:
            self._current = renewed = self._fetch()
        except Exception as error:  # a library that fetches tokens may raise any
            if token is not None and time.time() < token.ends_at:
                self._renew_after = time.monotonic() + PAUSE
                self._warn(error)
            raise
        return renewed

    def _warn(self, error: Exception) -> None:
        if time.monotonic() - self._warned_at < _WARN_EVERY:
            return
        self._warned_at = time.monotonic()
        _log.warning(
            "An access token could not be renewed: %s. It is used until it ends. (logged at most once a minute)",
            summary(error),
        )

    def forget(self, secret: Secret) -> None:
        """Drop a token that the vendor refused, so that the next call fetches another.

        A vendor may refuse every token of an account: then one is dropped every few seconds, and not by every call.
        """
        token, moment = self._current, time.monotonic()
        if token is not None and token.secret == secret and moment - self._forgotten_at >= PAUSE:
            self._current, self._forgotten_at = None, moment

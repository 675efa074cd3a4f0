"""No more requests and tokens a minute than the account may send, whoever in the process sends them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any, Self

from pydantic import ConfigDict, model_validator

from ..core.admission import FairQueue, Waiter
from ..core.errors import DeadlineExceeded, RateLimited
from ..core.loop import now
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import characters, run_text_work
from ..core.tokens import estimate
from ..core.types import RerankRequest, Scores
from ..options import Count, refused
from .deadline import passed, seconds_left
from .retry import LONGEST_WAIT
from .shared import Shared
from .stack import PolicyOptions, Stack

__all__ = ["Limit", "LimitOptions"]

MINUTE = 60.0


class LimitOptions(PolicyOptions):
    """What the account may send in a minute. All rerankers of the process with one backend, address and key share it."""

    requests_per_minute: Count | None = None
    """Requests, retries and the parts of a split call included."""
    tokens_per_minute: Count | None = None
    """Tokens, estimated from above until the vendor says how many it counted."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise refused("needs requests_per_minute, tokens_per_minute or both")
        return self

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` held to what the backend's account may send."""
        return Limit(
            scorer,
            stack.backend.account,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )


class _Ticket(Waiter):
    """One request that waits for its place, or has it."""

    def __init__(self, tokens: int, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        super().__init__()
        self.tokens = tokens
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute


class _Window(FairQueue[_Ticket]):
    """What one account sent within the last minute, and who waits.

    A request counts from when it is sent until a minute after its answer: whenever in between it reached the vendor, no
    window of a minute there, sliding or fixed, holds more than the limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ended: deque[tuple[float, int]] = deque()
        """When each request that was answered stops to count, and its tokens."""
        self.tokens = 0
        """Of those, and of the requests under way."""
        self.paused_until = 0.0

    def opens(self, waiter: _Ticket) -> float | None:
        """Return when it may go if it is the first."""
        self.forget_old()
        return self._earliest(waiter, 0, 0, now())

    def refuse(self, waiter: _Ticket) -> None:
        """Raise where waiting is of no use.

        Raises:
            DeadlineExceeded: The deadline ends before a place can be free; nothing was sent.
            RateLimited: The vendor wants to be left alone for longer than a retry would wait; nothing was sent.
        """
        moment = now()
        quiet = self.paused_until - moment
        if quiet > LONGEST_WAIT:
            raise RateLimited(
                f"Not asked: the vendor wants to be left alone for {quiet:.3g} s more (Retry-After). Name a "
                "`fallback` for the time between.",
                retry_after=quiet,
            )
        left = seconds_left()
        if left is None:
            return
        ahead = self.ahead(waiter)
        wait = self._earliest(waiter, len(ahead), sum(ticket.tokens for ticket in ahead), moment) or 0.0
        if wait >= left:
            raise DeadlineExceeded(
                f"The spec's limit has no room for another request for {wait:.3g} s, and the deadline leaves "
                f"{max(left, 0.0):.3g} s. Raise `limit` or `deadline`, or name a `fallback`."
            )

    def entered(self, waiter: _Ticket) -> None:
        """Count a request that is sent."""
        self.tokens += waiter.tokens

    def left(self, waiter: _Ticket, outcome: int | None) -> None:
        """Count the request, with its true number of tokens where the vendor said it, for another minute."""
        tokens = waiter.tokens if outcome is None else outcome
        self.tokens += tokens - waiter.tokens
        self.ended.append((now() + MINUTE, tokens))

    def pause(self, seconds: float) -> None:
        """Send nothing for some seconds: the vendor asked everybody to wait."""
        with self.locked():
            self.paused_until = max(self.paused_until, now() + seconds)

    def state(self) -> Mapping[str, int]:
        """Return how full the minute is, and how many wait."""
        with self.locked():
            self.forget_gone()
            self.forget_old()
            requests = len(self.ended) + len(self.inside)
            return {"requests": requests, "tokens": self.tokens, "waiting": len(self.waiting)}

    def forget_old(self) -> None:
        """Take out what is older than a minute. With the lock held."""
        while self.ended and self.ended[0][0] <= now():
            self.tokens -= self.ended.popleft()[1]

    def _earliest(self, ticket: _Ticket, ahead: int, tokens_ahead: int, moment: float) -> float | None:
        """Return in how many seconds a request may go that has others ahead of it, at the least; 0: when one under way ends."""
        free, at = self._request_place(ticket, ahead, moment)
        free_tokens, tokens_at = self._token_place(ticket, tokens_ahead, moment)
        earliest = max(at, tokens_at, self.paused_until)
        return None if free and free_tokens and earliest <= moment else max(0.0, earliest - moment)

    def _request_place(self, ticket: _Ticket, ahead: int, moment: float) -> tuple[bool, float]:
        if ticket.requests_per_minute is None:
            return True, moment
        # Places come free in turn, and each serves one request a minute; what is under way has a minute to go at least.
        most = int(ticket.requests_per_minute)
        rounds, place = divmod(ahead, most)
        place -= most - len(self.ended) - len(self.inside)
        if place < 0:
            return not rounds, moment + MINUTE * rounds
        at = self.ended[place][0] if place < len(self.ended) else moment + MINUTE
        return False, at + MINUTE * rounds

    def _token_place(self, ticket: _Ticket, ahead: int, moment: float) -> tuple[bool, float]:
        if ticket.tokens_per_minute is None:
            return True, moment
        # One that is larger than the whole limit goes when nothing else counts: the vendor may still take it.
        excess = self.tokens + ahead + min(ticket.tokens, ticket.tokens_per_minute) - ticket.tokens_per_minute
        if excess <= 0:
            return True, moment
        for at, tokens in self.ended:
            excess -= tokens
            if excess <= 0:
                return False, at
        return False, moment  # what is under way was estimated from above: its end may make room at any time


_windows: Shared[_Window] = Shared(_Window)


class Limit(Wrapper):
    """Wait for a place in the account's minute, in turn.

    Every request counts, retries and the parts of a split call too. Tokens are estimated from above before a request is
    sent, and replaced by what the vendor says it counted. All rerankers of the process that use one backend, address and
    key share the count, on whatever event loop or thread.
    """

    def __init__(
        self,
        inner: Scorer,
        account: Hashable,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        """Bound what `inner` sends for `account`; `None` is without bound."""
        super().__init__(inner)
        self.account = account
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask when it is this request's turn."""
        window = _windows.of(self.account)
        ticket = await self._entered(window, request)
        counted = None
        try:
            scores = await self.inner.ascore(request)
            counted = scores.usage.input_tokens
            return scores
        except RateLimited as error:
            window.pause(error.retry_after or 0.0)
            raise
        finally:
            window.leave(ticket, counted)

    async def _entered(self, window: _Window, request: RerankRequest) -> _Ticket:
        try:
            counts = self.tokens_per_minute is not None
            tokens = await run_text_work(characters(request), _tokens, request) if counts else 0
            ticket = _Ticket(tokens, self.requests_per_minute, self.tokens_per_minute)
            await window.enter(ticket)
            return ticket
        except asyncio.CancelledError as error:
            if not passed():
                raise
            # Not the vendor's fault, so no cancelled request, which a breaker would count against it.
            raise DeadlineExceeded(
                "The deadline passed while the spec's limit held the request back. Raise `limit` or `deadline`, or "
                "name a `fallback`."
            ) from error

    def own_state(self) -> Mapping[str, Any]:
        """Tell how full the minute is."""
        return {"limit": _windows.of(self.account).state()}


def _tokens(request: RerankRequest) -> int:
    """Return what a request counts at most: the query once for each document, and the documents."""
    query = estimate(request.query)[1] + estimate(request.instruction or "")[1]
    return query * len(request.documents) + sum(estimate(text)[1] for text in request.documents)

"""Rate limit: at most so many requests and tokens per minute for an account, over the whole process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any, Self

from pydantic import ConfigDict, model_validator

from ..core._runtime.admission import FairQueue, Waiter
from ..core._runtime.background_loop import now
from ..core._runtime.text_work import character_count, run_text_work
from ..core.errors import DeadlineExceeded, RateLimited
from ..core.scorer import Scorer, Wrapper
from ..core.tokens import estimate_tokens
from ..core.types import RerankRequest, Scores
from ..options import Count, has_number, refused
from .account_state import AccountStates
from .deadline import deadline_passed, seconds_left
from .policy_options import PolicyOptions
from .retry import LONGEST_WAIT
from .stack import Stack

__all__ = ["LimitOptions", "RateLimit"]

MINUTE = 60.0


class LimitOptions(PolicyOptions):
    """The rate limit of the account, shared by all rerankers of the process with one backend, address and key."""

    requests_per_minute: Count | None = None
    """Maximum number of requests per minute, including retries and the parts of a split call. By default unlimited."""
    tokens_per_minute: Count | None = None
    """Maximum number of tokens per minute. A request counts with an upper estimate until the vendor reports its tokens.
    By default unlimited."""

    model_config = ConfigDict(json_schema_extra={"anyOf": has_number("requests_per_minute", "tokens_per_minute")})

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise refused("needs requests_per_minute, tokens_per_minute or both")
        return self

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside the rate limit of the backend's account."""
        return RateLimit(
            scorer,
            stack.backend.account,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )


class _Ticket(Waiter):
    """One request that waits for the rate limit, or is under way."""

    def __init__(self, tokens: int, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        super().__init__()
        self.tokens = tokens
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute


class _Window(FairQueue[_Ticket]):
    """The requests of one account within the last minute, and the queue of those that wait.

    A request counts from when it is sent until one minute after its answer. It reached the vendor at some time in
    between, so no minute of the vendor's, sliding or fixed, contains more requests than the limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ended: deque[tuple[float, int]] = deque()
        """For each answered request, the time at which it no longer counts, and its tokens."""
        self.tokens = 0
        """Tokens of the answered requests that still count, and of the requests under way."""
        self.paused_until = 0.0

    def seconds_until_turn(self, waiter: _Ticket) -> float | None:
        """Return the seconds until the first waiter may be sent; see `FairQueue.opens`."""
        self.drop_expired()
        return self._seconds_until(waiter, 0, 0, now())

    def refuse(self, waiter: _Ticket) -> None:
        """Raise if waiting cannot help.

        Raises:
            DeadlineExceeded: The deadline ends before the request could be sent. Nothing was sent.
            RateLimited: The vendor asked for a longer pause than a retry would wait. Nothing was sent.
        """
        moment = now()
        pause = self.paused_until - moment
        if pause > LONGEST_WAIT:
            raise RateLimited(
                f"No request was sent: the vendor asked for a pause of {pause:.3g} s more (Retry-After). Name a "
                "`fallback` for the meantime.",
                retry_after=pause,
            )
        left = seconds_left()
        if left is None:
            return
        ahead = self.ahead(waiter)
        wait = self._seconds_until(waiter, len(ahead), sum(ticket.tokens for ticket in ahead), moment) or 0.0
        if wait >= left:
            raise DeadlineExceeded(
                f"The spec's limit allows no other request for {wait:.3g} s, and the deadline leaves "
                f"{max(left, 0.0):.3g} s. Raise `limit` or `deadline`, or name a `fallback`."
            )

    def on_enter(self, waiter: _Ticket) -> None:
        """Count a request that is being sent."""
        self.tokens += waiter.tokens

    def on_leave(self, waiter: _Ticket, outcome: int | None) -> None:
        """Count an ended request for another minute, with the vendor's number of tokens if it is known."""
        tokens = waiter.tokens if outcome is None else outcome
        self.tokens += tokens - waiter.tokens
        self.ended.append((now() + MINUTE, tokens))

    def pause(self, seconds: float) -> None:
        """Send nothing for some seconds, because the vendor asked for a pause."""
        with self.locked():
            self.paused_until = max(self.paused_until, now() + seconds)

    def state(self) -> Mapping[str, int]:
        """Return the requests and tokens of the last minute, and the number of waiting requests."""
        with self.locked():
            self.remove_gone()
            self.drop_expired()
            requests = len(self.ended) + len(self.inside)
            return {"requests": requests, "tokens": self.tokens, "waiting": len(self.waiting)}

    def drop_expired(self) -> None:
        """Drop the requests that ended more than one minute ago. The caller holds the lock."""
        while self.ended and self.ended[0][0] <= now():
            self.tokens -= self.ended.popleft()[1]

    def _seconds_until(self, ticket: _Ticket, ahead: int, tokens_ahead: int, moment: float) -> float | None:
        """Return a lower bound of the seconds until a request may be sent; `None` is now, 0 when another one ends.

        Args:
            ticket: The request.
            ahead: Number of requests ahead of it in the queue.
            tokens_ahead: Their tokens.
            moment: The current time.
        """
        requests_free, requests_at = self._requests_free_at(ticket, ahead, moment)
        tokens_free, tokens_at = self._tokens_free_at(ticket, tokens_ahead, moment)
        earliest = max(requests_at, tokens_at, self.paused_until)
        return None if requests_free and tokens_free and earliest <= moment else max(0.0, earliest - moment)

    def _requests_free_at(self, ticket: _Ticket, ahead: int, moment: float) -> tuple[bool, float]:
        """Return whether the limit of requests allows this one now, and the earliest time at which it may."""
        if ticket.requests_per_minute is None:
            return True, moment
        # Each of the limit's places serves one request per minute. A request under way takes at least one more minute.
        limit = int(ticket.requests_per_minute)
        rounds, place = divmod(ahead, limit)
        place -= limit - len(self.ended) - len(self.inside)
        if place < 0:
            return not rounds, moment + MINUTE * rounds
        at = self.ended[place][0] if place < len(self.ended) else moment + MINUTE
        return False, at + MINUTE * rounds

    def _tokens_free_at(self, ticket: _Ticket, ahead: int, moment: float) -> tuple[bool, float]:
        """Return whether the limit of tokens allows this request now, and the earliest time at which it may."""
        if ticket.tokens_per_minute is None:
            return True, moment
        # A request larger than the whole limit is sent when no other one counts: the vendor may still accept it.
        excess = self.tokens + ahead + min(ticket.tokens, ticket.tokens_per_minute) - ticket.tokens_per_minute
        if excess <= 0:
            return True, moment
        for at, tokens in self.ended:
            excess -= tokens
            if excess <= 0:
                return False, at
        return False, moment  # requests under way count with an upper estimate, which their end may lower at any time


_windows: AccountStates[_Window] = AccountStates(_Window)


class RateLimit(Wrapper):
    """Delay requests, first come, first served, so that they stay within the account's limits per minute.

    Every request counts, including retries and the parts of a split call. Tokens are counted by an upper estimate
    before the request, and by the vendor's number after it. All rerankers of the process with one backend, address and
    key share the count, on all event loops and threads.
    """

    def __init__(
        self,
        inner: Scorer,
        account: Hashable,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer that sends requests.
            account: The account that it sends them for; scorers of one account share the count.
            requests_per_minute: Maximum number of requests per minute; `None` is unlimited.
            tokens_per_minute: Maximum number of tokens per minute; `None` is unlimited.
        """
        super().__init__(inner)
        self.account = account
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score when the rate limit allows it.

        Raises:
            DeadlineExceeded: The deadline ends before that.
            RateLimited: The vendor asked for a longer pause than a retry would wait.
        """
        window = _windows.of(self.account)
        ticket = await self._enter(window, request)
        counted = None
        try:
            scores = await self.inner.ascore(request)
            counted = scores.usage.total_tokens  # vendors limit input and output together
            return scores
        except RateLimited as error:
            window.pause(error.retry_after or 0.0)
            raise
        finally:
            window.leave(ticket, counted)

    async def _enter(self, window: _Window, request: RerankRequest) -> _Ticket:
        try:
            has_token_limit = self.tokens_per_minute is not None
            tokens = await run_text_work(character_count(request), _estimated_tokens, request) if has_token_limit else 0
            ticket = _Ticket(tokens, self.requests_per_minute, self.tokens_per_minute)
            await window.enter(ticket)
            return ticket
        except asyncio.CancelledError as error:
            if not deadline_passed():
                raise
            # An error and no cancellation, which a circuit breaker would count as a failure of the vendor.
            raise DeadlineExceeded(
                "The deadline passed while the spec's limit held the request back. Raise `limit` or `deadline`, or "
                "name a `fallback`."
            ) from error

    def own_state(self) -> Mapping[str, Any]:
        """Return the requests and tokens of the last minute, and the number of waiting requests."""
        return {"limit": _windows.of(self.account).state()}


def _estimated_tokens(request: RerankRequest) -> int:
    """Return an upper estimate of a request's tokens: the query once per document, and the documents."""
    query = estimate_tokens(request.query)[1] + estimate_tokens(request.instruction or "")[1]
    return query * len(request.documents) + sum(estimate_tokens(text)[1] for text in request.documents)

"""No more requests and tokens a minute than the account may send, whoever in the process sends them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any, Self

from pydantic import ConfigDict, model_validator

from ..core.errors import DeadlineExceeded, RateLimited
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import characters, run_text_work
from ..core.tokens import estimate
from ..core.types import RerankRequest, Scores
from ..options import Count, refused
from .deadline import passed, seconds_left
from .retry import LONGEST_WAIT
from .shared import Shared, now
from .stack import PolicyOptions, Stack

__all__ = ["Limit", "LimitOptions"]

MINUTE = 60.0
PATIENCE = 1.0
"""Seconds after which one that was called and did not come is passed over; it keeps its place for when it comes."""


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


class _Ticket:
    """One request that waits for its place, or has it."""

    def __init__(self, tokens: int, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self.tokens = tokens
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.loop = asyncio.get_running_loop()
        self.called = asyncio.Event()
        self.called_at: float | None = None

    def call(self) -> None:
        """Let it look whether it is its turn."""
        if self.called_at is None:
            self.called_at = now()
        with contextlib.suppress(RuntimeError):  # its loop is gone, and it with it
            self.loop.call_soon_threadsafe(self.called.set)

    def here(self) -> None:
        """Note that it came."""
        self.called.clear()
        self.called_at = None

    def absent(self, moment: float) -> bool:
        """Tell whether its event loop is gone, or held up: by a sync call that itself waits in this queue, perhaps."""
        return self.loop.is_closed() or (self.called_at is not None and moment - self.called_at >= PATIENCE)


class _Window:
    """What one account sent within the last minute, and who waits, first come first served, across event loops.

    A request counts from when it is sent until a minute after its answer: whenever in between it reached the vendor, no
    window of a minute there, sliding or fixed, holds more than the limit.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # what a dead loop left behind is collected at any moment, and leaves here
        self.waiting: deque[_Ticket] = deque()
        self.under_way: set[_Ticket] = set()
        self.ended: deque[tuple[float, int]] = deque()
        """When each will be forgotten, and its tokens."""
        self.tokens = 0
        """Of both."""
        self.paused_until = 0.0

    async def enter(self, ticket: _Ticket) -> None:
        """Wait for a place.

        Raises:
            DeadlineExceeded: The deadline ends before one can be free; nothing was sent.
            RateLimited: The vendor wants to be left alone for longer than a retry would wait; nothing was sent.
        """
        with self.lock:
            self.waiting.append(ticket)
        try:
            while True:
                with self.lock:
                    ticket.here()
                    ahead, opens, wait = self._place(ticket)
                    if not ahead and opens is None:
                        self.under_way.add(ticket)
                        self.tokens += ticket.tokens
                        self._leave_queue(ticket)
                        return
                    quiet = self.paused_until - now()
                if quiet > LONGEST_WAIT:
                    raise RateLimited(
                        f"Not asked: the vendor wants to be left alone for {quiet:.3g} s more (Retry-After). Name a "
                        "`fallback` for the time between.",
                        retry_after=quiet,
                    )
                left = seconds_left()
                if left is not None and wait >= left:
                    raise DeadlineExceeded(
                        f"The spec's limit has no room for another request for {wait:.3g} s, and the deadline leaves "
                        f"{max(left, 0.0):.3g} s. Raise `limit` or `deadline`, or name a `fallback`."
                    )
                # The first knows when its time comes, or is called when a request ends. The others are called when they
                # are first; until then they look, the next ones more often, whether it comes.
                try:
                    async with asyncio.timeout((opens or 0.0) + PATIENCE * ahead or MINUTE):
                        await ticket.called.wait()
                except TimeoutError:
                    if ahead:
                        with self.lock:
                            self._call_first()
        except BaseException:
            with self.lock:
                self._leave_queue(ticket)
            raise

    def leave(self, ticket: _Ticket, tokens: int | None) -> None:
        """Count the request, with its true number of tokens where the vendor told, for another minute."""
        with self.lock:
            self._end(ticket, ticket.tokens if tokens is None else tokens)
            self._call_first()

    def pause(self, seconds: float) -> None:
        """The vendor asked everybody to wait."""
        with self.lock:
            self.paused_until = max(self.paused_until, now() + seconds)

    def forget(self) -> None:
        """Take out what is older than a minute, and who waited on an event loop that is closed."""
        while self.ended and self.ended[0][0] <= now():
            self.tokens -= self.ended.popleft()[1]
        while self.waiting and self.waiting[0].loop.is_closed():
            self.waiting.popleft()
        for each in [each for each in self.under_way if each.loop.is_closed()]:
            self._end(each, each.tokens)

    def _end(self, ticket: _Ticket, tokens: int) -> None:
        if ticket in self.under_way:
            self.under_way.remove(ticket)
            self.tokens += tokens - ticket.tokens
            self.ended.append((now() + MINUTE, tokens))

    def _leave_queue(self, ticket: _Ticket) -> None:
        with contextlib.suppress(ValueError):  # forgotten before
            self.waiting.remove(ticket)
        self._call_first()

    def _call_first(self) -> None:
        moment = now()
        first = next((each for each in self.waiting if not each.absent(moment)), None)
        if first is not None:
            first.call()

    def _place(self, ticket: _Ticket) -> tuple[int, float | None, float]:
        """Return how many are before `ticket`, when the first may go, and when it may itself, at the least; in seconds.

        `None` is now, 0 is when something under way ends.
        """
        self.forget()
        moment = now()
        before = itertools.takewhile(lambda each: each is not ticket, self.waiting)
        ahead = [each for each in before if not each.absent(moment)]
        first = self._earliest(ticket, 0, 0, moment)
        mine = self._earliest(ticket, len(ahead), sum(each.tokens for each in ahead), moment) if ahead else first
        return len(ahead), first, mine or 0.0

    def _earliest(self, ticket: _Ticket, ahead: int, tokens_ahead: int, moment: float) -> float | None:
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
        place -= most - len(self.ended) - len(self.under_way)
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
        window = _windows.of(self.account)
        with window.lock:
            window.forget()
            sent = {"requests": len(window.ended) + len(window.under_way), "tokens": window.tokens}
            return {"limit": {**sent, "waiting": len(window.waiting)}}


def _tokens(request: RerankRequest) -> int:
    """Return what a request counts at most: the query once for each document, and the documents."""
    query = estimate(request.query)[1] + estimate(request.instruction or "")[1]
    return query * len(request.documents) + sum(estimate(text)[1] for text in request.documents)

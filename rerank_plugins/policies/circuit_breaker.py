"""Circuit breaker: no requests for a while to a vendor that keeps failing, so that a fallback answers without delay."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ..core._runtime.background_loop import now
from ..core.call import record_event
from ..core.errors import Rejected, TransientError
from ..core.redaction import one_line
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..options import Count, Seconds
from .account_state import AccountStates
from .deadline import deadline_passed
from .policy_options import PolicyOptions
from .stack import Stack

__all__ = ["FAILURES", "RESET_S", "BreakerOptions", "CircuitBreaker"]

_log = logging.getLogger("rerank_plugins")

FAILURES = 5
RESET_S = 30.0

CircuitState = Literal["closed", "open", "half_open"]


class BreakerOptions(PolicyOptions):
    """The circuit breaker: when requests to a vendor that keeps failing stop, and when they start again."""

    failures: Count = FAILURES
    """Number of consecutive failed calls after which no requests are sent."""
    reset_s: Seconds = RESET_S
    """Time in seconds after which one trial call is sent."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside the circuit breaker of the backend's account."""
        return CircuitBreaker(scorer, stack.backend.account, failures=self.failures, reset_s=self.reset_s)


class _Circuit:
    """The consecutive failures of one account."""

    def __init__(self) -> None:
        # Guards all attributes. `state` reads single numbers, and runs without the lock too.
        self.lock = threading.Lock()
        self.failures = 0
        self.last_failure = 0.0
        self.trial: float | None = None
        """Start time of the trial call under way."""

    def state(self, failures: int, reset_s: float) -> CircuitState:
        if self.failures < failures:
            return "closed"
        return "half_open" if now() - self.last_failure >= reset_s else "open"

    @contextmanager
    def admission(self, failures: int, reset_s: float) -> Iterator[bool]:
        """Yield whether a call may be sent. In the half-open state that is one trial call at a time.

        A trial that has not ended after another `reset_s` does not block the next one: its event loop may be closed.
        """
        with self.lock:
            state, moment = self.state(failures, reset_s), now()
            is_trial = state == "half_open" and (self.trial is None or moment - self.trial >= reset_s)
            if is_trial:
                self.trial = moment
        try:
            yield is_trial or state == "closed"
        finally:
            if is_trial and self.trial == moment:
                self.trial = None

    def record_failure(self) -> int:
        """Count a failure, and return the number of consecutive failures."""
        with self.lock:
            self.failures, self.last_failure = self.failures + 1, now()
            return self.failures

    def record_reply(self) -> int:
        """Reset the count of failures, and return what it was."""
        with self.lock:
            before, self.failures = self.failures, 0
            return before


_circuits: AccountStates[_Circuit] = AccountStates(_Circuit)


class CircuitBreaker(Wrapper):
    """Stop requests after `failures` consecutive failed calls; after `reset_s` send one trial call.

    A failed call raised a `TransientError` after its retries, or was cancelled by the deadline. Any reply, including a
    rejection, shows that the vendor is reachable. All rerankers of the process with one backend, address and key share
    the state.
    """

    def __init__(self, inner: Scorer, account: Hashable, *, failures: int = FAILURES, reset_s: float = RESET_S) -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer that sends requests.
            account: The account that it sends them for; scorers of one account share the state.
            failures: Number of consecutive failures, at least 1, that opens the circuit.
            reset_s: Time in seconds until a trial call.
        """
        super().__init__(inner)
        self.account = account
        self.failures = failures
        self.reset_s = reset_s

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, unless the circuit is open.

        Raises:
            TransientError: The circuit is open, and no request was sent.
        """
        circuit = _circuits.of(self.account)
        was_open = circuit.state(self.failures, self.reset_s) != "closed"
        with circuit.admission(self.failures, self.reset_s) as admitted:
            if admitted and was_open:
                _log.warning("The circuit breaker of %s is half open: one trial call is sent", one_line(self.label))
            if not admitted:
                raise self._open_error(circuit)
            try:
                scores = await self.inner.ascore(request)
            except TransientError:
                self._record_failure(circuit)
                raise
            except asyncio.CancelledError:
                if deadline_passed():
                    self._record_failure(circuit)
                raise
            except Rejected:
                self._record_reply(circuit)
                raise
            self._record_reply(circuit)
            return scores

    def _record_failure(self, circuit: _Circuit) -> None:
        if circuit.record_failure() == self.failures:
            _log.warning(
                "The circuit breaker of %s opens: %d calls in a row failed; the next call is sent in %g s",
                one_line(self.label),
                self.failures,
                self.reset_s,
            )

    def _record_reply(self, circuit: _Circuit) -> None:
        if circuit.record_reply() >= self.failures:
            _log.warning("The circuit breaker of %s closes: the backend replies again", one_line(self.label))

    def _open_error(self, circuit: _Circuit) -> TransientError:
        wait = max(0.0, circuit.last_failure + self.reset_s - now())
        when = f"in {wait:.3g} s" if wait else "as soon as the trial that is under way succeeds"
        error = TransientError(
            f"{self.label} was not called: {circuit.failures} calls in a row failed. The next call is sent {when}; "
            "name a `fallback` in the spec for the meantime.",
            backend=self.label,
            retry_after=wait or None,
        )
        record_event(self, "breaker_open", str(error))
        return error

    def own_state(self) -> Mapping[str, Any]:
        """Return the state of the circuit."""
        return {"breaker": _circuits.of(self.account).state(self.failures, self.reset_s)}

"""A vendor that keeps failing is not asked for a while: its stand-in gets the time, and it gets quiet to recover."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ..core.call import record_event
from ..core.errors import Rejected, TransientError
from ..core.loop import now
from ..core.redaction import one_line
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..options import Count, Seconds
from .deadline import passed
from .shared import Shared
from .stack import PolicyOptions, Stack

__all__ = ["FAILURES", "RESET_S", "Breaker", "BreakerOptions"]

_log = logging.getLogger("rerank_plugins")

FAILURES = 5
RESET_S = 30.0

Standing = Literal["closed", "open", "half_open"]


class BreakerOptions(PolicyOptions):
    """When a vendor that keeps failing is left alone."""

    failures: Count = FAILURES
    """Failed calls in a row, after which it is not asked."""
    reset_s: Seconds = RESET_S
    """Seconds after which one call is sent again, to see."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` behind the breaker of the backend's account."""
        return Breaker(scorer, stack.backend.account, failures=self.failures, reset_s=self.reset_s)


class _Circuit:
    """The failures in a row of one account."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.failures = 0
        self.last = 0.0
        self.trial: float | None = None
        """When the one that tries began."""

    def standing(self, failures: int, reset_s: float) -> Standing:
        if self.failures < failures:
            return "closed"
        return "half_open" if now() - self.last >= reset_s else "open"

    @contextmanager
    def entered(self, failures: int, reset_s: float) -> Iterator[bool]:
        """Tell whether a call may go; of many that come when the time is up, one goes, to see.

        One that is not back when as much time has passed again is not waited for: its event loop may be gone.
        """
        with self.lock:
            standing, moment = self.standing(failures, reset_s), now()
            tries = standing == "half_open" and (self.trial is None or moment - self.trial >= reset_s)
            if tries:
                self.trial = moment
        try:
            yield tries or standing == "closed"
        finally:
            if tries and self.trial == moment:
                self.trial = None

    def failed(self) -> int:
        """Count a failure, and return how many there are in a row."""
        with self.lock:
            self.failures, self.last = self.failures + 1, now()
            return self.failures

    def answered(self) -> int:
        """Forget the failures, and return how many there were."""
        with self.lock:
            before, self.failures = self.failures, 0
            return before


_circuits: Shared[_Circuit] = Shared(_Circuit)


class Breaker(Wrapper):
    """Stop asking after `failures` calls in a row that failed, retries included; after `reset_s` let one try.

    A failure is a `TransientError`, or a call that the deadline cut. An answer of any kind, a refusal too, shows that the
    vendor is there. All rerankers of the process that use one backend, address and key share what was seen.
    """

    def __init__(self, inner: Scorer, account: Hashable, *, failures: int = FAILURES, reset_s: float = RESET_S) -> None:
        """Watch `inner`, which asks `account`."""
        super().__init__(inner)
        self.account = account
        self.failures = failures
        self.reset_s = reset_s

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask, unless it is known to be down.

        Raises:
            TransientError: Not asked: the breaker is open.
        """
        circuit = _circuits.of(self.account)
        tries = circuit.standing(self.failures, self.reset_s) != "closed"
        with circuit.entered(self.failures, self.reset_s) as admitted:
            if admitted and tries:
                _log.warning("The circuit breaker of %s is half open: one call is sent, to see", one_line(self.label))
            if not admitted:
                raise self._refusal(circuit)
            try:
                scores = await self.inner.ascore(request)
            except TransientError:
                self._failed(circuit)
                raise
            except asyncio.CancelledError:
                if passed():
                    self._failed(circuit)
                raise
            except Rejected:
                self._answered(circuit)
                raise
            self._answered(circuit)
            return scores

    def _failed(self, circuit: _Circuit) -> None:
        if circuit.failed() == self.failures:
            _log.warning(
                "The circuit breaker of %s opens: %d calls in a row failed; it is asked again in %g s",
                one_line(self.label),
                self.failures,
                self.reset_s,
            )

    def _answered(self, circuit: _Circuit) -> None:
        if circuit.answered() >= self.failures:
            _log.warning("The circuit breaker of %s closes: it answers again", one_line(self.label))

    def _refusal(self, circuit: _Circuit) -> TransientError:
        wait = max(0.0, circuit.last + self.reset_s - now())
        when = f"in {wait:.3g} s" if wait else "as soon as the trial that is under way succeeds"
        error = TransientError(
            f"{self.label} was not asked: {circuit.failures} calls in a row failed. It is asked again {when}; name a "
            "`fallback` in the spec for the time between.",
            backend=self.label,
            retry_after=wait or None,
        )
        record_event(self, "breaker_open", str(error))
        return error

    def own_state(self) -> Mapping[str, Any]:
        """Tell how it stands."""
        return {"breaker": _circuits.of(self.account).standing(self.failures, self.reset_s)}

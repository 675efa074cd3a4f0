"""When the reranker that was asked for cannot answer, the next one does, and the answer says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from ..core.errors import (
    AllBackendsFailed,
    BadResponse,
    DeadlineExceeded,
    Rejected,
    RerankError,
    TransientError,
)
from ..core.model_id import ModelId
from ..core.redaction import one_line, summary
from ..core.scorer import Scorer
from ..core.types import RerankRequest, Scores
from ..options import Options, Spec
from .composite import Composite, followable
from .deadline import bounded, seconds_left

__all__ = ["CAUSES", "DEFAULT_CAUSES", "Cause", "Fallback", "FallbackOptions"]

Cause = Literal["transient", "bad_response", "deadline", "rejected"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
DEFAULT_CAUSES: tuple[Cause, ...] = ("transient", "bad_response", "deadline")


class FallbackOptions(Options):
    """What answers where the reranker cannot."""

    specs: Sequence[Spec] = ()
    """Specs, tried in order. A string takes `retry`, `timeout`, `limit`, `breaker` and `cache` from the spec around it; a
    mapping and a named reranker stand alone."""
    on: Sequence[Cause] = DEFAULT_CAUSES
    """After which errors the next one is asked."""


QUICK_S = 0.05
QUICK_S_PER_CHARACTER = 1e-6
"""What is reserved for a quick entry: `lexical` takes up to about a microsecond a character on a busy machine."""
_WARN_EVERY = 60.0
_log = logging.getLogger("rerank_plugins")


def cause(error: RerankError) -> Cause | None:
    """Return the name, in a spec, of what failed; `None` for what no stand-in may hide (a wrong call, a wrong spec)."""
    match error:
        case TransientError() | AllBackendsFailed():
            return "transient"
        case BadResponse():
            return "bad_response"
        case DeadlineExceeded():
            return "deadline"
        case Rejected():
            return "rejected"
        case _:
            return None


def _share(left: float, later: Sequence[Scorer], request: RerankRequest) -> float:
    """Return the seconds of `left` that an entry may use when those of `later` come after it."""
    equal = left / (1 + len(later))
    quick = sum(other.quick for other in later)
    if not quick:
        return equal
    size = len(request.query) + sum(map(len, request.documents))
    reserved = quick * min(equal, QUICK_S + QUICK_S_PER_CHARACTER * size)
    return (left - reserved) / (1 + len(later) - quick)


class Fallback(Composite):
    """Ask each entry in turn until one answers.

    Under a deadline an entry may use what is left divided by the entries still to come. Of these, entries that answer at
    once (`instant`: the retriever's order) are not counted and are asked even when no time is left; for entries that
    answer within milliseconds (`quick`: lexical) a small part is reserved instead of an equal one.
    """

    def __init__(self, entries: Sequence[Scorer], *, on: Sequence[Cause] = DEFAULT_CAUSES) -> None:
        """Take the entries in the order they are asked; the first is the one that is meant."""
        super().__init__(entries, entries[0].capabilities)
        self.keeps_deadline = True
        self._on = frozenset(on)
        self._warned = -_WARN_EVERY

    @property
    def label(self) -> str:
        """The first entry's."""
        return self.children[0].label

    @property
    def spec_name(self) -> str:
        """The first entry's."""
        return self.children[0].spec_name

    @property
    def model_id(self) -> ModelId | None:
        """The first entry's."""
        return self.children[0].model_id

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """Every entry."""
        return self.children

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Ask the first entry."""
        return self.children[0].tokens(text)

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return the first answer; from a later entry it is marked as degraded."""
        errors: list[RerankError] = []
        for position, entry in enumerate(self.children):
            entry_request = followable(entry, request)
            try:
                scores = await self._bounded(position, entry, entry_request)
            except RerankError as error:
                if cause(error) not in self._on:
                    raise
                errors.append(error)
                continue
            if not errors:
                return scores
            return self._degraded(scores, errors, dropped_instruction=entry_request is not request)
        if all(isinstance(error, DeadlineExceeded) for error in errors):
            raise errors[0]
        raise AllBackendsFailed(tuple(errors))

    async def _bounded(self, position: int, entry: Scorer, request: RerankRequest) -> Scores:
        left = seconds_left()
        if left is None or entry.instant:
            return await entry.ascore(request)
        if left <= 0:
            raise DeadlineExceeded(f"{entry.label} was not asked: the deadline had passed. Raise `deadline`.")
        later = [other for other in self.children[position + 1 :] if not other.instant]
        share = _share(left, later, request)
        try:
            return await bounded(entry, request, share)
        except DeadlineExceeded as error:
            # Without that cause it was raised inside, and says itself what happened: a model that is still loading, say.
            if not later or not isinstance(error.__cause__, TimeoutError):
                raise
            names = ", ".join(other.label for other in later)
            raise DeadlineExceeded(
                f"{entry.label} did not answer within {share:.3g} s, its share of the {left:.3g} s that were left of the "
                f"deadline: the rest is for {names}. Raise `deadline`, or send fewer or shorter documents."
            ) from error

    def _degraded(self, scores: Scores, errors: list[RerankError], *, dropped_instruction: bool) -> Scores:
        reason = f"{scores.model} answered in place of {self.label}: {errors[0]}"
        if dropped_instruction:
            reason += f" {scores.model} cannot follow an instruction and answered without it."
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            _log.warning(
                "Degraded answer: %s answered in place of %s: %s (said at most once a minute)",
                one_line(scores.model),
                one_line(self.label),
                summary(errors[0]),
            )
        return replace(scores, degraded=True, reason=reason)

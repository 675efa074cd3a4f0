"""Fallback: if a reranker fails, the next one answers, and the answer is marked as degraded."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ..core.errors import (
    AllBackendsFailed,
    BadResponse,
    DeadlineExceeded,
    Rejected,
    RerankError,
    TransientError,
    clause,
)
from ..core.model_id import ModelId
from ..core.redaction import one_line, summary
from ..core.scorer import Scorer
from ..core.types import RerankRequest, Scores
from ..options import Options, Spec
from .composite import Composite, without_unsupported_instruction
from .deadline import score_within, seconds_left

__all__ = ["DEFAULT_CAUSES", "Cause", "Fallback", "FallbackOptions"]

Cause = Literal["transient", "bad_response", "deadline", "rejected"]
DEFAULT_CAUSES: tuple[Cause, ...] = ("transient", "bad_response", "deadline")


class FallbackOptions(Options):
    """The rerankers that answer if the main one fails, and the errors after which they do."""

    specs: Sequence[Spec] = ()
    """Specs that are tried in order. A string inherits `retry`, `timeout`, `limit`, `breaker` and `cache` from the spec
    around it; a mapping and a named reranker inherit nothing."""
    on: Sequence[Cause] = DEFAULT_CAUSES
    """Kinds of errors after which the next spec is tried: `transient` errors, a `bad_response`, an exceeded `deadline`,
    a `rejected` request."""


QUICK_ENTRY_S = 0.05
QUICK_ENTRY_S_PER_CHARACTER = 1e-6
"""Seconds reserved for a quick entry, in all and per character. `lexical` takes up to about one microsecond per
character on a busy machine."""
_WARN_EVERY_S = 60.0
_log = logging.getLogger("rerank_plugins")


def classify_error(error: RerankError) -> Cause | None:
    """Return the name that an error has in `on`; `None` for an error of the call or the spec, which stays an error."""
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
    """Return the seconds that an entry may use.

    A quick entry gets a small reserve, at most an equal share. The other entries share the rest equally.

    Args:
        left: Seconds until the deadline.
        later: The entries that come after it.
        request: The request, whose size determines the time reserved for quick entries.
    """
    equal_share = left / (1 + len(later))
    quick_entries = sum(entry.quick for entry in later)
    if not quick_entries:
        return equal_share
    size = len(request.query) + sum(map(len, request.documents))
    reserved = quick_entries * min(equal_share, QUICK_ENTRY_S + QUICK_ENTRY_S_PER_CHARACTER * size)
    return (left - reserved) / (1 + len(later) - quick_entries)


class Fallback(Composite):
    """Calls one entry after the other until one answers.

    Under a deadline the entries that were not called yet share the time left equally. Two kinds of entries are exempt:
    `instant` ones (`passthrough`) take no share, and are called even if no time is left; for `quick` ones (`lexical`),
    a small reserve takes the place of a share.
    """

    def __init__(self, entries: Sequence[Scorer], *, on: Sequence[Cause] = DEFAULT_CAUSES) -> None:
        """Create a fallback that calls `entries` in their order.

        Args:
            entries: The main scorer, then those that answer in its place.
            on: The kinds of errors after which the next entry is called.
        """
        super().__init__(entries, entries[0].capabilities)
        self.keeps_deadline = True
        self._on = frozenset(on)
        self._warned = -_WARN_EVERY_S

    @property
    def label(self) -> str:
        """The label of the first entry."""
        return self.children[0].label

    @property
    def spec_name(self) -> str:
        """The name of the first entry."""
        return self.children[0].spec_name

    @property
    def model_id(self) -> ModelId | None:
        """The model of the first entry."""
        return self.children[0].model_id

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """Every entry."""
        return self.children

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Return the tokens of the first entry's tokenizer."""
        return self.children[0].tokens(text)

    def failure(self, failures: Mapping[int, Exception | None]) -> Exception | None:
        """Return the error after which no entry would answer; `None` if one would."""
        error: Exception | None = None
        for entry in self.children:
            error = entry.failure(failures)
            if error is None or not isinstance(error, RerankError) or classify_error(error) not in self._on:
                return error
        return error

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return the first answer. An answer of a later entry is marked as degraded.

        Raises:
            AllBackendsFailed: Every entry failed, and at least one for another reason than the deadline.
            DeadlineExceeded: No entry answered within the deadline.
        """
        errors: list[RerankError] = []
        for position, entry in enumerate(self.children):
            entry_request = without_unsupported_instruction(entry, request)
            try:
                scores = await self._score_within_share(position, entry, entry_request)
            except RerankError as error:
                if classify_error(error) not in self._on:
                    raise
                errors.append(error)
                continue
            if not errors:
                return scores
            return self._degraded(scores, errors, dropped_instruction=entry_request is not request)
        if all(isinstance(error, DeadlineExceeded) for error in errors):
            raise errors[0]
        raise AllBackendsFailed(tuple(errors))

    async def _score_within_share(self, position: int, entry: Scorer, request: RerankRequest) -> Scores:
        left = seconds_left()
        if left is None or entry.instant:
            return await entry.ascore(request)
        if left <= 0:
            raise DeadlineExceeded(f"{entry.label} was not called: the deadline had passed. Raise `deadline`.")
        later = [other for other in self.children[position + 1 :] if not other.instant]
        share = _share(left, later, request)
        try:
            return await score_within(entry, request, share)
        except DeadlineExceeded as error:
            # `score_within` sets TimeoutError as the cause. An error without it comes from the entry itself, and its
            # message is more exact: the model is still loading, for example.
            if not later or not isinstance(error.__cause__, TimeoutError):
                raise
            names = ", ".join(other.label for other in later)
            raise DeadlineExceeded(
                f"{entry.label} did not answer within {share:.3g} s, its share of the {left:.3g} s left until the "
                f"deadline: the rest is reserved for {names}. Raise `deadline`, or send fewer or shorter documents."
            ) from error

    def _degraded(self, scores: Scores, errors: list[RerankError], *, dropped_instruction: bool) -> Scores:
        reason = f"{scores.model} answered in place of {self.label}: {errors[0]}"
        if scores.degraded and scores.reason:  # the entry is a server that has a fallback of its own
            reason += f" Its own answer is degraded: {clause(scores.reason)}."
        elif scores.reason:
            reason += f" {clause(scores.reason)}."
        if dropped_instruction:
            reason += f" {scores.model} cannot follow an instruction and answered without it."
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY_S:
            self._warned = now
            _log.warning(
                "Degraded answer: %s answered in place of %s: %s (logged at most once a minute)",
                one_line(scores.model),
                one_line(self.label),
                summary(errors[0]),
            )
        return replace(scores, degraded=True, reason=reason)

"""Cascade: a cheap reranker over all documents, a more expensive one over the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, WithJsonSchema, WrapValidator, model_validator

from ..core._runtime.text_work import run_text_work
from ..core.call import record_event
from ..core.numeric import MAX_INTEGER
from ..core.scorer import Scorer
from ..core.types import Depth, RerankRequest, Scores
from ..options import Count, Fraction, Options, Spec, refused
from .adaptive_depth import ITEMS_PER_DOCUMENT, PartialScores, score_to_depth
from .composite import Composite, joint_capabilities, with_tail

__all__ = ["Cascade", "CascadeOptions"]


MISS = 0.01
FOR_TOP = 10
_AUTO = {"const": "auto"}
_COUNT = {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER}
_STAGES_IN_SCHEMA = range(2, 9)
"""Numbers of stages for which the JSON Schema checks the length of `keep`. The model checks it for any number."""


def _keep_of(stages: int) -> dict[str, Any]:
    """Return the JSON Schema of `keep` for a number of stages, as a condition on the mapping."""
    lengths = {"type": "array", "minItems": stages - 1, "maxItems": stages - 1}
    return {
        "if": {"properties": {"stages": {"type": "array", "minItems": stages, "maxItems": stages}}},
        "then": {"properties": {"keep": {"anyOf": [_AUTO, _COUNT, lengths]} if stages == 2 else lengths}},
    }


def _auto_or_list(value: Any, validate: Callable[[Any], Any]) -> Any:
    return value if value == "auto" else validate([value] if isinstance(value, int | float) else value)


_ONLY_WITH_AUTO: dict[str, Any] = {
    "if": {"properties": {"keep": {"not": _AUTO}}},
    "then": {"properties": {"miss": {"type": "null"}, "for_top": {"type": "null"}}},
}


class CascadeOptions(Options):
    """Rerankers in sequence: a cheap one scores all documents, each next one the best documents of the one before."""

    stages: Sequence[Spec] = Field(json_schema_extra={"minItems": 2})
    """At least two specs, the cheapest first."""
    keep: Annotated[
        Sequence[Count],
        WrapValidator(_auto_or_list),
        WithJsonSchema({"anyOf": [_AUTO, _COUNT, {"type": "array", "items": _COUNT, "minItems": 1}]}),
    ]
    """Number of documents that each stage passes to the next one: an integer for two stages, else a list with one
    number for each stage except the last. `auto`, for two stages: as many as the second stage has to read, chosen for
    each query from the scores of both."""
    miss: Fraction | None = None
    """Share of the relevance in the first `for_top` results that may be lost on average; only with `keep = "auto"`. By
    default 0.01."""
    for_top: Count | None = None
    """Number of first results that are protected; only with `keep = "auto"`. By default 10."""
    gate: Fraction | None = None
    """Lead in `relevance_score` of a stage's first document over its second at which the later stages are skipped. By
    default no stage is skipped."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [*(_keep_of(stages) for stages in _STAGES_IN_SCHEMA), _ONLY_WITH_AUTO]}
    )

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.stages) < 2:
            raise refused(f"must have two stages or more, the cheapest first, got {len(self.stages)}")
        if self.depth is not None:
            if len(self.stages) > 2:
                raise refused(
                    f"must have two stages with keep 'auto', got {len(self.stages)}; the first may be a cascade itself"
                )
            return self
        if self.miss is not None or self.for_top is not None:
            raise refused(f"has {'miss' if self.miss is not None else 'for_top'}, which belongs to keep 'auto'")
        if len(self.keep) != len(self.stages) - 1:
            raise refused(
                f"must have one number in keep for each stage except the last, {len(self.stages) - 1} here, got "
                f"{len(self.keep)}"
            )
        return self

    @property
    def depth(self) -> Depth | None:
        """What the second stage has to protect, if `keep` is `auto`; else `None`."""
        if not isinstance(self.keep, str):
            return None
        return Depth(self.for_top or FOR_TOP, MISS if self.miss is None else self.miss)


class Cascade(Composite):
    """Each stage scores the `keep` best documents of the stage before. The answer has the scores of the last stage.

    With a `depth`, there are two stages, and the second one scores as many documents as the depth needs; see
    `adaptive_depth`.

    Documents that did not reach the last stage come after the others, in the earlier stage's order. They have a reason
    and no score, because the scales differ. With a `gate`, the later stages are skipped if a stage's best document
    leads the second by at least that much `relevance_score`; then that stage's scores are the answer.
    """

    def __init__(self, stages: Sequence[Scorer], keep: Sequence[int] | Depth, gate: float | None = None) -> None:
        """Put `stages` in sequence.

        Args:
            stages: At least two scorers, the cheapest first.
            keep: `keep[i]` documents, at least 1, pass from stage i to stage i + 1. Or, for two stages, the depth.
            gate: Lead in `relevance_score`, from 0 to 1, at which later stages are skipped; `None` skips none.
        """
        super().__init__(stages, joint_capabilities(stages, stages[-1].capabilities))
        self.keep: tuple[int | Depth, ...] = (keep,) if isinstance(keep, Depth) else tuple(keep)
        self.gate = gate

    @property
    def label(self) -> str:
        """The labels of all stages."""
        return " → ".join(stage.label for stage in self.children)

    @property
    def spec_name(self) -> str:
        """The names of all stages."""
        return " → ".join(stage.spec_name for stage in self.children)

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """The last stage; with a `gate`, every stage."""
        return self.children if self.gate is not None else self.children[-1:]

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score with one stage after the other."""
        size = len(request.documents) * ITEMS_PER_DOCUMENT
        scores = await self.ask(self.children[0], request)
        # Positions in the request of the documents that `scores` covers.
        positions = list(range(len(request.documents)))
        # Positions of the documents that did not pass a stage, best first.
        tail: list[int] = []
        tail_reason = ""
        # For each document, whether the last stage that read it truncated it.
        truncated = list(scores.truncated or (False,) * len(positions))
        for stage, keep in zip(self.children[1:], self.keep, strict=True):
            if await run_text_work(size, self._opens_gate, scores):
                record_event(stage, "spared", f"{scores.model} was sure of the first document")
                break
            best = await run_text_work(size, scores.best_first)
            covered = await run_text_work(size, request.select, positions) if tail else request
            part = await self._partial(stage, covered, scores, best, keep)
            stage_scores = part.scores
            if all(value is None for value in stage_scores.values):  # the stage's own fallback kept the order
                reason = stage_scores.reason or (
                    f"{stage_scores.model}, the last stage called, returns no scores: the order is that of "
                    f"{scores.model}. End the cascade with a stage that scores."
                )
                scores = replace(scores, degraded=True, reason=reason, usage=scores.usage + stage_scores.usage)
                break
            record_event(stage, "kept", part.counts)
            tail, tail_reason = [positions[each] for each in part.unread] + tail, part.reason
            positions = [positions[each] for each in part.read]
            for position, flag in zip(positions, stage_scores.truncated or (False,) * len(positions), strict=True):
                truncated[position] = flag
            scores = replace(
                stage_scores,
                usage=scores.usage + stage_scores.usage,
                degraded=scores.degraded or stage_scores.degraded,
                reason=scores.reason if scores.degraded else _joined(scores.reason, stage_scores.reason),
            )
        if not tail:
            return scores
        scores = await run_text_work(size, with_tail, scores, positions, tail, tail_reason)
        return replace(scores, truncated=tuple(truncated) if any(truncated) else None)

    async def _partial(
        self, stage: Scorer, request: RerankRequest, scores: Scores, best: Sequence[int], keep: int | Depth
    ) -> PartialScores:
        """Score the best documents of a stage with the next one.

        Args:
            stage: The next stage.
            request: The documents that the stage before scored.
            scores: Its scores.
            best: Their positions, best first.
            keep: How many of them the next stage scores.
        """
        size = len(best) * ITEMS_PER_DOCUMENT
        if isinstance(keep, Depth):
            cheap = await run_text_work(size, _falling, scores.values, best)
            return await score_to_depth(partial(self.ask, stage), request, best, cheap, keep)
        passed = sorted(best[:keep])
        stage_scores = await self.ask(stage, await run_text_work(size, request.select, passed))
        reason = f"not among the {len(passed)} documents that {stage_scores.model} was asked for"
        counts = f"{len(passed)} of {len(best)} documents"
        return PartialScores(stage_scores, passed, list(best[keep:]), counts, reason)

    def _opens_gate(self, scores: Scores) -> bool:
        if self.gate is None:
            return False
        relevances = sorted((each for each in scores.relevances() if each is not None), reverse=True)
        return len(relevances) > 1 and relevances[0] - relevances[1] >= self.gate


def _falling(values: Sequence[float | None], order: Sequence[int]) -> list[float]:
    """Return the values in `order`, each at most the one before; the lowest one for a document without a value."""
    lowest = min((value for value in values if value is not None), default=0.0)
    ordered = (lowest if (value := values[each]) is None else value for each in order)
    return list(accumulate(ordered, min))


def _joined(*reasons: str | None) -> str | None:
    """Return the different reasons of several stages as one."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None

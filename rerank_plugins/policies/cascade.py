"""A cheap reranker over everything, an expensive one over the best of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ..core.call import record_event
from ..core.numeric import MOST
from ..core.scorer import Scorer
from ..core.types import RerankRequest, Scores
from ..options import Count, Fraction, Options, Spec, refused
from .composite import Composite, joint

__all__ = ["Cascade", "CascadeOptions"]


_COUNT = {"type": "integer", "minimum": 1, "maximum": MOST}


class CascadeOptions(Options):
    """Rerankers in turn: a cheap one over all documents, the next one over the best of them."""

    stages: Sequence[Spec] = Field(json_schema_extra={"minItems": 2})
    """Two specs or more, the cheapest first."""
    keep: Annotated[
        Sequence[Count],
        BeforeValidator(lambda value: [value] if isinstance(value, int | float) else value),
        WithJsonSchema({"anyOf": [_COUNT, {"type": "array", "items": _COUNT, "minItems": 1}]}),
    ]
    """How many documents go on after each stage but the last."""
    gate: Fraction | None = None
    """Where a stage's best document leads the second by at least so much `relevance_score`, the later stages are spared."""

    @model_validator(mode="after")
    def _one_number_between_stages(self) -> Self:
        if len(self.stages) < 2:
            raise refused(f"must have two stages or more, the cheapest first, got {len(self.stages)}")
        if len(self.keep) != len(self.stages) - 1:
            raise refused(
                f"must have one number in keep for each stage but the last, {len(self.stages) - 1} here, got {len(self.keep)}"
            )
        return self


class Cascade(Composite):
    """Each stage sees the `keep` best of the stage before; the last one's scores count.

    Documents that a later stage did not see come after those that it saw, in the earlier stage's order, without a score
    (the scales differ) and with a reason. `gate`: where the best document of a stage leads the second by at least so much
    `relevance_score`, the stage is sure, its answer counts and the later ones are spared.
    """

    def __init__(self, stages: Sequence[Scorer], keep: Sequence[int], gate: float | None = None) -> None:
        """Ask `stages` in turn; `keep[i]` documents go from stage i to the next."""
        super().__init__(stages, joint(stages, stages[-1].capabilities))
        self.keep = tuple(keep)
        self.gate = gate

    @property
    def label(self) -> str:
        """All stages'."""
        return " → ".join(stage.label for stage in self.children)

    @property
    def spec_name(self) -> str:
        """All stages'."""
        return " → ".join(stage.spec_name for stage in self.children)

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """The last stage; with a `gate`, every stage."""
        return self.children if self.gate is not None else self.children[-1:]

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score with stage after stage."""
        scores = await self.ask(self.children[0], request)
        positions = list(range(len(request.documents)))
        """Where the documents that `scores` is of stand in the request."""
        tail: list[int] = []
        """Those that went no further, best first."""
        cut = list(scores.truncated or (False,) * len(positions))
        """Whether the last stage that read a document read it to its end."""
        for stage, keep in zip(self.children[1:], self.keep, strict=True):
            best = scores.best_first()
            if self._is_sure(scores):
                record_event(stage, "spared", f"{scores.model} was sure of the first document")
                break
            kept = sorted(best[:keep])
            found = await self.ask(stage, request.select([positions[each] for each in kept]))
            if all(value is None for value in found.values):  # its own stand-in kept the order that it was given
                why = found.reason or (
                    f"{found.model}, the last stage asked, gives no scores: the order is that of {scores.model}. End the "
                    "cascade with a stage that scores."
                )
                scores = replace(scores, degraded=True, reason=why, usage=scores.usage + found.usage)
                break
            record_event(stage, "kept", f"{len(kept)} of {len(best)} documents")
            tail = [positions[each] for each in best[keep:]] + tail
            positions = [positions[each] for each in kept]
            for at, flag in zip(positions, found.truncated or (False,) * len(positions), strict=True):
                cut[at] = flag
            reason = scores.reason if scores.degraded else found.reason
            degraded = scores.degraded or found.degraded
            scores = replace(found, usage=scores.usage + found.usage, degraded=degraded, reason=reason)
        return _spread(scores, positions, tail, cut) if tail else scores

    def _is_sure(self, scores: Scores) -> bool:
        known = sorted((each for each in scores.relevances() if each is not None), reverse=True)
        return self.gate is not None and len(known) > 1 and known[0] - known[1] >= self.gate


def _spread(scores: Scores, positions: Sequence[int], tail: Sequence[int], cut: Sequence[bool]) -> Scores:
    """Return the scores of the documents at `positions` as scores of all, the others after them in the order of `tail`.

    `cut`: of every document, whether it was read only in part.
    """
    count = len(positions) + len(tail)
    place = {position: index for index, position in enumerate(positions)}
    spared = f"not among the {len(positions)} documents that {scores.model} was asked for"

    def over(values: Sequence[Any] | None, missing: Any) -> tuple[Any, ...] | None:
        if values is None:
            return None
        return tuple(values[place[each]] if each in place else missing for each in range(count))

    return replace(
        scores,
        values=over(scores.values, None) or (),
        truncated=tuple(cut) if any(cut) else None,
        spans=over(scores.spans, ()),
        reasons=over(scores.reasons or (None,) * len(positions), spared),
        order=(*(positions[each] for each in scores.best_first()), *tail),
        reply_order=None,
    )

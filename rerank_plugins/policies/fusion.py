"""Rank fusion: combines the orders of several rerankers, or of a reranker and the retriever."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from ..core._runtime.gather import gather
from ..core._runtime.text_work import run_text_work
from ..core.choices import described
from ..core.scorer import Scorer
from ..core.types import Capabilities, RerankRequest, Scores
from ..options import SPEC_SCHEMA, Number, Options, refused
from .composite import Composite, joint_capabilities

__all__ = ["METHODS", "RRF_K", "FuseOptions", "Fusion", "Method"]

Method = Literal["rrf", "weighted"]
METHODS: tuple[Method, ...] = get_args(Method)
RRF_K = 60
"""Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods",
SIGIR 2009, section 2."""


_ITEMS_PER_SCORE = 4
"""Cost of fusing one score of one list, in items of `run_text_work`."""
_PARTNERS_IN_SCHEMA = range(1, 8)
"""Numbers of specs for which the JSON Schema checks the length of `weights`. The model checks it for any number."""


def _partners(value: Any) -> Any:
    if value != "retrieval" and not (isinstance(value, list | tuple) and value):
        raise refused(
            f"must be 'retrieval' or a list of specs, got {described(value) if value != [] else 'an empty list'}"
        )
    return value


def _weights_for(partners: dict[str, Any], lists: int) -> dict[str, Any]:
    """Return a JSON Schema: if `with` matches `partners`, `weights` has one number for each of the lists."""
    count = {"anyOf": [{"type": "null"}, {"type": "array", "minItems": lists, "maxItems": lists}]}
    return {"if": {"properties": {"with": partners}}, "then": {"properties": {"weights": count}}}


_CONDITIONS: list[Any] = [
    _weights_for({"const": "retrieval"}, 2),
    *(_weights_for({"type": "array", "minItems": n, "maxItems": n}, 1 + n) for n in _PARTNERS_IN_SCHEMA),
    {
        "if": {"properties": {"weights": {"type": "array"}}, "required": ["weights"]},
        "then": {"properties": {"weights": {"contains": {"type": "number", "exclusiveMinimum": 0}}}},
    },
    {
        "if": {"properties": {"method": {"const": "weighted"}}, "required": ["method"]},
        "then": {"properties": {"k": {"type": "null"}}},
    },
]


class FuseOptions(Options):
    """Rank fusion: the orders of this reranker and of others are combined into one."""

    model_config = ConfigDict(populate_by_name=False, json_schema_extra={"allOf": _CONDITIONS})

    partners: Annotated[
        Any,
        PlainValidator(_partners),
        WithJsonSchema({"anyOf": [{"const": "retrieval"}, {"type": "array", "items": SPEC_SCHEMA, "minItems": 1}]}),
    ] = Field(alias="with")
    """The orders to combine with: `retrieval` for the retriever's order or scores, or a list of specs."""
    method: Method = "rrf"
    """`rrf` is reciprocal rank fusion. `weighted` is the weighted mean of the relevance scores."""
    weights: Sequence[Number] | None = None
    """Weights of the orders, not all 0: one number for this reranker, then one for each order in `with`. By default all
    are equal."""
    k: Number | None = None
    """Constant k of reciprocal rank fusion: the larger it is, the less the first ranks count. Only with `rrf`, by
    default 60."""

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        lists = 1 + (1 if self.retrieval else len(self.partners))
        if self.weights is not None and len(self.weights) != lists:
            raise refused(
                f"must have {lists} numbers in weights, one for each order that is combined, got {len(self.weights)}"
            )
        if self.weights is not None and not any(self.weights):
            raise refused("has only 0 in weights: nothing would be combined")
        if self.k is not None and self.method != "rrf":
            raise refused("has k, which belongs to the method 'rrf'")
        return self

    @property
    def retrieval(self) -> bool:
        """Whether the retriever's order is one of those that are combined."""
        return isinstance(self.partners, str)

    def fused(self, scorers: Sequence[Scorer]) -> Scorer:
        """Return the fusion of `scorers`, and of the retriever's order if `with` is `retrieval`."""
        k = RRF_K if self.k is None else self.k
        return Fusion(scorers, retrieval=self.retrieval, method=self.method, weights=self.weights, k=k)


class Fusion(Composite):
    """Call all scorers concurrently, and combine their answers.

    - `rrf`: the sum over the lists of weight / (k + rank). Ranks start at 1, and equal scores share the best of their
      ranks. The result is `ordinal`: only its order has a meaning.
    - `weighted`: the weighted mean of the relevance scores. The result has the scale `unit` if every list has scores in
      [0, 1] of its own, else it is `ordinal`.

    A document that a model declined to score stays without a score, and comes last with the model's reason, whatever
    the other lists say.

    The retriever's list, if it is used, is the last one. Its scores are scaled to [0, 1] among the candidates. Without
    scores its ranks are used.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        *,
        retrieval: bool,
        method: Method = "rrf",
        weights: Sequence[float] | None = None,
        k: float = RRF_K,
    ) -> None:
        """Combine `scorers`, and with `retrieval` the retriever's order.

        Args:
            scorers: At least one scorer; without `retrieval` at least two.
            retrieval: Whether the retriever's order (or its scores) is one of the lists.
            method: `rrf` or `weighted`.
            weights: One finite number of at least 0 for each list, the retriever's last, not all 0. By default equal.
            k: The constant of `rrf`, at least 0.
        """
        scaled = not retrieval and all(each.capabilities.scale != "ordinal" for each in scorers)
        scores = Capabilities(scale="unit" if method == "weighted" and scaled else "ordinal")
        super().__init__(scorers, joint_capabilities(scorers, scores))
        self.retrieval = retrieval
        self.method = method
        plain = list(weights) if weights is not None else [1.0] * (len(scorers) + retrieval)
        scaled_weights = [each / max(plain) for each in plain]  # the sum of very large numbers would be infinite
        self.weights = [each / sum(scaled_weights) for each in scaled_weights]
        self.k = k

    @property
    def label(self) -> str:
        """The labels of all scorers, and the method."""
        return self._join([each.label for each in self.children])

    @property
    def spec_name(self) -> str:
        """The names of all scorers, and the method."""
        return self._join([each.spec_name for each in self.children])

    def _join(self, names: list[str]) -> str:
        return f"{' + '.join(names + ['retrieval'] * self.retrieval)} ({self.method})"

    async def ascore(self, request: RerankRequest) -> Scores:
        """Call all scorers concurrently, and combine their answers."""
        answers = await gather(self.ask(each, request) for each in self.children)
        size = len(request.documents) * len(self.weights) * _ITEMS_PER_SCORE
        return await run_text_work(size, self._combined, answers, request)

    def _combined(self, answers: Sequence[Scores], request: RerankRequest) -> Scores:
        lists = self._by_rank(answers, request) if self.method == "rrf" else self._by_score(answers, request)
        reasons = self._reasons(answers)
        values = tuple(
            sum(weight * value for weight, value in zip(self.weights, column, strict=True)) if reason is None else None
            for column, reason in zip(zip(*lists, strict=True), reasons, strict=True)
        )
        degraded = next((answer for answer in answers if answer.degraded), None)
        cut = [answer.truncated for answer in answers if answer.truncated is not None]
        return Scores(
            values=values,
            model=self.label,
            capabilities=self.capabilities,
            usage=reduce(add, (answer.usage for answer in answers)),
            truncated=tuple(map(any, zip(*cut, strict=True))) if cut else None,
            spans=next((answer.spans for answer in answers if answer.spans is not None), None),
            reasons=tuple(reasons) if any(reasons) else None,
            degraded=degraded is not None,
            reason=degraded.reason if degraded else next((answer.reason for answer in answers if answer.reason), None),
        )

    def _reasons(self, answers: Sequence[Scores]) -> list[str | None]:
        """Return why each document was declined, by the first answer that declined it; `None` if none did."""
        reasons: list[str | None] = [None] * len(answers[0].values)
        for answer, weight in zip(answers, self.weights, strict=False):
            # What a cascade skipped, here or behind a server, was not declined: it has its place in the list.
            refuses = answer.capabilities.refuses and answer.order is None and not answer.degraded
            if answer.reasons is None or not refuses or not weight:
                continue
            declined = zip(answer.values, answer.reasons, strict=True)
            reasons = [
                reason if value is None and known is None else known
                for known, (value, reason) in zip(reasons, declined, strict=True)
            ]
        return reasons

    def _by_rank(self, answers: Sequence[Scores], request: RerankRequest) -> list[list[float]]:
        # The sort keys of the answers, never their relevances: as relevances, large logits and the steps of a
        # calibration are equal.
        orders = [_sort_keys(answer.ranks()) for answer in answers]
        if self.retrieval:
            orders.append([-each for each in _retrieval_scores(request)])
        return [_reciprocal_ranks(each, self.k) for each in orders]

    def _by_score(self, answers: Sequence[Scores], request: RerankRequest) -> list[list[float]]:
        lists = [_unit_scores(answer.relevances()) for answer in answers]
        return [*lists, _retrieval_scores(request)] if self.retrieval else lists


def _sort_keys(ranks: Sequence[float]) -> Sequence[float]:
    """Return the ranks, which sort ascending; positions for a scorer that keeps the retriever's order."""
    return range(len(ranks)) if all(math.isinf(each) for each in ranks) else ranks


def _unit_scores(relevances: Sequence[float | None]) -> list[float]:
    """Return scores in [0, 1]; scores that fall with the position for a scorer that keeps the retriever's order."""
    if all(each is None for each in relevances):
        return [1.0 - place / len(relevances) for place in range(len(relevances))]
    return [0.0 if each is None else each for each in relevances]


def _retrieval_scores(request: RerankRequest) -> list[float]:
    """Return the retriever's scores scaled to [0, 1]; without scores, numbers that fall with the position."""
    scores = request.retrieval_scores
    if scores is None:
        return _unit_scores([None] * len(request.documents))
    if math.isinf(max(scores) - min(scores)):
        scores = tuple(score / 2.0 for score in scores)
    low, high = min(scores), max(scores)
    return [(each - low) / (high - low) if high > low else 1.0 for each in scores]


def _reciprocal_ranks(keys: Sequence[float], k: float) -> list[float]:
    """Return 1 / (k + rank) for each sort key. The smallest key has rank 1; equal keys share their best rank."""
    rank = {value: place for place, value in reversed(list(enumerate(sorted(keys), start=1)))}
    return [1.0 / (k + rank[value]) for value in keys]

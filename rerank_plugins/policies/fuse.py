"""One order from several: of rerankers, or of a reranker and the retriever."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from ..core.choices import described
from ..core.scorer import Scorer
from ..core.text_work import run_text_work
from ..core.together import together
from ..core.types import Capabilities, RerankRequest, Scores
from ..options import SPEC_SCHEMA, Number, Options, refused
from .composite import Composite, joint

__all__ = ["METHODS", "RRF_K", "Fuse", "FuseOptions", "Method"]

Method = Literal["rrf", "weighted"]
METHODS: tuple[Method, ...] = get_args(Method)
RRF_K = 60
"""Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods", SIGIR
2009, section 2."""


_ITEMS_PER_SCORE = 4
"""Joining one score of one list takes as long as about so many items of other work on text."""


def _partners(value: Any) -> Any:
    if value != "retrieval" and not (isinstance(value, list | tuple) and value):
        raise refused(
            f"must be 'retrieval' or a list of specs, got {described(value) if value != [] else 'an empty list'}"
        )
    return value


class FuseOptions(Options):
    """Several orders that are joined into one."""

    model_config = ConfigDict(populate_by_name=False)

    partners: Annotated[
        Any,
        PlainValidator(_partners),
        WithJsonSchema({"anyOf": [{"const": "retrieval"}, {"type": "array", "items": SPEC_SCHEMA, "minItems": 1}]}),
    ] = Field(alias="with")
    """`retrieval`, the retriever's order or scores; or a list of specs."""
    method: Method = "rrf"
    """`rrf`: reciprocal ranks. `weighted`: the mean of the relevance scores."""
    weights: Sequence[Number] | None = None
    """One number for each list that is joined, the reranker's own first; equal unless written."""
    k: Number | None = None
    """Of `rrf`: how little the first ranks stand out; 60 unless written."""

    @model_validator(mode="after")
    def _weights_for_each(self) -> Self:
        lists = 1 + (1 if self.retrieval else len(self.partners))
        if self.weights is not None and len(self.weights) != lists:
            raise refused(
                f"must have {lists} numbers in weights, one for each list that is joined, got {len(self.weights)}"
            )
        if self.weights is not None and not any(self.weights):
            raise refused("has only 0 in weights: nothing would be joined")
        if self.k is not None and self.method != "rrf":
            raise refused("has k, which belongs to the method 'rrf'")
        return self

    @property
    def retrieval(self) -> bool:
        """Whether the retriever's order is one of the lists."""
        return isinstance(self.partners, str)

    def fused(self, scorers: Sequence[Scorer]) -> Scorer:
        """Return the fusion of `scorers`, and of the retriever's order where that is one of the lists."""
        k = RRF_K if self.k is None else self.k
        return Fuse(scorers, retrieval=self.retrieval, method=self.method, weights=self.weights, k=k)


class Fuse(Composite):
    """Ask all scorers at the same time and join what they say.

    `rrf`: the sum over the lists of weight / (k + rank), ranks from 1, equal scores sharing the best of their ranks. Only
    its order means something (`ordinal`). `weighted`: the mean of the relevance scores by weight; in [0, 1] (`unit`) where
    every list has scores in [0, 1] of its own, else `ordinal`. The retriever's list, if it is one of them, comes last: its
    scores are stretched over [0, 1] among the candidates; without scores, their ranks are.
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
        """Join `scorers`, and with `retrieval` the order given.

        Args:
            scorers: At least one; with `retrieval` False at least two.
            retrieval: Whether the retriever's order (or its scores) is one of the lists.
            method: `rrf` or `weighted`.
            weights: One for each list, the retriever's last, finite and not all 0; equal unless given.
            k: Of `rrf`: how little the first ranks stand out.
        """
        scaled = not retrieval and all(each.capabilities.scale != "ordinal" for each in scorers)
        scores = Capabilities(scale="unit" if method == "weighted" and scaled else "ordinal")
        super().__init__(scorers, joint(scorers, scores))
        self.retrieval = retrieval
        self.method = method
        lists = len(scorers) + retrieval
        given = list(weights) if weights is not None else [1.0] * lists
        scaled_weights = [each / max(given) for each in given]  # the sum of very large numbers would be infinite
        self.weights = [each / sum(scaled_weights) for each in scaled_weights]
        self.k = k

    @property
    def label(self) -> str:
        """All scorers', and how they are joined."""
        return self._joined_names([each.label for each in self.children])

    @property
    def spec_name(self) -> str:
        """All scorers', and how they are joined."""
        return self._joined_names([each.spec_name for each in self.children])

    def _joined_names(self, names: list[str]) -> str:
        return f"{' + '.join(names + ['retrieval'] * self.retrieval)} ({self.method})"

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask everybody and join the answers."""
        answers = await together(self.ask(each, request) for each in self.children)
        size = len(request.documents) * len(self.weights) * _ITEMS_PER_SCORE
        return await run_text_work(size, self._joined, answers, request)

    def _joined(self, answers: Sequence[Scores], request: RerankRequest) -> Scores:
        lists = self._by_rank(answers, request) if self.method == "rrf" else self._by_score(answers, request)
        values = tuple(
            sum(weight * value for weight, value in zip(self.weights, column, strict=True))
            for column in zip(*lists, strict=True)
        )
        weak = next((answer for answer in answers if answer.degraded), None)
        cut = [answer.truncated for answer in answers if answer.truncated is not None]
        return Scores(
            values=values,
            model=self.label,
            capabilities=self.capabilities,
            usage=reduce(add, (answer.usage for answer in answers)),
            truncated=tuple(map(any, zip(*cut, strict=True))) if cut else None,
            spans=next((answer.spans for answer in answers if answer.spans is not None), None),
            degraded=weak is not None,
            reason=weak.reason if weak is not None else None,
        )

    def _by_rank(self, answers: Sequence[Scores], request: RerankRequest) -> list[list[float]]:
        # By what orders an answer, never by its relevance: there, large logits and the steps of a calibration are all one.
        orders = [_or_given(answer.ranks()) for answer in answers]
        if self.retrieval:
            orders.append([-each for each in _stretched(request)])
        return [_reciprocal(each, self.k) for each in orders]

    def _by_score(self, answers: Sequence[Scores], request: RerankRequest) -> list[list[float]]:
        lists = [_or_ranks(answer.relevances()) for answer in answers]
        return [*lists, _stretched(request)] if self.retrieval else lists


def _or_given(ranks: Sequence[float]) -> Sequence[float]:
    """Return what to sort by, least first; of one that keeps the order given, the places."""
    return range(len(ranks)) if all(math.isinf(each) for each in ranks) else ranks


def _or_ranks(relevances: Sequence[float | None]) -> list[float]:
    """Return a list's scores in [0, 1]; of one that keeps the order given, falling with rank."""
    if all(each is None for each in relevances):
        return [1.0 - place / len(relevances) for place in range(len(relevances))]
    return [0.0 if each is None else each for each in relevances]


def _stretched(request: RerankRequest) -> list[float]:
    scores = request.retrieval_scores
    if scores is None:
        return _or_ranks([None] * len(request.documents))
    if math.isinf(max(scores) - min(scores)):
        scores = tuple(score / 2.0 for score in scores)
    low, high = min(scores), max(scores)
    return [(each - low) / (high - low) if high > low else 1.0 for each in scores]


def _reciprocal(order: Sequence[float], k: float) -> list[float]:
    """Return 1 / (k + rank) of each, the least first; equals share the best of their ranks."""
    rank = {value: place for place, value in reversed(list(enumerate(sorted(order), start=1)))}
    return [1.0 / (k + rank[value]) for value in order]

"""Diversity: reorders the first results by maximal marginal relevance, so that they differ from each other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator
from pydantic.json_schema import SkipJsonSchema

from ..core._runtime.background_loop import Workers
from ..core._runtime.text_work import SLICE_CHARACTERS, check_cancelled
from ..core.deadline import seconds_left
from ..core.errors import ConfigError, RerankError
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..core.words import word_slices
from ..options import Count, Fraction, Options, refused

__all__ = ["LAMBDA", "TOP_N", "Diversify", "DiversifyOptions", "term_overlap"]

LAMBDA = 0.7
TOP_N = 10
NO_TIME = "in order of relevance: the deadline left no time for diversify"


def term_overlap(one: str, other: str) -> float:
    """Return the Jaccard similarity of the words of two texts, in [0, 1]. Words are folded; see `core.words`."""
    return _jaccard(_words(one), _words(other))


def _words(text: str) -> frozenset[str]:
    return frozenset(word for words in word_slices(text) for word in words)


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    smaller, larger = sorted((one, other), key=len)
    # For large sets the loop replaces the intersection, which would hold the interpreter lock for its whole duration.
    common = len(smaller & larger) if len(smaller) <= SLICE_CHARACTERS else sum(word in larger for word in smaller)
    return common / (len(one) + len(other) - common) if one or other else 1.0


def _function(value: Any) -> Any:
    if not callable(value):
        raise refused("must be a function that returns a number from 0 to 1 for two strings")
    return value


class DiversifyOptions(Options):
    """The diversity of the first results: how many are chosen, and how much difference counts against relevance."""

    model_config = ConfigDict(populate_by_name=False)

    trade: Fraction = Field(default=LAMBDA, alias="lambda")
    """Weight of relevance against difference: 1 is relevance alone, 0 is difference alone."""
    top_n: Count = TOP_N
    """Number of results that are chosen this way. The others follow in the order of their scores."""
    similarity: SkipJsonSchema[Annotated[Callable[[str, str], float], PlainValidator(_function)]] = term_overlap
    """Function of two strings that returns their similarity from 0 to 1; only in Python. By default the share of common
    words."""

    def wrap(self, scorer: Scorer) -> Scorer:
        """Return `scorer` inside the diversity policy."""
        return Diversify(scorer, trade=self.trade, top_n=self.top_n, similarity=self.similarity)


class Diversify(Wrapper):
    """Choose the first `top_n` by maximal marginal relevance (MMR). The others follow in the order of their scores.

    The next document is the one with the largest trade * relevance - (1 - trade) * (largest similarity to a document
    chosen before). See Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998, section 2;
    their lambda is `trade`. The relevance is scaled to [0, 1] among the candidates, so that `trade` means the same for
    every vendor.

    Only the order changes, not the scores. Documents without scores keep their order. If the call's deadline leaves no
    time, the order of the scores stays, and the answer's reason says so.
    """

    def __init__(
        self,
        inner: Scorer,
        *,
        trade: float = LAMBDA,
        top_n: int = TOP_N,
        similarity: Callable[[str, str], float] = term_overlap,
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer whose first results are reordered.
            trade: Weight of relevance against difference, from 0 to 1.
            top_n: Number of results to choose, at least 1.
            similarity: Function of two texts that returns a number from 0 to 1.
        """
        super().__init__(inner)
        self.trade = trade
        self.top_n = top_n
        self.similarity = similarity
        self._workers = Workers(1, "rerank-diversify")

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and reorder the first results."""
        scores = await self.inner.ascore(request)
        try:
            async with asyncio.timeout(seconds_left()):
                # On a thread, because the event loop is the caller's and a similarity function of the user may be slow.
                return await self._workers.run(self._reorder, scores, request.documents)
        except TimeoutError:
            # The scores are there and may have cost money, so they are returned instead of an error.
            return replace(scores, reason=scores.reason or NO_TIME)

    def _reorder(self, scores: Scores, documents: Sequence[str]) -> Scores:
        relevance = {index: value for index, value in enumerate(scores.relevances()) if value is not None}
        if len(relevance) < 2:
            return scores
        low, high = min(relevance.values()), max(relevance.values())
        width = high - low or 1.0
        best = scores.best_first()
        # Documents without a score cannot be compared. They stay at the end.
        weighted = {index: self.trade * (relevance[index] - low) / width for index in best if index in relevance}
        chosen = self._choose(documents, weighted)
        is_chosen = set(chosen)
        return replace(scores, order=(*chosen, *(index for index in best if index not in is_chosen)))

    async def aclose(self) -> None:
        """Close the inner scorer, and end the worker thread."""
        self._workers.close()
        await super().aclose()

    def _choose(self, documents: Sequence[str], candidates: dict[int, float]) -> list[int]:
        """Return the indices of the chosen documents in order; `candidates` maps indices to weighted relevances."""
        similarity = self._similarity_of(documents, candidates)
        largest = dict.fromkeys(candidates, 0.0)  # similarity to the most similar chosen document
        chosen: list[int] = []
        while candidates and len(chosen) < self.top_n:
            best = max(candidates, key=lambda index: candidates[index] - (1.0 - self.trade) * largest[index])
            chosen.append(best)
            del candidates[best]
            if len(chosen) < self.top_n:
                for index in candidates:
                    check_cancelled()
                    largest[index] = max(largest[index], similarity(best, index))
        return chosen

    def _similarity_of(self, documents: Sequence[str], indices: Iterable[int]) -> Callable[[int, int], float]:
        if self.similarity is not term_overlap:
            return lambda one, other: self._call_similarity(documents[one], documents[other])
        words = {index: _words(documents[index]) for index in indices}  # each text is split once, not per comparison
        return lambda one, other: _jaccard(words[one], words[other])

    def _call_similarity(self, one: str, other: str) -> float:
        """Call the user's function, and check what it returns."""
        try:
            value = float(self.similarity(one, other))
        except RerankError:
            raise
        except Exception as error:
            # The error's text is left out: it may contain the documents.
            raise ConfigError(
                f"The function diversify.similarity failed with {type(error).__name__}. It must return a number from 0 "
                "to 1 for two strings: correct it, or leave it out."
            ) from error
        if not math.isfinite(value):
            raise ConfigError(
                f"The function diversify.similarity must return a number from 0 to 1, got {value}. Correct it, or "
                "leave it out."
            )
        return value

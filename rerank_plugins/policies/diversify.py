"""Best passages that do not all say the same."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator
from pydantic.json_schema import SkipJsonSchema

from ..core.deadline import seconds_left
from ..core.errors import ConfigError, RerankError
from ..core.loop import Workers
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import SLICE, check_cancelled
from ..core.types import RerankRequest, Scores
from ..core.words import word_slices
from ..options import Count, Fraction, Options, refused

__all__ = ["LAMBDA", "TOP_N", "Diversify", "DiversifyOptions", "term_overlap"]

LAMBDA = 0.7
TOP_N = 10
NO_TIME = "in order of relevance: the deadline left no time for diversify"


def term_overlap(one: str, other: str) -> float:
    """Return the share of the words of both that both have (Jaccard), in [0, 1]; the words are folded (`core.words`)."""
    return _overlap(_words(one), _words(other))


def _words(text: str) -> frozenset[str]:
    return frozenset(word for words in word_slices(text) for word in words)


def _overlap(mine: frozenset[str], theirs: frozenset[str]) -> float:
    few, many = sorted((mine, theirs), key=len)
    # An intersection in C would hold the interpreter lock as long as it takes.
    both = len(few & many) if len(few) <= SLICE else sum(word in many for word in few)
    return both / (len(mine) + len(theirs) - both) if mine or theirs else 1.0


def _function(value: Any) -> Any:
    if not callable(value):
        raise refused("must be a function that returns a number from 0 to 1 for two strings")
    return value


class DiversifyOptions(Options):
    """How the first documents are spread out, so that they do not all say the same."""

    model_config = ConfigDict(populate_by_name=False)

    trade: Fraction = Field(default=LAMBDA, alias="lambda")
    """1 is relevance alone, 0 is difference alone."""
    top_n: Count = TOP_N
    """How many of the first documents are chosen so; the others follow by score."""
    similarity: SkipJsonSchema[Annotated[Callable[[str, str], float], PlainValidator(_function)]] = term_overlap
    """A function of two strings that returns a number from 0 to 1; only in a spec in Python."""

    def wrap(self, scorer: Scorer) -> Scorer:
        """Return `scorer` with its best documents spread out."""
        return Diversify(scorer, trade=self.trade, top_n=self.top_n, similarity=self.similarity)


class Diversify(Wrapper):
    """Choose the first `top_n` by maximal marginal relevance; the others follow by score.

    Next comes the document with the largest trade * relevance - (1 - trade) * (largest similarity to one chosen before).
    (Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998, section 2; their lambda is `trade`.)
    The relevance is stretched over [0, 1] among the candidates, so that `trade` means the same under every vendor. Scores
    stay as they are; only the order changes. The order given, where nobody scored, stays too. Where the call's deadline
    leaves no time for this, the order by score stays, and the answer's reason says so.
    """

    def __init__(
        self,
        inner: Scorer,
        *,
        trade: float = LAMBDA,
        top_n: int = TOP_N,
        similarity: Callable[[str, str], float] = term_overlap,
    ) -> None:
        """Reorder what `inner` says; `similarity` gives a number in [0, 1] for two texts."""
        super().__init__(inner)
        self.trade = trade
        self.top_n = top_n
        self.similarity = similarity
        self._workers = Workers(1, "rerank-diversify")

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and spread out the best."""
        scores = await self.inner.ascore(request)
        try:
            async with asyncio.timeout(seconds_left()):
                # On a thread: the event loop is the caller's, and a similarity of the caller's may take its time.
                return await self._workers.run(self._spread, scores, request.documents)
        except TimeoutError:
            # The scores have been paid for: they are worth more than an error.
            return replace(scores, reason=scores.reason or NO_TIME)

    def _spread(self, scores: Scores, documents: Sequence[str]) -> Scores:
        known = {index: value for index, value in enumerate(scores.relevances()) if value is not None}
        if len(known) < 2:
            return scores
        low, high = min(known.values()), max(known.values())
        width = high - low or 1.0
        best = scores.best_first()
        # Documents without a score cannot be compared, and stay behind.
        worth = {index: self.trade * (known[index] - low) / width for index in best if index in known}
        chosen = self._chosen(documents, worth)
        taken = set(chosen)
        return replace(scores, order=(*chosen, *(index for index in best if index not in taken)))

    async def aclose(self) -> None:
        """Close the inner scorer, and let the thread end."""
        self._workers.close()
        await super().aclose()

    def _chosen(self, documents: Sequence[str], worth: dict[int, float]) -> list[int]:
        alike = self._alike(documents, worth)
        nearest = dict.fromkeys(worth, 0.0)
        chosen: list[int] = []
        while worth and len(chosen) < self.top_n:
            found = max(worth, key=lambda each: worth[each] - (1.0 - self.trade) * nearest[each])
            chosen.append(found)
            del worth[found]
            if len(chosen) < self.top_n:
                for each in worth:
                    check_cancelled()
                    nearest[each] = max(nearest[each], alike(found, each))
        return chosen

    def _alike(self, documents: Sequence[str], asked: Iterable[int]) -> Callable[[int, int], float]:
        if self.similarity is not term_overlap:
            return lambda one, other: self._similar(documents[one], documents[other])
        words = {each: _words(documents[each]) for each in asked}  # each text is read once, not once a comparison
        return lambda one, other: _overlap(words[one], words[other])

    def _similar(self, one: str, other: str) -> float:
        """Call the user's function, whose errors and values can be anything."""
        try:
            value = float(self.similarity(one, other))
        except RerankError:
            raise
        except Exception as error:
            # Not the error's text: it may hold the documents.
            raise ConfigError(
                f"The function given as diversify.similarity failed with {type(error).__name__}. It must return a number "
                "from 0 to 1 for two strings: mend it, or leave it out."
            ) from error
        if not math.isfinite(value):
            raise ConfigError(
                f"The function given as diversify.similarity returned {value}. It must return a number from 0 to 1."
            )
        return value

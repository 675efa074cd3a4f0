"""Best passages that do not all say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["LAMBDA", "TOP_N", "Diversify", "term_overlap"]

LAMBDA = 0.7
TOP_N = 10

_WORD = re.compile(r"\w+")


def term_overlap(one: str, other: str) -> float:
    """Return the share of the words of both that both have (Jaccard), in [0, 1]; case does not count."""
    mine, theirs = (set(_WORD.findall(text.casefold())) for text in (one, other))
    return len(mine & theirs) / len(mine | theirs) if mine or theirs else 1.0


class Diversify(Wrapper):
    """Choose the first `top_n` by maximal marginal relevance; the others follow by score.

    Next comes the document with the largest trade * relevance - (1 - trade) * (largest similarity to one chosen before).
    (Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998, section 2; their lambda is `trade`.)
    The relevance is stretched over [0, 1] among the candidates, so that `trade` means the same under every vendor. Scores
    stay as they are; only the order changes. The order given, where nobody scored, stays too.
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

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and spread out the best."""
        scores = await self.inner.ascore(request)
        known = {each: value for each, value in enumerate(scores.relevances()) if value is not None}
        if len(known) < 2:
            return scores
        low, high = min(known.values()), max(known.values())
        width = high - low or 1.0
        best = scores.best_first()
        # Who has no score cannot be compared, and stays behind.
        worth = {each: self.trade * (known[each] - low) / width for each in best if each in known}
        nearest = dict.fromkeys(worth, 0.0)
        chosen: list[int] = []
        while worth and len(chosen) < self.top_n:
            found = max(worth, key=lambda each: worth[each] - (1.0 - self.trade) * nearest[each])
            chosen.append(found)
            del worth[found]
            text = request.documents[found]
            for each in worth:
                nearest[each] = max(nearest[each], self.similarity(text, request.documents[each]))
        taken = set(chosen)
        return replace(scores, order=(*chosen, *(each for each in best if each not in taken)))

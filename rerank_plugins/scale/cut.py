"""A caller's own `max_tokens_per_doc`: documents are cut before the reranker sees them, and the answer says which."""

from __future__ import annotations

from typing import Any

from ..core.loop import Workers
from ..core.scorer import Scorer
from ..core.tokens import bound, estimate

__all__ = ["Cutter"]


class Cutter:
    """Cuts texts by the tokens of one scorer, on a thread of its own: counting them takes time."""

    def __init__(self, scorer: Scorer) -> None:
        """Count as `scorer` does; where it has no tokenizer at hand, by an estimate from below."""
        self._scorer = scorer
        self._workers = Workers(1, "rerank-plugins-cut")

    async def cut(self, documents: list[Any], most: int | None) -> tuple[list[Any], frozenset[int]]:
        """Return the documents, none longer than `most` tokens, and the positions of those that were cut.

        Mappings are left whole: where their text ends is only known to the backend.
        """
        long = (
            []
            if most is None
            else [
                position for position, each in enumerate(documents) if isinstance(each, str) and bound(each) - 2 > most
            ]
        )
        if most is None or not long:
            return documents, frozenset()
        shorter = await self._workers.run(lambda: {each: self._head(documents[each], most) for each in long})
        kept = [shorter.get(position, each) for position, each in enumerate(documents)]
        return kept, frozenset(position for position in long if shorter[position] is not documents[position])

    def _head(self, text: str, most: int) -> str:
        offsets = self._scorer.tokens(text)
        if offsets is not None:
            return text if len(offsets) <= most else text[: offsets[most - 1][1]]
        least = estimate(text)[0]
        return text if least <= most else text[: len(text) * most // least]

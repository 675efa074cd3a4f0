"""A caller's own `max_tokens_per_doc`: documents are cut before the reranker sees them, and the answer says which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.scorer import Scorer
from ..core.text_work import run_on_text_thread
from ..core.tokens import bound, estimate

__all__ = ["Cutter"]

_CHARACTERS_PER_TOKEN = 12
_MARGIN = 64
"""Tokens past the cut: the last ones of a beginning are not those of the whole text."""


class Cutter:
    """Cuts texts by the tokens of one scorer."""

    def __init__(self, scorer: Scorer) -> None:
        """Count as `scorer` does; where it has no tokenizer at hand, by an estimate from below."""
        self._scorer = scorer

    async def cut(self, documents: list[Any], most: int | None) -> tuple[list[Any], frozenset[int]]:
        """Return the documents, none longer than `most` tokens, and the positions of those that were cut.

        Mappings are left whole: where their text ends is only known to the backend. The work takes time for the tokens
        that stay, not for those that are cut off, and stops when the caller is cancelled.
        """
        # By its characters, a text that short cannot have more tokens.
        if most is None or not any(isinstance(each, str) and 4 * len(each) > most for each in documents):
            return documents, frozenset()
        short = await run_on_text_thread(self._heads, documents, most)
        cut = (at for at, (head, each) in enumerate(zip(short, documents, strict=True)) if head is not each)
        return short, frozenset(cut)

    def _heads(self, documents: Sequence[Any], most: int) -> list[Any]:
        return [self._head(each, most) if isinstance(each, str) else each for each in documents]

    def _head(self, text: str, most: int) -> str:
        if len(text) <= most and bound(text) - 2 <= most:
            return text
        size = most * _CHARACTERS_PER_TOKEN + 1_000
        while True:
            start = text[:size]
            offsets = self._scorer.tokens(start)
            count = estimate(start)[0] if offsets is None else len(offsets)
            if count > most and (size >= len(text) or count >= most + _MARGIN):
                return text[: len(start) * most // count if offsets is None else offsets[most - 1][1]]
            if size >= len(text):
                return text
            size *= 4

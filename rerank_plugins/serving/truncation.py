"""Cut documents at the `max_tokens_per_doc` of a request, before the reranker sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core._runtime.text_work import run_on_text_thread
from ..core.scorer import Scorer
from ..core.tokens import SPECIAL_TOKENS, estimate_tokens, max_token_count

__all__ = ["DocumentTruncator"]

_CHARACTERS_PER_TOKEN = 12
_MARGIN = 64
"""Tokens past the cut: the last tokens of a beginning may differ from those of the whole text there."""


class DocumentTruncator:
    """Cut texts by the tokens of one scorer."""

    def __init__(self, scorer: Scorer) -> None:
        """Use the tokenizer of `scorer`; where it has none at hand, a lower estimate."""
        self._scorer = scorer

    async def cut(self, documents: list[Any], limit: int | None) -> tuple[list[Any], frozenset[int]]:
        """Return the documents, none longer than `limit` tokens, and the positions of those that were cut.

        Mappings stay whole: only the backend knows where their text ends. The work grows with the tokens that stay, not
        with the text, and stops when the caller is cancelled.
        """
        # By its characters, a text that short cannot have more tokens.
        if limit is None or not any(isinstance(each, str) and 4 * len(each) > limit for each in documents):
            return documents, frozenset()
        short = await run_on_text_thread(self._heads, documents, limit)
        cut = (at for at, (head, each) in enumerate(zip(short, documents, strict=True)) if head is not each)
        return short, frozenset(cut)

    def _heads(self, documents: Sequence[Any], limit: int) -> list[Any]:
        return [self._head(each, limit) if isinstance(each, str) else each for each in documents]

    def _head(self, text: str, limit: int) -> str:
        if len(text) <= limit and max_token_count(text) - SPECIAL_TOKENS <= limit:
            return text
        size = limit * _CHARACTERS_PER_TOKEN + 1_000
        while True:
            start = text[:size]
            offsets = self._scorer.tokens(start)
            count = estimate_tokens(start)[0] if offsets is None else len(offsets)
            if count > limit and (size >= len(text) or count >= limit + _MARGIN):
                return text[: len(start) * limit // count if offsets is None else offsets[limit - 1][1]]
            if size >= len(text):
                return text
            size *= 4

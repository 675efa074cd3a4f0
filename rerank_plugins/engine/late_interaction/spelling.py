"""Finds texts that the vocabulary of an English model cannot spell, such as Chinese or Russian ones.

A WordPiece tokenizer divides a word that is not in its vocabulary into shorter pieces, in the end into single letters.
A word with a letter that is not in the vocabulary becomes the unknown token. Such pieces have next to no meaning.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from ...core._runtime.text_work import check_cancelled, run_on_text_thread, run_text_work
from ..tokenizer import PairTokenizer

__all__ = ["Spelling"]

_SAMPLE = 1_000
"""Characters that are looked at, from the start of a text: about as many as the model reads."""
_FEW, _MANY = 0.2, 0.5
"""A text is spelled if less than this share of its characters belongs to other scripts. It is not spelled if at least
this share of its characters is in pieces without a meaning."""


class Spelling:
    """Which texts the vocabulary of a WordPiece tokenizer cannot spell."""

    def __init__(self) -> None:
        """Read nothing: the vocabulary is read for the first text with many letters of other scripts."""
        self._sizes: list[int] = []

    async def unspelled(self, texts: Sequence[str], tokenizer: Callable[[], PairTokenizer]) -> set[int]:
        """Return the positions of the texts that the vocabulary cannot spell.

        Args:
            texts: The texts, of any length.
            tokenizer: Returns the tokenizer, always the same one. It is not called for English texts.
        """
        doubtful = await run_text_work(_SAMPLE * len(texts), _doubtful, texts)
        return await run_on_text_thread(self._check, texts, doubtful, tokenizer) if doubtful else set()

    def _check(self, texts: Sequence[str], doubtful: list[int], tokenizer: Callable[[], PairTokenizer]) -> set[int]:
        samples = [_sample(texts[position]) for position in doubtful]
        rows = tokenizer().ids(samples, _SAMPLE)
        # Two threads may read the vocabulary at once, with the same result.
        sizes = self._sizes = self._sizes or piece_sizes(tokenizer())
        # By characters, because the unknown token may stand for a whole sentence: Thai has no spaces between words.
        spelled = (
            sum(sizes[number] for number in ids) / max(1, sum(map(len, sample.split())))
            for ids, sample in zip(rows, samples, strict=True)
        )
        return {position for position, share in zip(doubtful, spelled, strict=True) if share <= 1 - _MANY}


def piece_sizes(tokenizer: PairTokenizer) -> list[int]:
    """Return the characters of each piece that has a meaning; 0 for the unknown token and single non-ASCII letters."""
    vocabulary = tokenizer.vocabulary()
    sizes = [0] * (1 + max(vocabulary.values()))
    for piece, number in vocabulary.items():
        letters = piece.removeprefix("##")
        if len(letters) > 1 or letters.isascii() or not letters.isalpha():
            sizes[number] = len(letters)
    sizes[tokenizer.token("[UNK]")] = 0
    return sizes


def _sample(text: str) -> str:
    """Return the start of a text, without blanks around it. Text from a PDF may begin with pages of them."""
    return text[:_SAMPLE].strip() or text.lstrip()[:_SAMPLE].rstrip()


def _doubtful(texts: Sequence[str]) -> list[int]:
    """Return the positions of the texts that start with many letters of other scripts."""
    positions = []
    for position, text in enumerate(texts):
        check_cancelled()
        if not text.isascii():
            sample = _sample(text)
            if sample and len(_other_scripts().findall(sample)) >= _FEW * len(sample):
                positions.append(position)
    return positions


@functools.cache
def _other_scripts() -> re.Pattern[str]:
    """Return a pattern of the letters of scripts other than Latin, and little else.

    Typographic quotes and dashes, arrows and emoji are not among them, so nearly all English text is decided without a
    tokenizer. The pattern takes milliseconds to compile, so it is compiled for the first text that is not ASCII.
    """
    return re.compile(
        "[\u0370-\u1cff\u1f00-\u1fff\u2c00-\u2c5f\u2c80-\u2dff\u3040-\ua71f\ua800-\ufaff\ufb13-\ufdff\ufe70-\ufefc]"
    )

"""Builds the prompt of jina-reranker-v3 in token ids: the query, all passages of a block, and the query again.

Source: modeling.py of https://huggingface.co/jinaai/jina-reranker-v3 (format_docs_prompts_func, sanitize_input,
_truncate_texts, rerank; November 2026). The text between two marks is tokenized by itself, which is what a tokenizer
does with the maker's string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..causal_lm.templates import OTHER_MARKS
from ..tokenizer import PairTokenizer

__all__ = ["PASSAGE", "QUERY", "Block", "ListPrompts", "Passage", "split_into_blocks"]

PASSAGE, QUERY = "<|embed_token|>", "<|rerank_token|>"
"""The marks whose hidden states are the embeddings of a passage and of the query."""
MAX_PASSAGES = 125
"""The most passages of a block (`block_size` in `rerank`)."""

_MARKS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", PASSAGE, QUERY)
_SYSTEM = (
    "system\nYou are a search relevance expert who can determine a ranking of the passages based on how relevant they "
    "are "
    "to the query. If the query is a question, how relevant a passage is depends on how well it answers the question. "
    "If "
    "not, try to analyze the intent of the query and assess how well each passage satisfies the intent. If an "
    "instruction "
    "is provided, you should follow the instruction when determining the ranking."
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A document, cut to the tokens that the model reads."""

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Block:
    """One pass through the model: the token ids, and the positions of the embeddings of passages and query."""

    ids: list[int]
    passages: list[int]
    query: int


class ListPrompts:
    """Builds prompts with the model's tokenizer."""

    def __init__(self, path: Path) -> None:
        """Read `tokenizer.json`.

        Raises:
            ConfigError: There is no such file, it is not a tokenizer, or it lacks a mark.
        """
        self.tokenizer = PairTokenizer(path, (*_MARKS, *OTHER_MARKS))
        self._marks = {mark: self.tokenizer.token(mark) for mark in _MARKS}

    def truncate(self, text: str, max_tokens: int) -> Passage:
        """Return a text cut to `max_tokens` tokens, without marks of embeddings, which the maker's code removes too."""
        return Passage(*self.tokenizer.truncate(text.replace(QUERY, "").replace(PASSAGE, ""), max_tokens))

    def block(self, query: str, passages: Sequence[str], instruction: str | None) -> Block:
        """Return the prompt of one block."""
        task = (
            f"user\nI will provide you with {len(passages)} passages, each indicated by a numerical identifier. "
            f"Rank the passages based on their relevance to query: {query}\n"
        )
        if instruction is not None:
            task += f"<instruct>\n{instruction}\n</instruct>\n"
        openings = [f'<passage id="{number}">\n{passage}' for number, passage in enumerate(passages)]
        openings.append(f"<query>\n{query}")
        # Marks and texts alternate, so a mark is recognized by its position and never by its text.
        runs = [("<|im_start|>", _SYSTEM), ("<|im_end|>", "\n"), ("<|im_start|>", task + openings[0])]
        runs += [(PASSAGE, f"\n</passage>\n{text}") for text in openings[1:]]
        runs += [(QUERY, "\n</query>"), ("<|im_end|>", "\n"), ("<|im_start|>", "assistant\n")]
        runs += [("<think>", "\n\n"), ("</think>", "\n\n")]
        encoded = self.tokenizer.ids([text for _, text in runs], max(len(text) for _, text in runs))
        ids: list[int] = []
        positions: dict[str, list[int]] = {PASSAGE: [], QUERY: []}
        for (mark, _), after in zip(runs, encoded, strict=True):
            positions.get(mark, []).append(len(ids))
            ids += [self._marks[mark], *after]
        return Block(ids, positions[PASSAGE], positions[QUERY][0])


def split_into_blocks(lengths: Sequence[int], block_tokens: int, longest: int) -> list[range]:
    """Return ranges of consecutive passages that form a block each, as the maker's `rerank` does.

    Args:
        lengths: The tokens of each passage.
        block_tokens: The tokens of a block without the query.
        longest: The tokens of the longest possible passage. A block is closed when another one of that length might not
            fit.
    """
    parts: list[range] = []
    first, left = 0, block_tokens
    for place, length in enumerate(lengths):
        left -= length
        if place + 1 - first >= MAX_PASSAGES or left <= longest:
            parts.append(range(first, place + 1))
            first, left = place + 1, block_tokens
    if first < len(lengths):
        parts.append(range(first, len(lengths)))
    return parts

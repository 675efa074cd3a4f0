"""jina-reranker-v3's prompt: the query, all passages of a block, and the query again, in token ids.

Source: modeling.py of https://huggingface.co/jinaai/jina-reranker-v3 (format_docs_prompts_func, sanitize_input,
_truncate_texts, rerank; November 2026). Every text between two marks is tokenized by itself, which is what a tokenizer
does with the maker's one string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..causal_lm.templates import OTHER_MARKS
from ..tokenizer import PairTokenizer

__all__ = ["PASSAGE", "QUERY", "Block", "ListPrompts", "Passage", "blocks"]

PASSAGE, QUERY = "<|embed_token|>", "<|rerank_token|>"
"""The marks whose states are the embeddings of a passage and of the query."""
MOST_PASSAGES = 125
"""Passages of one block (`block_size` in `rerank`)."""

_MARKS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", PASSAGE, QUERY)
_SYSTEM = (
    "system\nYou are a search relevance expert who can determine a ranking of the passages based on how relevant they are "
    "to the query. If the query is a question, how relevant a passage is depends on how well it answers the question. If "
    "not, try to analyze the intent of the query and assess how well each passage satisfies the intent. If an instruction "
    "is provided, you should follow the instruction when determining the ranking."
)


@dataclass(frozen=True, slots=True)
class Passage:
    """One document, cut to what the model reads of it."""

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Block:
    """One pass through the model: the ids, and where the embeddings will be."""

    ids: list[int]
    passages: list[int]
    query: int


class ListPrompts:
    """A tokenizer with the model's marks."""

    def __init__(self, path: Path) -> None:
        """Read `tokenizer.json`.

        Raises:
            ConfigError: It is not there, is no tokenizer, or lacks a mark.
        """
        self.tokenizer = PairTokenizer(path, (*_MARKS, *OTHER_MARKS))
        self._marks = {mark: self.tokenizer.token(mark) for mark in _MARKS}

    def fitted(self, text: str, max_tokens: int) -> Passage:
        """Return a text without the embeddings' marks (the maker takes them out) and cut to `max_tokens` tokens."""
        return Passage(*self.tokenizer.beginning(text.replace(QUERY, "").replace(PASSAGE, ""), max_tokens))

    def block(self, query: str, passages: Sequence[str], instruction: str | None) -> Block:
        """Return the prompt of one block."""
        task = (
            f"user\nI will provide you with {len(passages)} passages, each indicated by a numerical identifier. "
            f"Rank the passages based on their relevance to query: {query}\n"
        )
        if instruction is not None:
            task += f"<instruct>\n{instruction}\n</instruct>\n"
        begun = [f'<passage id="{number}">\n{passage}' for number, passage in enumerate(passages)]
        begun.append(f"<query>\n{query}")
        # Marks and texts take turns, so a mark is known by its place, never by what a text holds.
        runs = [("<|im_start|>", _SYSTEM), ("<|im_end|>", "\n"), ("<|im_start|>", task + begun[0])]
        runs += [(PASSAGE, f"\n</passage>\n{text}") for text in begun[1:]]
        runs += [(QUERY, "\n</query>"), ("<|im_end|>", "\n"), ("<|im_start|>", "assistant\n")]
        runs += [("<think>", "\n\n"), ("</think>", "\n\n")]
        encoded = self.tokenizer.texts([text for _, text in runs], max(len(text) for _, text in runs))
        ids: list[int] = []
        at: dict[str, list[int]] = {PASSAGE: [], QUERY: []}
        for (mark, _), after in zip(runs, encoded, strict=True):
            at.get(mark, []).append(len(ids))
            ids += [self._marks[mark], *after]
        return Block(ids, at[PASSAGE], at[QUERY][0])


def blocks(lengths: Sequence[int], block_tokens: int, longest: int) -> list[range]:
    """Return consecutive passages that are read together, as the maker's `rerank` does.

    Args:
        lengths: Tokens of each passage.
        block_tokens: Tokens of a block beside the query's.
        longest: Tokens of the longest passage that there can be: a block is closed when another such might not fit.
    """
    parts: list[range] = []
    first, left = 0, block_tokens
    for place, length in enumerate(lengths):
        left -= length
        if place + 1 - first >= MOST_PASSAGES or left <= longest:
            parts.append(range(first, place + 1))
            first, left = place + 1, block_tokens
    if first < len(lengths):
        parts.append(range(first, len(lengths)))
    return parts

"""A family's prompt around each document, in token ids: what is fixed stays whole, and only texts are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ...core.errors import InputError
from ..tokenizer import PairTokenizer
from .templates import OTHER_MARKS, Template

__all__ = ["Prompt", "Prompts", "common"]

_LEAST = 16
"""Tokens of a document that have to fit beside everything else, or nothing was read of it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What goes through a model for one document."""

    ids: list[int]
    truncated: bool


class Prompts:
    """A tokenizer and a template."""

    def __init__(self, path: Path, template: Template) -> None:
        """Read `tokenizer.json`.

        Raises:
            ConfigError: It is not there, is no tokenizer, or lacks a token of the template.
        """
        self.template = template
        self.tokenizer = PairTokenizer(path, (*template.marks, *OTHER_MARKS))
        self._marks = {mark: self.tokenizer.token(mark) for mark in template.marks}
        self.answers = [self.tokenizer.token(word) for word in (template.yes, template.no) if word is not None]

    def build(
        self, query: str, documents: Sequence[str], instruction: str | None, max_tokens: int, context: int
    ) -> list[Prompt]:
        """Return the prompt of each document.

        Args:
            query: Has three quarters of `max_tokens` at most, and of what the context leaves; past that it is cut too, and
                every result says so.
            documents: Cut at their ends so that query and document are within `max_tokens`.
            instruction: Never cut; `None` is the template's own.
            max_tokens: Of query and document together; the rest of the prompt comes on top.
            context: Of the whole prompt.

        Raises:
            InputError: Prompt and instruction leave no room for a document.
        """
        template = self.template
        if template.stripped:
            query, documents = query.strip(), [document.strip() for document in documents]
        parts = template.chosen(instruction)
        filled = {"query": "", "instruction": instruction or template.instruction or "", "document": ""}
        left = context - sum(len(self._part(part, filled)) for part in parts)
        if left < 4 * _LEAST:  # three quarters of it may go to the query
            advice = "shorten the instruction" if instruction else "it is too small a model for this"
            raise InputError(
                f"The prompt takes {context - left} of the {context} tokens that the model reads, which leaves no room for a "
                f"document: {advice}."
            )
        filled["query"], query_tokens, cut = self.tokenizer.beginning(query, min(max_tokens, left) * 3 // 4)
        at = next(place for place, part in enumerate(parts) if part.endswith("{document}"))
        lead = parts[at].format(**filled)
        fixed = [self._part(part, filled) for part in parts]
        size = sum(map(len, fixed))
        longest = len(fixed[at]) + min(max_tokens - query_tokens, context - size)
        before = list(chain.from_iterable(fixed[:at]))
        after = list(chain.from_iterable(fixed[at + 1 :]))
        # The document is tokenized together with what stands right before it, as its maker does: words join there.
        return [
            Prompt([*before, *ids[:longest], *after], truncated=cut or len(ids) > longest)
            for ids in self.tokenizer.texts([lead + document for document in documents], longest)
        ]

    def _part(self, part: str, filled: dict[str, str]) -> list[int]:
        if part in self._marks:
            return [self._marks[part]]
        text = part.format(**filled)
        return self.tokenizer.texts([text], len(text))[0]


def common(rows: Sequence[list[int]]) -> int:
    """Return how many ids all rows begin with; each keeps at least one of its own."""
    first, last = min(rows), max(rows)  # whatever these two share stands in every row between them
    shared = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(shared, min(map(len, rows)) - 1)

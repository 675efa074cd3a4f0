"""Builds the prompt of a family around each document, in token ids.

Only query and document are cut, never the rest of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ...core.errors import ConfigError, InputError
from ...core.numeric import MIN_TOKENS
from ..tokenizer import PairTokenizer
from .templates import OTHER_MARKS, Template

__all__ = ["Prompt", "Prompts", "common_prefix"]

_LONG_DOCUMENT = 32
"""Characters for each token that may be read, above which a document is cut before it is tokenized as a whole."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one document, in token ids."""

    ids: list[int]
    truncated: bool


class Prompts:
    """Builds prompts with a tokenizer and a template."""

    def __init__(self, path: Path, template: Template) -> None:
        """Read `tokenizer.json`.

        Raises:
            ConfigError: There is no such file, it is not a tokenizer, or a token of the template is missing or has
                another number.
        """
        self.template = template
        self.tokenizer = PairTokenizer(path, (*template.marks, *OTHER_MARKS))
        self._marks = {mark: self.tokenizer.token(mark) for mark in template.marks}
        self.answers = [self.tokenizer.token(word) for word in (template.yes, template.no) if word is not None]
        if template.yes_id not in (None, self.answers[0]):
            raise ConfigError(
                f"In {path} the token {template.yes!r} is number {self.answers[0]}, and the template {template.name} "
                f"reads the score at number {template.yes_id}, so this is a model of another family: name that family."
            )

    def build(
        self, query: str, documents: Sequence[str], instruction: str | None, max_tokens: int, context: int
    ) -> list[Prompt]:
        """Return the prompt of each document.

        Args:
            query: Gets at most three quarters of `max_tokens` and of the free part of the context. A longer query is
                cut, and then every prompt is marked as truncated.
            documents: Cut at their ends so that query and document are within `max_tokens`.
            instruction: Never cut; `None` is the template's own.
            max_tokens: The tokens of query and document together, without the rest of the prompt.
            context: The tokens of the whole prompt.

        Raises:
            InputError: Prompt and instruction leave no room for a document.
        """
        template = self.template
        if template.stripped:
            query, documents = query.strip(), [document.strip() for document in documents]
        parts = template.parts_for(instruction)
        filled = {"query": "", "instruction": instruction or template.instruction or "", "document": ""}
        left = context - sum(len(self._part(part, filled)) for part in parts)
        if left < 4 * MIN_TOKENS:  # the query may take three quarters of it
            advice = "shorten the instruction" if instruction else "use a model with a larger context"
            raise InputError(
                f"The prompt takes {context - left} of the {context} tokens that the model reads, which leaves no room "
                f"for a "
                f"document: {advice}."
            )
        filled["query"], query_tokens, cut = self.tokenizer.truncate(query, min(max_tokens, left) * 3 // 4)
        at = next(place for place, part in enumerate(parts) if "{document}" in part)
        lead, tail = (text.format(**filled) for text in parts[at].split("{document}"))
        fixed = [self._part(part, filled) for part in parts]
        size = sum(map(len, fixed))
        longest = len(fixed[at]) + min(max_tokens - query_tokens, context - size)
        before = list(chain.from_iterable(fixed[:at]))
        after = list(chain.from_iterable(fixed[at + 1 :]))
        # The document is tokenized together with the text right before and behind it, as its maker does: tokens may
        # span these borders.
        return [
            Prompt([*before, *ids, *after], truncated=cut or shortened)
            for ids, shortened in self._document_parts(lead, documents, tail, longest)
        ]

    def _document_parts(
        self, lead: str, documents: Sequence[str], tail: str, longest: int
    ) -> list[tuple[list[int], bool]]:
        """Return the ids of each document with the text around it, at most `longest`, and whether it was cut."""
        if not tail:
            rows = self.tokenizer.ids([lead + document for document in documents], longest)
            return [(ids[:longest], len(ids) > longest) for ids in rows]
        # The end of a text that may have to be cut does not matter yet, but the text behind it does.
        long = longest * _LONG_DOCUMENT
        whole = [lead + document + tail if len(document) <= long else "" for document in documents]
        rows = self._whole_texts(whole)
        return [
            (ids, False) if text and len(ids) <= longest else self._cut(lead, document, tail, longest)
            for text, ids, document in zip(whole, rows, documents, strict=True)
        ]

    def _cut(self, lead: str, document: str, tail: str, longest: int) -> tuple[list[int], bool]:
        """Return the ids of as much of a document as fits with the text around it, and whether it was cut."""
        left = longest - sum(map(len, self._whole_texts([lead, tail])))
        while True:
            start = self.tokenizer.truncate(document, left)[0] if left > 0 else ""
            (ids,) = self._whole_texts([lead + start + tail])
            if len(ids) <= longest or not start:
                return ids, len(start) < len(document)
            left -= len(ids) - longest  # the parts alone may have fewer tokens than the whole

    def _whole_texts(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.ids(texts, max(map(len, texts), default=0))

    def _part(self, part: str, filled: dict[str, str]) -> list[int]:
        if part in self._marks:
            return [self._marks[part]]
        return self._whole_texts([part.format(**filled)])[0]


def common_prefix(rows: Sequence[list[int]]) -> int:
    """Return the length of the ids that all rows begin with, at most one less than the shortest row."""
    first, last = min(rows), max(rows)  # every row lies between these two in order, so it shares their common prefix
    shared = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(shared, min(map(len, rows)) - 1)

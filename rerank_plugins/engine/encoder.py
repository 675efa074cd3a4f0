"""Text to token ids: the query keeps its place, only the document is cut, and no text can pose as a special token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Encoded", "Encoder"]

_CHARACTERS_PER_TOKEN = 12
_MARGIN = 64


@dataclass(frozen=True, slots=True)
class Encoded:
    """What goes through a model as one row."""

    ids: list[int]
    types: list[int]
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens around texts, as (id, type) runs, and the type of each text's own tokens."""

    runs: tuple[tuple[tuple[int, int], ...], ...]
    types: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.runs))


class Encoder:
    """A `tokenizer.json`, set once and never changed after: safe under threads (peers.md B5)."""

    def __init__(self, path: Path, marks: Sequence[str] = ()) -> None:
        """Read the file.

        Args:
            path: `tokenizer.json`.
            marks: Added tokens that are not seen in a text although the tokenizer does not call them special; nor is any
                that is written `<|so|>`.

        Raises:
            ConfigError: It is not there, or is no tokenizer.
        """
        from tokenizers import AddedToken

        if not path.is_file():
            raise ConfigError(f"{path} is missing: a model's folder needs its tokenizer.json beside the ONNX file.")
        try:
            self._tokenizer = _read(path)
        except Exception as error:  # tokenizers raises bare Exception for everything
            raise ConfigError(f"{path} cannot be read as a tokenizer ({error}): fetch it again.") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.path = path
        for known in self._tokenizer.get_added_tokens_decoder().values():
            mark = known.content
            if not known.special and (mark in marks or (mark.startswith("<|") and mark.endswith("|>"))):
                self._tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False)])
        # A text that holds "[SEP]" or "</s>" is text.
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {token: each.content for token, each in added.items() if each.special}
        self._single = self._learn("a")
        self._pair = self._learn("a", "b")

    def _learn(self, *texts: str) -> _Template:
        """Read off one encoding where the tokenizer puts its special tokens."""
        probe = self._tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
        runs: list[list[tuple[int, int]]] = [[] for _ in range(len(texts) + 1)]
        types = [0] * len(texts)
        past = 0
        for token, kind, owner in zip(probe.ids, probe.type_ids, probe.sequence_ids, strict=True):
            if owner is None:
                runs[past].append((token, kind))
            else:
                types[owner] = kind
                past = owner + 1
        return _Template(tuple(map(tuple, runs)), tuple(types))

    @property
    def joins_pairs(self) -> bool:
        """Whether the tokenizer sets something between a query and a document."""
        return bool(self._pair.runs[1])

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) characters of each token of `text`, without special tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if self._special.keys().isdisjoint(encoding.ids) or len(pieces := self._pieces(text)) == 1:
            return list(encoding.offsets)
        starts = accumulate(map(len, pieces), initial=0)
        return [
            (first + a, first + b) for first, piece in zip(starts, pieces, strict=False) for a, b in self.offsets(piece)
        ]

    def beginning(self, text: str, most: int) -> tuple[str, int, bool]:
        """Return `text` cut to `most` tokens, how many tokens are left of it, and whether it was cut."""
        start = text[: most * _CHARACTERS_PER_TOKEN + 1_000]
        offsets = self.offsets(start)
        if len(start) < len(text) and len(offsets) < most + _MARGIN:  # long runs of blanks, say: it is read whole
            offsets = self.offsets(text)
        if len(offsets) <= most:
            return text, len(offsets), False
        return text[: offsets[most - 1][1]], most, True

    def token(self, name: str) -> int:
        """Return the id of a token of the vocabulary.

        Raises:
            ConfigError: There is no such token.
        """
        found = self._tokenizer.token_to_id(name)
        if found is None:
            raise ConfigError(
                f"{self.path} has no token {name!r}, so this is another family's model: name that family."
            )
        return int(found)

    def singles(self, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return each text alone, cut to `max_tokens` with its special tokens."""
        room = max_tokens - self._single.size
        return [_assembled(self._single, (ids[:room],), truncated=len(ids) > room) for ids in self.texts(texts, room)]

    def pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return the query joined with each document; the document is cut so that all is within `max_tokens`.

        The query has three quarters of `max_tokens` at most (as in FlagEmbedding 1.4.2): past that it is cut too, and
        every result says so.
        """
        room = max_tokens - self._pair.size
        most = min(max_tokens * 3 // 4, room * 7 // 8)  # a window of a few tokens keeps one for the document
        (asked,) = self.texts([query], most)
        cut_query, asked = len(asked) > most, asked[:most]
        left = room - len(asked)
        return [
            _assembled(self._pair, (asked, ids[:left]), truncated=cut_query or len(ids) > left)
            for ids in self.texts(documents, left)
        ]

    def texts(self, texts: Sequence[str], room: int) -> list[list[int]]:
        """Return the ids of each text, no special tokens; of a very long one only its beginning that fills `room` and more."""
        most = room * _CHARACTERS_PER_TOKEN + 1_000
        found = self._batch([text[:most] for text in texts])
        # Beginnings that gave too few tokens (long runs of blanks, say) are read whole.
        again = [
            position
            for position, text in enumerate(texts)
            if len(text) > most and len(found[position]) < room + _MARGIN
        ]
        for position, ids in zip(again, self._batch([texts[position] for position in again]), strict=True):
            found[position] = ids
        return found

    def _batch(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = [
            each.ids for each in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        for position, ids in enumerate(found):
            if not self._special.keys().isdisjoint(ids) and len(pieces := self._pieces(texts[position])) > 1:
                found[position] = [token for piece in self._batch(pieces) for token in piece]
        return found

    def _pieces(self, text: str) -> list[str]:
        """Return a text in pieces, parted inside of whatever would become a special token of the vocabulary.

        Not looking for special tokens is not enough: many a vocabulary holds them as words too, and the model of the
        tokenizer puts them together (XLM-R's rates "</s>" above any other reading of it). An unknown word, or a byte
        to fall back on, may have a special token rightly; it is none that is written there.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        borders = [
            (start + end) // 2
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if end - start > 1 and token in self._special and self._special[token] in self._normal(text[start:end])
        ]
        if not borders:
            return [text]
        parts = pairwise([0, *borders, len(text)])
        return [piece for start, end in parts for piece in self._pieces(text[start:end])]

    def _normal(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))


def _read(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`, in which no plain word is special.

    An answer may be called so, that it is one token: it closes no prompt, and in a text it has to stay the maker's token.
    """
    from tokenizers import Tokenizer

    found: Tokenizer = Tokenizer.from_file(str(path))
    if not any(each.special and each.content.isalnum() for each in found.get_added_tokens_decoder().values()):
        return found
    told = json.loads(path.read_text("utf-8"))
    for each in told["added_tokens"]:
        each["special"] = each["special"] and not each["content"].isalnum()
    plain: Tokenizer = Tokenizer.from_str(json.dumps(told))
    return plain


def _assembled(template: _Template, parts: Sequence[list[int]], *, truncated: bool) -> Encoded:
    ids = [token for token, _ in template.runs[0]]
    types = [kind for _, kind in template.runs[0]]
    for part, kind, after in zip(parts, template.types, template.runs[1:], strict=True):
        ids += part
        types += [kind] * len(part)
        ids += [token for token, _ in after]
        types += [kind for _, kind in after]
    return Encoded(ids, types, truncated)

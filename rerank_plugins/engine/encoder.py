"""Text to token ids: the query keeps its place, only the document is cut, and no text can pose as a special token."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..core.errors import ConfigError, clause
from ..core.text_work import SLICE, check_cancelled, cuts
from .files import MOST_TOKENIZER, read_text
from .limits import json_of
from .special import demoted, plain_words, spelled, unspelled

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Encoded", "Encoder"]

_log = logging.getLogger("rerank_plugins")
_CHARACTERS_PER_TOKEN = 12
_MARGIN = 64
_AT_ONCE = SLICE // 4
"""Characters of a very long text that are tokenized in one call, whose tokens become Python's objects with the interpreter lock held."""
_TOGETHER = 4 * SLICE
"""Characters of the texts that are tokenized in one call, without the interpreter lock, before a deadline is looked at."""


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


class _Offsets(Sequence[tuple[int, int]]):
    """The characters of the tokens of a very long text: in one array, since millions of tuples take long to make and to free."""

    def __init__(self, places: array[int]) -> None:
        """Take start and end of every token in turn."""
        self._places = places

    def __len__(self) -> int:
        return len(self._places) // 2

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._places[2 * place], self._places[2 * place + 1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        places = iter(self._places)
        return zip(places, places, strict=True)


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
        if not path.exists():
            raise ConfigError(f"{path} is missing: a model's folder needs its tokenizer.json beside the ONNX file.")
        self.path = path
        told = json_of(path.with_name("tokenizer_config.json"))
        takes = told.get("model_input_names")
        self._typed = not isinstance(takes, list) or "token_type_ids" in takes
        try:
            file = read_text(path, MOST_TOKENIZER)
            self._tokenizer = _opened(file, marks)
            if words := plain_words(self._tokenizer):
                file = demoted(file, words)
                self._tokenizer = _opened(file, marks)
            self._single, self._pair = self._learn("a"), self._learn("a", "b")
            self._special = self._named()
            if spelled(self._tokenizer, self._special):
                del self._tokenizer  # one of 250,000 words takes 200 MB: not two at a time
                self._tokenizer = _opened(unspelled(file, self._special), (*marks, *self._special))
        except (ConfigError, KeyboardInterrupt):
            raise
        except (
            BaseException
        ) as error:  # tokenizers raises bare Exception for everything, and Rust's panics are not even that
            raise ConfigError(f"{path} cannot be read as a tokenizer ({clause(error)}): fetch it again.") from error
        self._warn_of_case(told)

    def _warn_of_case(self, told: Mapping[str, Any]) -> None:
        """Warn where the two files of a tokenizer of BERT's disagree on lower case.

        This one is followed, as flashrank and fastembed do; transformers follows `tokenizer_config.json` (5.24), but for
        a tokenizer of no class of its own.
        """
        lower, asked = getattr(self._tokenizer.normalizer, "lowercase", None), told.get("do_lower_case")
        classless = told.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
        if isinstance(lower, bool) and isinstance(asked, bool) and lower != asked and not classless:
            _log.warning(
                "%s sets text in lower case: %s. tokenizer_config.json beside it says %s, which transformers follows: scores "
                "differ from its. Make both say what the model was trained with.",
                self.path,
                *("yes" if each else "no" for each in (lower, asked)),
            )

    def _named(self) -> dict[str, int]:
        """Return the ids of all special tokens: those called so, and those that the tokenizer sets around texts."""
        tokenizer = self._tokenizer
        found = {each.content: token for token, each in tokenizer.get_added_tokens_decoder().items() if each.special}
        for token, _ in (pair for template in (self._single, self._pair) for run in template.runs for pair in run):
            found.setdefault(tokenizer.id_to_token(token) or "", token)
        found.pop("", None)
        return found

    def _learn(self, *texts: str) -> _Template:
        """Read off one encoding where the tokenizer puts its special tokens."""
        probe = self._tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
        runs: list[list[tuple[int, int]]] = [[] for _ in range(len(texts) + 1)]
        types = [0] * len(texts)
        past = 0
        for token, kind, owner in zip(probe.ids, probe.type_ids, probe.sequence_ids, strict=True):
            typed = kind if self._typed else 0  # left out by its maker's code, which is 0 to the model
            if owner is None:
                runs[past].append((token, typed))
            else:
                types[owner] = typed
                past = owner + 1
        return _Template(tuple(map(tuple, runs)), tuple(types))

    @property
    def joins_pairs(self) -> bool:
        """Whether the tokenizer sets something between a query and a document."""
        return bool(self._pair.runs[1])

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the (start, end) characters of each token of `text`, without special tokens.

        A text above `SLICE` characters is tokenized slice by slice. Slices end before white space where they can; at a
        border without any, a token or two may be others than those of the whole text.
        """
        if len(text) <= SLICE:
            check_cancelled()
            return self._spans(text)
        places = array("Q")
        for start, end in cuts(text, _AT_ONCE):
            places.extend(start + place for span in self._spans(text[start:end]) for place in span)
        return _Offsets(places)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        # `encode` keeps the interpreter lock, for seconds in a long text; `encode_batch` gives it back (tokenizers 0.22).
        spans: list[tuple[int, int]] = self._tokenizer.encode_batch([text], add_special_tokens=False)[0].offsets
        return spans

    def beginning(self, text: str, most: int) -> tuple[str, int, bool]:
        """Return `text` cut to `most` tokens, how many tokens are left of it, and whether it was cut."""
        size = most * _CHARACTERS_PER_TOKEN + 1_000
        offsets = self.offsets(text[:size])
        while size < len(text) and len(offsets) < most + _MARGIN:  # long runs of blanks, say
            size *= 4
            offsets = self.offsets(text[:size])
        if len(offsets) <= most:
            return text, len(offsets), False
        return text[: offsets[most - 1][1]], most, True

    def token(self, name: str) -> int:
        """Return the id of a token of the vocabulary.

        Raises:
            ConfigError: There is no such token.
        """
        found = self._special.get(name, self._tokenizer.token_to_id(name))
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
        size = room * _CHARACTERS_PER_TOKEN + 1_000
        encoded = self._batch([text[:size] for text in texts])
        while again := [
            position
            for position, text in enumerate(texts)
            if len(text) > size and len(encoded[position]) < room + _MARGIN
        ]:  # beginnings that gave too few tokens: long runs of blanks, say
            size *= 4
            for position, ids in zip(again, self._batch([texts[position][:size] for position in again]), strict=True):
                encoded[position] = ids
        return encoded

    def _batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = []
        for group in _grouped(texts):
            check_cancelled()
            encoded += (each.ids for each in self._tokenizer.encode_batch_fast(group, add_special_tokens=False))
        return encoded


def _grouped(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield consecutive texts of `_TOGETHER` characters together, or one that is longer."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _TOGETHER:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _opened(file: str, marks: Sequence[str]) -> Tokenizer:
    """Return a tokenizer that neither cuts nor pads, and to which "[SEP]" or "</s>" in a text is text."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_str(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for known in tokenizer.get_added_tokens_decoder().values():
        mark = known.content
        if not known.special and (mark in marks or (mark.startswith("<|") and mark.endswith("|>"))):
            tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False)])
    tokenizer.encode_special_tokens = True
    return tokenizer


def _assembled(template: _Template, parts: Sequence[list[int]], *, truncated: bool) -> Encoded:
    ids = [token for token, _ in template.runs[0]]
    types = [kind for _, kind in template.runs[0]]
    for part, kind, after in zip(parts, template.types, template.runs[1:], strict=True):
        ids += part
        types += [kind] * len(part)
        ids += [token for token, _ in after]
        types += [kind for _, kind in after]
    return Encoded(ids, types, truncated)

"""Text to token ids: the query keeps its place, only the document is cut, and no text can pose as a special token."""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..core.errors import ConfigError, clause
from ..core.text_work import SLICE, check_cancelled, cuts
from .checkpoint import POSITION_TABLE, ROBERTA, saved
from .files import MOST_TOKENIZER, json_of, read_text

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

__all__ = ["Encoded", "Limits", "PairTokenizer", "padded"]

_log = logging.getLogger("rerank_plugins")
_CHARACTERS_PER_TOKEN = 12
_MARGIN = 64
_AT_ONCE = SLICE // 4
"""Characters of a very long text that are tokenized in one call, whose tokens become Python's objects with the interpreter lock held."""
_TOGETHER = 4 * SLICE
"""Characters of the texts that are tokenized in one call, without the interpreter lock, before a deadline is looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model's folder says about itself."""

    max_tokens: int
    pad: int
    positions: int | None = None
    """What no option can go above, where the positions are a table."""
    prompt: str = ""
    """What its maker sets before every query."""

    @classmethod
    def read(cls, folder: Path) -> Limits:
        """Read `config.json`, `tokenizer_config.json` and what sentence-transformers has; warn where they disagree on the longest input."""
        config, tokenizer = json_of(folder / "config.json"), json_of(folder / "tokenizer_config.json")
        theirs, its_transformer = saved(folder)
        pad = config.get("pad_token_id")
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in ROBERTA:
            positions -= (pad if isinstance(pad, int) else 1) + 1  # their positions begin after the padding's
        length = its_transformer.get("max_seq_length") or tokenizer.get("model_max_length")
        length = int(length) if isinstance(length, int | float) and 0 < length < 10**6 else None
        sizes = [size for size in (positions, length) if isinstance(size, int)]
        if len(set(sizes)) > 1:
            _log.warning(
                "%s: its tokenizer says at most %s tokens and its model %s; %s are used. Set max_tokens to choose.",
                folder,
                length,
                positions,
                min(sizes),
            )
        table = (
            config.get("model_type") in POSITION_TABLE
            and config.get("position_embedding_type", "absolute") == "absolute"
        )
        prompts = theirs.get("prompts")
        prompt = prompts.get(theirs.get("default_prompt_name")) if isinstance(prompts, dict) else None
        return cls(
            min(sizes, default=512),
            pad if isinstance(pad, int) and pad >= 0 else 0,
            positions if isinstance(positions, int) and table else None,
            prompt if isinstance(prompt, str) else "",
        )

    def longest(self, max_tokens: int | None) -> int:
        """Return the tokens that an input has at most: the option, else what the folder says.

        Raises:
            ConfigError: The model has fewer positions.
        """
        if max_tokens is not None and self.positions is not None and max_tokens > self.positions:
            raise ConfigError(
                f"max_tokens {max_tokens} is more than the model has positions for: take {self.positions} at most."
            )
        return max_tokens or self.max_tokens


@dataclass(frozen=True, slots=True)
class Encoded:
    """What goes through a model as one row."""

    ids: list[int]
    types: list[int]
    truncated: bool


def padded(rows: Sequence[Encoded], pad: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, mask and types of rows, each (rows, tokens), int64.

    Args:
        rows: One line each.
        pad: The id after a row's own.
        length: Tokens of a line; `None` is the longest row's.
    """
    import numpy as np

    shape = (len(rows), length or max(len(row.ids) for row in rows))
    ids = np.full(shape, pad, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
        size = len(row.ids)
        ids[line, :size] = row.ids
        mask[line, :size] = 1
        types[line, :size] = row.types
    return ids, mask, types


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


class PairTokenizer:
    """A `tokenizer.json`, set once and never changed after: safe under threads."""

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
        settings = json_of(path.with_name("tokenizer_config.json"))
        takes = settings.get("model_input_names")
        self._typed = not isinstance(takes, list) or "token_type_ids" in takes
        try:
            file = read_text(path, MOST_TOKENIZER)
            self._tokenizer = _opened(file, marks)
            if words := _plain_words(self._tokenizer):
                file = _without_special(file, words)
                self._tokenizer = _opened(file, marks)
            self._single, self._pair = self._learn("a"), self._learn("a", "b")
            self._special = self._named()
            if _can_be_spelled(self._tokenizer, self._special):
                del self._tokenizer  # one of 250,000 words takes 200 MB: not two at a time
                self._tokenizer = _opened(_without_words(file, self._special), (*marks, *self._special))
        except (ConfigError, KeyboardInterrupt):
            raise
        except (
            BaseException
        ) as error:  # tokenizers raises bare Exception for everything, and Rust's panics are not even that
            raise ConfigError(f"{path} cannot be read as a tokenizer ({clause(error)}): fetch it again.") from error
        self._warn_of_case(settings)

    def _warn_of_case(self, settings: Mapping[str, Any]) -> None:
        """Warn where the two files of a tokenizer of BERT's disagree on lower case.

        This one is followed, as flashrank and fastembed do; transformers follows `tokenizer_config.json` (5.24), but for
        a tokenizer of no class of its own.
        """
        does, says = getattr(self._tokenizer.normalizer, "lowercase", None), settings.get("do_lower_case")
        classless = settings.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
        if isinstance(does, bool) and isinstance(says, bool) and does != says and not classless:
            _log.warning(
                "%s sets text in lower case: %s. tokenizer_config.json beside it says %s, which transformers follows: scores "
                "differ from its. Make both say what the model was trained with.",
                self.path,
                *("yes" if lower else "no" for lower in (does, says)),
            )

    def _named(self) -> dict[str, int]:
        """Return the ids of all special tokens: those called so, and those that the tokenizer sets around texts."""
        tokenizer = self._tokenizer
        added = tokenizer.get_added_tokens_decoder().items()
        ids = {token.content: number for number, token in added if token.special}
        for token, _ in (pair for template in (self._single, self._pair) for run in template.runs for pair in run):
            ids.setdefault(tokenizer.id_to_token(token) or "", token)
        ids.pop("", None)
        return ids

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

    def beginning(self, text: str, max_tokens: int) -> tuple[str, int, bool]:
        """Return `text` cut to `max_tokens` tokens, how many tokens are left of it, and whether it was cut."""
        size = max_tokens * _CHARACTERS_PER_TOKEN + 1_000
        offsets = self.offsets(text[:size])
        while size < len(text) and len(offsets) < max_tokens + _MARGIN:  # long runs of blanks, say
            size *= 4
            offsets = self.offsets(text[:size])
        if len(offsets) <= max_tokens:
            return text, len(offsets), False
        return text[: offsets[max_tokens - 1][1]], max_tokens, True

    def token(self, name: str) -> int:
        """Return the id of a token of the vocabulary.

        Raises:
            ConfigError: There is no such token.
        """
        token = self._special.get(name, self._tokenizer.token_to_id(name))
        if token is None:
            raise ConfigError(
                f"{self.path} has no token {name!r}, so this is another family's model: name that family."
            )
        return int(token)

    def singles(self, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return each text alone, cut to `max_tokens` with its special tokens."""
        size = max_tokens - self._single.size
        return [_assembled(self._single, (ids[:size],), truncated=len(ids) > size) for ids in self.texts(texts, size)]

    def pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return the query joined with each document; the document is cut so that all is within `max_tokens`.

        The query has three quarters of `max_tokens` at most (as in FlagEmbedding 1.4.2): past that it is cut too, and
        every result says so.
        """
        both = max_tokens - self._pair.size
        query_tokens = min(max_tokens * 3 // 4, both * 7 // 8)  # a window of a few tokens keeps one for the document
        (query_ids,) = self.texts([query], query_tokens)
        cut_query, query_ids = len(query_ids) > query_tokens, query_ids[:query_tokens]
        left = both - len(query_ids)
        return [
            _assembled(self._pair, (query_ids, ids[:left]), truncated=cut_query or len(ids) > left)
            for ids in self.texts(documents, left)
        ]

    def texts(self, texts: Sequence[str], tokens: int) -> list[list[int]]:
        """Return the ids of each text, no special tokens; of a very long one only its beginning of `tokens` and more."""
        size = tokens * _CHARACTERS_PER_TOKEN + 1_000
        encoded = self._batch([text[:size] for text in texts])
        while again := [
            position
            for position, text in enumerate(texts)
            if len(text) > size and len(encoded[position]) < tokens + _MARGIN
        ]:  # beginnings that gave too few tokens: long runs of blanks, say
            size *= 4
            for position, ids in zip(again, self._batch([texts[position][:size] for position in again]), strict=True):
                encoded[position] = ids
        return encoded

    def _batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = []
        for group in _grouped(texts):
            check_cancelled()
            encoded += (row.ids for row in self._tokenizer.encode_batch_fast(group, add_special_tokens=False))
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


# No text spells a special token, whatever kind of tokenizer reads it. `encode_special_tokens` only keeps a tokenizer from looking
# for them before it starts. Where they are words of its vocabulary too, it finds them all the same: the Unigram models of XLM-R and
# DeBERTa-v3 hold "</s>" or "[SEP]" with the best of scores (SentencePiece itself never matches such control symbols; its files lose
# that on their way to `tokenizer.json`).


def _plain_words(tokenizer: Tokenizer) -> list[str]:
    """Return the special tokens that are plain words: an answer may be called so, that it is one token.

    Such a word closes no prompt, and in a text it has to stay the maker's token.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special and token.content.isalnum()]


def _can_be_spelled(tokenizer: Tokenizer, names: Iterable[str]) -> bool:
    """Tell whether a text that holds one of the tokens `names` can get its id; `encode_special_tokens` is set."""
    known = {name: tokenizer.token_to_id(name) for name in names}
    # What stands for the unknown says nothing when a text gets it.
    known.pop(getattr(tokenizer.model, "unk_token", None) or "", None)
    probes = [text.format(name) for name in known for text in ("{}", "a{}", "a {} a")]
    read = {token for row in tokenizer.encode_batch(probes, add_special_tokens=False) for token in row.ids}
    return not read.isdisjoint(known.values())


def _without_special(file: str, words: Iterable[str]) -> str:
    """Return the text of a `tokenizer.json` in which none of `words` is called special."""
    settings: dict[str, Any] = json.loads(file)
    words = set(words)
    for token in settings["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in words
    return json.dumps(settings, ensure_ascii=False)


def _without_words(file: str, names: Iterable[str]) -> str:
    """Return the text of a `tokenizer.json` whose vocabulary has no such words; every other token keeps id and score."""
    settings: dict[str, Any] = json.loads(file)
    model, names = settings["model"], set(names)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: places are ids, and an empty piece is found nowhere
        model["vocab"] = [["" if piece in names else piece, score] for piece, score in vocabulary]
    elif "merges" in model:  # BPE: what is not put together is not found
        model["merges"] = [pair for pair in model["merges"] if _merged(pair) not in names]
    else:  # whole words
        names.discard(model["unk_token"])
        model["vocab"] = {word: token for word, token in vocabulary.items() if word not in names}
    return json.dumps(settings, ensure_ascii=False)


def _merged(pair: str | Sequence[str]) -> str:
    return pair.replace(" ", "", 1) if isinstance(pair, str) else "".join(pair)

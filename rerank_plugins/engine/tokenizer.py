"""Turns texts into token ids: only the document is cut, and no text can spell a special token."""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from ..core._runtime.text_work import SLICE_CHARACTERS, check_cancelled, slice_bounds
from ..core.errors import ConfigError, clause
from .checkpoint import POSITION_TABLE, ROBERTA, cross_encoder_settings
from .files import MAX_TOKENIZER_BYTES, json_of, read_text, setting

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Encoded", "Limits", "PairTokenizer"]

_log = logging.getLogger("rerank_plugins")
_CHARACTERS_PER_TOKEN = 12
"""More than a token has on average, so that the start of a text with this many characters per token usually
suffices."""
_MARGIN = 64
"""Tokens beyond the limit that the start of a text must give: the last ones before a cut may differ from those of the
whole text."""
_OFFSETS_SLICE = SLICE_CHARACTERS // 4
"""Characters of a long text per call when offsets are needed: the conversion of offsets to Python objects holds the
interpreter lock."""
_IDS_GROUP = 4 * SLICE_CHARACTERS
"""Characters of texts per call when only ids are needed: tokenizing holds no interpreter lock. The deadline is checked
between calls."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits and texts that a model's folder declares."""

    max_tokens: int
    """The longest input."""
    pad: int
    """The id of the padding token."""
    positions: int | None = None
    """The number of positions, if they are a table: no option can exceed it."""
    prompt: str = ""
    """The text that the model's maker puts before every query."""
    differ: str = ""
    """How the folder's files disagree on the longest input."""

    @classmethod
    def read(cls, folder: Path) -> Limits:
        """Read `config.json`, `tokenizer_config.json` and sentence-transformers' settings.

        Raises:
            ConfigError: A file cannot be read, or a setting in it cannot be used.
        """
        config, tokenizer = json_of(folder / "config.json"), json_of(folder / "tokenizer_config.json")
        settings, transformer = cross_encoder_settings(folder)
        pad = config.get("pad_token_id")
        model_type = setting(folder, config, "model_type", str, "string")
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and model_type in ROBERTA:
            positions -= (pad if isinstance(pad, int) else 1) + 1  # their positions start after the padding token's id
        if isinstance(positions, int) and positions < 1:
            raise ConfigError(f"config.json in {folder} has no usable max_position_embeddings: fetch the model again.")
        length = transformer.get("max_seq_length") or tokenizer.get("model_max_length")
        length = int(length) if isinstance(length, int | float) and 0 < length < 10**6 else None
        sizes = [size for size in (positions, length) if isinstance(size, int)]
        differ = f"{folder}: its tokenizer declares at most {length} tokens and its model {positions}"
        table = model_type in POSITION_TABLE and config.get("position_embedding_type", "absolute") == "absolute"
        prompts, name = settings.get("prompts"), setting(folder, settings, "default_prompt_name", str, "string")
        prompt = prompts.get(name) if isinstance(prompts, dict) else None
        return cls(
            min(sizes, default=512),
            pad if isinstance(pad, int) and pad >= 0 else 0,
            positions if isinstance(positions, int) and table else None,
            prompt if isinstance(prompt, str) else "",
            differ if len(set(sizes)) > 1 else "",
        )

    def longest(self, max_tokens: int | None) -> int:
        """Return the longest input in tokens: the option, else the folder's limit. Warns if its files disagree.

        Raises:
            ConfigError: The option exceeds the model's positions.
        """
        if max_tokens is not None and self.positions is not None and max_tokens > self.positions:
            raise ConfigError(
                f"max_tokens must be at most {self.positions}, the positions of the model, got {max_tokens}: lower it."
            )
        if max_tokens is None and self.differ:
            _log.warning("%s; %s are used. Set max_tokens to choose.", self.differ, self.max_tokens)
        return max_tokens or self.max_tokens


class Encoded(NamedTuple):
    """The token ids and token types of one row, special tokens included."""

    ids: list[int]
    types: list[int]
    truncated: bool
    attention: Sequence[int] | None = None
    """1 for each token that attention reads, else 0; `None` is all. Only an expanded query of ColBERT has one."""


class _Template(NamedTuple):
    """The special tokens before, between and after texts, as runs of (id, type), and the type of each text's tokens."""

    runs: tuple[tuple[tuple[int, int], ...], ...]
    types: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.runs))


class _Offsets(Sequence[tuple[int, int]]):
    """The offsets of the tokens of a very long text, in one array: millions of tuples are slow to create and free."""

    def __init__(self, places: array[int]) -> None:
        """Take an array with start and end of every token."""
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
    """The tokenizer in a `tokenizer.json`. Never changed after it is created, so threads can share it."""

    def __init__(self, path: Path, marks: Sequence[str] = ()) -> None:
        """Read the file.

        Args:
            path: `tokenizer.json`.
            marks: Added tokens to treat as special although the file does not call them so. Tokens written like
                `<|this|>` always are.

        Raises:
            ConfigError: There is no such file, or it is not a tokenizer.
        """
        if not path.exists():
            raise ConfigError(f"{path} is missing: a model's folder needs its tokenizer.json beside the ONNX file.")
        self.path = path
        settings = json_of(path.with_name("tokenizer_config.json"))
        inputs = settings.get("model_input_names")
        self._typed = not isinstance(inputs, list) or "token_type_ids" in inputs
        try:
            file = read_text(path, MAX_TOKENIZER_BYTES)
            self._tokenizer = _load_tokenizer(file, marks)
            if words := _plain_words(self._tokenizer):
                file = _without_special(file, words)
                self._tokenizer = _load_tokenizer(file, marks)
            self._single, self._pair = self._read_template("a"), self._read_template("a", "b")
            self._special = self._special_tokens(marks)
            if _can_be_spelled(self._tokenizer, self._special):
                del self._tokenizer  # a tokenizer of 250,000 words takes 200 MB: do not hold two
                self._tokenizer = _load_tokenizer(_without_words(file, self._special), (*marks, *self._special))
        except (ConfigError, KeyboardInterrupt):
            raise
        except (
            BaseException
        ) as error:  # tokenizers raises plain Exception for everything, and for panics of Rust a BaseException
            raise ConfigError(f"{path} cannot be read as a tokenizer ({clause(error)}): fetch it again.") from error
        self._warn_of_case(settings)

    def _warn_of_case(self, settings: Mapping[str, Any]) -> None:
        """Warn if the two files of a BERT tokenizer disagree on lower case.

        `tokenizer.json` is followed here, as in flashrank and fastembed. transformers follows `tokenizer_config.json`
        (5.24), except for a tokenizer without a class of its own.
        """
        lowers, declared = getattr(self._tokenizer.normalizer, "lowercase", None), settings.get("do_lower_case")
        without_class = settings.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
        if isinstance(lowers, bool) and isinstance(declared, bool) and lowers != declared and not without_class:
            _log.warning(
                "%s converts text to lower case: %s. tokenizer_config.json beside it says %s, which transformers "
                "follows, so its "
                "scores differ. Change the file that does not say what the model was trained with.",
                self.path,
                *("yes" if lower else "no" for lower in (lowers, declared)),
            )

    def _special_tokens(self, marks: Sequence[str]) -> dict[str, int]:
        """Return the ids of special tokens: those marked special, `marks`, and those put around texts."""
        tokenizer = self._tokenizer
        added = tokenizer.get_added_tokens_decoder().items()
        ids = {token.content: number for number, token in added if token.special}
        for token, _ in (pair for template in (self._single, self._pair) for run in template.runs for pair in run):
            ids.setdefault(tokenizer.id_to_token(token) or "", token)
        ids |= {mark: number for mark in marks if (number := tokenizer.token_to_id(mark)) is not None}
        ids.pop("", None)
        return ids

    def _read_template(self, *texts: str) -> _Template:
        """Find out from one encoding where the tokenizer puts special tokens."""
        probe = self._tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
        runs: list[list[tuple[int, int]]] = [[] for _ in range(len(texts) + 1)]
        types = [0] * len(texts)
        past = 0
        for token, kind, owner in zip(probe.ids, probe.type_ids, probe.sequence_ids, strict=True):
            typed = kind if self._typed else 0  # the maker's code passes no types, which the model reads as 0
            if owner is None:
                runs[past].append((token, typed))
            else:
                types[owner] = typed
                past = owner + 1
        return _Template(tuple(map(tuple, runs)), tuple(types))

    @property
    def joins_pairs(self) -> bool:
        """Whether the tokenizer puts a special token between a query and a document."""
        return bool(self._pair.runs[1])

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the (start, end) characters of each token of `text`, without special tokens.

        A text above `SLICE_CHARACTERS` characters is tokenized slice by slice. A slice ends before white space where
        possible; at any other border a token or two may differ from those of the whole text.
        """
        if len(text) <= SLICE_CHARACTERS:
            check_cancelled()
            return self._spans(text)
        places = array("Q")
        for start, end in slice_bounds(text, _OFFSETS_SLICE):
            places.extend(start + place for span in self._spans(text[start:end]) for place in span)
        return _Offsets(places)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        # `encode` holds the GIL, for seconds in a long text; `encode_batch` releases it (tokenizers 0.22).
        spans: list[tuple[int, int]] = self._tokenizer.encode_batch([text], add_special_tokens=False)[0].offsets
        return spans

    def truncate(self, text: str, max_tokens: int) -> tuple[str, int, bool]:
        """Return `text` cut to `max_tokens` tokens, the number of its tokens, and whether it was cut."""
        size = max_tokens * _CHARACTERS_PER_TOKEN + 1_000
        offsets = self.offsets(text[:size])
        while size < len(text) and len(offsets) < max_tokens + _MARGIN:  # such as long runs of blanks
            size *= 4
            offsets = self.offsets(text[:size])
        if len(offsets) <= max_tokens:
            return text, len(offsets), False
        return text[: offsets[max_tokens - 1][1]], max_tokens, True

    def token(self, name: str) -> int:
        """Return the id of a token of the vocabulary.

        Raises:
            ConfigError: The vocabulary has no such token.
        """
        token = self._special.get(name, self._tokenizer.token_to_id(name))
        if token is None:
            raise ConfigError(
                f"{self.path} has no token {name!r}, so this is a model of another family: name that family."
            )
        return int(token)

    def vocabulary(self) -> dict[str, int]:
        """Return a copy of the vocabulary: each token and its id."""
        return dict(self._tokenizer.get_vocab())

    def singles(self, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return one row for each text alone, cut to `max_tokens` including special tokens."""
        size = max_tokens - self._single.size
        return [_assemble(self._single, (ids[:size],), truncated=len(ids) > size) for ids in self.ids(texts, size)]

    def pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return one row for the query and each document; the document is cut so that the row has at most `max_tokens`.

        The query gets at most three quarters of `max_tokens` (as in FlagEmbedding 1.4.2). A longer query is cut too,
        and then every row is marked as truncated.
        """
        both = max_tokens - self._pair.size
        query_tokens = min(
            max_tokens * 3 // 4, both * 7 // 8
        )  # so that a window of few tokens has one for the document
        (query_ids,) = self.ids([query], query_tokens)
        cut_query, query_ids = len(query_ids) > query_tokens, query_ids[:query_tokens]
        left = both - len(query_ids)
        return [
            _assemble(self._pair, (query_ids, ids[:left]), truncated=cut_query or len(ids) > left)
            for ids in self.ids(documents, left)
        ]

    def ids(self, texts: Sequence[str], tokens: int) -> list[list[int]]:
        """Return the ids of each text without special tokens; for a very long text only those of its start.

        Args:
            texts: The texts.
            tokens: The number of ids that the caller reads. A text with more has at least these.
        """
        size = tokens * _CHARACTERS_PER_TOKEN + 1_000
        encoded = self._batch([text[:size] for text in texts])
        while again := [
            position
            for position, text in enumerate(texts)
            if len(text) > size and len(encoded[position]) < tokens + _MARGIN
        ]:  # starts with too few tokens, such as long runs of blanks
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
    """Yield groups of consecutive texts with at most `_IDS_GROUP` characters; a longer text is a group of its own."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _IDS_GROUP:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _load_tokenizer(file: str, marks: Sequence[str]) -> Tokenizer:
    """Return a tokenizer that neither cuts nor pads, and that reads "[SEP]" or "</s>" in a text as text."""
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


def _assemble(template: _Template, parts: Sequence[list[int]], *, truncated: bool) -> Encoded:
    ids = [token for token, _ in template.runs[0]]
    types = [kind for _, kind in template.runs[0]]
    for part, kind, after in zip(parts, template.types, template.runs[1:], strict=True):
        ids += part
        types += [kind] * len(part)
        ids += [token for token, _ in after]
        types += [kind for _, kind in after]
    return Encoded(ids, types, truncated)


# No text may spell a special token, whatever kind of tokenizer reads it. `encode_special_tokens` only stops a tokenizer
# from searching for special tokens before it starts. If they are also words of its vocabulary, it still finds them: the
# Unigram models of XLM-R and DeBERTa-v3 hold "</s>" or "[SEP]" with the best score. (SentencePiece itself never matches
# such control symbols, but `tokenizer.json` does not keep that property.)


def _plain_words(tokenizer: Tokenizer) -> list[str]:
    """Return the special tokens that are plain words.

    A maker may mark an answer such as "yes" special to make it one token. Such a word cannot close a prompt, and a text
    that holds it must get that token.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special and token.content.isalnum()]


def _can_be_spelled(tokenizer: Tokenizer, names: Iterable[str]) -> bool:
    """Tell whether a text that spells one of the tokens `names` gets its id although `encode_special_tokens` is set."""
    known = {name: tokenizer.token_to_id(name) for name in names}
    # Any text may get the token for unknown words, so it proves nothing.
    known.pop(getattr(tokenizer.model, "unk_token", None) or "", None)
    probes = [text.format(name) for name in known for text in ("{}", "a{}", "a {} a")]
    read = {token for row in tokenizer.encode_batch(probes, add_special_tokens=False) for token in row.ids}
    return not read.isdisjoint(known.values())


def _without_special(file: str, words: Iterable[str]) -> str:
    """Return the text of a `tokenizer.json` in which none of `words` is marked special."""
    settings: dict[str, Any] = json.loads(file)
    words = set(words)
    for token in settings["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in words
    return json.dumps(settings, ensure_ascii=False)


def _without_words(file: str, names: Iterable[str]) -> str:
    """Return the text of a `tokenizer.json` whose vocabulary lacks `names`. Other tokens keep their ids and scores."""
    settings: dict[str, Any] = json.loads(file)
    model, names = settings["model"], set(names)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: the position is the id, and an empty piece never matches
        model["vocab"] = [["" if piece in names else piece, score] for piece, score in vocabulary]
    elif "merges" in model:  # BPE: a token without a merge never matches
        model["merges"] = [pair for pair in model["merges"] if _merged(pair) not in names]
    else:  # WordPiece or WordLevel
        names.discard(model["unk_token"])
        model["vocab"] = {word: token for word, token in vocabulary.items() if word not in names}
    return json.dumps(settings, ensure_ascii=False)


def _merged(pair: str | Sequence[str]) -> str:
    return pair.replace(" ", "", 1) if isinstance(pair, str) else "".join(pair)

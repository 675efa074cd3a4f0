"""Token rows of queries and documents for late interaction: markers, query expansion, and which vectors count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ConfigError, clause
from ..files import MAX_TOKENIZER_BYTES, json_of, read_text
from ..tokenizer import Encoded, PairTokenizer
from .layout import Layout

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

__all__ = ["LateTokenizer"]


class LateTokenizer(PairTokenizer):
    """The tokenizer of a late-interaction model. The markers before texts are token ids: no text can spell one."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Read `tokenizer.json` of a model's folder.

        Raises:
            ConfigError: There is no such file, it is not a tokenizer, or it lacks the token of query expansion.
        """
        path = folder / "tokenizer.json"
        prompts = _markers(path, layout) if path.is_file() else []
        super().__init__(path, [mark for marks, _ in prompts for mark in marks])
        if layout.lower_case:
            _lower(self._tokenizer)
        self._layout = layout
        self._marks = [[self.token(mark) for mark in marks] for marks, _ in prompts]
        self._prefixes = [prefix for _, prefix in prompts]
        skipped = (self._tokenizer.token_to_id(word) for word in layout.skipped)
        self._skipped = sorted({token for token in skipped if token is not None})
        self._mask = self.token(_mask_token(folder, layout)) if layout.expansion else None
        self._pads_left = json_of(folder / "tokenizer_config.json").get("padding_side") == "left"

    def query(self, text: str, max_tokens: int) -> Encoded:
        """Return the row of a query, expanded as the model's settings say.

        Args:
            text: The query.
            max_tokens: The tokens at which the query is cut, before it is expanded.
        """
        (row,) = self._rows([text], 0, max_tokens)
        expansion = self._layout.expansion
        missing = expansion.tokens - len(row.ids) if expansion is not None else 0
        if expansion is None or self._mask is None or missing <= 0:
            return row
        masks, unread = [self._mask] * missing, [int(expansion.attend)] * missing
        read = [1] * len(row.ids)
        if self._pads_left:
            return Encoded([*masks, *row.ids], [*[0] * missing, *row.types], row.truncated, [*unread, *read])
        return Encoded([*row.ids, *masks], [*row.types, *[0] * missing], row.truncated, [*read, *unread])

    def documents(self, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return the row of each document, cut to `max_tokens` with marker and special tokens."""
        return self._rows(texts, 1, max_tokens)

    def counted(self, row: Encoded, *, is_query: bool) -> np.ndarray:
        """Return for each token of a row whether its vector counts, as an array of bool [tokens].

        All count except skipped tokens; if all are skipped, all count. The masks of an expanded query count too,
        although attention may not read them.
        """
        import numpy as np

        skips = self._layout.skips_queries if is_query else self._layout.skips_documents
        if not skips or not self._skipped:
            return np.ones(len(row.ids), dtype=bool)
        counts: np.ndarray = np.isin(row.ids, self._skipped, invert=True)
        return counts if counts.any() else ~counts

    def _rows(self, texts: Sequence[str], side: int, max_tokens: int) -> list[Encoded]:
        """Return a row for each text: the special tokens around it, and after the first ones the marker."""
        prefix, (before, after) = self._prefixes[side], self._single.runs
        kind = self._single.types[0]
        start = [token for token, _ in before] + self._marks[side]
        start_types = [known for _, known in before] + [kind] * len(self._marks[side])
        end, end_types = [token for token, _ in after], [known for _, known in after]
        size = max_tokens - len(start) - len(end)
        if size < 1:
            raise ConfigError(
                f"{max_tokens} tokens of a {('query', 'document')[side]} leave none for its text: marker and special "
                f"tokens take {len(start) + len(end)}. Raise {('query_tokens', 'max_tokens')[side]}."
            )
        rows = []
        for ids in self.ids([prefix + text for text in texts] if prefix else texts, size):
            part = ids[:size]
            types = [*start_types, *[kind] * len(part), *end_types]
            rows.append(Encoded([*start, *part, *end], types, len(ids) > size))
        return rows


def _markers(path: Path, layout: Layout) -> list[tuple[list[str], str]]:
    """Return the markers that each prompt begins with, and the rest of the prompt, which is plain text.

    A marker is an added token of the tokenizer. In the older layouts it may also be a word of the vocabulary
    ("[unused0]"), which the makers' code inserts as one token; as text it would be several (`_register_prefix_tokens`
    of sentence-transformers 6.2).
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(read_text(path, MAX_TOKENIZER_BYTES))
        if layout.lower_case:
            _lower(tokenizer)
        return [_split_prompt(tokenizer, prompt, legacy=layout.legacy) for prompt in layout.prompts]
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # tokenizers raises plain Exception, and for panics of Rust a BaseException
        raise ConfigError(f"{path} cannot be read as a tokenizer ({clause(error)}): fetch it again.") from error


def _split_prompt(tokenizer: Tokenizer, prompt: str, *, legacy: bool) -> tuple[list[str], str]:
    from tokenizers import AddedToken

    if legacy and prompt.strip():
        for mark in (prompt, prompt.split(None, 1)[0]):
            if tokenizer.token_to_id(mark) is not None:
                if tokenizer.encode(mark, add_special_tokens=False).tokens != [mark]:
                    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False)])
                break
    added = tokenizer.get_added_tokens_decoder()
    encoded = tokenizer.encode(prompt, add_special_tokens=False)
    marks, end = [], 0
    for token, (_, stop) in zip(encoded.ids, encoded.offsets, strict=True):
        if token not in added:
            break
        marks.append(added[token].content)
        end = stop
    return marks, prompt[end:]


def _lower(tokenizer: Tokenizer) -> None:
    """Let a tokenizer convert text to lower case first, as the setting `do_lower_case` says."""
    from tokenizers.normalizers import Lowercase, Normalizer
    from tokenizers.normalizers import Sequence as Steps

    steps: list[Normalizer] = [Lowercase()]
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    tokenizer.normalizer = Steps(steps)


def _mask_token(folder: Path, layout: Layout) -> str:
    """Return the token that fills up queries: the settings' own, else the tokenizer's mask, else its end token."""
    if layout.expansion is not None and layout.expansion.token is not None:
        return layout.expansion.token
    files = [json_of(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    for role in ("mask_token", "eos_token"):
        for settings in files:
            token = settings.get(role)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token:
                return token
    raise ConfigError(
        f"{folder} fills up queries with mask tokens, and its tokenizer_config.json names no mask_token: fetch "
        "it again."
    )

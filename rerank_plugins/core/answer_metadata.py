"""Read what a rerank server reports about an answer beside the scores: warnings, and whether a fallback gave it.

Cohere's API has `meta.warnings` (https://docs.cohere.com/reference/rerank, read in November 2026). Our own server
reports more: if a fallback answers behind it, its clients get a degraded answer too. The headers and fields are
described in `rerank_plugins/serving/wire_formats.py`. The server is not trusted: a value that does not have the
described form is ignored, and texts are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from .types import Scores

__all__ = [
    "DEGRADED_HEADER",
    "DEGRADED_WARNING",
    "MODEL_HEADER",
    "NO_METADATA",
    "REASON_HEADER",
    "TRUNCATED_WARNING",
    "UNSCORED_WARNING",
    "AnswerMetadata",
    "decode_reason",
    "encode_reason",
    "get_field",
    "read_metadata",
]

DEGRADED_HEADER = "x-rerank-degraded"
REASON_HEADER = "x-rerank-reason"
MODEL_HEADER = "x-rerank-model"

DEGRADED_WARNING = "degraded: "
TRUNCATED_WARNING = "not read to their end: "
UNSCORED_WARNING = "without a score, shown last: "

UNSCORED = "its server gave it no score"

_REASON_BYTES = 800
"""Bytes of a reason in a header. Percent-encoded they take at most 2,400; proxies allow some 4 KB for all headers."""
_WARNINGS = 5
_WARNING_LENGTH = 1_000


def encode_reason(text: str) -> str:
    """Return `text` as the value of a header: percent-encoded UTF-8, cut at 800 bytes.

    ```python
    assert decode_reason(encode_reason("503: café")) == "503: café"
    ```
    """
    head = text[:_REASON_BYTES].encode("utf-8", "replace")[:_REASON_BYTES]
    return quote(head.decode("utf-8", "ignore").strip(), safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~")


def decode_reason(value: str) -> str:
    """Return the text that `encode_reason` encoded. Any other value becomes printable text of at most 800 characters.

    >>> decode_reason("503: caf%C3%A9")
    '503: café'
    """
    return _printable(unquote(value[: 3 * _REASON_BYTES], errors="replace"))[:_REASON_BYTES]


@dataclass(frozen=True, slots=True)
class AnswerMetadata:
    """What a server reports about one answer. Indexes are those of the request's documents."""

    degraded: bool = False
    """A fallback answered behind the server."""
    reason: str | None = None
    """Why the answer is degraded."""
    warnings: tuple[str, ...] = ()
    truncated: frozenset[int] = frozenset()
    """Indexes of the documents that were not read to their end."""
    unscored: frozenset[int] = frozenset()
    """Indexes of the documents without a score; the number in the reply is a placeholder."""

    def apply_to(self, scores: Scores, reason: str | None) -> Scores:
        """Return `scores` with this metadata.

        Args:
            scores: One value for each document of the request.
            reason: Becomes `Scores.reason`.

        Returns:
            A copy; `scores` itself if there is nothing to add.
        """
        if not (self.degraded or reason or self.truncated or self.unscored):
            return scores
        positions = range(len(scores.values))
        truncated = scores.truncated
        if self.truncated:
            flags = truncated or (False,) * len(positions)
            truncated = tuple(flags[position] or position in self.truncated for position in positions)
        values, reasons = scores.values, scores.reasons
        if self.unscored:
            values = tuple(None if position in self.unscored else scores.values[position] for position in positions)
            reasons = tuple(UNSCORED if position in self.unscored else None for position in positions)
        return replace(
            scores, values=values, reasons=reasons, truncated=truncated, degraded=self.degraded, reason=reason
        )


NO_METADATA = AnswerMetadata()


def read_metadata(body: Any, headers: Mapping[str, str]) -> AnswerMetadata:
    """Return the metadata in a reply that has scores.

    Args:
        body: The parsed JSON, or the object that an SDK made of it.
        headers: The reply's headers, with names in lower case.
    """
    if isinstance(body, dict) and MODEL_HEADER not in headers and "degraded" not in body:
        meta = body.get("meta")
        if not isinstance(meta, Mapping) or "warnings" not in meta:
            return NO_METADATA  # fast path: nearly every reply of a vendor
    is_list = isinstance(body, list)  # TEI's shape: only headers can carry the reason
    warnings = [] if is_list else _texts_of_warnings(get_field(get_field(body, "meta"), "warnings"))
    flag = None if is_list else get_field(body, "degraded")
    if not (isinstance(flag, bool) or MODEL_HEADER in headers):  # not our server: its fields may mean anything
        return AnswerMetadata(warnings=tuple(warnings[:_WARNINGS])) if warnings else NO_METADATA
    degraded = flag is True or headers.get(DEGRADED_HEADER) == "true"
    reason = next((text[len(DEGRADED_WARNING) :] for text in warnings if text.startswith(DEGRADED_WARNING)), None)
    if reason is None and (encoded := headers.get(REASON_HEADER)):
        reason = decode_reason(encoded) or None
    prefixes = (DEGRADED_WARNING, TRUNCATED_WARNING, UNSCORED_WARNING)
    warnings = [text for text in warnings if not text.startswith(prefixes)]
    if reason is not None and not degraded and reason not in warnings:
        warnings.insert(0, reason)
    results = body if is_list else get_field(body, "results")
    return AnswerMetadata(
        degraded=degraded,
        reason=reason if degraded else None,
        warnings=tuple(warnings[:_WARNINGS]),
        truncated=frozenset(_indexes_with_flag(results, "truncated")),
        unscored=frozenset(_indexes_with_flag(results, "unscored")),
    )


def get_field(value: Any, name: str) -> Any:
    """Return a field of a JSON object, or an attribute of an SDK's object; `None` if it is missing.

    >>> get_field({"meta": {}}, "meta")
    {}
    """
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _texts_of_warnings(value: Any) -> list[str]:
    """Return the strings among a reply's warnings, printable and cut."""
    if not isinstance(value, list | tuple):
        return []
    texts = (_printable(text[:_WARNING_LENGTH]) for text in value[: 4 * _WARNINGS] if isinstance(text, str))
    return [text for text in texts if text]


def _indexes_with_flag(results: Any, name: str) -> Iterator[int]:
    """Yield the index of each result in which the flag `name` is true."""
    for result in results if isinstance(results, Iterable) else ():
        if get_field(result, name) is True:
            index = get_field(result, "index")
            if isinstance(index, int) and not isinstance(index, bool):
                yield index


def _printable(text: str) -> str:
    """Return `text` with a space for each control character, stripped."""
    return "".join(character if character.isprintable() else " " for character in text).strip()

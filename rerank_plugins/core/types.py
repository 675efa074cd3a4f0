"""The data that scorers take and give: frozen, and aligned with the documents by position."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from .curve import Curve
from .errors import BadResponse

__all__ = ["Attempt", "Capabilities", "RerankRequest", "Scale", "Scores", "Span", "Usage"]

T = TypeVar("T")

Scale = Literal["unit", "logit", "cosine", "ordinal"]
"""What a raw score means; see `Capabilities.relevance`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend (or one model of it) can take and what its scores mean. The core acts on it; backends need not.

    Sizes in tokens are of the backend's own tokenizer; the core estimates them from both sides where it has none.
    """

    scale: Scale = "unit"
    """`unit`: already in [0, 1]. `logit`: any real. `cosine`: in [-1, 1]. `ordinal`: only its order means something."""
    offset: float = 0.0
    """`logit` only: the raw score that means a relevance of 0.5."""
    divisor: float = 1.0
    """`logit` only: how many raw units make one logit."""
    scale_option: str | None = None
    """How a spec declares logits in the table of the backend's own options, such as `scale = "logit"`; `None` where it
    cannot."""
    curve: Curve | None = None
    """Calibration: makes of a raw score the probability of relevance, in place of what the scale makes of it."""
    max_documents: int | None = None
    """Documents in one call; the core sends more than that in parts."""
    max_tokens: int | None = None
    """Tokens of the query and one document together; what is longer is cut or chunked, never silently."""
    max_query_tokens: int | None = None
    """Tokens of the query alone."""
    max_document_tokens: int | None = None
    """Tokens of one document alone, where the backend reads it apart from the query."""
    max_total_tokens: int | None = None
    """Tokens of one call: the query's times the number of documents, plus the documents'."""
    max_bytes: int | None = None
    """Bytes of UTF-8 in one call."""
    listwise: bool = False
    """A document's score depends on the other documents: never split, never cached per document."""
    instructions: bool = False
    """Follows an `instruction`; one that does not refuses it."""
    cuts: bool = True
    """Reads the beginning of a document that is too long; of one that refuses it, the core cuts the document."""
    fields: bool = False
    """Takes mappings as documents itself; otherwise they are sent as YAML."""

    def relevance(self, raw: float) -> float:
        """Return the `relevance_score` in [0, 1] of a raw score, by the declared scale (`ordinal` has none of its own).

        `unit` as it is, `logit` sigmoid((raw - offset) / divisor), `cosine` (raw + 1) / 2. Computed in float64, where a
        half-precision sigmoid would make good documents tie at 1.0. Of a calibrated scorer, what its curve makes of both.
        """
        if self.scale == "logit":
            logit = (raw - self.offset) / self.divisor
            odds = math.exp(max(-abs(logit), -745.0))
            declared = (1.0 if logit >= 0 else odds) / (1.0 + odds)
        else:
            share = (raw + 1.0) / 2.0 if self.scale == "cosine" else raw
            declared = min(1.0, max(0.0, share))
        return declared if self.curve is None else self.curve.probability(raw, declared)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between which raw scores of the declared scale lie, rounding of half precision allowed for; `None`: anywhere."""
        if self.curve is not None or self.scale not in ("unit", "cosine"):
            return None
        return (0.0 if self.scale == "unit" else -1.0) - 1e-3, 1.0 + 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """One question to a scorer: a query and the documents to score, all text, none blank, none twice."""

    query: str
    documents: tuple[str, ...]
    instruction: str | None = None
    """What the user means by relevant, for the models that follow such a text."""
    retrieval_scores: tuple[float, ...] | None = None
    """The retriever's own scores, aligned with `documents`, where the caller has them."""
    fields: tuple[Mapping[str, Any] | None, ...] | None = None
    """The fields of each document that was given as a mapping, as plain JSON, aligned with `documents`."""
    positions: tuple[int, ...] | None = None
    """Where each document stood in the caller's list; `None` if the same place."""

    def select(self, positions: Sequence[int]) -> RerankRequest:
        """Return the same question over the documents at `positions`, in that order."""
        return replace(
            self,
            documents=tuple(self.documents[position] for position in positions),
            retrieval_scores=_at(self.retrieval_scores, positions),
            fields=_at(self.fields, positions),
            positions=tuple(self.position(position) for position in positions),
        )

    def position(self, index: int) -> int:
        """Return where document `index` stood in the caller's list."""
        return index if self.positions is None else self.positions[index]


def _at(values: tuple[T, ...] | None, positions: Sequence[int]) -> tuple[T, ...] | None:
    return None if values is None else tuple(values[position] for position in positions)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed; `None` where the backend does not say.

    `requests` counts everything sent, failed attempts included; `cost_usd` comes only from prices that were given.
    """

    requests: int = 0
    input_tokens: int | None = None
    search_units: float | None = None
    cost_usd: float | None = None

    def __add__(self, other: Usage) -> Usage:
        """Add up two parts of one call; an unknown and a number give the number."""

        def total(mine: Any, theirs: Any) -> Any:
            known = [value for value in (mine, theirs) if value is not None]
            return sum(known) if known else None

        return Usage(
            self.requests + other.requests,
            total(self.input_tokens, other.input_tokens),
            total(self.search_units, other.search_units),
            total(self.cost_usd, other.cost_usd),
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A passage of a document: half-open range of characters (Unicode code points), and its own score."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that was tried to answer a call."""

    model: str
    """The spec of who was asked."""
    outcome: str
    """`answered`, the name of the error's class, `cancelled` (by the caller), `cached`, `breaker_open` (not asked); in a
    cascade `kept` (documents that came to this stage) or `spared` (a stage before was sure)."""
    milliseconds: float
    detail: str | None = None
    """The error's message, or how many documents."""
    remote: bool = False
    """Whether a request left the process."""
    usage: Usage | None = None
    """What it consumed, of one that answered: in a cascade or a fusion, what each scorer cost."""
    status: int | None = None
    """The HTTP status of the reply, where one came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A scorer's answer: one value per document of the request, in the request's order."""

    values: tuple[float | None, ...]
    """Raw scores; all `None` from a scorer that keeps the order given, some where a cascade did not ask for more."""
    model: str
    """The spec of whoever answered."""
    capabilities: Capabilities
    """Of whoever answered: they say what the values mean."""
    usage: Usage = field(default_factory=Usage)
    truncated: tuple[bool, ...] | None = None
    """Which documents were not read to their end; `None` if none was."""
    spans: tuple[tuple[Span, ...], ...] | None = None
    """The best passages of each document, where the backend tells."""
    order: tuple[int, ...] | None = None
    """Every document, best first, where that is not simply the order of the values (a cascade, diversity)."""
    reply_order: tuple[int, ...] | None = None
    """Every document in the order of the backend's reply, where one reply covered all of them: it decides between equal
    values. `None`: those stay in the order given."""
    reasons: tuple[str | None, ...] | None = None
    """Why a document has no value."""
    degraded: bool = False
    """A stand-in answered."""
    reason: str | None = None
    """Why the answer is not the one that was asked for."""

    def ranks(self) -> tuple[float, ...]:
        """Return what to sort the documents by, least first: the place in `order`, else the value, what has none last."""
        if self.order is not None:
            place = {position: float(place) for place, position in enumerate(self.order)}
            return tuple(place[position] for position in range(len(self.values)))
        return tuple(math.inf if value is None else -value for value in self.values)

    def sort_keys(self) -> list[tuple[float, int]]:
        """Return a sort key for each document: its rank, then its place in the reply where that is known."""
        places = [0] * len(self.values)
        for place, position in enumerate(self.reply_order or ()):
            places[position] = place
        return list(zip(self.ranks(), places, strict=True))

    def best_first(self) -> list[int]:
        """Return every position, best first; equal values in the order of the reply, else as they were given."""
        keys = self.sort_keys()
        return sorted(range(len(keys)), key=keys.__getitem__)

    def relevances(self) -> tuple[float | None, ...]:
        """Return the `relevance_score` of each document, in [0, 1]; `None` where there is no value.

        Of an `ordinal` scorer only the order means something: the best gets 1, each next one less, equals the same.
        """
        if self.capabilities.scale != "ordinal":
            return tuple(None if value is None else self.capabilities.relevance(value) for value in self.values)
        better = sorted({value for value in self.values if value is not None}, reverse=True)
        rank = {value: position for position, value in enumerate(better)}
        return tuple(None if value is None else 1.0 - rank[value] / len(better) for value in self.values)


def is_score(value: object) -> bool:
    """Tell whether a value that was read from a file can be a score: a finite float, or an integer that fits into one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of 400 digits
        return False


def outside_scale(scores: Scores) -> str | None:
    """Return what is wrong where raw scores are outside of the scale that the backend declares; their order is right."""
    capabilities = scores.capabilities
    bounds = capabilities.bounds
    values = [value for value in scores.values if value is not None]
    if bounds is None or all(bounds[0] <= value <= bounds[1] for value in values):
        return None
    limits = "0…1" if capabilities.scale == "unit" else "-1…1"
    backend = re.split(r"[: ]", scores.model, maxsplit=1)[0]
    if capabilities.scale_option is not None:
        advice = f"If they are logits, write {backend} = {{{capabilities.scale_option}}} into the spec."
    else:
        advice = (
            f"{backend} has no option for another scale. If another server answers at `base_url`, use the backend `http` "
            'with http = {scale = "logit"}; or fit a `calibration` (`rerank-plugins calibrate`).'
        )
    return (
        f"{scores.model}: scores outside {limits}, from {min(values):g} to {max(values):g}, under the scale "
        f"{capabilities.scale!r}: the order is right, relevance_score is not. {advice}"
    )


def checked(values: Iterable[Any], request: RerankRequest, backend: str) -> tuple[float, ...]:
    """Return `values` as floats: exactly one for each document of `request`, each finite.

    Raises:
        BadResponse: Another number of values, or one that is no finite number. It names the index in the caller's list.
    """
    count = len(request.documents)
    if not isinstance(values, Iterable):
        raise BadResponse(
            f"{backend} gave {type(values).__name__} for {count} documents; a list of scores belongs there.",
            backend=backend,
        )
    scores = list(values)
    if len(scores) != count:
        raise BadResponse(f"{backend} gave {len(scores)} scores for {count} documents.", backend=backend)
    return tuple(_finite(value, request, index, backend) for index, value in enumerate(scores))


def aligned(
    pairs: Iterable[tuple[Any, Any]], request: RerankRequest, backend: str
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the scores of `(index, score)` pairs in the order of the documents, and the indexes in the order of the pairs.

    Raises:
        BadResponse: An index twice, missing or out of range, or a score that is no finite number. A document that was
            sent is named by its index in the caller's list.
    """
    count = len(request.documents)
    scores: dict[int, float] = {}
    for index, value in pairs:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise BadResponse(f"{backend} scored a document {index!r} that it was not sent.", backend=backend)
        if index in scores:
            raise BadResponse(f"{backend} scored document {request.position(index)} twice.", backend=backend)
        scores[index] = _finite(value, request, index, backend)
    missing = [request.position(index) for index in range(count) if index not in scores]
    if missing:
        raise BadResponse(
            f"{backend} gave no score for {len(missing)} of {count} documents (the first is {missing[0]}).",
            backend=backend,
        )
    return tuple(scores[index] for index in range(count)), tuple(scores)


def _finite(value: Any, request: RerankRequest, index: int, backend: str) -> float:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise _no_number(value, request.position(index), backend)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:  # a row of an array of two dimensions, say
        raise _no_number(value, request.position(index), backend) from error
    if not math.isfinite(number):
        raise BadResponse(
            f"{backend} gave {number} as the score of document {request.position(index)}.", backend=backend
        )
    return number


def _no_number(value: Any, position: int, backend: str) -> BadResponse:
    return BadResponse(
        f"{backend} gave {type(value).__name__} as the score of document {position}; a number belongs there.",
        backend=backend,
    )

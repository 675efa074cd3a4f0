"""The data that passes between a `Reranker` and its scorers: a request, its scores, and what a backend can do.

All of it is frozen. Everything about documents is aligned with them by position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from .calibration_curve import Curve

__all__ = [
    "Attempt",
    "Blocks",
    "Capabilities",
    "Depth",
    "RerankRequest",
    "Scale",
    "Scores",
    "Span",
    "Unscored",
    "Usage",
]

T = TypeVar("T")

Scale = Literal["unit", "logit", "cosine", "ordinal"]
"""What a raw score means; see `Capabilities.scale`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend, or one model of it, accepts, and what its scores mean.

    The policies around the backend enforce the limits, so a backend does not check them itself. Sizes in tokens refer
    to the backend's own tokenizer; a policy that has no tokenizer estimates a lower and an upper bound.

    >>> logits = Capabilities(scale="logit", max_documents=100)
    >>> logits.relevance(0.0)
    0.5
    >>> Capabilities(scale="cosine").relevance(-1.0)
    0.0
    """

    scale: Scale = "unit"
    """`unit`: in [0, 1] already. `logit`: any real number. `cosine`: in [-1, 1]. `ordinal`: only the order has a
    meaning."""
    offset: float = 0.0
    """For `logit`: the raw score that means a relevance of 0.5."""
    divisor: float = 1.0
    """For `logit`: how many units of the raw score make one logit."""
    scale_option: str | None = None
    """The backend option that declares logits, such as `scale = "logit"`. `None` if the backend has no such option."""
    curve: Curve | None = None
    """Calibration curve. It turns raw scores into probabilities of relevance, in place of the scale's own formula."""
    max_documents: int | None = None
    """Documents per call. A policy (`Split`) sends more documents in several calls."""
    max_tokens: int | None = None
    """Tokens of the query and one document together. Longer documents are truncated or chunked, never silently."""
    max_query_tokens: int | None = None
    """Tokens of the query alone."""
    max_document_tokens: int | None = None
    """Tokens of one document alone, for backends that read it apart from the query."""
    max_total_tokens: int | None = None
    """Tokens per call: the query once for each document, plus all documents."""
    max_bytes: int | None = None
    """Bytes of UTF-8 per call."""
    listwise: bool = False
    """Whether a document's score depends on the other documents. Then a call is never split or cached by document."""
    joint: bool = False
    """Whether a document's score may move a little with the other documents of its request, because one prompt holds
    them all. Such a call is split into parts as any other, but only whole parts are cached."""
    refuses: bool = False
    """Whether the model may decline to score a document. It then has a reason and no score; if every document is
    declined, the call fails."""
    instructions: bool = False
    """Whether the backend follows an `instruction`. If not, `Reranker` refuses a call that has one."""
    cuts: bool = True
    """Whether the backend itself truncates a document that is too long. If it refuses instead, a policy truncates."""
    fields: bool = False
    """Whether the backend accepts mappings as documents. If not, they are sent as YAML."""

    def relevance(self, raw: float) -> float:
        """Return the `relevance_score` of a raw score, by the declared scale or the calibration curve.

        `unit` stays as it is, `logit` becomes sigmoid((raw - offset) / divisor), `cosine` becomes (raw + 1) / 2. It is
        computed in float64: in half precision, the sigmoid would give several good documents 1.0. The scale `ordinal`
        has no formula; see `Scores.relevances`.

        Args:
            raw: A finite raw score.

        Returns:
            A number in [0, 1]. Raw scores outside the scale are clamped; `outside_scale` reports them.
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
        """Lowest and highest raw score of the scale, with a margin for half precision. `None` without bounds."""
        if self.curve is not None or self.scale not in ("unit", "cosine"):
            return None
        return (0.0 if self.scale == "unit" else -1.0) - 1e-3, 1.0 + 1e-3


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a call to a listwise backend is divided into requests that have some documents in common."""

    size: int
    """Documents in one request, anchors included."""
    anchors: int
    """Documents that are in every request, so that the scores of all requests can be put on one scale."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many documents of a call are scored, if it is not all of them: as many as protect the top of the answer."""

    for_top: int
    """The first results that are protected."""
    miss: float
    """The share of the relevance in them (DCG) that may be lost on average."""
    rounds: int = 3
    """How often the scorer is called at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """What a scorer is asked: a query and the documents to score. All of it is text; no document is blank or repeated.

    >>> request = RerankRequest(query="capital of Germany", documents=("Berlin", "Bananas"))
    >>> request.select([1]).documents
    ('Bananas',)
    """

    query: str
    """The question. Never blank."""
    documents: tuple[str, ...]
    """The texts to score; mappings as YAML."""
    instruction: str | None = None
    """What the user means by relevant, for models that follow such an instruction."""
    retrieval_scores: tuple[float, ...] | None = None
    """The retriever's score of each document. `None` if the caller gave none."""
    fields: tuple[Mapping[str, Any] | None, ...] | None = None
    """The fields of each document that was passed as a mapping, as plain JSON; `None` for a string."""
    positions: tuple[int, ...] | None = None
    """The index of each document in the caller's list. `None` if it is the index in `documents`."""

    def select(self, positions: Sequence[int]) -> RerankRequest:
        """Return the same request for the documents at `positions`, in that order."""
        return replace(
            self,
            documents=tuple(self.documents[position] for position in positions),
            retrieval_scores=_select(self.retrieval_scores, positions),
            fields=_select(self.fields, positions),
            positions=tuple(self.position(position) for position in positions),
        )

    def position(self, index: int) -> int:
        """Return the index in the caller's list of the document at `index`."""
        return index if self.positions is None else self.positions[index]


def _select(values: tuple[T, ...] | None, positions: Sequence[int]) -> tuple[T, ...] | None:
    return None if values is None else tuple(values[position] for position in positions)


@dataclass(frozen=True, slots=True)
class Unscored:
    """What `HostedBackend.decode` returns in place of a score, for a document that the model declined to score.

    Such a document comes after all scored ones, with the reason and without a score. It is not the score 0.

    >>> Unscored("the model declined to answer").reason
    'the model declined to answer'
    """

    reason: str
    """Why there is no score: a part of a sentence, without a text of the document."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed. A field is `None` if the backend does not report it.

    >>> Usage(requests=1, input_tokens=40) + Usage(requests=1, cost_usd=0.002)
    Usage(requests=2, input_tokens=40, output_tokens=None, cached_tokens=None, search_units=None, cost_usd=0.002)
    """

    requests: int = 0
    """Requests that left the process, failed attempts included."""
    input_tokens: int | None = None
    """Tokens that the backend read, by its own count. Those that its vendor had cached are among them."""
    output_tokens: int | None = None
    """Tokens that the backend generated, reasoning included: by a chat model or a decision model."""
    cached_tokens: int | None = None
    """Input tokens that the vendor read from its prompt cache, mostly at a lower price. A part of `input_tokens`."""
    search_units: float | None = None
    """Search units that the vendor billed, such as Cohere's."""
    cost_usd: float | None = None
    """US dollars, computed from the `price` in the spec. `None` without a price."""

    @property
    def total_tokens(self) -> int | None:
        """Input and output tokens together. `None` if the backend reports neither."""
        known = [count for count in (self.input_tokens, self.output_tokens) if count is not None]
        return sum(known) if known else None

    def __add__(self, other: Usage) -> Usage:
        """Add the usage of two parts of one call. A number and `None` add up to the number."""

        def total(mine: Any, theirs: Any) -> Any:
            known = [value for value in (mine, theirs) if value is not None]
            return sum(known) if known else None

        return Usage(
            self.requests + other.requests,
            total(self.input_tokens, other.input_tokens),
            total(self.output_tokens, other.output_tokens),
            total(self.cached_tokens, other.cached_tokens),
            total(self.search_units, other.search_units),
            total(self.cost_usd, other.cost_usd),
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A passage of a document, with a score of its own.

    >>> span = Span(start=7, end=13, score=0.9)
    >>> "It is  Berlin."[span.start : span.end]
    'Berlin'
    """

    start: int
    """Index of the first character, in Unicode code points."""
    end: int
    """Index after the last character."""
    score: float
    """Relevance of the passage, in [0, 1]; its raw score if the backend's scale is `ordinal`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to answer a call.

    >>> from rerank_plugins import load_reranker
    >>> attempt = load_reranker("lexical").rerank("capital", ["Berlin is the capital"]).attempts[0]
    >>> attempt.model, attempt.outcome, attempt.remote
    ('lexical', 'answered', False)
    """

    model: str
    """Label of the model that was tried."""
    outcome: str
    """`answered`, the class name of the error, `cancelled` (by the caller), `cached`, or `breaker_open` (not tried). In
    a cascade also `kept` (documents that reached this stage) and `spared` (skipped, since an earlier stage was
    sure)."""
    milliseconds: float
    """How long it took."""
    detail: str | None = None
    """The error's message, or a number of documents."""
    remote: bool = False
    """Whether a request left the process."""
    usage: Usage | None = None
    """What it consumed, if it answered."""
    status: int | None = None
    """The HTTP status of the reply. `None` if no reply came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A scorer's answer: one value per document of the request, in the request's order.

    >>> scores = Scores(values=(0.25, None, 0.75), model="acme", capabilities=Capabilities(scale="unit"))
    >>> scores.best_first()
    [2, 0, 1]
    >>> scores.relevances()
    (0.25, None, 0.75)
    """

    values: tuple[float | None, ...]
    """Raw scores. `None` for a document that was not scored: by `passthrough`, by a later stage of a cascade, by
    `embedded:balanced`, or by a model that declined to."""
    model: str
    """Label of the model that answered."""
    capabilities: Capabilities
    """Capabilities of the model that answered. Their scale says what the values mean."""
    usage: Usage = field(default_factory=Usage)
    """What the answer consumed."""
    truncated: tuple[bool, ...] | None = None
    """Whether each document was truncated. `None` if none was."""
    spans: tuple[tuple[Span, ...], ...] | None = None
    """The best passages of each document, if the backend reports them."""
    order: tuple[int, ...] | None = None
    """All documents, best first, where the values alone do not decide the order: a cascade, diversity."""
    reply_order: tuple[int, ...] | None = None
    """All documents in the order of the backend's reply, if one reply covered all. It breaks ties between equal values;
    without it they stay in the order of the request."""
    reasons: tuple[str | None, ...] | None = None
    """Why a document has no value."""
    degraded: bool = False
    """Whether a fallback answered."""
    reason: str | None = None
    """Why the answer is degraded, or why it may be poor."""

    def ranks(self) -> tuple[float, ...]:
        """Return the sort key of each document: position in `order` if set, else -value. Unscored documents last."""
        if self.order is not None:
            place = {position: float(place) for place, position in enumerate(self.order)}
            return tuple(place[position] for position in range(len(self.values)))
        return tuple(math.inf if value is None else -value for value in self.values)

    def sort_keys(self) -> list[tuple[float, int]]:
        """Return a sort key for each document: its rank, then its position in the reply if known."""
        places = [0] * len(self.values)
        for place, position in enumerate(self.reply_order or ()):
            places[position] = place
        return list(zip(self.ranks(), places, strict=True))

    def best_first(self) -> list[int]:
        """Return all positions, best first. Equal values are in the order of the reply, else of the request."""
        keys = self.sort_keys()
        return sorted(range(len(keys)), key=keys.__getitem__)

    def relevances(self) -> tuple[float | None, ...]:
        """Return the `relevance_score` of each document, in [0, 1]. `None` if it has no value.

        Of `ordinal` scores only the order has a meaning: the best document gets 1.0, each lower value less, at equal
        distances, and equal values the same.
        """
        if self.capabilities.scale != "ordinal":
            return tuple(None if value is None else self.capabilities.relevance(value) for value in self.values)
        better = sorted({value for value in self.values if value is not None}, reverse=True)
        rank = {value: position for position, value in enumerate(better)}
        return tuple(None if value is None else 1.0 - rank[value] / len(better) for value in self.values)


def is_score(value: object) -> bool:
    """Return whether a value read from a file can be a score: a finite float, or an integer that fits into a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of 400 digits
        return False


def outside_scale(scores: Scores) -> str | None:
    """Return a warning if raw scores lie outside the scale that the backend declares, else `None`.

    Such scores still order the documents correctly, but their `relevance_score` is wrong.
    """
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
            f"{backend} has no option for another scale. If another server answers at `base_url`, use the backend "
            '`http` with http = {scale = "logit"}; or fit a `calibration` (`rerank-plugins calibrate`).'
        )
    return (
        f"{scores.model}: scores outside {limits}, from {min(values):g} to {max(values):g}, under the scale "
        f"{capabilities.scale!r}: the order is right, relevance_score is not. {advice}"
    )

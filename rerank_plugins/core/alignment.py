"""Check the scores of a backend against the documents of the request: one finite score for each, in their order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from .choices import described
from .errors import BadResponse
from .types import RerankRequest, Unscored

__all__ = ["Aligned", "aligned", "checked"]


def checked(values: Iterable[Any], request: RerankRequest, backend: str) -> tuple[float, ...]:
    """Return `values` as floats, after checking that there is one finite number for each document of `request`.

    Raises:
        BadResponse: The number of values is wrong, or a value is not a finite number. The message names the document by
            its index in the caller's list.
    """
    count = len(request.documents)
    if not isinstance(values, Iterable):
        raise BadResponse(
            f"{backend} returned {type(values).__name__} for {count} documents, expected a list of scores.",
            backend=backend,
        )
    scores = list(values)
    if len(scores) != count:
        raise BadResponse(f"{backend} returned {len(scores)} scores for {count} documents.", backend=backend)
    return tuple(_finite(value, request, index, backend) for index, value in enumerate(scores))


class Aligned(NamedTuple):
    """The scores of one reply in the order of the documents."""

    values: tuple[float | None, ...]
    """`None` for a document that the backend declined to score."""
    reply_order: tuple[int, ...]
    """The indexes of the documents in the order of the reply."""
    reasons: tuple[str | None, ...] | None = None
    """Why a document has no value. `None` if all have one."""


def aligned(pairs: Iterable[tuple[Any, Any]], request: RerankRequest, backend: str) -> Aligned:
    """Sort the (index, score) pairs of a reply into the order of the documents.

    Args:
        pairs: Index of a document in `request`, and its score or `Unscored`, in the order of the reply.
        request: The request that the reply answers.
        backend: Label of the backend, for errors.

    Raises:
        BadResponse: An index is repeated, missing or out of range, or a score is not a finite number. The message names
            the document by its index in the caller's list.
    """
    count = len(request.documents)
    scores: dict[int, float | None] = {}
    reasons: dict[int, str] = {}
    for index, value in pairs:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise _not_sent(index, count, backend)
        if index in scores:
            raise BadResponse(f"{backend} scored document {request.position(index)} twice.", backend=backend)
        if isinstance(value, Unscored):
            scores[index], reasons[index] = None, value.reason
            continue
        # Nearly every score is a finite float already: the call is for the others, and for the errors.
        is_score = type(value) is float and math.isfinite(value)
        scores[index] = value if is_score else _finite(value, request, index, backend)
    missing = [request.position(index) for index in range(count) if index not in scores]
    if missing:
        raise BadResponse(
            f"{backend} returned no score for {len(missing)} of {count} documents (the first is {missing[0]}).",
            backend=backend,
        )
    return Aligned(
        tuple(scores[index] for index in range(count)),
        tuple(scores),
        tuple(reasons.get(index) for index in range(count)) if reasons else None,
    )


def _not_sent(index: Any, count: int, backend: str) -> BadResponse:
    return BadResponse(  # without a text of the reply: in place of an index it may hold a document
        f"{backend} scored a document that it was not sent: its index is {described(index)}, and {count} were sent.",
        backend=backend,
    )


def _finite(value: Any, request: RerankRequest, index: int, backend: str) -> float:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise _not_a_number(value, request.position(index), backend)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:  # a row of a two-dimensional array, for example
        raise _not_a_number(value, request.position(index), backend) from error
    if not math.isfinite(number):
        raise BadResponse(
            f"{backend} returned {number} as the score of document {request.position(index)}.", backend=backend
        )
    return number


def _not_a_number(value: Any, position: int, backend: str) -> BadResponse:
    return BadResponse(
        f"{backend} returned {type(value).__name__} as the score of document {position}, expected a number.",
        backend=backend,
    )

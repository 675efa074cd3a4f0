"""Our errors as HTTP statuses: a client that retries what may pass, and nothing else, does right."""

from __future__ import annotations

from ..core.errors import (
    AllBackendsFailed,
    AuthenticationFailed,
    BackendError,
    BadResponse,
    DeadlineExceeded,
    InputError,
    RateLimited,
    Rejected,
    RerankError,
    TransientError,
)
from .limits import Refusal

__all__ = ["TYPES", "retry_after", "status_of"]

TYPES = {
    400: "Empty",
    401: "Unauthorized",
    408: "Timeout",
    413: "Validation",
    415: "Validation",
    422: "Validation",
    424: "Backend",
    429: "Overloaded",
    502: "Backend",
    503: "Unhealthy",
    504: "Timeout",
}
"""TEI's `error_type` of each status, where it has one (router/src/http/types.rs of 1.9)."""


def status_of(error: RerankError) -> int:
    """Return the status that tells a client what an error means for it.

    A wrong call is 400; what may pass is 429, 503 or 504. The vendor's refusal of this very request is 422. A vendor that
    refuses the server's own key, or answers nonsense, is 502: 401 would tell the client that its own key is wrong.
    """
    match error:
        case Refusal():
            return error.status
        case InputError():
            return 400
        case RateLimited():
            return 429
        case TransientError() | AllBackendsFailed():
            return 503
        case DeadlineExceeded():
            return 504
        case BadResponse() | AuthenticationFailed():
            return 502
        case Rejected():
            return 422
        case BackendError():
            return 502
        case _:  # a spec that cannot work: only at the first call, if nobody warmed it up
            return 500


def retry_after(error: RerankError, otherwise: float = 1.0) -> dict[str, str]:
    """Return the header `retry-after`, in whole seconds, for an error that may pass; else nothing."""
    if status_of(error) not in (429, 503, 504):
        return {}
    told = error.retry_after if isinstance(error, BackendError) else None
    return {"retry-after": str(max(1, round(told if told is not None else otherwise)))}

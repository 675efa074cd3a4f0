"""Map our errors to HTTP statuses, so that clients retry exactly the errors that may pass."""

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
from .schemas import Error

__all__ = ["error_body", "retry_after", "status_of"]

_TYPES = {
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


def error_body(status: int, message: str) -> Error:
    """Return the JSON of an error, with the message in the field of each kind of client.

    >>> error_body(404, "There is no model 'x'.")["error_type"]
    'Backend'
    """
    return {"message": message, "error": message, "error_type": _TYPES.get(status, "Backend"), "detail": message}


def status_of(error: RerankError) -> int:
    """Return the HTTP status of an error.

    - 400: the call is wrong.
    - 422: the vendor refuses this request.
    - 429, 503, 504: the same request may succeed later.
    - 502: the vendor refuses the server's own key, or sends an invalid reply. Not 401, which would mean that the
      client's key is wrong.
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
        case _:  # a spec that cannot work; it is noticed at the first call where `warmup` was not called
            return 500


def retry_after(error: RerankError, default: float = 1.0) -> dict[str, str]:
    """Return the header `retry-after`, in whole seconds, for an error that may pass; else an empty mapping.

    Args:
        error: The error that the client gets.
        default: Seconds where the error does not name any.
    """
    if status_of(error) not in (429, 503, 504):
        return {}
    seconds = error.retry_after if isinstance(error, BackendError) else None
    return {"retry-after": str(max(1, round(seconds if seconds is not None else default)))}

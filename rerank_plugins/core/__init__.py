"""The waist: the contract, its data and its errors. Standard library only; imports nothing else of ours."""

from .errors import (
    AllBackendsFailed,
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    DeadlineExceeded,
    InputError,
    MissingExtra,
    RateLimited,
    Rejected,
    RerankError,
    TransientError,
)
from .hosted import HostedBackend
from .model_id import ModelId
from .scorer import Backend, LocalBackend, Scorer, Wrapper
from .sdk import SDKBackend
from .types import Attempt, Capabilities, RerankRequest, Scores, Span, Usage

__all__ = [
    "AllBackendsFailed",
    "Attempt",
    "AuthenticationFailed",
    "Backend",
    "BackendError",
    "BadResponse",
    "Capabilities",
    "ConfigError",
    "DeadlineExceeded",
    "HostedBackend",
    "InputError",
    "LocalBackend",
    "MissingExtra",
    "ModelId",
    "RateLimited",
    "Rejected",
    "RerankError",
    "RerankRequest",
    "SDKBackend",
    "Scorer",
    "Scores",
    "Span",
    "TransientError",
    "Usage",
    "Wrapper",
]

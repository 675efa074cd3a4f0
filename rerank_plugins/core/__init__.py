"""The contract that backends, policies and adapters share. It imports the standard library only.

Read it in this order: `types` (requests, scores, capabilities), `errors`, `scorer`, `remote`, `hosted`, `call`
(deadline and attempts of one call), `response`. The folder `_runtime` holds event loops, threads and locks; a first
reading can skip it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .credentials import AccessToken, FunctionKey, KeySource
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
from .model_id import ModelId
from .scorer import Backend, LocalBackend, Scorer, Wrapper
from .types import Attempt, Capabilities, RerankRequest, Scores, Span, Unscored, Usage

if TYPE_CHECKING:
    from .health import BackendCheck, CheckReport
    from .hosted import HostedBackend
    from .sdk import SDKBackend

__all__ = [
    "AccessToken",
    "AllBackendsFailed",
    "Attempt",
    "AuthenticationFailed",
    "Backend",
    "BackendCheck",
    "BackendError",
    "BadResponse",
    "Capabilities",
    "CheckReport",
    "ConfigError",
    "DeadlineExceeded",
    "FunctionKey",
    "HostedBackend",
    "InputError",
    "KeySource",
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
    "Unscored",
    "Usage",
    "Wrapper",
]

_SUBMODULES = {"BackendCheck": "health", "CheckReport": "health", "HostedBackend": "hosted", "SDKBackend": "sdk"}
"""The submodules of the names that a local model does not need."""


def __getattr__(name: str) -> Any:
    """Import a public name of `_SUBMODULES` at its first access, so that a local model loads without the others."""
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__

"""Put a reranker behind your LangChain or LlamaIndex retriever; change the vendor by changing a string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import load_reranker
    from .core import (
        AccessToken,
        AllBackendsFailed,
        AuthenticationFailed,
        BackendCheck,
        BackendError,
        BadResponse,
        CheckReport,
        ConfigError,
        DeadlineExceeded,
        InputError,
        MissingExtra,
        RateLimited,
        Rejected,
        RerankError,
        TransientError,
        Usage,
    )
    from .reranker import Reranker, RerankResponse, RerankResult

__version__ = "0.1.0"

__all__ = [
    "AccessToken",
    "AllBackendsFailed",
    "AuthenticationFailed",
    "BackendCheck",
    "BackendError",
    "BadResponse",
    "CheckReport",
    "ConfigError",
    "DeadlineExceeded",
    "InputError",
    "MissingExtra",
    "RateLimited",
    "Rejected",
    "RerankError",
    "RerankResponse",
    "RerankResult",
    "Reranker",
    "TransientError",
    "Usage",
    "__version__",
    "load_reranker",
]

_SUBMODULES = {
    "load_reranker": "config",
    "Reranker": "reranker",
    "RerankResponse": "reranker",
    "RerankResult": "reranker",
}
"""The submodules that define the public names. All other public names are in `core`."""


def __getattr__(name: str) -> Any:
    """Import a public name at its first access, so that importing the package itself stays fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_SUBMODULES.get(name, 'core')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__

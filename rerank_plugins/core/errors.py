"""Every error this package raises.

```
RerankError
├── ConfigError (ValueError)          built wrong: unknown backend or option, missing key, missing file
│   └── MissingExtra (ImportError)    … and the pip command that mends it
├── InputError (ValueError)           called wrong: blank query, top_n < 1, an instruction nobody can follow
├── BackendError                      asked properly, did not deliver
│   ├── TransientError                may work when sent again: connection, timeout, 408, 409, 425, 5xx
│   │   └── RateLimited               429, with `retry_after` in seconds where the vendor said
│   ├── Rejected                      any other 4xx: sending the same again cannot help
│   │   └── AuthenticationFailed      401, 403, 498
│   ├── BadResponse                   answered, but not one finite score for every document
│   └── AllBackendsFailed             every entry of a fallback failed; see `.errors`
└── DeadlineExceeded (TimeoutError)   the whole call took longer than the spec allows
```

`TransientError` is what retries repeat; a fallback answers for `TransientError`, `BadResponse` and `DeadlineExceeded`.
"""

from __future__ import annotations

__all__ = [
    "AllBackendsFailed",
    "AuthenticationFailed",
    "BackendError",
    "BadResponse",
    "ConfigError",
    "DeadlineExceeded",
    "InputError",
    "MissingExtra",
    "RateLimited",
    "Rejected",
    "RerankError",
    "TransientError",
]


def clause(words: object) -> str:
    """Return someone else's words without the punctuation at their end, so that a sentence of ours may go on behind them."""
    return str(words).rstrip(" .,:;!?…\n")


class RerankError(Exception):
    """Anything that went wrong in this package; each message ends with what to do next."""


class ConfigError(RerankError, ValueError):
    """The spec, the configuration file or the environment is wrong; nothing was sent or loaded."""


class MissingExtra(ConfigError, ImportError):
    """A backend needs a package that is not installed; the message is the pip command."""

    def __init__(self, what: str, *, extra: str, package: str) -> None:
        """Say that `what` needs `package`, which the extra `extra` installs."""
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed. Run: pip install 'rerank-plugins[{extra}]'"
        )
        self.extra = extra
        self.package = package
        self._made_of = (what, extra, package)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as what it was made of: a worker's error reaches its caller whole."""
        return _missing_extra, self._made_of


def _missing_extra(what: str, extra: str, package: str) -> MissingExtra:
    return MissingExtra(what, extra=extra, package=package)


class InputError(RerankError, ValueError):
    """A call was wrong (query, documents, top_n, instruction); nothing was sent."""


class BackendError(RerankError):
    """A backend was asked properly and did not deliver."""

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """Keep what is known of the failure.

        Args:
            message: What happened and what to do next.
            backend: The spec of the backend that failed.
            status: The HTTP status, where there was one.
            retry_after: Seconds the vendor asked to wait, where it did.
            request_id: The vendor's name for the request, for its support.
        """
        super().__init__(message)
        self.backend = backend
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id


class TransientError(BackendError):
    """A failure that may pass: no connection, a timeout, a server's own error."""


class RateLimited(TransientError):
    """The vendor asked for fewer requests (429); `retry_after` says for how long, where it told."""


class Rejected(BackendError):
    """The vendor refused the request; the same request will be refused again."""


class AuthenticationFailed(Rejected):
    """The key is wrong, expired or not allowed to do this."""


class BadResponse(BackendError):
    """An answer came, but it does not hold exactly one finite score for every document."""


class AllBackendsFailed(BackendError):
    """Every entry of a fallback failed."""

    def __init__(self, errors: tuple[RerankError, ...]) -> None:
        """Hold what each entry raised, in the order tried."""
        listed = "; ".join(f"({position}) {clause(error)}" for position, error in enumerate(errors, start=1))
        super().__init__(
            f"Every reranker of the fallback failed: {listed}. End the fallback with 'passthrough' "
            "(or set on_error to 'degrade') to get the retriever's order instead of this error."
        )
        self.errors = errors

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the errors it holds."""
        return AllBackendsFailed, (self.errors,)


class DeadlineExceeded(RerankError, TimeoutError):
    """The call was not answered within the spec's `deadline`."""

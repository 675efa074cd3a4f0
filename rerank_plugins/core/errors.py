"""All errors of this package. The class of an error decides what happens next.

```
RerankError
├── ConfigError (ValueError)          wrong spec: unknown backend or option, missing key, missing file
│   └── MissingExtra (ImportError)    a package is not installed; the message is the pip command
├── InputError (ValueError)           wrong call: blank query, top_n < 1, an instruction that the backend cannot follow
├── BackendError                      correct spec and call, but no scores
│   ├── TransientError                the same request may succeed later: connection, timeout, 408, 409, 425, 5xx
│   │   └── RateLimited               429, with `retry_after` in seconds if the vendor sent it
│   ├── Rejected                      any other 4xx: the same request will fail again
│   │   └── AuthenticationFailed      401, 403, 498
│   ├── BadResponse                   a reply without exactly one finite score for each document
│   └── AllBackendsFailed             every entry of a fallback failed; see `.errors`
└── DeadlineExceeded (TimeoutError)   the whole call took longer than the deadline in the spec
```

The policy `retry` repeats a call after a `TransientError`. A `fallback` answers after a `TransientError`, `BadResponse`
or `DeadlineExceeded`. All other errors reach the caller.

>>> from rerank_plugins import InputError, RerankError, load_reranker
>>> try:
...     load_reranker("lexical").rerank("  ", ["a document"])
... except InputError as error:
...     print(error)
The query is blank: there is nothing to compare the documents with.
>>> try:
...     load_reranker("lexicl")
... except RerankError as error:
...     print(type(error).__name__)
ConfigError
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
    """Return `words` without punctuation at the end, so that they can stand inside a sentence of an error message."""
    return str(words).rstrip(" .,:;!?…\n")


class RerankError(Exception):
    """Base class of all errors that this package raises. Each message ends with what to do next."""


class ConfigError(RerankError, ValueError):
    """The spec, the configuration file or the environment is wrong. Nothing was sent or loaded."""


class MissingExtra(ConfigError, ImportError):
    """A backend needs a package that is not installed. The message holds the pip command."""

    def __init__(self, what: str, *, extra: str, package: str) -> None:
        """Build the message.

        Args:
            what: The backend or feature that needs the package.
            extra: The extra of `rerank-plugins` that installs the package.
            package: The name of the package.
        """
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed. Run: pip install 'rerank-plugins[{extra}]'"
        )
        self.extra = extra
        self.package = package
        self._arguments = (what, extra, package)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the arguments, so that the error keeps its attributes on the way out of a worker process."""
        return _missing_extra, self._arguments


def _missing_extra(what: str, extra: str, package: str) -> MissingExtra:
    return MissingExtra(what, extra=extra, package=package)


class InputError(RerankError, ValueError):
    """An argument of a call is wrong: query, documents, top_n or instruction. Nothing was sent."""


class BackendError(RerankError):
    """A backend returned no scores, although spec and call are correct."""

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """Build an error of a backend.

        Args:
            message: What happened and what to do next.
            backend: Label of the backend that failed, such as `cohere:rerank-v4.0-fast`.
            status: HTTP status of the reply. `None` if no reply came.
            retry_after: Seconds that the vendor asked to wait. `None` if it did not ask.
            request_id: The vendor's id of the request. Its support will ask for it.
        """
        super().__init__(message)
        self.backend = backend
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id


class TransientError(BackendError):
    """A failure that may pass: no connection, a timeout, an error inside the server."""


class RateLimited(TransientError):
    """The vendor asked for fewer requests (429). `retry_after` says how long to wait, if the vendor does."""


class Rejected(BackendError):
    """The vendor refused the request, and would refuse the same request again."""

    too_large: bool = False
    """Whether the vendor says that the request has too many tokens. Then smaller parts are sent."""
    explanation: str = ""
    """The vendor's own message, without credentials; "" if it sent none."""


class AuthenticationFailed(Rejected):
    """The key is wrong, has expired, or lacks the permission."""


class BadResponse(BackendError):
    """A reply came, but it does not hold exactly one finite score for each document."""


class AllBackendsFailed(BackendError):
    """Every entry of a fallback failed."""

    def __init__(self, errors: tuple[RerankError, ...]) -> None:
        """Build the message from the errors of all entries.

        Args:
            errors: The error of each entry, in the order in which they were tried. They stay available as `.errors`.
        """
        listed = "; ".join(f"({position}) {clause(error)}" for position, error in enumerate(errors, start=1))
        super().__init__(
            f"Every reranker of the fallback failed: {listed}. End the fallback with 'passthrough' "
            "(or set on_error to 'degrade') to get the retriever's order instead of this error."
        )
        self.errors = errors

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the errors of the entries; the message follows from them."""
        return AllBackendsFailed, (self.errors,)


class DeadlineExceeded(RerankError, TimeoutError):
    """The call took longer than the `deadline` in the spec."""

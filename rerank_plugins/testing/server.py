"""A local HTTP server with one vendor's format, for tests of a backend.

It validates requests strictly, plays scripted failures, and records requests. Subclass `VendorServer` for a vendor: the
subclass declares the allowed fields, and the form of an answer and of an error.

```python
from rerank_plugins import load_reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Shuffled, Status

with CohereLike() as server:
    server.play(Status(429, {"retry-after": "0.1"}), Shuffled())
    reranker = load_reranker({"use": "http", "base_url": server.url, "api_key": server.key})
    reranker.rerank("query", ["one", "two"])
    assert [request.documents for request in server.requests] == [["one", "two"]] * 2
    assert server.refused == []
```

A server imports no backend: its format comes from the vendor's documentation, so that it tests the backend's.
"""

from __future__ import annotations

import select
import socket
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from .exchange import Exchange, Received, Reply
from .http_server import HTTPServer
from .script import Pairs, Step

__all__ = ["Exchange", "Received", "Reply", "VendorServer", "share_of_words"]


def share_of_words(query: str, document: str) -> float:
    """Return a relevance score in (0, 1): the share of the query's words in the document, plus a small hash of both.

    The score is deterministic and does not depend on other documents. The hash makes the scores of different documents
    differ, so that a test notices when two of them are swapped.

    Args:
        query: Its words are compared in lower case.
        document: The text to score.

    >>> share_of_words("red apple", "a red apple") > share_of_words("red apple", "a red car")
    True
    """
    words = set(query.lower().split())
    share = len(words & set(document.lower().split())) / (len(words) or 1)
    noise = zlib.crc32(f"{query}\0{document}".encode("utf-8", "replace")) / 2**32
    return 0.05 + 0.85 * share + 0.05 * noise


class VendorServer:
    """A server on 127.0.0.1, as a context manager. A subclass describes a vendor by attributes and methods.

    ```python
    from rerank_plugins import load_reranker
    from rerank_plugins.testing.server import Reply, VendorServer


    class AcmeServer(VendorServer):
        paths = ("/v1/rank",)
        optional = {"model": str}
        top_n_field = None

        def answer(self, body, pairs):
            return {"scores": [{"index": index, "relevance_score": score} for index, score in pairs]}

        def refuse(self, status, message):
            return Reply(status, {"error": {"message": message}})


    with AcmeServer() as server:
        spec = {"use": "http", "base_url": server.url, "api_key": server.key}
        options = {"path": "/v1/rank", "results_field": "scores"}
        with load_reranker(spec | {"http": options}) as reranker:
            assert reranker.rerank("red apple", ["a car", "a red apple"])[0].index == 1
    ```
    """

    paths: ClassVar[tuple[str, ...]] = ("/rerank",)
    """The paths of POST requests."""
    required: ClassVar[Mapping[str, type | tuple[type, ...]]] = {"query": str, "documents": list}
    """Required fields of a body and their types."""
    optional: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """Optional fields and their types; all others are refused."""
    query_field: ClassVar[str] = "query"
    """The field of the query."""
    documents_field: ClassVar[str] = "documents"
    """The field of the documents. It must be in `required`, as must `query_field`."""
    top_n_field: ClassVar[str | None] = "top_n"
    """The field of the number of results; `None` if the vendor has none."""
    max_documents: int | None = None
    """Requests with more documents are refused; `None` allows any number."""
    blanks_refused: ClassVar[bool] = True
    """Whether one blank document fails the request, as it does at nearly all vendors."""
    key_required: ClassVar[bool] = True
    """Whether a request without the key is refused."""
    invalid: ClassVar[int] = 400
    """The HTTP status for a refused body."""
    unauthorized: ClassVar[int] = 401
    """The HTTP status for a missing or wrong key."""

    def __init__(
        self,
        *,
        key: str = "test-key-0123456789",
        delay: float = 0.0,
        max_documents: int | None = None,
        score: Callable[[str, str], float] = share_of_words,
    ) -> None:
        """Create the server. It listens inside the `with` block.

        Args:
            key: The only valid API key.
            delay: Seconds to wait before every answer.
            max_documents: Replaces the vendor's limit of documents.
            score: Returns the score of (query, document).
        """
        self.key = key
        self.delay = delay
        self.score = score
        if max_documents is not None:
            self.max_documents = max_documents
        self.information: dict[str, Any] = {}
        """The replies to GET requests, as JSON, by path; other paths are answered with 404."""
        self.requests: list[Received] = []
        """All requests in the order they came, refused ones included."""
        self.refused: list[str] = []
        """The status and body of each refusal by `validate`; empty for a correct backend."""
        self.most_concurrent = 0
        """The largest number of requests in progress at once."""
        self.changed = threading.Condition()
        """Guards `requests`, `refused`, `most_concurrent` and the scripts; notified when they change."""
        self._script: list[tuple[Callable[[Received], bool], Step]] = []
        self._always: list[tuple[Callable[[Received], bool], Step]] = []
        self._in_progress = 0

    # Override for a vendor
    # -----------------------------------------------------------------------------------------------

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Return `None` for a valid request, else the refusal. Extend it with the checks of one vendor.

        Args:
            body: The parsed JSON, or the raw bytes.
            headers: Names in lower case.
        """
        if self.key_required and not self.authorized(headers):
            return self.refuse(self.unauthorized, "invalid api key")
        if not isinstance(body, dict):
            return self.refuse(self.invalid, "the body is not a JSON object")
        known = {**self.required, **self.optional}
        for name in self.required:
            if name not in body:
                return self.refuse(self.invalid, f"{name} is required")
        for name, value in body.items():
            if name not in known:
                return self.refuse(self.invalid, f"unknown field {name}")
            kinds = known[name]
            allowed = kinds if isinstance(kinds, tuple) else (kinds,)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in allowed):
                return self.refuse(self.invalid, f"{name} has the wrong type {type(value).__name__}")
        return self._check_texts(body)

    def _check_texts(self, body: Mapping[str, Any]) -> Reply | None:
        if not self.query(body).strip():
            return self.refuse(self.invalid, f"{self.query_field} must not be empty")
        documents = self.documents(body)
        if not documents:
            return self.refuse(self.invalid, f"{self.documents_field} must not be empty")
        if self.max_documents is not None and len(documents) > self.max_documents:
            return self.refuse(self.invalid, f"at most {self.max_documents} {self.documents_field}")
        for text in self.texts(body):
            if not isinstance(text, str):
                return self.refuse(self.invalid, f"{self.documents_field} must be texts")
            if self.blanks_refused and not text.strip():
                return self.refuse(self.invalid, f"{self.documents_field} must not contain empty strings")
        return None

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request has the key. By default it is a bearer token.

        Args:
            headers: Names in lower case.
        """
        return headers.get("authorization") == f"Bearer {self.key}"

    def query(self, body: Mapping[str, Any]) -> str:
        """Return the query. Override it if it is not a field of the body.

        Args:
            body: The JSON of a valid request.
        """
        query: str = body[self.query_field]
        return query

    def documents(self, body: Any) -> Any:
        """Return the list of documents, for `Received.documents`. Override it if it is not a field of the body.

        Args:
            body: The JSON of any request. A `KeyError`, `TypeError`, `ValueError` or `AttributeError` means none.
        """
        return body.get(self.documents_field)

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the texts to score. Override it if documents may be objects.

        Args:
            body: The JSON of a valid request.
        """
        texts: Sequence[Any] = body[self.documents_field]
        return texts

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Return the JSON of an answer. By default it has Cohere's form.

        Args:
            body: The JSON of the request.
            pairs: (index, score) of each result, best first.
        """
        return {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}

    def refuse(self, status: int, message: str) -> Reply:
        """Return an error. By default it has Cohere's form.

        Args:
            status: The HTTP status.
            message: The text of the error.
        """
        return Reply(status, {"message": message})

    # Control by a test
    # -------------------------------------------------------------------------------------------------

    def play(self, *steps: Step, when: Callable[[Received], bool] = lambda _: True) -> None:
        """Queue steps. Each valid request takes the first step whose `when` accepts it.

        Args:
            *steps: What to play, in order.
            when: Selects requests, such as those with a certain document; accepts all by default.
        """
        with self.changed:
            self._script += [(when, step) for step in steps]

    def always(self, step: Step, when: Callable[[Received], bool] = lambda _: True) -> None:
        """Play a step for every request for which the queue of `play` has none.

        Args:
            step: What to play.
            when: Selects requests; accepts all by default.
        """
        with self.changed:
            self._always.append((when, step))

    def reset(self) -> None:
        """Remove all queued steps and recorded requests, and the delay."""
        with self.changed:
            self.requests, self.refused, self._script, self._always = [], [], [], []
            self.most_concurrent, self.delay = 0, 0.0

    def wait_until(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait until a condition on the recorded requests is true.

        Args:
            condition: Checked whenever a request comes or ends. It runs under the lock of `changed`.
            seconds: How long to wait.

        Returns:
            Whether the condition became true in time.
        """
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    # Start and stop
    # -------------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._http.open)

    def __enter__(self) -> Self:
        """Start to listen."""
        self.closing, self._closer = socket.socketpair()
        self._http = HTTPServer(self)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._accept, name="vendor-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Close all connections and stop."""
        self._closer.close()  # wakes every thread that selects on `closing`
        self._thread.join(5.0)
        self._http.server_close()
        self._http.hang_up()
        self.closing.close()

    def _accept(self) -> None:
        # `serve_forever` polls for its end, which takes too long: a test suite closes thousands of servers.
        sources: list[Any] = [self._http, self.closing]
        while self.closing not in select.select(sources, [], [])[0]:
            self._http.handle_request()

    def _next_step(self, request: Received) -> Step:
        with self.changed:
            for position, (when, step) in enumerate(self._script):
                if when(request):
                    del self._script[position]
                    return step
            return next((step for when, step in self._always if when(request)), Step())

    def _record_start(self, request: Received) -> None:
        with self.changed:
            self._in_progress += 1
            request.concurrent = self._in_progress
            self.most_concurrent = max(self.most_concurrent, self._in_progress)
            self.requests.append(request)
            self.changed.notify_all()

    def _record_end(self) -> None:
        with self.changed:
            self._in_progress -= 1
            self.changed.notify_all()

"""A strict server made of one documented exchange: what a vendor's page or package shows of a request and its reply.

The exchange is plain data, written down from the vendor's documentation, not from the backend that it tests:

```python
from rerank_plugins import load_reranker
from rerank_plugins.testing.documented import documented_server

EXCHANGE = {
    "request": {
        "path": "/v1/rank",
        "headers": {"authorization": "Bearer KEY"},
        "body": {"q": {"text": "QUERY"}, "passages": ["FIRST", "SECOND"]},
    },
    "reply": {"rankings": [{"position": 1, "score": 0.75}, {"position": 0, "score": 0.25}]},
    "error": {"status": 401, "body": {"message": "invalid key"}},
}
OPTIONS = {
    "path": "/v1/rank",
    "query_field": "q",
    "query_text_field": "text",
    "documents_field": "passages",
    "results_field": "rankings",
    "index_field": "position",
    "score_field": "score",
}

with documented_server(EXCHANGE)() as server:
    spec = {"use": "http", "base_url": server.url, "api_key": server.key, "http": OPTIONS}
    with load_reranker(spec) as reranker:
        assert reranker.rerank("red apple", ["a car", "a red apple"])[0].index == 1
```

In the request, `KEY`, `QUERY`, `FIRST` and `SECOND` stand for the key, the query and two documents. In the reply, the
second document has the score 0.75 and the first 0.25. The server refuses another path, a missing header, a missing or
unknown field, and values of another shape. `optional` holds fields that the vendor documents besides, with examples.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from .script import Pairs
from .server import Reply, VendorServer

__all__ = ["FIRST_SCORE", "SECOND_SCORE", "DocumentedServer", "documented_server"]

FIRST_SCORE, SECOND_SCORE = 0.25, 0.75
"""The scores of the two documents in a documented reply."""
Place = tuple[str | int, ...]
"""The keys and positions that lead to a value in JSON."""


def places(value: Any, searched: Any, place: Place = ()) -> Iterator[Place]:
    """Yield each place in JSON where `searched` stands."""
    if value == searched and type(value) is type(searched):
        yield place
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, searched, (*place, key))


def at(value: Any, place: Sequence[str | int]) -> Any:
    """Return the value at a place."""
    for key in place:
        value = value[key]
    return value


def difference(example: Any, value: Any, name: str = "body") -> str | None:
    """Return how the shape of `value` differs from that of `example`: keys and types, not texts. `None` if not."""
    if isinstance(example, Mapping):
        if not isinstance(value, Mapping):
            return f"{name} must be an object"
        if missing := example.keys() - value.keys():
            return f"{name}.{min(missing)} is required"
        if unknown := value.keys() - example.keys():
            return f"unknown field {name}.{min(unknown)}"
        return next(filter(None, (difference(example[key], value[key], f"{name}.{key}") for key in example)), None)
    if isinstance(example, list):
        if not isinstance(value, list):
            return f"{name} must be a list"
        return next(filter(None, (difference(example[0], item, f"{name}[]") for item in value)), None)
    if isinstance(example, str) or example is None or isinstance(example, bool):
        same = isinstance(value, type(example))
    else:
        same = isinstance(value, int | float) and not isinstance(value, bool)
    return None if same else f"{name} must be like {example!r}"


class DocumentedServer(VendorServer):
    """A server of the form of `exchange`; see `documented_server`."""

    exchange: ClassVar[Mapping[str, Any]] = {}
    top_n_field = None

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Compare the headers and the shape of the body with the documented request."""
        request, optional = self.exchange["request"], self.exchange.get("optional", {})
        if self.key_required and not self.authorized(headers):
            return self.refuse(self.unauthorized, "invalid api key")
        for name, value in request["headers"].items():
            if "KEY" not in value and headers.get(name) != value:
                return self.refuse(self.invalid, f"the header {name} must be {value}")
        if not isinstance(body, dict):
            return self.refuse(self.invalid, "the body is not a JSON object")
        extended = request["body"] | {name: optional[name] for name in optional.keys() & body.keys()}
        problem = difference(extended, body)
        if problem is not None and difference(request["body"], body) is not None:
            return self.refuse(self.invalid, problem)
        return self._check_texts(body)

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Return whether each documented header that holds the key holds this server's key."""
        expected = self.exchange["request"]["headers"].items()
        return all(headers.get(name) == value.replace("KEY", self.key) for name, value in expected if "KEY" in value)

    def query(self, body: Mapping[str, Any]) -> str:
        """Return the text where the documented request has QUERY."""
        query: str = at(body, next(places(self.exchange["request"]["body"], "QUERY")))
        return query

    def documents(self, body: Any) -> Any:
        """Return the list that has FIRST in the documented request."""
        return at(body, self._place_of_documents()[0])

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the texts where the documented request has FIRST, SECOND and so on."""
        where, inside = self._place_of_documents()
        return [at(document, inside) for document in at(body, where)]

    def _place_of_documents(self) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
        """Return the keys to the list of documents, and those from a document to its text."""
        place = next(places(self.exchange["request"]["body"], "FIRST"))
        first = next(position for position, key in enumerate(place) if isinstance(key, int))
        return place[:first], place[first + 1 :]

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Return the documented reply with other positions and scores."""
        reply = copy.deepcopy(self.exchange["reply"])
        *where, position, last = (*next(places(reply, SECOND_SCORE)), None)
        if last is None and isinstance(position, int):  # bare scores, in the order of the documents
            at(reply, where)[:] = [score for _, score in sorted(pairs, key=lambda pair: str(pair[0]).zfill(9))]
            return reply
        *where, position, field = next(places(reply, SECOND_SCORE))
        results = at(reply, where)
        example = results[position]
        index_field = next(
            (key for key, value in example.items() if type(value) in (int, str) and value in (1, "1")), None
        )
        results[:] = [self._result(example, field, index_field, index, score) for index, score in pairs]
        return reply

    @staticmethod
    def _result(example: Mapping[str, Any], field: Any, index_field: Any, index: Any, score: Any) -> dict[str, Any]:
        own = {} if index_field is None else {index_field: str(index) if example[index_field] == "1" else index}
        return {**example, **own, field: score}

    def refuse(self, status: int, message: str) -> Reply:
        """Return an error in the documented form, with the message in the place of the documented one."""
        body = copy.deepcopy(self.exchange["error"]["body"])
        documented = self.exchange["error"].get("message")
        if documented is None:
            return Reply(status, {"message": message})
        *where, last = next(places(body, documented))
        at(body, where)[last] = message
        return Reply(status, body)


def documented_server(exchange: Mapping[str, Any]) -> type[DocumentedServer]:
    """Return a server class of the form of a documented exchange.

    Args:
        exchange: See the top of this module.
    """
    request = exchange["request"]
    documents_field = next(places(request["body"], "FIRST"))[0]
    query_field = next(places(request["body"], "QUERY"))[0]

    class Documented(DocumentedServer):
        """The server of one exchange."""

        paths = (request["path"].partition("?")[0],)
        required = dict.fromkeys(request["body"], object)
        key_required = any("KEY" in value for value in request["headers"].values())
        unauthorized = exchange["error"]["status"] if exchange["error"]["status"] in (401, 403) else 401

    Documented.exchange = exchange
    Documented.documents_field = str(documents_field)
    Documented.query_field = str(query_field)
    return Documented

"""A stand-in for Elasticsearch and OpenSearch on loopback: vector search in the form of their replies. It is exact.

From https://www.elastic.co/docs/reference/elasticsearch/rest-apis/retrievers/knn-retriever and
https://docs.aws.amazon.com/opensearch-service/latest/developerguide/knn.html (both read in November 2026).
"""

from typing import Any

import numpy as np
from loopback import serve

indexes: dict[str, dict[str, dict[str, Any]]] = {}
SHARDS = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}


def answer(method: str, path: str, documents: list[Any]) -> tuple[int, Any]:
    name, _, action = path.strip("/").partition("/")
    if not name:
        return 200, {"name": "stand-in", "version": {"number": "9.2.0", "lucene_version": "10.3.1"}}
    if path == "/_bulk":
        for operation, source in zip(documents[::2], documents[1::2], strict=True):
            indexes[operation["index"]["_index"]][operation["index"]["_id"]] = source
        items = [{"index": {**each["index"], "result": "created", "status": 201}} for each in documents[::2]]
        return 200, {"took": 1, "errors": False, "items": items}
    if method == "PUT":
        indexes[name] = {}
        return 200, {"acknowledged": True, "shards_acknowledged": True, "index": name}
    if name not in indexes:
        return error(404, "index_not_found_exception", f"no such index [{name}]")
    if action == "_search":
        return search(name, documents[0])
    return 200, {name: {}, "_shards": SHARDS}  # the index exists, or was refreshed


def search(name: str, body: dict[str, Any]) -> tuple[int, Any]:
    if "knn" in body:  # Elasticsearch
        field, vector, k = (body["knn"][key] for key in ("field", "query_vector", "k"))
        if body["knn"].get("num_candidates", k) < k:
            return error(400, "illegal_argument_exception", "[num_candidates] cannot be less than [k]")
    else:  # OpenSearch
        ((field, knn),) = body["query"]["knn"].items()
        vector, k = knn["vector"], knn["k"]
    rows = list(indexes[name].items())
    scores = (1 + np.array([source[field] for _, source in rows]) @ vector) / 2
    hits = [
        {"_index": name, "_id": rows[place][0], "_score": scores[place], "_source": rows[place][1] | {field: None}}
        for place in np.argsort(-scores)[: min(k, body.get("size", 10))]
    ]
    total = {"value": len(hits), "relation": "eq"}
    return 200, {"took": 1, "timed_out": False, "_shards": SHARDS, "hits": {"total": total, "hits": hits}}


def error(status: int, kind: str, reason: str) -> tuple[int, Any]:
    return status, {"error": {"type": kind, "reason": reason, "root_cause": []}, "status": status}


def start() -> str:
    """Start the server and return its URL."""
    return serve(answer, {"content-type": "application/json", "x-elastic-product": "Elasticsearch"})

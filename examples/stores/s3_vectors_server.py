"""A stand-in for Amazon S3 Vectors on loopback: four operations with AWS's limits. Its search is exact.

From https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_S3_Vectors.html and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-vectors-limitations.html (both read in November 2026).
"""

import json
from typing import Any

import numpy as np
from loopback import serve

indexes: dict[str, dict[str, Any]] = {}


def answer(_method: str, path: str, documents: list[Any]) -> tuple[int, Any]:
    (request,) = documents
    index = indexes.get(request["indexName"])
    if path == "/CreateIndex":
        indexes[request["indexName"]] = request | {"vectors": {}}
        return 200, {"indexArn": f"arn:aws:s3vectors:eu-west-1:000000000000:{request['indexName']}"}
    if index is None:
        return 404, {"__type": "NotFoundException", "message": "The specified index could not be found"}
    if path == "/PutVectors":
        unfiltered = index.get("metadataConfiguration", {}).get("nonFilterableMetadataKeys", [])
        for vector in request["vectors"]:
            filterable = {name: value for name, value in vector["metadata"].items() if name not in unfiltered}
            if len(json.dumps(filterable)) > 2048:
                return refused("Filterable metadata must have at most 2048 bytes")
        if len(request["vectors"]) > 500:
            return refused("vectors must have at most 500 items")
        index["vectors"] |= {vector["key"]: vector for vector in request["vectors"]}
        return 200, {}
    if path == "/QueryVectors":
        if request["topK"] > 100:
            return refused("topK must be between 1 and 100")
        vectors = list(index["vectors"].values())
        distances = 1 - np.array([vector["data"]["float32"] for vector in vectors]) @ request["queryVector"]["float32"]
        nearest = [(vectors[place], distances[place]) for place in np.argsort(distances)[: request["topK"]]]
        results = [{"key": each["key"], "metadata": each["metadata"], "distance": far} for each, far in nearest]
        return 200, {"vectors": results, "distanceMetric": "cosine"}
    return refused(f"This stand-in does not know {path}")


def refused(message: str) -> tuple[int, Any]:
    return 400, {"__type": "ValidationException", "message": message}


def start() -> str:
    """Start the server and return its URL."""
    return serve(answer, {"content-type": "application/json"})

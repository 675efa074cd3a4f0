"""Mixedbread's API: https://mixedbread.com/api-reference/endpoints/reranking (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["MixedbreadServer"]


class MixedbreadServer(VendorServer):
    """`POST /v1/reranking`, with names of its own: input, top_k, data, score."""

    paths = ("/v1/reranking",)
    required = {"model": str, "query": str, "input": list}  # noqa: RUF012
    optional = {"rank_fields": list, "top_k": int, "return_input": bool, "rewrite_query": bool}  # noqa: RUF012
    documents_field = "input"
    top_n_field = "top_k"
    invalid = 422

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Take texts or objects, not both."""
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        if len({type(each) for each in body["input"]}) > 1:
            return self.refuse(422, "input must be a list of strings or a list of objects")
        if "rank_fields" in body and not isinstance(body["input"][0], dict):
            return self.refuse(422, "rank_fields needs objects")
        return None

    def refuse(self, status: int, message: str) -> Reply:
        """Say it in `message`."""
        return Reply(status, {"message": message})

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the texts, or the named fields of the objects."""
        names = body.get("rank_fields")
        return [
            " ".join(str(value) for name, value in each.items() if names is None or name in names)
            if isinstance(each, dict)
            else each
            for each in body["input"]
        ]

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with `data`."""
        words = sum(len(text.split()) for text in (body["query"], *self.texts(body)))
        return {
            "usage": {"prompt_tokens": words, "total_tokens": words, "completion_tokens": 0},
            "model": body["model"],
            "data": [
                {"index": index, "score": score, "input": None, "object": "rank_result"} for index, score in pairs
            ],
            "object": "list",
            "top_k": len(pairs),
            "return_input": False,
        }

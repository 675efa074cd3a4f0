"""Cohere's API v2: https://docs.cohere.com/reference/rerank and /reference/errors (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["CohereServer"]


class CohereServer(VendorServer):
    """`POST /v2/rerank`; spans only for `rerank-v5…` models."""

    paths = ("/v2/rerank",)
    required = {"model": str, "query": str, "documents": list}  # noqa: RUF012
    optional = {"top_n": int, "max_tokens_per_doc": int, "relevant_spans": dict, "priority": int}  # noqa: RUF012
    max_documents = 10_000  # https://docs.cohere.com/docs/reranking-best-practices

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the spans' own fields too."""
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        spans = body.get("relevant_spans")
        if spans is None:
            return None
        if not body["model"].startswith("rerank-v5"):
            return self.refuse(400, "relevant_spans is not supported by this model")
        if spans.get("mode") not in ("enabled", "disabled") or not set(spans) <= {"mode", "threshold", "max_spans"}:
            return self.refuse(400, "invalid relevant_spans")
        return None

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with billed units: one search unit for each hundred documents, or tokens from v5 on."""
        with_spans = body.get("relevant_spans", {}).get("mode") == "enabled"
        results: list[dict[str, Any]] = []
        for index, score in pairs:
            result = {"index": index, "relevance_score": score}
            if with_spans and isinstance(index, int) and 0 <= index < len(body["documents"]):
                text = body["documents"][index]
                result["relevant_spans"] = [{"start": 0, "end": min(len(text), 9), "score": 0.5}]
            results.append(result)
        words = sum(len(text.split()) for text in (body["query"], *body["documents"]))
        units = -(-len(body["documents"]) // 100)
        tokens = body["model"].startswith("rerank-v5")
        return {
            "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
            "results": results,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": words} if tokens else {"search_units": units},
            },
        }

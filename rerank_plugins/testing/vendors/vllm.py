"""vLLM: "Re-rank API" of https://docs.vllm.ai and vllm/entrypoints/pooling/scoring/protocol.py (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["VLLMServer"]


class VLLMServer(VendorServer):
    """`POST /v1/rerank` (and its aliases), started with `--api-key`; a `top_n` of 0 is all."""

    paths = ("/v1/rerank", "/rerank", "/v2/rerank")
    optional = {  # noqa: RUF012
        "model": str,
        "top_n": int,
        "truncate_prompt_tokens": int,
        "instruction": str,
        "use_activation": bool,
        "priority": int,
    }
    blanks_refused = False

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the range of `truncate_prompt_tokens`."""
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        if body.get("truncate_prompt_tokens", -1) < -1:
            return self.refuse(400, "truncate_prompt_tokens must be at least -1")
        return None

    def refuse(self, status: int, message: str) -> Reply:
        """Say it as OpenAI's servers do."""
        return Reply(
            status, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}
        )

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with the documents, which vLLM always sends along."""
        words = sum(len(text.split()) for text in (body["query"], *body["documents"]))
        texts = dict(enumerate(body["documents"]))
        return {
            "id": "rerank-fae51b2b664d4ed38f5969b612edff77",
            "model": body.get("model", "served"),
            "usage": {"prompt_tokens": words, "total_tokens": words},
            "results": [
                {"index": index, "document": {"text": texts.get(index)}, "relevance_score": score}
                for index, score in pairs
            ],
        }

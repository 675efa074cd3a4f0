"""vLLM: "Re-rank API" of https://docs.vllm.ai and vllm/entrypoints/pooling/scoring/protocol.py (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["VLLMServer"]


class VLLMServer(VendorServer):
    """`POST /v1/rerank` (and its aliases), started with `--api-key`; a `top_n` of 0 is all. A word is a token."""

    paths = ("/v1/rerank", "/rerank", "/v2/rerank")
    optional = {  # noqa: RUF012
        "model": str,
        "top_n": int,
        "truncate_prompt_tokens": int,
        "truncation_side": str,
        "max_tokens_per_doc": int,
        "max_tokens_per_query": int,
        "instruction": str,
        "use_activation": bool,
        "priority": int,
    }
    blanks_refused = False
    max_model_len: int = 1_000_000
    """Tokens of query, document and chat template."""
    template_tokens: int = 0
    """Of the chat template, all of them behind the document: the model answers at the last one."""

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the numbers, and that each pair fits into the model's context."""
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        if body.get("truncate_prompt_tokens", -1) < -1:
            return self.refuse(400, "truncate_prompt_tokens must be at least -1")
        if body.get("truncation_side", "left") not in ("left", "right"):
            return self.refuse(400, "truncation_side must be left or right")
        for name in ("max_tokens_per_doc", "max_tokens_per_query"):
            if not 0 <= body.get(name, 0) < self.max_model_len:
                return self.refuse(400, f"{name} must be less than max_model_len ({self.max_model_len}).")
        if "truncate_prompt_tokens" in body:
            return None
        longest = max(self._prompt_tokens(body, text) for text in self._cut_texts(body))
        if longest > self.max_model_len:
            return self.refuse(
                400,
                f"This model's maximum context length is {self.max_model_len} tokens. However, your request has "
                f"{longest} input tokens. Please reduce the length of the input messages.",
            )
        return None

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the documents as the model reads them.

        Where the end of the prompt is cut, the model does not see the place of its answer: the text is replaced by
        another one, so that its score differs.
        """
        texts = self._cut_texts(body)
        if (limit := body.get("truncate_prompt_tokens")) is None or not self.template_tokens:
            return texts
        limit = self.max_model_len if limit == -1 else limit
        return ["no place for an answer" if self._prompt_tokens(body, text) > limit else text for text in texts]

    def _cut_texts(self, body: Mapping[str, Any]) -> list[Any]:
        limit = body.get("max_tokens_per_doc", 0)
        return [
            " ".join(text.split()[:limit]) if limit and isinstance(text, str) else text for text in body["documents"]
        ]

    def _prompt_tokens(self, body: Mapping[str, Any], text: Any) -> int:
        query = len(body["query"].split())
        return min(query, body.get("max_tokens_per_query") or query) + len(str(text).split()) + self.template_tokens

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

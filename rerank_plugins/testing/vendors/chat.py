"""A chat model behind `POST /v1/chat/completions`, in the format of OpenAI's API.

The format is that of https://platform.openai.com/docs/api-reference/chat/create and the package openai 3.57
(`openai/types/chat`; November 2026). As a model would, the server reads the JSON in the user's message: an object with
`query`, and with `documents` by id or one `document`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.types import Unscored
from ..script import Pairs
from ..server import Reply, VendorServer, share_of_words

__all__ = ["ChatServer", "grade_of_words"]


def grade_of_words(query: str, document: str) -> float:
    """Return `share_of_words` as one of ten grades, divided by 10: what a chat model can say.

    >>> grade_of_words("red apple", "a red apple")
    0.9
    """
    return min(9, round(10 * share_of_words(query, document))) / 10


class ChatServer(VendorServer):
    """`POST /v1/chat/completions`, with a JSON schema in the request, or with log probabilities."""

    paths = ("/v1/chat/completions",)
    required = {"model": str, "messages": list}  # noqa: RUF012
    optional = {  # noqa: RUF012
        "temperature": (int, float),
        "max_tokens": int,
        "max_completion_tokens": int,
        "response_format": dict,
        "logprobs": bool,
        "top_logprobs": int,
        "reasoning_effort": str,
        "chat_template_kwargs": dict,
    }
    query_field = "messages"
    documents_field = "messages"
    top_n_field = None

    def __init__(
        self, *, score: Callable[[str, str], float] = grade_of_words, refused: Sequence[str] = (), **options: Any
    ) -> None:
        """Create the server. It listens inside the `with` block.

        Args:
            score: Returns the score of (query, document), from 0 to 1.
            refused: Names of optional fields that the model does not take, as OpenAI's reasoning models refuse
                `temperature`.
            **options: See `VendorServer`.
        """
        super().__init__(score=score, **options)
        self.refused_fields = tuple(refused)

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the messages and the schema too."""
        try:
            return super().validate(body, headers) or self._check_body(body)
        except (KeyError, TypeError, ValueError, IndexError):
            return self.refuse(400, "the messages hold no query and documents")

    def _check_body(self, body: Mapping[str, Any]) -> Reply | None:
        if [message["role"] for message in body["messages"]] != ["system", "user"]:
            return self.refuse(400, "expected a system message and a user message")
        for name in self.refused_fields:
            if name in body:
                return self.refuse(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        if "response_format" in body:
            form = body["response_format"]
            schema = form["json_schema"]["schema"]
            ids = list(self._data(body)["documents"])
            if form["type"] != "json_schema" or schema["required"] != ids or list(schema["properties"]) != ids:
                return self.refuse(400, "the schema must require a grade for every document")
        return None

    @staticmethod
    def _data(body: Mapping[str, Any]) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(body["messages"][-1]["content"])
        return data

    def query(self, body: Mapping[str, Any]) -> str:
        """Return the query in the user's message."""
        query: str = self._data(body)["query"]
        return query

    def documents(self, body: Any) -> list[str]:
        """Return the documents in the user's message."""
        data = self._data(body)
        return list(data["documents"].values()) if "documents" in data else [data["document"]]

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the documents in the user's message."""
        return self.documents(body)

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with a grade for each id, or with the likely first tokens."""
        refused = bool(pairs) and all(isinstance(score, Unscored) for _, score in pairs)
        message = {"role": "assistant", "content": None, "refusal": "I will not grade these."}
        logprobs = None
        if not refused:
            content = self._yes_or_no(pairs) if body.get("logprobs") else self._grades(body, pairs)
            message = {"role": "assistant", "content": content, "refusal": None}
        if body.get("logprobs") and not refused and pairs:
            likely = self._likely(pairs[0][1])
            logprobs = {"content": [{**likely[0], "top_logprobs": likely}], "refusal": None}
        read = sum(len(each["content"].split()) for each in body["messages"])
        written = 1 if body.get("logprobs") else 4 * len(pairs)
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": read // 4},
            },
        }

    def _grades(self, body: Mapping[str, Any], pairs: Pairs) -> str:
        ids = list(self._data(body).get("documents", ()))
        # Written by hand, since an object in Python has no repeated keys.
        written = (
            f"{json.dumps(ids[index] if isinstance(index, int) and 0 <= index < len(ids) else str(index))}: "
            f"{json.dumps(_grade(score))}"
            for index, score in pairs
            if not isinstance(score, Unscored)
        )
        return "{" + ", ".join(written) + "}"

    @staticmethod
    def _yes_or_no(pairs: Pairs) -> str:
        return "yes" if pairs and isinstance(pairs[0][1], float) and pairs[0][1] >= 0.5 else "no"

    @staticmethod
    def _likely(score: Any) -> list[dict[str, Any]]:
        if not isinstance(score, float) or not 0.0 < score < 1.0:
            return [{"token": "yes", "logprob": score, "bytes": None}]
        # A tenth of the probability goes to other words, as real models have it.
        tokens = [
            {"token": token, "logprob": math.log(0.9 * probability), "bytes": None}
            for token, probability in (("yes", 0.75 * score), (" Yes", 0.25 * score), ("no", 1.0 - score))
        ]
        tokens.append({"token": "maybe", "logprob": math.log(0.1), "bytes": None})
        return sorted(tokens, key=lambda token: -token["logprob"])

    def refuse(self, status: int, message: str) -> Reply:
        """Return OpenAI's form of an error."""
        code = "context_length_exceeded" if message == "too many tokens" else None
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return Reply(status, {"error": error})


def _grade(score: Any) -> Any:
    """Return the grade of a score; a score that is no number from 0 to 1 stays as it is."""
    return round(10 * score) if isinstance(score, float) and 0.0 <= score <= 1.0 else score

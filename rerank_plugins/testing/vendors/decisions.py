"""Decision models: OpenAI's `POST /v1/decisions` and TypeSafe's `POST /v1/systemone`.

Their formats are those of https://developers.openai.com/api/reference/resources/decisions/ and the package openai 3.57
(`openai/types/decision*.py`), and of https://docs.typesafe.ai/api and the package typesafe_sdk 0.7.5 (November 2026).

As a model would, the servers read the JSON that they are shown: an object with `query` and with `documents` by id. A
question concerns the document whose id it quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.types import Unscored
from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["OpenAIDecisionsServer", "TypeSafeServer"]

_QUOTED = re.compile(r'"([^"]+)"')


def _document_of(instructions: str, documents: Mapping[str, str]) -> str:
    """Return the document whose id the instructions quote."""
    return next(documents[name] for name in _QUOTED.findall(instructions) if name in documents)


def _in_question_order(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: pair[0] if isinstance(pair[0], int) else len(pairs))


def _tokens(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


class OpenAIDecisionsServer(VendorServer):
    """`POST /v1/decisions`."""

    paths = ("/v1/decisions",)
    required = {"model": str, "input": (str, list), "questions": list}  # noqa: RUF012
    optional = {"safety_identifier": str, "prompt_cache_key": str}  # noqa: RUF012
    query_field = "input"
    documents_field = "questions"
    top_n_field = None
    max_documents = 400

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the input and each question too."""
        try:
            return super().validate(body, headers) or self._check_questions(body["questions"])
        except (KeyError, TypeError, ValueError, StopIteration):
            return self.refuse(400, "a question names no document of the input")

    def _check_questions(self, questions: Sequence[Any]) -> Reply | None:
        for question in questions:
            if set(question) - {"name"} != {"type", "instructions"} or question["type"] != "predicate":
                return self.refuse(400, f"unknown question {sorted(question)}")
        return None

    @staticmethod
    def data(body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON that the input holds: the whole text, or the JSON part of the last message."""
        shown = body["input"]
        if isinstance(shown, str):
            data: dict[str, Any] = json.loads(shown)
            return data
        for message in shown:
            if set(message) != {"type", "role", "content"} or message["role"] not in ("developer", "user"):
                raise ValueError(message)
        (part,) = shown[-1]["content"]
        if set(part) != {"type", "data"} or part["type"] != "input_json":
            raise ValueError(part)
        if len(json.dumps(part["data"], ensure_ascii=False, separators=(",", ":")).encode()) > 256 * 1024:
            raise ValueError("too large")
        return dict(part["data"])

    def query(self, body: Mapping[str, Any]) -> str:
        """Return the query in the input."""
        query: str = self.data(body)["query"]
        return query

    def documents(self, body: Any) -> list[str]:
        """Return the document of each question."""
        documents = self.data(body)["documents"]
        return [_document_of(question["instructions"], documents) for question in body["questions"]]

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the document of each question."""
        return self.documents(body)

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer in the order of the questions."""
        questions = body["questions"]
        read = _tokens(json.dumps(body["input"]), *(question["instructions"] for question in questions))
        return {
            "answers": [self._answer(questions, index, score) for index, score in _in_question_order(pairs)],
            "model": f"{body['model']}-2026-10-01",
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": read // 2},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read,
            },
        }

    def _answer(self, questions: Sequence[Any], index: Any, score: Any) -> dict[str, Any]:
        is_sent = isinstance(index, int) and 0 <= index < len(questions)
        name = questions[index].get("name") if is_sent else str(index)
        if isinstance(score, Unscored):
            return {"type": "refusal", "name": name}
        return {"type": "predicate", "name": name, "probability": score}

    def refuse(self, status: int, message: str) -> Reply:
        """Return OpenAI's form of an error."""
        code = "context_length_exceeded" if message == "too many tokens" else None
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return Reply(status, {"error": error})


class TypeSafeServer(VendorServer):
    """`POST /v1/systemone`."""

    paths = ("/v1/systemone",)
    required = {"model": str, "state": (str, dict, list), "questions": dict}  # noqa: RUF012
    query_field = "state"
    documents_field = "questions"
    top_n_field = None
    invalid = 422

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the state and each question too."""
        if self.key_required and "authorization" not in headers:
            return self.refuse(403, "Not authenticated")
        try:
            return super().validate(body, headers) or self._check_questions(body["questions"])
        except (KeyError, TypeError, ValueError, StopIteration):
            return self.refuse(422, "a question names no document of the state")

    def _check_questions(self, questions: Mapping[str, Any]) -> Reply | None:
        for question in questions.values():
            if set(question) - {"criteria"} != {"type", "instructions"} or question["type"] != "noul":
                return self.refuse(422, f"unknown question {sorted(question)}")
        return None

    def query(self, body: Mapping[str, Any]) -> str:
        """Return the query in the state."""
        query: str = body["state"]["query"]
        return query

    def documents(self, body: Any) -> list[str]:
        """Return the document of each question."""
        documents = body["state"]["documents"]
        return [_document_of(question["instructions"], documents) for question in body["questions"].values()]

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the document of each question."""
        return self.documents(body)

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer by the names of the questions. An answer that the model declined is left out, as gateways do."""
        names = list(body["questions"])
        answers = {
            names[index] if isinstance(index, int) and 0 <= index < len(names) else str(index): {
                "type": "noul",
                "noul": score,
            }
            for index, score in _in_question_order(pairs)
            if not isinstance(score, Unscored)
        }
        read = _tokens(json.dumps(body["state"]), json.dumps(body["questions"]))
        return {"model": "jev-1.13.0", "answers": answers, "usage": {"input_tokens": read, "output_tokens": len(names)}}

    def refuse(self, status: int, message: str) -> Reply:
        """Return TypeSafe's form of an error. For too many tokens it has a type and no message."""
        if message == "too many tokens":
            return Reply(status, {"detail": {"error_type": "max_tokens_exceeded"}})
        return Reply(status, {"detail": message})

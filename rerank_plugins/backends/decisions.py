"""Decision models: one request holds the query, the documents and one yes/no question for each document.

The reply is a probability for each question. Nothing is generated, and nothing has to be parsed. There are two formats:

- OpenAI: `POST /v1/decisions` with `{"model", "input", "questions": [{"type": "predicate", "name", "instructions"}]}`
  → `{"answers": [{"type": "predicate", "name", "probability"} or {"type": "refusal", "name"}], "usage"}`, in the order
  of the questions. The input is a developer message, and a user message whose part `input_json` holds the data
  (https://developers.openai.com/api/reference/resources/decisions/, and `openai/types/decision*.py` of the openai
  package 3.57; read in November 2026).
- TypeSafe: `POST /v1/systemone` with `{"model", "state", "questions": {name: {"type": "noul", "instructions"}}}` →
  `{"answers": {name: {"type": "noul", "noul"}}, "usage"}` (https://docs.typesafe.ai/api and the package typesafe_sdk
  0.7.5; read in November 2026). Self-hosted servers and gateways share it.

No request was sent to either vendor: the formats are those of their documentation and SDKs.

A document is data: a string in a JSON object, named by an id that is made for the request. Questions hold ids only, so
no text of a document stands where the model is told what to do.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from ..core._runtime.text_work import check_cancelled, run_text_work
from ..core.errors import ConfigError
from ..core.grading import DECLINED, definition, random_ids
from ..core.hosted import HTTPBackend
from ..core.reply import too_many_tokens
from ..core.types import Capabilities, RerankRequest, Scores, Unscored
from ..options import Count, HostedOptions, Tokens
from .prices import PRICES

__all__ = ["Decisions", "OpenAIDecisions", "TypeSafe"]

LEFT_OUT = "the reply leaves it out, as gateways do where the model declined to answer"

QUESTIONS = 100
"""Default number of questions in a request to OpenAI, whose limit is 400. Smaller parts are answered concurrently."""
SYSTEM_ONE_QUESTIONS = 30
"""Default number of questions in one System One request: the largest for which a measurement is published
(the package hev-rerank 0.1.0)."""
SYSTEM_ONE_TOKENS = 30_000
"""Tokens of query and documents in one System One request. TypeSafe reads about 33,000 for state and longest question
together; the rest is left for ids, question and JSON."""
LUNA_TOKENS = 30_000
"""Tokens of the query and one document in a request to OpenAI. The context has 1,050,000, but see `LUNA_BYTES`."""
LUNA_BYTES = 256 * 1024 - 8 * 1024
"""Bytes of query and documents in a request to OpenAI. One part `input_json` has at most 256 KiB; the rest is left for
the ids."""


class DecisionOptions(HostedOptions):
    """Options of a decision model."""

    max_documents: Count | None = None
    """The largest number of documents in one request. By default 100 for `openai`, whose limit is 400, and 30 for
    `typesafe` and `decisions`."""


class DecisionServerOptions(DecisionOptions):
    """Options of any server or gateway with a decision model. `base_url` is required."""

    format: Literal["typesafe", "openai"] = "typesafe"
    """The format of requests: `typesafe` (`/v1/systemone`: most gateways and self-hosted servers) or `openai`
    (`/v1/decisions`)."""
    path: str | None = None
    """The path of the route, such as `/alpha/decisions`; added to `base_url` unless that ends in it, so `""`
    adds nothing. By default `/v1/systemone` or `/v1/decisions`, by the format."""
    max_tokens: Tokens = SYSTEM_ONE_TOKENS
    """The largest number of tokens of query and documents in one request. A longer document is cut before it is sent,
    and marked `truncated`."""


@dataclass(frozen=True, slots=True)
class _Format(ABC):
    """One of the two wire formats."""

    path: str

    @abstractmethod
    def body(self, model: str, state: Mapping[str, Any], ids: Iterable[str]) -> dict[str, Any]:
        """Return the JSON of a request that asks about each document of `state["documents"]`."""

    @abstractmethod
    def answers(self, body: Any, ids: Mapping[str, int]) -> Iterable[tuple[Any, Any]]:
        """Return (index, probability or `Unscored`) of each answer. An id that was not sent stands for its index."""


class _OpenAIFormat(_Format):
    """OpenAI's format with a text as input: a gateway may not know the messages and parts of OpenAI's own API."""

    def body(self, model: str, state: Mapping[str, Any], ids: Iterable[str]) -> dict[str, Any]:
        statement = 'The document "{}" in "documents" is relevant to "query", as "relevance" defines it.'
        questions = [{"type": "predicate", "name": name, "instructions": statement.format(name)} for name in ids]
        return {"model": model, "input": self.input(state), "questions": questions}

    def input(self, state: Mapping[str, Any]) -> Any:
        """Return the input that all questions are about."""
        return json.dumps(state, ensure_ascii=False)

    def answers(self, body: Any, ids: Mapping[str, int]) -> Iterable[tuple[Any, Any]]:
        for position, answer in enumerate(body["answers"]):
            name = answer.get("name")
            index = position if name is None else ids.get(name, name)
            yield index, Unscored(DECLINED) if answer["type"] == "refusal" else answer["probability"]


class _OpenAIMessages(_OpenAIFormat):
    def input(self, state: Mapping[str, Any]) -> Any:
        data = {name: value for name, value in state.items() if name != "relevance"}
        return [
            {
                "type": "message",
                "role": "developer",
                "content": f'This is what "relevance" means. {state["relevance"]}',
            },
            {"type": "message", "role": "user", "content": [{"type": "input_json", "data": data}]},
        ]


class _SystemOneFormat(_Format):
    def body(self, model: str, state: Mapping[str, Any], ids: Iterable[str]) -> dict[str, Any]:
        question = 'Is the document "{}" in "documents" relevant to "query", as "relevance" defines it?'
        questions = {name: {"type": "noul", "instructions": question.format(name)} for name in ids}
        return {"model": model, "state": dict(state), "questions": questions}

    def answers(self, body: Any, ids: Mapping[str, int]) -> Iterable[tuple[Any, Any]]:
        for name, answer in body["answers"].items():
            yield ids.get(name, name), Unscored(DECLINED) if answer["type"] == "refusal" else answer["noul"]


class _GatewayFormat(_SystemOneFormat):
    """System One behind a gateway, such as LiteLLM's proxy, which leaves out the answers that the model declined."""

    def answers(self, body: Any, ids: Mapping[str, int]) -> Iterable[tuple[Any, Any]]:
        answered = list(super().answers(body, ids))
        left_out = set(ids.values()) - {index for index, _ in answered if isinstance(index, int)}
        return [*answered, *((index, Unscored(LEFT_OUT)) for index in sorted(left_out))]


_OPENAI = _OpenAIMessages("/v1/decisions")
_OPENAI_TEXT = _OpenAIFormat("/v1/decisions")
_SYSTEM_ONE = _SystemOneFormat("/v1/systemone")
_GATEWAY = _GatewayFormat("/v1/systemone")


class _DecisionModel(HTTPBackend):
    """What all decision models share."""

    Options = DecisionOptions
    format: ClassVar[_Format]

    def __init__(self, model: str | None = None, options: DecisionOptions | None = None) -> None:
        """Set model and options."""
        options = options or self.Options()
        super().__init__(model, **options.shared())
        self._format = self.format
        self._path = self.format.path
        if options.max_documents is not None:
            self.capabilities = replace(self.capabilities, max_documents=options.max_documents)

    async def _ask(self, request: RerankRequest) -> Scores:
        ids = {name: index for index, name in enumerate(random_ids(len(request.documents)))}
        size = len(request.query) + sum(map(len, request.documents))
        payload = await run_text_work(size, self._body, request, ids)
        return await self._exchange(self._path, payload, request, partial(self._format.answers, ids=ids))

    def _body(self, request: RerankRequest, ids: Mapping[str, int]) -> dict[str, Any]:
        check_cancelled()
        # What several requests have in common comes first, for the vendor's prompt cache.
        state = {
            "relevance": definition(request.instruction),
            "query": request.query,
            "documents": dict(zip(ids, request.documents, strict=True)),
        }
        return self._format.body(self.model, state, ids)

    def too_large(self, status: int, body: Any) -> bool:
        """Return whether the error says that the request has too many tokens."""
        return too_many_tokens(status, body)


def _capabilities(max_documents: int, max_tokens: int, *, refuses: bool) -> Capabilities:
    return Capabilities(
        scale="unit",
        max_documents=max_documents,
        max_tokens=max_tokens,
        max_total_tokens=max_tokens,
        joint=True,
        refuses=refuses,
        instructions=True,
        cuts=False,  # one document that is too long fails the whole request
    )


class OpenAIDecisions(_DecisionModel):
    """OpenAI's decision models."""

    model = "gpt-6-luna"
    list_prices = PRICES["openai"]
    base_url = "https://api.openai.com"
    base_url_variables = ("OPENAI_BASE_URL",)
    key_variables = ("OPENAI_API_KEY",)
    format = _OPENAI
    capabilities = replace(
        _capabilities(QUESTIONS, LUNA_TOKENS, refuses=True), max_total_tokens=None, max_bytes=LUNA_BYTES
    )


class TypeSafe(_DecisionModel):
    """TypeSafe's System One models."""

    model = "jev-latest"
    list_prices = PRICES["typesafe"]
    base_url = "https://api.typesafe.ai"
    base_url_variables = ("TYPESAFE_BASE_URL",)
    key_variables = ("TYPESAFE_API_KEY",)
    format = _SYSTEM_ONE
    capabilities = _capabilities(SYSTEM_ONE_QUESTIONS, SYSTEM_ONE_TOKENS, refuses=False)


class Decisions(_DecisionModel):
    """A decision model on any server or gateway, at `base_url`, in either format."""

    Options = DecisionServerOptions
    key_required = False
    format = _GATEWAY

    def __init__(self, model: str | None = None, options: DecisionServerOptions | None = None) -> None:
        """Set model, format and limits.

        Raises:
            ConfigError: There is no model, or no `base_url`.
        """
        options = options or DecisionServerOptions()
        if not (model or self.model):
            raise ConfigError(
                f"{self.name or 'decisions'} needs a model: write it after the colon, such as 'decisions:jev-latest'."
            )
        super().__init__(model, options)
        self._format = _OPENAI_TEXT if options.format == "openai" else _GATEWAY
        if options.path is None:
            self._path = self._format.path
        else:
            self._path, self.path_option = options.path, f"{self.name}.path"
        self.capabilities = _capabilities(
            options.max_documents or SYSTEM_ONE_QUESTIONS, options.max_tokens, refuses=True
        )

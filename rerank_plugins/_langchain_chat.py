"""A LangChain chat model as a reranker. `rerank_plugins.langchain` exports it."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel, SimpleChatModel

from ._chat_model import ChatReply, chat_model_reranker, token_usage
from .core._runtime.background_loop import Workers
from .core.errors import ConfigError
from .reranker import Reranker

__all__ = ["chat_reranker"]

_CONFIG: Any = {"tags": ["nostream"]}
"""LangGraph's word for a model whose tokens are no words of the agent (`langgraph.constants.TAG_NOSTREAM`): without it,
an agent that streams would show the grades to its user."""


def chat_reranker(model: BaseChatModel, **options: Any) -> Reranker:
    """Return a reranker that asks a LangChain chat model for a grade from 0 to 10 of each document.

    It has the prompts, checks and blocks of the backend `chat`. The model runs as a child of the run around it, so that
    its tokens are in the same trace.

    Args:
        model (BaseChatModel): The chat model. Where it has structured output, that is used.
        **options (Any): Options of a spec: `top_n`, `deadline`, `fallback`, `cache`, `retry`, `price`, and `chat` with
            `block`, `anchors` and `max_tokens`.

    Returns:
        Reranker: For `RerankCompressor(reranker=…)`. It has no spec, so it cannot be pickled.

    Raises:
        ConfigError: `model` is no chat model, or an option is wrong.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.language_models.fake_chat_models import FakeListChatModel
        >>> from rerank_plugins.langchain import RerankCompressor, chat_reranker
        >>> model = FakeListChatModel(responses=["no JSON at all"])
        >>> compressor = RerankCompressor(reranker=chat_reranker(model, fallback=["lexical"]), top_n=1)
        >>> documents = [Document("Bananas are yellow."), Document("Bees make honey from nectar.")]
        >>> compressor.compress_documents(documents, "How do bees make honey?")[0].metadata["rerank_model"]
        'lexical'
    """
    if not isinstance(model, BaseChatModel):
        raise ConfigError(
            f"chat_reranker needs a LangChain BaseChatModel, got {type(model).__name__}. Pass the model "
            "itself, not a chain around it."
        )
    kind = type(model)
    is_structured = (
        kind.with_structured_output is not BaseChatModel.with_structured_output
        or kind.bind_tools is not BaseChatModel.bind_tools
    )

    is_async = kind._agenerate not in (BaseChatModel._agenerate, SimpleChatModel._agenerate)

    async def complete(messages: list[dict[str, str]], schema: dict[str, Any], workers: Workers) -> ChatReply:
        turns = [(message["role"], message["content"]) for message in messages]
        chain: Any = model
        if is_structured:
            described = {"title": "grades", "description": "The grade of each document.", **schema}
            chain = model.with_structured_output(described, include_raw=True)
        answer = await (chain.ainvoke(turns, _CONFIG) if is_async else workers.run(chain.invoke, turns, _CONFIG))
        if not is_structured:
            return _reply(answer, None, None)
        return _reply(answer["raw"], answer["parsed"], answer["parsing_error"])

    name = getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__
    return chat_model_reranker("langchain", str(name), complete, options)


def _reply(message: Any, parsed: Any, problem: Any) -> ChatReply:
    usage = message.usage_metadata or {}
    details = usage.get("input_token_details") or {}
    counted = token_usage(usage.get("input_tokens"), usage.get("output_tokens"), details.get("cache_read"))
    refused = message.additional_kwargs.get("refusal") or type(problem).__name__ == "ModelRefusalError"
    if refused or message.response_metadata.get("finish_reason") == "content_filter":
        return ChatReply(None, counted)
    return ChatReply(json.dumps(parsed) if isinstance(parsed, dict) else str(message.text), counted)

"""A LlamaIndex LLM as a reranker. `rerank_plugins.llama_index` exports it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from llama_index.core.llms import LLM, ChatMessage, CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.function_program import get_function_tool
from pydantic import Field, create_model

from ._chat_model import ChatReply, chat_model_reranker, token_usage
from .core._runtime.background_loop import Workers
from .core.errors import ConfigError
from .reranker import Reranker

__all__ = ["chat_reranker"]


def chat_reranker(llm: LLM, **options: Any) -> Reranker:
    """Return a reranker that asks a LlamaIndex LLM for a grade from 0 to 10 of each document.

    It has the prompts, checks and blocks of the backend `chat`. LlamaIndex's own events report the calls of the LLM.

    Args:
        llm (LLM): The LLM. Where it calls functions, the grades are structured output.
        **options (Any): Options of a spec: `top_n`, `deadline`, `fallback`, `cache`, `retry`, `price`, and `chat` with
            `block`, `anchors` and `max_tokens`.

    Returns:
        Reranker: For `RerankPostprocessor(reranker=…)`. It has no spec, so it cannot be pickled.

    Raises:
        ConfigError: `llm` is no LLM, or an option is wrong.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from rerank_plugins.llama_index import chat_reranker
        >>> reranker = chat_reranker(MockLLM(), fallback=["lexical"])
        >>> reranker.rerank("How do bees make honey?", ["Bananas.", "Bees make honey."])[0].index
        1
    """
    if not isinstance(llm, LLM):
        raise ConfigError(
            f"chat_reranker needs a LlamaIndex LLM, got {type(llm).__name__}. Pass the LLM "
            "itself, not an engine around it."
        )

    is_async = getattr(type(llm), "achat", None) is not CustomLLM.achat

    async def complete(messages: list[dict[str, str]], schema: dict[str, Any], workers: Workers) -> ChatReply:
        turns = [ChatMessage(role=message["role"], content=message["content"]) for message in messages]
        content = None
        if isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model:
            # Not `as_structured_llm`: its answer has no counts of tokens.
            grade = Annotated[int, Field(ge=0, le=10)]
            fields: dict[str, Any] = dict.fromkeys(schema["required"], (grade, ...))
            tool = get_function_tool(create_model("Grades", __doc__="The grade of each document.", **fields))
            response = await llm.achat_with_tools([tool], chat_history=turns, tool_required=True)
            calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
            content = json.dumps(calls[0].tool_kwargs) if calls else None
        else:
            response = await (llm.achat(turns) if is_async else workers.run(llm.chat, turns))
        counts = response.additional_kwargs or response.message.additional_kwargs
        usage = token_usage(counts.get("prompt_tokens"), counts.get("completion_tokens"))
        return ChatReply(content or response.message.content or "", usage)

    return chat_model_reranker("llama-index", llm.metadata.model_name or type(llm).__name__, complete, options)

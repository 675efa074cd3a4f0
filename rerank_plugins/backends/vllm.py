"""vLLM, a server of your own: `POST {base_url}/v1/rerank`.

Sends `{"model"?, "query", "documents": [text, …], "truncate_prompt_tokens", "instruction"?, "use_activation"?}`; reads
`{"results": [{"index", "relevance_score"}], "usage": {"total_tokens"}}`
(https://docs.vllm.ai, "Re-rank API", and vllm/entrypoints/pooling/scoring/protocol.py; read in November 2026).

`instruction` is folded into the model's chat template (BerriAI/litellm#30757, June 2026): the server needs a template that
has a place for it, and a version that knows the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from ..core.hosted import HostedBackend
from ..core.numeric import integer
from ..core.types import Capabilities, RerankRequest, Scale
from ..options import Count, HostedOptions, checked

__all__ = ["VLLM"]


def _length(value: Any, name: str) -> int | None:
    return None if value is False or value is None or value == 0 else integer(value, name, -1)


Length = Annotated[
    int | bool | None,
    PlainValidator(checked(_length)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": -1}, {"const": False}, {"type": "null"}]}),
]


class VLLMOptions(HostedOptions):
    """Options of a vLLM server; `base_url` is needed, `api_key` where it was started with one."""

    truncate_prompt_tokens: Length = -1
    """Where query and document together are cut; -1 is the model's own length; `false` or 0 sends nothing (a longer pair
    then fails the request)."""
    use_activation: bool | None = None
    """`false` asks for logits instead of their sigmoid; without it, the server chooses."""
    scale: Scale | None = None
    """What the score means; `unit`, or `logit` with `use_activation = false`. An embedding model served for scoring gives
    `cosine`."""
    max_documents: Count | None = None
    """Documents in one request; vLLM has no limit of its own."""
    max_tokens: Count | None = None
    """What the model reads of query and document together; without it, cuts are not reported."""


class VLLM(HostedBackend):
    """A vLLM server, at `base_url`."""

    Options = VLLMOptions
    key_required = False
    key_variables = ("VLLM_API_KEY",)

    def __init__(self, model: str | None = None, options: VLLMOptions | None = None) -> None:
        """Describe the server; `model` is the name it serves the model under. Without one, none is sent."""
        options = options or VLLMOptions()
        super().__init__(model, **options.shared())
        length = options.truncate_prompt_tokens or None
        extra = {"truncate_prompt_tokens": length, "use_activation": options.use_activation}
        self._extra = {name: value for name, value in extra.items() if value is not None}
        self.capabilities = Capabilities(
            scale=options.scale or ("logit" if options.use_activation is False else "unit"),
            scale_option='scale = "logit"',
            max_documents=options.max_documents,
            max_tokens=options.max_tokens or (length if length is not None and length > 0 else None),
            instructions=True,
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
        return ((each["index"], each["relevance_score"]) for each in body["results"])

"""vLLM, a server of your own: `POST {base_url}/v1/rerank`.

Sends `{"model"?, "query", "documents": [text, …], "truncate_prompt_tokens", "instruction"?, "use_activation"?}`; reads
`{"results": [{"index", "relevance_score"}], "usage": {"total_tokens"}}`
(https://docs.vllm.ai, "Re-rank API", and vllm/entrypoints/pooling/scoring/protocol.py; read in November 2026).

`instruction` is folded into the model's chat template (BerriAI/litellm#30757, June 2026): the server needs a template that
has a place for it, and a version that knows the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.hosted import TIMEOUT, HostedBackend
from ..core.scorer import MAX_IN_FLIGHT
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Scale

__all__ = ["VLLM"]


class VLLM(HostedBackend):
    """A vLLM server, at `base_url`."""

    key_required = False
    key_variables = ("VLLM_API_KEY",)

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
        truncate_prompt_tokens: int | bool | None = -1,
        use_activation: bool | None = None,
        scale: Scale | None = None,
        max_documents: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Describe the server.

        Args:
            model: The name it serves the model under; without one, none is sent.
            api_key: For a server started with `--api-key`.
            base_url: The address; needed.
            timeout: Seconds for one attempt.
            max_in_flight: Parts of one call that are sent at once.
            price: US dollars per million tokens.
            truncate_prompt_tokens: Where query and document together are cut; -1 is the model's own length; `False`, 0
                or `None` sends nothing (a longer pair then fails the request).
            use_activation: `False` asks for logits instead of their sigmoid; `None` is the server's choice.
            scale: What the score means; `unit`, or `logit` with `use_activation=False`. An embedding model served for
                scoring gives `cosine`.
            max_documents: Documents in one request; vLLM has no limit of its own.
            max_tokens: What the model reads of query and document together; without it, cuts are not reported.
        """
        if scale not in (None, "unit", "logit", "cosine", "ordinal"):
            raise ConfigError(f"vllm.scale {scale!r} is not offered; choose one of: unit, logit, cosine, ordinal.")
        super().__init__(
            model, api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight, price=price
        )
        if truncate_prompt_tokens is True or not isinstance(truncate_prompt_tokens, int | None):
            raise ConfigError(
                f"vllm.truncate_prompt_tokens must be an integer, or false to send none; got {truncate_prompt_tokens!r}."
            )
        truncate_prompt_tokens = truncate_prompt_tokens or None
        options = {"truncate_prompt_tokens": truncate_prompt_tokens, "use_activation": use_activation}
        self._options = {name: value for name, value in options.items() if value is not None}
        cut = truncate_prompt_tokens if truncate_prompt_tokens and truncate_prompt_tokens > 0 else None
        self.capabilities = Capabilities(
            scale=scale or ("logit" if use_activation is False else "unit"),
            scale_option='scale = "logit"',
            max_documents=max_documents,
            max_tokens=max_tokens or cut,
            instructions=True,
        )

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return vLLM's body."""
        payload: dict[str, Any] = {"model": self.model} if self.model else {}
        payload |= {"query": request.query, "documents": list(request.documents), **self._options}
        if request.instruction is not None:
            payload["instruction"] = request.instruction
        return "v1/rerank", payload

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        return ((each["index"], each["relevance_score"]) for each in body["results"])

"""What a server says about itself: model, limits, version. Asked at warm-up, where the server has a route for it.

- Text Embeddings Inference: `GET /info` (docs/openapi.json of huggingface/text-embeddings-inference).
- vLLM and SGLang: `GET /v1/models`, whose entries have `max_model_len` (vllm/entrypoints/openai/protocol.py and
  sglang/srt/entrypoints/openai/protocol.py, class ModelCard).
- llama.cpp: `GET /props` (tools/server/README.md of ggml-org/llama.cpp).
- Xinference: `GET /v1/models/UID`; Infinity: `GET /models` (fastapi_schemas/pymodels.py, class ModelInfo).

All were read in November 2026.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote

from ..core.errors import RerankError
from ..core.hosted import HostedBackend
from ..core.redaction import redacting_logs
from ..core.types import Scale
from ..core.wire import integer_or_none, join_url, parse_json

__all__ = ["READERS", "InformedBackend", "ServerInfo"]

_log = logging.getLogger("rerank_plugins")
SECONDS = 5.0
"""Time limit of the question. A server that does not answer it answers requests all the same."""
_TEXT = 500
"""Characters of a text of the server that are logged and shown."""
CHAT_TEMPLATE = 100
"""Tokens that a chat template needs beside query and document: about 90 for Qwen3-Reranker."""
LONG_CONTEXT = 2048
"""Models with a longer context may have a chat template; cross-encoders with a shorter one have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server says about itself. A field is `None` if it does not say."""

    model: str | None = None
    """The model that it serves, or a file of it."""
    version: str | None = None
    """The version of the server."""
    max_documents: int | None = None
    """Documents in one request."""
    max_tokens: int | None = None
    """Tokens of the query and one document together."""
    cuts: bool | None = None
    """Whether the server itself cuts a document that is too long."""
    problem: str | None = None
    """Why requests would fail or mean something else: another model, a model of another kind."""

    def to_dict(self) -> dict[str, Any]:
        """Return what the server said, as plain data."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_tei(body: Any, _: str) -> ServerInfo:
    """Read `/info` of Text Embeddings Inference."""
    kinds = [kind.lower() for kind in body["model_type"]]
    problem = None if "reranker" in kinds else f"the server runs a model of the kind {', '.join(kinds)}, not a reranker"
    return ServerInfo(
        model=_text(body.get("model_id")),
        version=_text(body.get("version")),
        max_documents=integer_or_none(body.get("max_client_batch_size")),
        max_tokens=integer_or_none(body.get("max_input_length")),
        problem=problem,
    )


def read_models(body: Any, model: str) -> ServerInfo:
    """Read `/v1/models` of vLLM and SGLang."""
    served = {entry["id"]: entry for entry in body["data"]}
    if model and model not in served:
        return ServerInfo(problem=f"the server serves {', '.join(sorted(served))}, not {model}")
    entry = served[model] if model else next(iter(served.values()))
    length = integer_or_none(entry.get("max_model_len"))
    if length is not None and length > LONG_CONTEXT:
        length -= CHAT_TEMPLATE
    return ServerInfo(model=entry["id"], max_tokens=length, cuts=None if length is None else False)


def read_infinity(body: Any, model: str) -> ServerInfo:
    """Read `/models` of Infinity, which names no length."""
    served = {entry["id"]: entry for entry in body["data"]}
    if model and model not in served:
        return ServerInfo(problem=f"the server serves {', '.join(sorted(served))}, not {model}")
    entry = served[model] if model else next(iter(served.values()))
    can = entry.get("capabilities", ["rerank"])
    problem = None if "rerank" in can else f"{entry['id']} can {', '.join(map(str, can))}, but not rerank"
    return ServerInfo(model=entry["id"], problem=problem)


def read_llama_cpp(body: Any, _: str) -> ServerInfo:
    """Read `/props` of llama.cpp. Its context is shared by query and document, and longer ones are refused."""
    settings = body.get("default_generation_settings", {})
    length = integer_or_none(settings.get("n_ctx"))
    served = _text(body.get("model_alias")) or (_text(body.get("model_path")) or "").rpartition("/")[2] or None
    return ServerInfo(
        model=served,
        version=_text(body.get("build_info")),
        max_tokens=length,
        cuts=None if length is None else False,
    )


def read_xinference(body: Any, model: str) -> ServerInfo:
    """Read `/v1/models/UID` of Xinference."""
    kind = _text(body.get("model_type"))
    problem = None if kind in (None, "rerank") else f"{model} is a model of the kind {kind}, not rerank"
    return ServerInfo(
        model=_text(body.get("model_name")), max_tokens=integer_or_none(body.get("max_tokens")), problem=problem
    )


READERS: Mapping[str, tuple[str, Callable[[Any, str], ServerInfo]]] = {
    "tei": ("info", read_tei),
    "models": ("v1/models", read_models),
    "infinity": ("models", read_infinity),
    "llama-cpp": ("props", read_llama_cpp),
    "xinference": ("v1/models/{model}", read_xinference),
}
"""The path and the function that reads its reply, by the kind of server."""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


class InformedBackend(HostedBackend):
    """A backend that asks its server at warm-up for its limits. Values that the spec sets win."""

    learns_limits = True
    info: ClassVar[str] = ""
    """A key of `READERS`; empty: the server has no such route."""
    learned: ServerInfo | None = None
    """What the server said last. `None` before a warm-up, or if it did not answer."""
    _set_by_user: frozenset[str] = frozenset()
    """The limits and the scale that the spec sets."""

    async def awarmup(self) -> None:
        """Ask the server for its limits. A server that does not answer is left as the spec describes it."""
        await super().awarmup()
        await self._learn()

    async def server_info(self) -> Mapping[str, Any] | None:
        """Return what the server says about itself now: model, version, limits, and a problem if there is one."""
        info = await self._learn()
        return None if info is None else info.to_dict()

    async def _learn(self) -> ServerInfo | None:
        if not self.info or self.transport is None:
            return None
        with contextlib.suppress(RerankError, TimeoutError, KeyError, TypeError, AttributeError, StopIteration):
            self.learned = info = await self._ask_for_info()
            self._apply(info)
            if info.problem is not None:
                _log.warning("%s: %s. Check `base_url` and the model in the spec.", self.label, info.problem)
            return info
        return None

    async def _ask_for_info(self) -> ServerInfo:
        path, read = READERS[self.info]
        url = join_url(self._address, path.replace("{model}", quote(self.model, safe="")))
        assert self.transport is not None, "checked by the caller"
        with redacting_logs(self.credentials()):
            async with asyncio.timeout(min(SECONDS, self.timeout)):
                reply = await self.transport.get(self._base.full(url), self._with_user(self.headers()))
        if reply.status != 200:
            return ServerInfo()
        info = read(parse_json(reply, backend=self.label), self.model)
        return replace(
            info, model=self._shown(info.model), version=self._shown(info.version), problem=self._shown(info.problem)
        )

    def _shown(self, text: str | None) -> str | None:
        """Return a text of the server as it may be logged: on one line, short, with credentials masked."""
        return None if text is None else self._redacted(text)[:_TEXT]

    def _apply(self, info: ServerInfo) -> None:
        learned = {
            name: value
            for name in ("max_documents", "max_tokens", "cuts")
            if (value := getattr(info, name)) is not None and name not in self._set_by_user
        }
        if "max_tokens" in self._set_by_user:
            learned.pop("cuts", None)
        if (scale := self.scale_of(info)) is not None and "scale" not in self._set_by_user:
            learned["scale"] = scale
        if learned:
            self.capabilities = replace(self.capabilities, **learned)

    def scale_of(self, info: ServerInfo) -> Scale | None:
        """Return the scale that follows from what the server said; `None` if none does."""
        return None

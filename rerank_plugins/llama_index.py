"""Rerankers in LlamaIndex: a node postprocessor for its query and chat engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .core.errors import InputError, MissingExtra
from .core.types import Span

try:
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # its own re-export
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.llama_index", extra="llama-index", package="llama-index-core") from error

from .adapting import ADAPTER, NOTES, Adapter, checked, noted, retrieval_score, storable
from .reranker import RerankResponse

__all__ = ["RerankPostprocessor"]

dispatcher = get_dispatcher(__name__)


class RerankPostprocessor(Adapter, BaseNodePostprocessor):
    """Reranks the nodes of any retriever.

    ```python
    index.as_query_engine(node_postprocessors=[RerankPostprocessor(reranker="embedded", top_n=5)])
    ```

    Nodes come back best first, as copies with id, class, metadata and relationships kept; their score is the
    `relevance_score` (in [0, 1]), or the one they came with where nothing was scored. Metadata gains `relevance_score`,
    `retrieval_rank` (0 stood first in the input) and `retrieval_score` (the score it came with); on a degraded answer
    also `rerank_degraded`, `rerank_reason` and `rerank_model`; where passages are known `rerank_spans`, in characters of the
    node's own text, without its metadata. None of these enters the text for embedding or for the LLM. The fields are `Adapter`'s and one more.
    """

    model_config = ADAPTER

    metadata_mode: MetadataMode = MetadataMode.EMBED
    """Which metadata the reranker reads before the text."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores it."""
        return "RerankPostprocessor"

    @dispatcher.span
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Return the nodes best first.

        Raises:
            InputError: No query, a blank one, or an instruction that the backend cannot follow.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        query, texts, scores = self._read(nodes, query_bundle)
        with self._announced(nodes, query) as answer:
            answer.extend(_nodes(nodes, texts, self._rerank(query, texts, scores)))
        return answer

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Do what `_postprocess_nodes` does, on the running event loop, without a thread."""
        query, texts, scores = self._read(nodes, query_bundle)
        with self._announced(nodes, query) as answer:
            answer.extend(_nodes(nodes, texts, await self._arerank(query, texts, scores)))
        return answer

    def _read(
        self, nodes: Sequence[NodeWithScore], query_bundle: QueryBundle | None
    ) -> tuple[str, list[str], list[float | None]]:
        query = None if query_bundle is None else query_bundle.query_str
        if not query or not query.strip():
            raise InputError(
                "A reranker needs a query: pass query_str='…', or a query_bundle whose query_str has text."
            )
        checked(nodes, NodeWithScore)
        texts = [each.node.get_content(metadata_mode=self.metadata_mode) for each in nodes]
        return query, texts, [_retrieval_score(each) for each in nodes]

    @contextmanager
    def _announced(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Send the start and, whatever happens, the end to both of LlamaIndex's event systems.

        Gives a list that the block fills with the answer.
        """
        answer: list[NodeWithScore] = []
        reranker = self._resolved()
        model = reranker.scorer.label
        top_n = self.top_n or reranker.top_n or len(nodes)
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield answer
                event.on_end(payload={EventPayload.NODES: answer})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=answer))

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields that were given, without keys.

        Raises:
            ConfigError: A reranker that no spec describes.
        """
        storable(self.reranker)  # pydantic would wrap the error
        return super().to_dict(**kwargs)


def _retrieval_score(item: NodeWithScore) -> float | None:
    return retrieval_score(item.score, item.node.metadata.get("retrieval_score"))


def _nodes(nodes: Sequence[NodeWithScore], texts: Sequence[str], response: RerankResponse) -> list[NodeWithScore]:
    scored = any(result.relevance_score is not None for result in response)
    answer = []
    for result in response:
        item = nodes[result.index]
        own = replace(result, spans=_within(item.node, texts[result.index], result.spans))
        node = _copy(item.node, noted(item.node.metadata, response, own, _retrieval_score(item)))
        score = result.relevance_score if scored else item.score
        answer.append(item.model_copy(update={"node": node, "score": score}))
    return answer


def _within(node: BaseNode, sent: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return spans of the text that was sent, which may begin with metadata, as characters of the node's own text."""
    own = node.get_content(metadata_mode=MetadataMode.NONE) if spans else ""
    core = own.strip()  # LlamaIndex strips what it joins
    if not core or (place := sent.rfind(core)) < 0:
        return tuple(spans)
    before = place - own.index(core)
    moved = (replace(each, start=max(each.start - before, 0), end=min(each.end - before, len(own))) for each in spans)
    return tuple(each for each in moved if each.start < each.end)


def _copy(node: BaseNode, metadata: dict[str, Any]) -> BaseNode:
    written = [key for key in NOTES if key in metadata]
    return node.model_copy(
        update={
            "metadata": metadata,
            "relationships": dict(node.relationships),
            "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *written])),
            "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *written])),
        }
    )

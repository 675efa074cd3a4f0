"""Rerankers in LlamaIndex: a node postprocessor for its query and chat engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

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

from .adapting import ADAPTER, Adapter, checked, noted, retrieval_score, run_metadata, storable
from .documents import Expected
from .reranker import RerankResponse

__all__ = ["RerankPostprocessor"]

dispatcher = get_dispatcher(__name__)

EXPECTED = Expected(
    name="nodes",
    items="NodeWithScore objects",
    rows='make nodes of its rows, [NodeWithScore(node=TextNode(text=row["text"], metadata=row)) for row in {rows}]',
    one="pass a list, such as [NodeWithScore(node=TextNode(text=…))], or give strings and mappings to Reranker.rerank",
    instead={
        "BaseNode": "wrap it, NodeWithScore(node=…)",
        "str": "wrap it, NodeWithScore(node=TextNode(text=…)), or give texts to Reranker.rerank",
        "Mapping": "make it NodeWithScore(node=TextNode(text=…, metadata=…)), or give mappings to Reranker.rerank",
        "dict": "make it NodeWithScore(node=TextNode(text=…, metadata=…)), or give mappings to Reranker.rerank",
        "BaseMedia": "use rerank_plugins.langchain.RerankCompressor for LangChain documents",
    },
)


class RerankPostprocessor(Adapter, BaseNodePostprocessor):
    """Reranks the nodes of any retriever.

    ```python
    index.as_query_engine(node_postprocessors=[RerankPostprocessor(reranker="embedded", top_n=5)])
    ```

    Nodes come back best first, as copies with id, class, metadata and relationships kept; their score is the
    `relevance_score` (in [0, 1]), or the one they came with where nothing was scored. Metadata gains `relevance_score`,
    `retrieval_rank` (0 stood first in the input) and `retrieval_score` (the score it came with); on a degraded answer
    also `rerank_degraded`, `rerank_reason` and `rerank_model`; where passages are known `rerank_spans`, in characters of
    the node's own text, without its metadata. None of these enters the text for embedding or for the LLM. What you stored
    under another of these names stays.

    `relevance_score` is `None` where nothing was scored: for a node without text (`rerank_reason` says so) and on an
    answer of `passthrough`, which is what a fallback may give while a vendor is down. Let `score_threshold` filter, which
    leaves a degraded answer whole; a filter of your own has to expect `None`.

    A later step that splits nodes, such as `CitationQueryEngine`, copies `rerank_spans` to pieces that they do not fit:
    there, read them before, or remove the key.

    Args:
        reranker: A spec (`"backend:model"` or a mapping), the name of a reranker in the configuration file, or a ready
            `Reranker`; `None` is `load_reranker()`'s default.
        config: Path of the TOML file with the names; `None` is the one that RERANK_PLUGINS_CONFIG names.
        top_n: How many come back, at least 1; `None` is the spec's own, and without one all.
        instruction: What relevant means here, for models that follow such a text.
        score_threshold: From 0 to 1: leave out what has a lower `relevance_score`; never applied to a degraded answer.
        allowed_rerankers: The strings that `reranker` may be, where requests choose it.
        on_response: A plain function that is called with each `RerankResponse`; what it raises is raised to the caller.
        metadata_mode: Which metadata the reranker reads before the text.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, a threshold that cannot mean anything.
        InputError: A count is no integer of at least 1.
    """

    _instead: ClassVar[Mapping[str, str]] = {
        **Adapter._instead,
        "keep_retrieval_score": "the metadata always gains retrieval_score",
        "base_retriever": "a postprocessor holds no retriever. Pass it to the engine, node_postprocessors=[RerankPostprocessor(…)]",
    }

    model_config = ADAPTER

    metadata_mode: MetadataMode = MetadataMode.EMBED
    """Which metadata the reranker reads before the text."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores it."""
        return "RerankPostprocessor"

    def postprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """Return the nodes best first; see `_postprocess_nodes`. `nodes` is any iterable and is read once."""
        # A list before LlamaIndex's spans see it: instrumentation that records the arguments would use up a generator.
        return super().postprocess_nodes(checked(nodes, NodeWithScore, EXPECTED), query_bundle, query_str)

    async def apostprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """Do what `postprocess_nodes` does, on the running event loop, without a thread."""
        return await super().apostprocess_nodes(checked(nodes, NodeWithScore, EXPECTED), query_bundle, query_str)

    @dispatcher.span
    def _postprocess_nodes(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Return the nodes best first.

        Raises:
            InputError: No query, a blank one, an item that is no NodeWithScore, or an instruction that the backend cannot
                follow.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        nodes, query, texts, scores = self._read(nodes, query_bundle)
        with self._announced(nodes, query) as (answer, described):
            response = self._rerank(query, texts, scores)
            described.update(run_metadata(response))
            answer.extend(_nodes(nodes, texts, scores, response))
        return answer

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Do what `_postprocess_nodes` does, on the running event loop, without a thread."""
        nodes, query, texts, scores = self._read(nodes, query_bundle)
        with self._announced(nodes, query) as (answer, described):
            response = await self._arerank(query, texts, scores)
            described.update(run_metadata(response))
            answer.extend(_nodes(nodes, texts, scores, response))
        return answer

    def _read(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None
    ) -> tuple[list[NodeWithScore], str, list[str], list[float | None]]:
        query = None if query_bundle is None else query_bundle.query_str
        if not query or not query.strip():
            raise InputError(
                "A reranker needs a query: pass query_str='…', or a query_bundle whose query_str has text."
            )
        nodes = checked(nodes, NodeWithScore, EXPECTED)
        texts = [each.node.get_content(metadata_mode=self.metadata_mode) for each in nodes]
        scores = [retrieval_score(each.score, each.node.metadata.get("retrieval_score")) for each in nodes]
        return nodes, query, texts, scores

    @contextmanager
    def _announced(
        self, nodes: list[NodeWithScore], query: str
    ) -> Iterator[tuple[list[NodeWithScore], dict[str, Any]]]:
        """Send the start and, whatever happens, the end to both of LlamaIndex's event systems.

        Yields a list for the answer and a dictionary for what describes it, which the block fills.
        """
        answer: list[NodeWithScore] = []
        described: dict[str, Any] = {}
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
                yield answer, described
                event.on_end(payload={EventPayload.NODES: answer, EventPayload.ADDITIONAL_KWARGS: described})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=answer, tags={"reranker": model, **described}))

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields that were given, without keys.

        Raises:
            ConfigError: A reranker that no spec describes.
        """
        storable(self.reranker)  # pydantic would wrap the error
        return super().to_dict(**kwargs)


def _nodes(
    nodes: Sequence[NodeWithScore], texts: Sequence[str], scores: Sequence[float | None], response: RerankResponse
) -> list[NodeWithScore]:
    scored = any(result.relevance_score is not None for result in response)
    answer = []
    for result in response:
        item = nodes[result.index]
        own = replace(result, spans=_within(item.node, texts[result.index], result.spans))
        node = _copy(item.node, *noted(item.node.metadata, response, own, scores[result.index]))
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


def _copy(node: BaseNode, metadata: dict[str, Any], written: list[str]) -> BaseNode:
    return node.model_copy(
        update={
            "metadata": metadata,
            "relationships": dict(node.relationships),
            "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *written])),
            "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *written])),
        }
    )

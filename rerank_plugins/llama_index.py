"""Adapter for LlamaIndex: a node postprocessor for query and chat engines."""

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

from ._adapter import (
    ADAPTER_CONFIG,
    Adapter,
    annotated_metadata,
    check_items,
    first_finite_number,
    serializable_spec,
    trace_metadata,
)
from ._llama_index_chat import chat_reranker
from .documents import Expected
from .reranker import RerankResponse

__all__ = ["RerankPostprocessor", "chat_reranker"]

dispatcher = get_dispatcher(__name__)

EXPECTED_NODES = Expected(
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
    """Reranks the nodes of any retriever, in query engines and chat engines.

    Pass it to an engine: `index.as_query_engine(node_postprocessors=[RerankPostprocessor(reranker="embedded",
    top_n=5)])`.

    Nodes come back best first, as copies with the same id, class, metadata and relationships. Their `score` is the
    `relevance_score`, or the score of the input if no node was scored. These keys are added to the metadata, and
    excluded from the text for embedding and from the text for the LLM:

    - `relevance_score`: from 0 to 1, or `None` if the node was not scored;
    - `retrieval_rank`: position in the input, from 0;
    - `retrieval_score`: the score of the node in the input;
    - `rerank_degraded` (`True`), `rerank_reason` and `rerank_model`: only in a degraded answer;
    - `rerank_reason`: also why a node was not scored;
    - `rerank_spans`: the best passages of a node that was split in chunks, in characters of its own text without
      metadata.

    A value of your own under one of these names stays unless the answer writes that key.

    A node is not scored if it has no text, or if `passthrough` answers, which may be the fallback while a vendor is
    down. To filter by relevance, prefer `score_threshold`, which returns all nodes of a degraded answer; a filter of
    your own must handle `None`. A later step that splits nodes, such as `CitationQueryEngine`, copies `rerank_spans` to
    pieces that they do not match: read them before that step, or remove the key.

    Args:
        reranker (str | Mapping | Reranker | None): A spec (`"backend:model"` or a mapping), the name of a reranker in
            the configuration file, or a ready `Reranker`. Default `None`: what `load_reranker()` loads without
            arguments, the spec in the environment variable RERANK_PLUGINS_RERANKER, else the embedded model.
        config (str | PathLike | None): Path of the TOML configuration file, in which names are looked up. Default
            `None`: the file that the environment variable RERANK_PLUGINS_CONFIG names.
        top_n (int | None): Maximum number of nodes to return, at least 1. Default `None`: the `top_n` of the spec,
            else all.
        instruction (str | None): What relevant means, for models that follow an instruction; for others a call raises
            `InputError`. Default `None`: the instruction of the spec.
        score_threshold (float | None): Minimum `relevance_score` of a returned node, from 0 to 1. It is not applied to
            a degraded answer. Default `None`: the threshold of the spec, else no minimum.
        allowed_rerankers (list[str] | None): The strings that `reranker` may be: specs, or names in the configuration
            file. Set it where requests choose the reranker. Default `None`: any reranker is allowed.
        on_response (Callable[[RerankResponse], object] | None): Plain function that is called with each
            `RerankResponse` before the nodes are returned. An exception that it raises reaches the caller. Default
            `None`.
        metadata_mode (MetadataMode): Which metadata the reranker reads before the text of a node. Default
            `MetadataMode.EMBED`: the metadata that the embedding model reads.
        callback_manager (CallbackManager): LlamaIndex's callbacks, which receive a start and an end event for each
            call. Default: `CallbackManager()`, without callbacks.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, or a threshold that the scores do not support.
        InputError: `top_n` is not an integer of at least 1.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from rerank_plugins.llama_index import RerankPostprocessor
        >>> postprocessor = RerankPostprocessor(reranker="lexical", top_n=1)
        >>> texts = ["Bananas are yellow.", "Bees make honey from nectar."]
        >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        >>> best = postprocessor.postprocess_nodes(nodes, query_str="How do bees make honey?")[0]
        >>> best.text, best.metadata["retrieval_rank"]
        ('Bees make honey from nectar.', 1)
    """

    _field_advice: ClassVar[Mapping[str, str]] = {
        **Adapter._field_advice,
        "keep_retrieval_score": "leave it out; retrieval_score is always added to the metadata",
        "base_retriever": (
            "a postprocessor has no retriever. Pass the postprocessor to the engine, "
            "node_postprocessors=[RerankPostprocessor(…)]"
        ),
        **dict.fromkeys(
            ("fetch_k", "similarity_top_k"),
            "the number of candidates is the engine's, index.as_query_engine(similarity_top_k=50, "
            "node_postprocessors=[RerankPostprocessor(…)])",
        ),
    }

    model_config = ADAPTER_CONFIG

    metadata_mode: MetadataMode = MetadataMode.EMBED
    """Which metadata the reranker reads before the text of a node: by default what the embedding model reads."""

    @classmethod
    def class_name(cls) -> str:
        """Return the class name that LlamaIndex stores when it serialises the postprocessor."""
        return "RerankPostprocessor"

    def postprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """Return the nodes, best first.

        Args:
            nodes (Iterable[NodeWithScore]): Any iterable; it is read once, and the nodes are not changed.
            query_bundle (QueryBundle | None): The query; its `query_str` must not be blank. Default `None`.
            query_str (str | None): The query as a string, instead of `query_bundle`. Default `None`.

        Returns:
            Copies of the nodes, at most `top_n`, with the metadata that the docstring of the class lists.

        Raises:
            InputError: No query or a blank one, an item that is not a `NodeWithScore`, or an instruction that the model
                cannot follow.
            BackendError: The backend failed, and so did its fallbacks.
            DeadlineExceeded: The deadline of the spec passed.
        """
        # A list, since instrumentation of LlamaIndex records the arguments, and would exhaust a generator.
        return super().postprocess_nodes(check_items(nodes, NodeWithScore, EXPECTED_NODES), query_bundle, query_str)

    async def apostprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
    ) -> list[NodeWithScore]:
        """Return the nodes, best first, as `postprocess_nodes` does, without blocking the event loop."""
        return await super().apostprocess_nodes(
            check_items(nodes, NodeWithScore, EXPECTED_NODES), query_bundle, query_str
        )

    @dispatcher.span
    def _postprocess_nodes(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Return the nodes, best first; LlamaIndex calls it from `postprocess_nodes`."""
        nodes, query, texts, scores = self._check_arguments(nodes, query_bundle)
        with self._events(nodes, query) as (answer, metadata):
            response = self._rerank(query, texts, scores)
            metadata.update(trace_metadata(response))
            answer.extend(_nodes(nodes, texts, scores, response))
        return answer

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Return the nodes, best first; LlamaIndex awaits it in `apostprocess_nodes`."""
        nodes, query, texts, scores = self._check_arguments(nodes, query_bundle)
        with self._events(nodes, query) as (answer, metadata):
            response = await self._arerank(query, texts, scores)
            metadata.update(trace_metadata(response))
            answer.extend(_nodes(nodes, texts, scores, response))
        return answer

    def _check_arguments(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None
    ) -> tuple[list[NodeWithScore], str, list[str], list[float | None]]:
        """Return the nodes as a list, the query, and the text and the retrieval score of each node.

        Raises:
            InputError: No query or a blank one, or an item that is not a `NodeWithScore`.
        """
        query = None if query_bundle is None else query_bundle.query_str
        if not query or not query.strip():
            raise InputError(
                "A reranker needs a query: pass query_str='…', or a query_bundle whose query_str has text."
            )
        nodes = check_items(nodes, NodeWithScore, EXPECTED_NODES)
        texts = [item.node.get_content(metadata_mode=self.metadata_mode) for item in nodes]
        scores = [first_finite_number(item.score, item.node.metadata.get("retrieval_score")) for item in nodes]
        return nodes, query, texts, scores

    @contextmanager
    def _events(self, nodes: list[NodeWithScore], query: str) -> Iterator[tuple[list[NodeWithScore], dict[str, Any]]]:
        """Send the start event and, even after an error, the end event to both event systems of LlamaIndex.

        Yields a list for the nodes of the answer and a dictionary for its trace metadata. The block fills both.
        """
        answer: list[NodeWithScore] = []
        metadata: dict[str, Any] = {}
        reranker = self._live_reranker()
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
                yield answer, metadata
                event.on_end(payload={EventPayload.NODES: answer, EventPayload.ADDITIONAL_KWARGS: metadata})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=answer, tags={"reranker": model, **metadata}))

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields as a dictionary that `from_dict` reads, without keys.

        Raises:
            ConfigError: No spec describes the reranker.
        """
        serializable_spec(self.reranker)  # checked here, since pydantic would wrap the error
        return super().to_dict(**kwargs)


def _nodes(
    nodes: Sequence[NodeWithScore], texts: Sequence[str], scores: Sequence[float | None], response: RerankResponse
) -> list[NodeWithScore]:
    scored = any(result.relevance_score is not None for result in response)
    answer = []
    for result in response:
        item = nodes[result.index]
        result_in_node = replace(result, spans=_spans_in_node(item.node, texts[result.index], result.spans))
        added = annotated_metadata(item.node.metadata, response, result_in_node, scores[result.index])
        node = _copy_with_metadata(item.node, *added)
        score = result.relevance_score if scored else item.score
        answer.append(item.model_copy(update={"node": node, "score": score}))
    return answer


def _spans_in_node(node: BaseNode, scored_text: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return `spans` of `scored_text`, which may start with metadata, as spans of the node's own text."""
    own_text = node.get_content(metadata_mode=MetadataMode.NONE) if spans else ""
    stripped = own_text.strip()  # LlamaIndex strips the parts before it joins them
    if not stripped or (position := scored_text.rfind(stripped)) < 0:
        return tuple(spans)
    offset = position - own_text.index(stripped)
    end = len(own_text)
    moved = (replace(span, start=max(span.start - offset, 0), end=min(span.end - offset, end)) for span in spans)
    return tuple(span for span in moved if span.start < span.end)


def _copy_with_metadata(node: BaseNode, metadata: dict[str, Any], excluded: list[str]) -> BaseNode:
    """Return a copy of `node` with `metadata`, whose keys `excluded` enter neither the EMBED nor the LLM text."""
    return node.model_copy(
        update={
            "metadata": metadata,
            "relationships": dict(node.relationships),
            "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *excluded])),
            "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *excluded])),
        }
    )

"""A data set from a LangChain or LlamaIndex retriever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import InputError
from .data import Candidate, Dataset, Grades, Question, refuse_blank, sample_evenly

__all__ = ["from_retriever"]


def from_retriever(
    retriever: Any,
    queries: Mapping[str, str],
    qrels: Grades,
    *,
    name: str = "retriever",
    id_of: Callable[[Any], str | None] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Call a retriever once for every judged query, and return its results as the candidates of a data set.

    Args:
        retriever: A LangChain retriever (has `invoke`) or a LlamaIndex one (has `retrieve`). Set it to fetch as many
            documents as you want to rerank.
        queries: Query id → text.
        qrels: Query id → document id → grade, an integer; above 0 is relevant.
        name: The name of the data set in tables.
        id_of: Function from a document or node to the id that `qrels` uses. The default is a document's `id` and a
            node's `node_id`. If several results share an id, as chunks of one document do, the document
            counts at the rank of the best.
        limit: Use at most this many queries, evenly spaced over all judged ones.

    Returns:
        The judged queries with their candidates, in the retriever's order.

    Raises:
        InputError: `retriever` has neither method, a document has no id, a query is blank, or no query is judged.

    >>> from rerank_plugins.evaluation import from_retriever
    >>> from langchain_core.documents import Document
    >>> from langchain_core.runnables import RunnableLambda
    >>> retriever = RunnableLambda(lambda query: [Document("Bees make honey.", id="d1")])
    >>> from_retriever(retriever, {"q1": "who makes honey?"}, {"q1": {"d1": 1}}).depth
    1
    """
    # Ids may be numbers on one side and strings on the other, and the metrics need integer grades.
    queries = {str(query): text for query, text in queries.items()}
    qrels = {
        str(query): {str(document): int(grade) for document, grade in grades.items()} for query, grades in qrels.items()
    }
    retrieve, read_content, default_id = _accessors(retriever)
    get_id = id_of or default_id
    questions = []
    for query in sample_evenly([query for query in queries if qrels.get(query)], limit):
        refuse_blank(queries[query], f"{name}, query {query!r}")
        candidates = []
        for document in retrieve(queries[query]):
            document_id = get_id(document)
            if document_id is None:
                raise InputError(
                    "The retriever returned a document without an id: pass id_of=, such as lambda document: "
                    "document.metadata['source'], that returns the id that the judgements use."
                )
            candidates.append(Candidate(str(document_id), *read_content(document)))
        questions.append(Question(query, queries[query], tuple(candidates)))
    unjudged = [Question(query, text, ()) for query, text in queries.items() if not qrels.get(query)]
    return Dataset.of(name, [*questions, *unjudged], qrels, type(retriever).__name__)


def _accessors(
    retriever: Any,
) -> tuple[Callable[[str], Any], Callable[[Any], tuple[str, float | None]], Callable[[Any], Any]]:
    """Return three functions: query → results, result → (text, score), and result → id."""
    if callable(getattr(retriever, "retrieve", None)):
        from llama_index.core.schema import MetadataMode

        # MetadataMode.EMBED gives the text that `RerankPostprocessor` reranks.
        return (
            retriever.retrieve,
            lambda result: (result.node.get_content(metadata_mode=MetadataMode.EMBED), result.score),
            lambda result: result.node.node_id,
        )
    if callable(getattr(retriever, "invoke", None)):
        return retriever.invoke, lambda document: (document.page_content, None), lambda document: document.id
    raise InputError(
        f"retriever must be a LangChain retriever (has `invoke`) or a LlamaIndex one (has `retrieve`), got a "
        f"{type(retriever).__name__}."
    )

"""A data set from a retriever of LangChain or LlamaIndex, as it is used in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import InputError
from .data import Candidate, Dataset, Grades, Question, spread

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
    """Ask a retriever every judged query, once, and keep what it found as the candidates.

    Args:
        retriever: LangChain's (has `invoke`) or LlamaIndex's (has `retrieve`); set it to fetch as many as are to be
            reranked.
        queries: Id → text.
        qrels: Query id → document id → grade.
        name: What the data set is called in tables.
        id_of: Document or node → the id that `qrels` calls it by; without one a document's `id` and a node's `node_id`. A
            document that is found in several pieces counts where its best piece stands.
        limit: At most so many queries, evenly from all.

    Raises:
        InputError: It is no retriever, a document has no id, or no query is judged.
    """
    # Ids may be numbers on one side and text on the other; grades of other types are no measure's.
    queries = {str(query): text for query, text in queries.items()}
    qrels = {
        str(query): {str(document): int(grade) for document, grade in each.items()} for query, each in qrels.items()
    }
    ask, read, own_id = _reading(retriever)
    identify = id_of or own_id
    questions = []
    for query in spread([each for each in queries if qrels.get(each)], limit):
        candidates = []
        for found in ask(queries[query]):
            document = identify(found)
            if document is None:
                raise InputError(
                    "The retriever gave a document without an id: pass id_of=, such as lambda document: "
                    "document.metadata['source'], that names it as the judgements do."
                )
            candidates.append(Candidate(str(document), *read(found)))
        questions.append(Question(query, queries[query], tuple(candidates)))
    unjudged = [Question(query, text, ()) for query, text in queries.items() if not qrels.get(query)]
    return Dataset.of(name, [*questions, *unjudged], qrels, type(retriever).__name__)


def _reading(
    retriever: Any,
) -> tuple[Callable[[str], Any], Callable[[Any], tuple[str, float | None]], Callable[[Any], Any]]:
    """Return how to ask it, and how to read the text, the score and the id of what it gives."""
    if callable(getattr(retriever, "retrieve", None)):
        from llama_index.core.schema import MetadataMode

        # The text that `RerankPostprocessor` reads.
        return (
            retriever.retrieve,
            lambda found: (found.node.get_content(metadata_mode=MetadataMode.EMBED), found.score),
            lambda found: found.node.node_id,
        )
    if callable(getattr(retriever, "invoke", None)):
        return retriever.invoke, lambda found: (found.page_content, None), lambda found: found.id
    raise InputError(
        f"A {type(retriever).__name__} is no retriever: LangChain's have `invoke`, LlamaIndex's have `retrieve`."
    )

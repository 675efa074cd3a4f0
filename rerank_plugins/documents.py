"""The caller's arguments: which objects are lists of documents, and the request that is made of them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from .core.errors import InputError
from .core.response import RerankResult
from .core.text import is_blank, sendable
from .core.text_work import check_cancelled
from .core.types import RerankRequest, Scores
from .fields import Fields, read

__all__ = ["Batch", "RerankCall", "as_list", "snapshot", "unread_request", "unread_results"]

BLANK = "blank: there is no text to score"
_UNCHECKED = 64
"""Documents that are handled from one look at whether the caller still waits to the next; long texts look inside."""

_TABLES = {
    ("pandas", "DataFrame"): 'pass a column, such as df["text"], or the rows: df.to_dict("records")',
    ("polars", "DataFrame"): 'pass a column, such as df["text"], or the rows: df.to_dicts()',
    ("polars", "LazyFrame"): 'collect it, then pass a column, such as df["text"], or the rows: df.to_dicts()',
    ("pyarrow", "Table"): 'pass a column, such as table["text"], or the rows: table.to_pylist()',
    ("pyarrow", "RecordBatch"): 'pass a column, such as batch["text"], or the rows: batch.to_pylist()',
}
"""Tables, by package and class, and what to pass instead: iterating over one gives columns or their names."""
_LANGCHAIN = (
    "LangChain",
    "pass document.page_content, or rerank Documents with rerank_plugins.langchain.RerankCompressor",
)
_LLAMA_INDEX = (
    "LlamaIndex",
    "pass node.get_content(), or rerank nodes with rerank_plugins.llama_index.RerankPostprocessor",
)
_FRAMEWORKS = {
    ("langchain_core", "Document"): _LANGCHAIN,
    ("llama_index", "NodeWithScore"): _LLAMA_INDEX,
    ("llama_index", "BaseNode"): _LLAMA_INDEX,
}
"""Objects of the host frameworks, by package and base class: who makes them, and what to pass instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall:
    """The arguments of one call of `Reranker.rerank`, as the caller gave them."""

    query: str
    documents: Iterable[Any]
    top_n: int | None = None
    """`None` is the reranker's own."""
    instruction: str | None = None
    """`None` is the reranker's own."""
    retrieval_scores: Iterable[float] | None = None
    score_threshold: float | None = None
    """In place of the reranker's own; whoever gives it has checked it (`reranker.check_threshold`)."""


def as_list(documents: Any) -> list[Any]:
    """Return the documents of any iterable that has an order, as a new list.

    Raises:
        InputError: It is no iterable of documents; the message names its type and what to pass instead.
    """
    if isinstance(documents, list | tuple):
        return list(documents)
    kind = type(documents).__name__
    if (advice := _of_kind(documents, _TABLES)) is not None:
        raise InputError(f"documents has to be a list of texts or mappings, not a {kind}: {advice}.")
    if (framework := _of_kind(documents, _FRAMEWORKS)) is not None:
        raise InputError(
            f"documents has to be a list of texts or mappings, not one {framework[0]} {kind}: {framework[1]}."
        )
    if isinstance(documents, AbstractSet) and not isinstance(
        documents, MappingView
    ):  # the keys of a mapping have an order
        raise InputError(
            f"documents has to be a list of texts or mappings, not a {kind}: a set has no order, so an index into it means "
            "nothing. Pass a list, such as sorted(documents)."
        )
    if isinstance(documents, AsyncIterable) and not isinstance(documents, Iterable):
        raise InputError(
            f"documents has to be a list of texts or mappings, not one {kind}: collect it first, [each async for each in "
            "documents]."
        )
    if isinstance(documents, str | bytes | bytearray | memoryview | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents has to be a list of texts or mappings, not one {kind}.")
    dimensions = getattr(documents, "ndim", 1)
    if isinstance(dimensions, int) and dimensions != 1:
        raise InputError(
            f"documents has to be a list of texts or mappings, not a {kind} of {dimensions} dimensions: pass one column of it "
            "as a list."
        )
    if callable(listed := getattr(documents, "to_pylist", None)):  # pyarrow's arrays give scalars of their own
        return list(listed())
    return list(documents)


def _of_kind(value: Any, kinds: Mapping[tuple[str, str], Any]) -> Any:
    """Return the entry of the first class of `value` in `kinds`; nothing is imported for it."""
    names = ((base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__)
    return next((kinds[name] for name in names if name in kinds), None)


class Batch:
    """The caller's documents, and the request that is made of them: no blanks, nothing twice.

    Linear in the size of the input, and in slices: for large inputs `Reranker` makes it on a worker thread.
    """

    def __init__(
        self,
        call: RerankCall,
        documents: Sequence[Any],
        names: Sequence[str] | None = None,
    ) -> None:
        """Read the input.

        Args:
            call: The arguments of the call.
            documents: Those of `call`, as a list: texts or mappings.
            names: The fields of mappings that are read, in order; `None` is all.

        Raises:
            InputError: See `Reranker.rerank`.
        """
        self.documents = documents
        query = _checked_query(call.query)
        instruction = None if call.instruction is None else _checked_instruction(call.instruction)
        scores = call.retrieval_scores
        retrieved = None if scores is None else _numbers(scores, len(documents))
        self._slots: list[int | None] = []
        """For each of the caller's documents its place in the request; `None` for a blank one."""
        self._left_out: dict[int, str] = {}
        """By index: which fields of a mapping were not read, and why."""
        slots: dict[str, int] = {}
        first: list[int] = []
        best: list[float] = []
        fields: list[Mapping[str, Any] | None] = []
        for index, document in enumerate(documents):
            if not index % _UNCHECKED:
                check_cancelled()
            reading: Fields | None = None
            if isinstance(document, str):
                text = sendable(document)
            elif isinstance(document, Mapping):
                reading = self._fields(document, index, names)
                text = reading.text()
            else:
                raise _not_a_document(document, index)
            if is_blank(text):
                self._slots.append(None)
                continue
            slot = slots.setdefault(text, len(slots))
            score = 0.0 if retrieved is None else retrieved[index]
            if slot == len(first):
                first.append(index)
                best.append(score)
                fields.append(None if reading is None or reading.sole_text() is not None else reading.json())
            best[slot] = max(best[slot], score)  # of equal texts the best one's counts, wherever it stands
            self._slots.append(slot)
        if names is not None:
            _check_names(names, documents)
        self.request = RerankRequest(
            query=query,
            documents=tuple(slots),
            instruction=instruction,
            retrieval_scores=None if retrieved is None else tuple(best),
            fields=tuple(fields) if any(each is not None for each in fields) else None,
            positions=tuple(first) if len(first) != len(documents) else None,
        )

    def _fields(self, document: Mapping[Any, Any], index: int, names: Sequence[str] | None) -> Fields:
        fields = read(document, index, names)
        if fields.left_out is not None:
            self._left_out[index] = fields.left_out
        return fields

    def results(self, scores: Scores) -> list[RerankResult]:
        """Return every document, best first; equal scores in the order of the reply, else as given; blanks last."""
        keys = scores.sort_keys()
        # By the index last: repeats of one text stay as they were given.
        order = sorted((*keys[slot], index, slot) for index, slot in enumerate(self._slots) if slot is not None)
        relevances = scores.relevances()
        truncated, spans, reasons = scores.truncated, scores.spans, scores.reasons
        results = []
        for number, (_, _, index, slot) in enumerate(order):
            if not number % _UNCHECKED:
                check_cancelled()
            reason = reasons[slot] if reasons else None
            results.append(
                RerankResult(
                    index=index,
                    document=self.documents[index],
                    relevance_score=relevances[slot],
                    raw_score=scores.values[slot],
                    truncated=bool(truncated and truncated[slot]),
                    spans=spans[slot] if spans else (),
                    reason=self._reason(reason, index) if self._left_out else reason,
                )
            )
        return results + [self._blank(index) for index, slot in enumerate(self._slots) if slot is None]

    def _blank(self, index: int) -> RerankResult:
        return RerankResult(
            index=index,
            document=self.documents[index],
            relevance_score=None,
            raw_score=None,
            reason=self._reason(BLANK, index),
        )

    def _reason(self, reason: str | None, index: int) -> str | None:
        return "; ".join(each for each in (reason, self._left_out.get(index)) if each) or None


def unread_request(documents: Sequence[Any]) -> RerankRequest:
    """Return a request that holds the place of documents that nobody had the time to read.

    It is for a scorer whose deadline has passed: none but a stand-in that keeps the order given is asked then.
    """
    return RerankRequest(query="unread", documents=tuple(map(str, range(len(documents)))))


def unread_results(documents: Sequence[Any]) -> list[RerankResult]:
    """Return the documents in the order given."""
    return [
        RerankResult(index=index, document=document, relevance_score=None, raw_score=None)
        for index, document in enumerate(documents)
    ]


def _checked_query(query: Any) -> str:
    if not isinstance(query, str):
        raise InputError(f"The query has to be a text, and this is a {type(query).__name__}.")
    if is_blank(query):
        raise InputError("The query is blank: there is nothing to compare the documents with.")
    return sendable(query)


def _checked_instruction(instruction: Any) -> str | None:
    if not isinstance(instruction, str):
        raise InputError(f"The instruction has to be a text, and this is a {type(instruction).__name__}.")
    return sendable(instruction) if instruction else None


def _check_names(names: Sequence[str], documents: Sequence[Any]) -> None:
    """Refuse names that no document has: a slip would leave every document blank."""
    mappings = [document for document in documents if isinstance(document, Mapping)]
    if mappings and not any(name in document for document in mappings for name in names):
        has = ", ".join(repr(name) for name in list(mappings[0])[:20]) or "none"
        raise InputError(
            f"No document has one of the fields {', '.join(map(repr, names))} that the option `fields` names; the first "
            f"mapping has {has}."
        )


def _numbers(retrieval_scores: Iterable[Any], count: int) -> list[float]:
    try:
        numbers = [float(each) for each in retrieval_scores]
    except (TypeError, ValueError, OverflowError) as error:  # OverflowError: an integer too large for a float
        raise InputError("retrieval_scores has to be a list of numbers, one for each document.") from error
    if not all(map(math.isfinite, numbers)):
        raise InputError("retrieval_scores has a number that is not finite: leave them out, or give real scores.")
    if len(numbers) != count:
        raise InputError(f"{len(numbers)} retrieval_scores were given for {count} documents: one for each is needed.")
    return numbers


def _not_a_document(document: Any, index: int) -> InputError:
    if (framework := _of_kind(document, _FRAMEWORKS)) is not None:
        return InputError(
            f"Document {index} is a {type(document).__name__} of {framework[0]}: documents are texts or mappings of fields. "
            f"{framework[1][0].upper()}{framework[1][1:]}."
        )
    return InputError(
        f"Document {index} is a {type(document).__name__}: documents are texts or mappings of fields. "
        "Leave it out, or turn it into a text."
    )


def snapshot(documents: Any) -> Any:
    """Return what an iterator gives as a list, and anything else as it is."""
    return list(documents) if isinstance(documents, Iterator) else documents

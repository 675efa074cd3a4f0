"""Convert the arguments of a call: check that they are lists of documents, and build the request to the scorer."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Generic, TypeVar

from .core._runtime.text_work import check_cancelled
from .core.choices import described
from .core.errors import InputError
from .core.response import DocumentT, DocumentT_co, RerankResult
from .core.text import is_blank, sendable
from .core.types import RerankRequest, Scores
from .structured_documents import Fields, read_fields

__all__ = [
    "Batch",
    "Expected",
    "RerankCall",
    "as_list",
    "is_table",
    "snapshot",
    "unread_request",
    "unread_results",
]

T = TypeVar("T")

BLANK = "blank: there is no text to score"
_CHECK_EVERY = 64
"""Documents between two calls of `check_cancelled`. Work on one long text calls it too."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Texts for the errors of `as_list`: what an argument must be, and what to pass instead of a wrong value."""

    name: str
    """Name of the argument."""
    items: str
    """What the list must hold, in the plural."""
    rows: str
    """Advice for a table; `{table}` and `{rows}` are replaced by expressions for the table and its rows."""
    one: str
    """Advice for a string, a mapping, or a value that is not iterable."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Advice by the name of the value's class."""

    def instead_of(self, value: Any) -> str | None:
        """Return the advice for the class of `value`, or `None`."""
        return next((self.instead[name] for name in _class_names(value) if name in self.instead), None)


DOCUMENTS = Expected(
    name="documents",
    items="strings or mappings",
    rows='pass a column, such as {table}["text"], or the rows: {rows}',
    one="pass a list, such as [document]",
)
_SCORES = Expected(
    name="retrieval_scores",
    items="numbers",
    rows='pass the column that holds them, such as {table}["score"]',
    one="pass a list with one number for each document, or leave it out",
)

_TABLES = {
    ("pandas", "DataFrame"): ("df", 'df.to_dict("records")'),
    ("polars", "DataFrame"): ("df", "df.to_dicts()"),
    ("polars", "LazyFrame"): ("df.collect()", "df.collect().to_dicts()"),
    ("pyarrow", "Table"): ("table", "table.to_pylist()"),
    ("pyarrow", "RecordBatch"): ("batch", "batch.to_pylist()"),
    ("pyarrow", "RecordBatchReader"): ("reader.read_all()", "reader.read_all().to_pylist()"),
}
"""Tables by package and class, with expressions for the table and its rows. Iterating over a table yields its
columns."""
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
"""Documents of the host frameworks by package and base class: name of the framework, and what to pass instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall(Generic[DocumentT_co]):
    """The arguments of one call of `Reranker.rerank`."""

    query: str
    documents: Iterable[DocumentT_co]
    top_n: int | None = None
    """`None` is the reranker's own `top_n`."""
    instruction: str | None = None
    """`None` is the reranker's own instruction."""
    retrieval_scores: Iterable[float] | None = None
    score_threshold: float | None = None
    """`None` is the reranker's own. The caller has checked it with `reranker.check_threshold`."""


def as_list(items: Any, expected: Expected = DOCUMENTS) -> list[Any]:
    """Return the items of an iterable with an order as a new list.

    Raises:
        InputError: `items` is not iterable or has no order. The message names its type, and what to pass instead.
    """
    if isinstance(items, list | tuple):
        return list(items)
    kind = type(items).__name__

    def wrong(got: str, advice: str) -> InputError:
        return InputError(f"{expected.name} must be a list of {expected.items}, got {got}: {advice}.")

    if (table := _table(items)) is not None:
        raise wrong(f"a {kind}", expected.rows.format(table=table[0], rows=table[1]))
    framework = of_kind(items, _FRAMEWORKS)
    if expected is DOCUMENTS and framework is not None:
        raise wrong(f"one {framework[0]} {kind}", framework[1])
    if framework is not None or _is_pydantic(items):  # iterating over one yields its fields
        raise wrong(f"one {kind}", expected.instead_of(items) or expected.one)
    if isinstance(items, AbstractSet) and not isinstance(items, MappingView):  # the keys of a mapping have an order
        raise wrong(
            f"a {kind}", f"a set has no order, so an index into it means nothing. Pass a list, list({expected.name})"
        )
    if isinstance(items, AsyncIterable) and not isinstance(items, Iterable):
        raise wrong(f"one {kind}", f"collect it first, [item async for item in {expected.name}]")
    if isinstance(items, str | bytes | bytearray | memoryview | Mapping) or not isinstance(items, Iterable):
        raise wrong("None" if items is None else f"one {kind}", expected.one)
    dimensions = getattr(items, "ndim", 1)
    if isinstance(dimensions, int) and dimensions != 1:
        raise wrong(f"a {kind} of {dimensions} dimensions", "pass one column of it as a list")
    if callable(
        to_pylist := getattr(items, "to_pylist", None)
    ):  # iterating over a pyarrow array yields its own scalars
        return list(to_pylist())
    return list(items)


def _table(value: Any) -> tuple[str, str] | None:
    """Return expressions for a table and its rows. `None` if `value` is not a table."""
    if (known := of_kind(value, _TABLES)) is not None:
        return known
    # Other tables (Dask, Modin, cuDF, Ibis) are recognised by name or by the interchange protocol,
    # https://data-apis.org/dataframe-protocol/latest/
    if "DataFrame" in _class_names(value) or hasattr(type(value), "__dataframe__"):
        return "df", 'df.to_pandas().to_dict("records")' if hasattr(value, "to_pandas") else 'df.to_dict("records")'
    return None


def is_table(value: Any) -> bool:
    """Return whether `value` is a table: of a known package, or with the dataframe interchange protocol."""
    return _table(value) is not None


def _class_names(value: Any) -> list[str]:
    return [base.__name__ for base in type(value).__mro__]


def of_kind(value: Any, kinds: Mapping[tuple[str, str], T]) -> T | None:
    """Return the entry in `kinds` of the first base class of `value` that has one. No package is imported for it."""
    names = ((base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__)
    return next((kinds[name] for name in names if name in kinds), None)


def _is_pydantic(value: Any) -> bool:
    """Return whether `value` is iterated by pydantic's own `__iter__`, which yields (name, value) of each field."""
    owner = next((base for base in type(value).__mro__ if "__iter__" in vars(base)), None)
    return owner is not None and owner.__module__.partition(".")[0] == "pydantic"


class Batch(Generic[DocumentT]):
    """The caller's documents and the request for the scorer, in which no document is blank or repeated.

    The work is linear in the size of the input, and checks for cancellation. `Reranker` does it on a worker thread for
    large input.
    """

    def __init__(
        self,
        call: RerankCall[DocumentT],
        documents: Sequence[DocumentT],
        names: Sequence[str] | None = None,
    ) -> None:
        """Check the arguments and build `request`.

        Args:
            call: The arguments of the call.
            documents: The documents of `call` as a list.
            names: The fields to read of mappings, in this order; `None` is all.

        Raises:
            InputError: See `Reranker.rerank`.
        """
        self.documents = documents
        query = _checked_query(call.query)
        instruction = None if call.instruction is None else _checked_instruction(call.instruction)
        scores = call.retrieval_scores
        retrieved = None if scores is None else _numbers(scores, len(documents))
        self._slots: list[int | None] = []
        """For each of the caller's documents its index in the request; `None` for a blank one."""
        self._left_out: dict[int, str] = {}
        """By index of the document: which fields of a mapping were not read, and why."""
        slots: dict[str, int] = {}
        first: list[int] = []
        best: list[float] = []
        fields: list[Mapping[str, Any] | None] = []
        for index, document in enumerate(documents):
            if not index % _CHECK_EVERY:
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
            best[slot] = max(best[slot], score)  # of repeated documents the highest retrieval score counts
            self._slots.append(slot)
        if names is not None:
            _check_names(names, documents)
        self.request = RerankRequest(
            query=query,
            documents=tuple(slots),
            instruction=instruction,
            retrieval_scores=None if retrieved is None else tuple(best),
            fields=None if all(mapping is None for mapping in fields) else tuple(fields),
            positions=tuple(first) if len(first) != len(documents) else None,
        )

    def _fields(self, document: Mapping[Any, Any], index: int, names: Sequence[str] | None) -> Fields:
        fields = read_fields(document, index, names)
        if fields.left_out is not None:
            self._left_out[index] = fields.left_out
        return fields

    def results(self, scores: Scores) -> list[RerankResult[DocumentT]]:
        """Return one result per document, best first.

        Equal scores keep the order of the reply, else the order given. Blank documents come last.
        """
        keys = scores.sort_keys()
        # The index is the last sort key, so that repeated documents stay in the order given.
        order = sorted((*keys[slot], index, slot) for index, slot in enumerate(self._slots) if slot is not None)
        relevances = scores.relevances()
        truncated, spans, reasons = scores.truncated, scores.spans, scores.reasons
        results = []
        for number, (_, _, index, slot) in enumerate(order):
            if not number % _CHECK_EVERY:
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

    def _blank(self, index: int) -> RerankResult[DocumentT]:
        return RerankResult(
            index=index,
            document=self.documents[index],
            relevance_score=None,
            raw_score=None,
            reason=self._reason(BLANK, index),
        )

    def _reason(self, reason: str | None, index: int) -> str | None:
        return "; ".join(text for text in (reason, self._left_out.get(index)) if text) or None


def unread_request(documents: Sequence[Any]) -> RerankRequest:
    """Return a request with placeholder texts, for documents that were not read before the deadline.

    Only a fallback that keeps the order given receives it, and that ignores the texts.
    """
    return RerankRequest(query="unread", documents=tuple(map(str, range(len(documents)))))


def unread_results(documents: Sequence[DocumentT]) -> list[RerankResult[DocumentT]]:
    """Return one result without scores per document, in the order given."""
    return [
        RerankResult(index=index, document=document, relevance_score=None, raw_score=None)
        for index, document in enumerate(documents)
    ]


def _checked_query(query: Any) -> str:
    if not isinstance(query, str):
        raise InputError(f"query must be a string, got {described(query)}. Pass the text of the question.")
    if is_blank(query):
        raise InputError("The query is blank: there is nothing to compare the documents with.")
    return sendable(query)


def _checked_instruction(instruction: Any) -> str | None:
    if not isinstance(instruction, str):
        raise InputError(f"instruction must be a string or None, got {described(instruction)}. Leave it out for none.")
    return sendable(instruction) if instruction else None


def _check_names(names: Sequence[str], documents: Sequence[Any]) -> None:
    """Refuse `names` if no document has any of them: a typing error would make every document blank."""
    mappings = [document for document in documents if isinstance(document, Mapping)]
    if mappings and not any(name in document for document in mappings for name in names):
        present = ", ".join(repr(name) for name in list(mappings[0])[:20]) or "none"
        raise InputError(
            f"No document has one of the fields {', '.join(map(repr, names))} that the option `fields` names; the "
            f"first mapping has {present}."
        )


def _numbers(retrieval_scores: Iterable[Any], count: int) -> list[float]:
    """Return the retriever's scores as floats.

    Raises:
        InputError: They are not a list of `count` finite numbers. Strings are refused, even of digits.
    """
    numbers: list[float] = []
    for index, score in enumerate(as_list(retrieval_scores, _SCORES)):
        check_cancelled()
        try:
            if isinstance(score, bool | str | bytes | bytearray):
                raise TypeError
            number = float(score)
        except (TypeError, ValueError, OverflowError):  # OverflowError: an integer too large for a float
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"retrieval_scores must be a list of finite numbers, got {described(score)} at index {index}. Leave "
                "them out where not all are known."
            )
        numbers.append(number)
    if len(numbers) != count:
        raise InputError(
            f"retrieval_scores must have one number for each of the {count} documents, got {len(numbers)}. Leave "
            "them out where not all are known."
        )
    return numbers


def _not_a_document(document: Any, index: int) -> InputError:
    wrong = f"Document {index} must be a string or a mapping of fields"
    if (framework := of_kind(document, _FRAMEWORKS)) is not None:
        return InputError(f"{wrong}, got one {framework[0]} {type(document).__name__}: {framework[1]}.")
    return InputError(f"{wrong}, got {described(document)}. {_as_mapping(document)}.")


def _as_mapping(document: Any) -> str:
    """Return the advice how to convert an object to a string or a mapping."""
    if is_dataclass(document):
        return "Pass dataclasses.asdict(document)"
    # Qdrant's points are pydantic models too, but their text is in the payload.
    if isinstance(getattr(document, "payload", None), Mapping):
        return "Pass document.payload, or a text in it"
    # Named tuples, pydantic, pandas, PySpark, pyarrow.
    for method in ("_asdict", "model_dump", "to_dict", "asDict", "as_py"):
        if callable(getattr(document, method, None)):
            return f"Pass document.{method}()"
    if isinstance(document, bytes | bytearray):
        return "Decode it, document.decode()"
    if isinstance(document, tuple):
        return "Pass the text in it, such as document[1]"
    if callable(getattr(document, "keys", None)):  # sqlite3.Row
        return "Pass dict(document), or a text in it"
    return "Leave it out, or make it a string"


def snapshot(documents: Any) -> Any:
    """Return the items of an iterator as a list, and any other object as it is.

    A sync call does this on the caller's thread, since some iterators, such as a database cursor, belong to a thread.
    """
    is_iterator = (
        isinstance(documents, Iterator) and _table(documents) is None
    )  # a reader of tables is refused later, by `as_list`
    return list(documents) if is_iterator else documents

"""What goes over the wire, as types: the bodies of both shapes, the answers to them, and errors.

Bodies are pydantic models, which check. Answers are typed dicts, which cost nothing at run time and are checked by mypy. The
OpenAPI document is generated from both.

Cohere: https://docs.cohere.com/reference/rerank and /v1/reference/rerank; TEI: docs/openapi.json of
huggingface/text-embeddings-inference 1.7.1 (read in November 2026). Fields that another server would use and this one
cannot are taken and answered with a warning; a field that nobody knows is refused, so that a slip is not lost.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from ..core.errors import MissingExtra

try:
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, TypeAdapter
    from typing_extensions import TypedDict  # pydantic takes that of `typing` from Python 3.12 on only
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="pydantic") from error

__all__ = [
    "NOT_USED",
    "CohereAnswer",
    "CohereBody",
    "CohereResult",
    "Meta",
    "TEIBody",
    "TEIResult",
    "schemas",
]

_VISIBLE = (
    r"[^\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u1680\u17b4-\u17b5"
    r"\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]"
)
"""What is not blank below U+10000, by the rule of the reranker, which is the one that refuses a blank query."""
Text = Annotated[str, Field(json_schema_extra={"pattern": _VISIBLE})]

_Integral = BeforeValidator(
    lambda given: int(given) if isinstance(given, float) and given.is_integer() else given  # 5.0 is an integer in JSON
)
Integer = Annotated[StrictInt, _Integral]
Count = Annotated[StrictInt, Field(ge=1), _Integral]
Index = Annotated[int, Field(ge=0)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class Spans(_Body):
    """Whether to give the best passages of each document."""

    mode: Literal["enabled", "disabled"] = "enabled"


class CohereBody(_Body):
    """Cohere's v1 and v2, and what vLLM and others add to them."""

    query: Text
    """What is searched for."""
    documents: list[str | dict[str, Any]]
    """Texts, or objects, of which all text and number fields are read, or those of `rank_fields`."""
    model: str | None = None
    """What this server serves, or nothing."""
    top_n: Count | None = None
    """How many results to give; all without it."""
    return_documents: bool | None = None
    """Put the documents into the results."""
    max_tokens_per_doc: Count | None = None
    """Where a document is cut."""
    instruction: str | None = None
    """What relevant means, for models that follow it."""
    rank_fields: list[str] | None = None
    """Of objects: what is read."""
    raw_scores: bool | None = None
    """The model's own scores."""
    relevant_spans: Spans | None = None
    """Give the best passages, where the model does."""
    max_chunks_per_doc: Count | None = None
    """Not used here; see warnings."""
    truncate_prompt_tokens: Integer | None = None
    """Not used here; see warnings."""
    priority: Integer | None = None
    """Not used here; see warnings."""
    user: str | None = None
    """Not used here; see warnings."""


NOT_USED = ("max_chunks_per_doc", "truncate_prompt_tokens", "priority", "user")


class TEIBody(_Body):
    """Text Embeddings Inference."""

    query: Text
    """What is searched for."""
    texts: list[str]
    """What is reranked."""
    raw_scores: bool = False
    """The model's own scores."""
    return_text: bool = False
    """Put the texts into the results."""
    truncate: bool | None = None
    """`false`: refuse what is too long rather than cut it."""
    truncation_direction: Literal["Right", "right"] = "Right"
    """The end is what is cut."""


class Span(TypedDict):
    """A passage: its first character, the one after its last, and its score."""

    start: Index
    end: Index
    score: float


class CohereResult(TypedDict):
    """One document."""

    index: Index
    relevance_score: Annotated[float, Field(description="In [0, 1], unless raw_scores.")]
    document: NotRequired[dict[str, Any]]
    relevant_spans: NotRequired[list[Span]]


class Meta(TypedDict):
    """What was billed, and what the caller should know."""

    api_version: dict[str, str]
    warnings: list[str]
    billed_units: NotRequired[dict[str, float]]


class CohereAnswer(TypedDict):
    """Cohere's answer, best document first."""

    id: str
    model: Annotated[str, Field(description="Who answered.")]
    results: list[CohereResult]
    meta: Meta
    degraded: Annotated[bool, Field(description="A stand-in answered; `meta.warnings` says why.")]
    usage: NotRequired[dict[str, int]]


class TEIResult(TypedDict):
    """One text; TEI's answer is a list of them, best first."""

    index: Index
    score: float
    text: NotRequired[str]


class Error(TypedDict):
    """An error: `message` is Cohere's field, the other two are TEI's."""

    message: str
    error: str
    error_type: str


def schemas() -> dict[str, Any]:
    """Return the JSON Schemas of everything above by the names of the types, as OpenAPI 3.1 holds them."""
    types = (CohereBody, TEIBody, CohereAnswer, TEIResult, Error)
    _, together = TypeAdapter.json_schemas(
        [(each, "validation", TypeAdapter(each)) for each in types], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, Any] = together["$defs"]
    return definitions

"""The types of the wire formats: request bodies of both shapes, answers, and errors.

Bodies are pydantic models, which validate. Answers are typed dicts: they cost nothing at run time, and mypy checks
them. The OpenAPI document is generated from both.

Cohere: https://docs.cohere.com/reference/rerank and /v1/reference/rerank; TEI: docs/openapi.json of
huggingface/text-embeddings-inference 1.7.1 (read in November 2026). Fields of other servers that this one
cannot use are accepted with a warning; an unknown field is refused, so that a misspelling is seen.
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
    "Error",
    "Meta",
    "TEIBody",
    "TEIResult",
    "schemas",
]

_VISIBLE = (
    r"[^\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u1680\u17b4-\u17b5"
    r"\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff"
    r"\uffa0\ufff0-\ufffb]"
)
"""A visible character below U+10000. The reranker has the same rule, and is what refuses a blank query."""
Text = Annotated[str, Field(json_schema_extra={"pattern": _VISIBLE})]

_Integral = BeforeValidator(
    lambda value: int(value) if isinstance(value, float) and value.is_integer() else value  # 5.0 is an integer in JSON
)
Integer = Annotated[StrictInt, _Integral]
Count = Annotated[StrictInt, Field(ge=1), _Integral]
Index = Annotated[int, Field(ge=0)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class Spans(_Body):
    """Whether to give the best passages of each document, and which."""

    mode: Literal["enabled", "disabled"] = "enabled"
    threshold: float | None = None
    """The lowest score of a passage."""
    max_spans: Count | None = None
    """Passages of one document, the best ones."""


class CohereBody(_Body):
    """Cohere's v1 and v2, and what vLLM, Infinity, Xinference and others add to them."""

    query: Text
    """The search query."""
    documents: list[str | dict[str, Any]]
    """Strings, or objects; all text and number fields of an object are read, or those of `rank_fields`."""
    model: str | None = None
    """The name of the model that this server serves, or nothing."""
    top_n: Annotated[StrictInt, Field(ge=0), _Integral] | None = None
    """The number of results; without it, or with 0 (as in vLLM), all."""
    return_documents: bool | None = None
    """Put the documents into the results."""
    max_tokens_per_doc: Count | None = None
    """Longer documents are cut at this many tokens."""
    instruction: str | None = None
    """What relevant means, for models that follow instructions."""
    rank_fields: list[str] | None = None
    """The fields of objects that are read."""
    raw_scores: bool | None = None
    """The model's own scores (Infinity's field)."""
    use_activation: bool | None = None
    """`false`: the model's own scores (vLLM's field)."""
    relevant_spans: Spans | None = None
    """Give the best passages, where the model does."""
    max_chunks_per_doc: Any = None
    """Not used here; see warnings."""
    overlap_tokens: Any = None
    """Not used here; see warnings."""
    max_tokens_per_query: Any = None
    """Not used here; see warnings."""
    truncate_prompt_tokens: Any = None
    """Not used here; see warnings."""
    truncation_side: Any = None
    """Not used here; see warnings."""
    add_special_tokens: Any = None
    """Not used here; see warnings."""
    chat_template: Any = None
    """Not used here; see warnings."""
    chat_template_kwargs: Any = None
    """Not used here; see warnings."""
    mm_processor_kwargs: Any = None
    """Not used here; see warnings."""
    request_id: Any = None
    """Not used here; see warnings."""
    cache_salt: Any = None
    """Not used here; see warnings."""
    return_len: Any = None
    """Not used here; see warnings."""
    kwargs: Any = None
    """Not used here; see warnings."""
    priority: Any = None
    """Not used here; see warnings."""
    user: Any = None
    """Not used here; see warnings."""


NOT_USED = tuple(
    name for name, field in CohereBody.model_fields.items() if (field.description or "").startswith("Not used here")
)


class TEIBody(_Body):
    """Text Embeddings Inference."""

    query: Text
    """The search query."""
    texts: list[str]
    """The documents."""
    raw_scores: bool = False
    """The model's own scores."""
    return_text: bool = False
    """Put the texts into the results."""
    truncate: bool | None = None
    """`false`: refuse a text that is too long instead of cutting it."""
    truncation_direction: Literal["Right", "right"] = "Right"
    """The end is cut."""
    model: str | None = None
    """The name of the model that this server serves, or nothing. TEI itself has no such field; clients of several
    servers send it."""
    top_n: Annotated[StrictInt, Field(ge=0), _Integral] | None = None
    """The number of results; without it, or with 0, all. TEI itself has no such field either."""
    is_truncated: bool | None = None
    """Not used here, nor by TEI."""


class Span(TypedDict):
    """A passage: its first character, the one after its last, and its score."""

    start: Index
    end: Index
    score: float


class CohereResult(TypedDict):
    """One document."""

    index: Index
    relevance_score: Annotated[float, Field(description="In [0, 1], unless raw_scores.")]
    document: NotRequired[dict[str, Any] | str]
    relevant_spans: NotRequired[list[Span]]
    truncated: NotRequired[Annotated[bool, Field(description="true: the document was not read to its end.")]]
    unscored: NotRequired[Annotated[bool, Field(description="true: the score stands for none.")]]


class Meta(TypedDict):
    """What was billed, and what the caller should know."""

    api_version: dict[str, str]
    warnings: list[str]
    billed_units: NotRequired[dict[str, float]]


class CohereAnswer(TypedDict):
    """Cohere's answer, best document first."""

    id: str
    model: Annotated[str, Field(description="The model that answered.")]
    results: list[CohereResult]
    meta: Meta
    degraded: Annotated[bool, Field(description="A fallback answered; `meta.warnings` says why.")]
    usage: Annotated[dict[str, int], Field(description="0 where the model counts no tokens.")]


class TEIResult(TypedDict):
    """One text; TEI's answer is a list of them, best first."""

    index: Index
    score: float
    text: NotRequired[str]
    truncated: NotRequired[Annotated[bool, Field(description="true: the text was not read to its end.")]]
    unscored: NotRequired[Annotated[bool, Field(description="true: the score stands for none.")]]


class Error(TypedDict):
    """An error, readable for the clients of several servers.

    `message` is Cohere's field; `error` and `error_type` are TEI's. `detail` is FastAPI's: Xinference's client and
    LlamaIndex's JinaRerank read it from every error, without looking whether it is there.
    """

    message: str
    error: str
    error_type: str
    detail: str


def schemas() -> dict[str, Any]:
    """Return the JSON Schemas of everything above by the names of the types, as OpenAPI 3.1 holds them."""
    types = (CohereBody, TEIBody, CohereAnswer, TEIResult, Error)
    _, together = TypeAdapter.json_schemas(
        [(each, "validation", TypeAdapter(each)) for each in types], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, Any] = together["$defs"]
    return definitions

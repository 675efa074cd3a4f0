"""The two shapes of a rerank call over HTTP, Cohere's and TEI's, to and from our own. Pure translation."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import MissingExtra, clause
from ..reranker import RerankResponse, RerankResult
from .limits import Refusal
from .names import public_label
from .schemas import NOT_USED, CohereAnswer, CohereBody, CohereResult, Meta, TEIBody, TEIResult

try:
    from pydantic import ValidationError
    from pydantic_core import from_json
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="pydantic") from error

__all__ = ["Call", "answer", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, whatever its shape was."""

    query: str
    documents: list[Any]
    """What is reranked: texts, or mappings of fields."""
    given: list[Any] | None = None
    """What to send back for each document; `None` is nothing."""
    model: str | None = None
    top_n: int | None = None
    instruction: str | None = None
    max_tokens_per_doc: int | None = None
    tei: bool = False
    raw_scores: bool = False
    truncate: bool = True
    """Whether what is too long may be cut."""
    spans: bool = False
    warnings: list[str] = field(default_factory=list)


def read(body: bytes, path: str) -> Call:
    """Return what a body asks for.

    Args:
        body: JSON in UTF-8.
        path: Where it was sent; `/rerank` takes both shapes, and a body with `texts` is TEI's.

    Raises:
        Refusal: 400 where it is no JSON, 422 where it is none of these shapes.
    """
    try:
        if path == "/rerank" and _has_texts(body):
            return _tei(TEIBody.model_validate_json(body))
        return _cohere(CohereBody.model_validate_json(body))
    except ValidationError as error:
        raise _refusal(error) from None
    except Refusal:  # a ValueError too
        raise
    except ValueError as error:
        raise _no_json(error) from None


def _has_texts(body: bytes) -> bool:
    if b'"texts"' not in body:  # most bodies are Cohere's, and are read once
        return False
    given = from_json(body)
    return isinstance(given, dict) and "texts" in given and "documents" not in given


def _refusal(error: ValidationError) -> Refusal:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return _no_json(found[0]["msg"])
    told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found[:3])
    return Refusal(422, f"{clause(told)}. Mend the body; /openapi.json says what belongs there.")


def _no_json(why: object) -> Refusal:
    return Refusal(400, f"The body is no JSON in UTF-8: {clause(why)}. Mend it.")


def _check_numbers(value: Any, place: str) -> None:
    """Refuse numbers that JSON does not have: Python's parsers take `NaN` and make infinity of `1e999`.

    Raises:
        Refusal: 422, with the place of the number.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refusal(422, f"{place} must be a finite number. Send a smaller number, null or a string.")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_numbers(each, f"{place}.{key[:100]}")
    elif isinstance(value, list):
        for position, each in enumerate(value):
            _check_numbers(each, f"{place}.{position}")


def _cohere(body: CohereBody) -> Call:
    for position, document in enumerate(body.documents):
        if not isinstance(document, str):
            _check_numbers(document, f"documents.{position}")
    documents = [_document(each, body.rank_fields) for each in body.documents]
    return Call(
        query=body.query,
        documents=documents,
        given=[_shown(each) for each in body.documents] if body.return_documents else None,
        model=body.model,
        top_n=body.top_n,
        instruction=body.instruction,
        max_tokens_per_doc=body.max_tokens_per_doc,
        raw_scores=body.raw_scores is True,
        spans=body.relevant_spans is not None and body.relevant_spans.mode == "enabled",
        warnings=_not_used(body, documents),
    )


def _not_used(body: CohereBody, documents: list[Any]) -> list[str]:
    told = [f"{name} is not used by this server" for name in NOT_USED if getattr(body, name) is not None]
    if body.max_tokens_per_doc is not None and not all(isinstance(each, str) for each in documents):
        told.append("max_tokens_per_doc is not used for documents of several fields")
    return told


def _document(document: str | dict[str, Any], rank_fields: list[str] | None) -> Any:
    if isinstance(document, str):
        return document
    if rank_fields is not None:
        document = {name: document[name] for name in rank_fields if name in document}
    # An object of one text is that text, so that `max_tokens_per_doc` can cut it. All other objects the reranker reads.
    return next((text for text in document.values() if len(document) == 1 and isinstance(text, str)), document)


def _shown(document: str | dict[str, Any]) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document


def _tei(body: TEIBody) -> Call:
    return Call(
        query=body.query,
        documents=list(body.texts),
        given=list(body.texts) if body.return_text else None,
        tei=True,
        raw_scores=body.raw_scores,
        truncate=body.truncate is not False,
    )


def answer(
    call: Call, response: RerankResponse, cut: frozenset[int] = frozenset(), public: Callable[[str], str] = str
) -> CohereAnswer | list[TEIResult]:
    """Return the JSON of an answer in the shape of its call.

    Both shapes want a number for each document. Where nothing was scored (a blank document, a stand-in that keeps the
    order given) it is 0.0 (of raw scores the least), which keeps the order; Cohere's shape says so in `meta.warnings`.

    Args:
        call: What was asked.
        response: What came of it.
        cut: The documents that were cut before the reranker saw them.
        public: Takes out of a message what clients may not see.

    Raises:
        Refusal: 422: a document was cut, and the call forbids that.
    """
    truncated = sorted({result.index for result in response if result.truncated} | cut)
    if truncated and not call.truncate:
        raise Refusal(
            422, f"texts {_listed(truncated)} are longer than the model reads. Shorten them, or set truncate."
        )
    scores = _scores(call, response)
    if call.tei:
        return [_tei_result(call, result, score) for result, score in zip(response, scores, strict=True)]
    usage = response.usage
    meta: Meta = {"api_version": {"version": "2"}, "warnings": _warnings(call, response, truncated, public)}
    billed = {"input_tokens": usage.input_tokens, "search_units": usage.search_units}
    if known := {name: value for name, value in billed.items() if value is not None}:
        meta["billed_units"] = known
    body: CohereAnswer = {
        "id": str(uuid.uuid4()),
        "model": public_label(response.model),
        "results": [_cohere_result(call, result, score) for result, score in zip(response, scores, strict=True)],
        "meta": meta,
        "degraded": response.degraded,
    }
    if usage.input_tokens is not None:
        body["usage"] = {"total_tokens": usage.input_tokens}
    return body


def _warnings(call: Call, response: RerankResponse, truncated: list[int], public: Callable[[str], str]) -> list[str]:
    told = list(call.warnings)
    if response.degraded:
        told.append(f"degraded: {public(str(response.reason))}")
    if truncated:
        told.append(f"not read to their end: documents {_listed(truncated)}")
    if unscored := [result.index for result in response if result.relevance_score is None]:
        told.append(f"without a score, shown last: documents {_listed(unscored)}")
    return told


def _listed(indexes: list[int]) -> str:
    return ", ".join(map(str, indexes[:20])) + (f" and {len(indexes) - 20} more" if len(indexes) > 20 else "")


def _scores(call: Call, response: RerankResponse) -> list[float]:
    scores = [result.raw_score if call.raw_scores else result.relevance_score for result in response]
    least = min((each for each in scores if each is not None), default=0.0) if call.raw_scores else 0.0
    return [least if each is None else each for each in scores]


def _cohere_result(call: Call, result: RerankResult, score: float) -> CohereResult:
    body: CohereResult = {"index": result.index, "relevance_score": score}
    if call.given is not None:
        body["document"] = call.given[result.index]
    if call.spans and result.spans:
        body["relevant_spans"] = [{"start": each.start, "end": each.end, "score": each.score} for each in result.spans]
    return body


def _tei_result(call: Call, result: RerankResult, score: float) -> TEIResult:
    body: TEIResult = {"index": result.index, "score": score}
    if call.given is not None:
        body["text"] = call.given[result.index]
    return body

"""Translate rerank calls over HTTP, in Cohere's shape and in TEI's, to and from our own types. No I/O.

This server describes its answers with more than scores. Our own backends (`http`, `cohere`, `tei`, `vllm`, `infinity`,
…) read this and pass it on to their callers:

| where | what |
|---|---|
| header `x-rerank-model` | The model that answered, as ASCII. Always present: it identifies this server. |
| header `x-rerank-degraded: true` | A fallback answered. Absent otherwise. |
| header `x-rerank-reason` | Why the answer is not the expected one: UTF-8, at most 800 bytes, percent-encoded. |
| `degraded` in the body (Cohere's shape only) | `true` or `false`, as the header. |
| `meta.warnings` in the body (Cohere's shape only) | Sentences. `degraded: …` holds the whole reason. |
| `truncated: true` in a result (both shapes) | The document was not read to its end. Absent otherwise. |
| `unscored: true` in a result (both shapes) | The score is a placeholder (see `encode_answer`). Absent otherwise. |

TEI's answer is a bare list, so only headers can carry the reason there. The reader is `core/answer_metadata.py`: it
ignores these fields where neither `x-rerank-model` nor a boolean `degraded` shows that this server answered, makes the
client's answer degraded (no `score_threshold`, no cache), and bounds and redacts every text.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.answer_metadata import DEGRADED_WARNING, TRUNCATED_WARNING, UNSCORED_WARNING
from ..core.errors import MissingExtra, clause
from ..core.types import Span, Usage
from ..reranker import RerankResponse, RerankResult
from .limits import Refusal
from .public_names import public_label
from .schemas import NOT_USED, CohereAnswer, CohereBody, CohereResult, Meta, Spans, TEIBody, TEIResult

try:
    from pydantic import ValidationError
    from pydantic_core import from_json
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="pydantic") from error

__all__ = ["RerankBody", "encode_answer", "read_request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankBody:
    """The body of one request, whatever its shape was."""

    query: str
    documents: list[Any]
    """Strings, or mappings of fields."""
    returned_documents: list[Any] | None = None
    """What to send back for each document; `None` sends nothing back."""
    model: str | None = None
    top_n: int | None = None
    instruction: str | None = None
    max_tokens_per_doc: int | None = None
    tei: bool = False
    raw_scores: bool = False
    truncate: bool = True
    """Whether a text that is too long may be cut; otherwise the request is refused."""
    spans: Spans | None = None
    """Which passages to send back; `None` is none."""
    warnings: list[str] = field(default_factory=list)


def read_request(body: bytes, path: str) -> RerankBody:
    """Parse the body of a request.

    Args:
        body: JSON in UTF-8.
        path: The path of the request; `/rerank` accepts both shapes, and a body with `texts` is TEI's.

    Raises:
        Refusal: 400 where it is not JSON, 422 where it has neither shape.
    """
    try:
        if path == "/rerank" and _has_texts(body):
            return _tei(TEIBody.model_validate_json(body))
        return _cohere(CohereBody.model_validate_json(body))
    except ValidationError as error:
        raise _refusal(error) from None
    except Refusal:  # also a ValueError
        raise
    except ValueError as error:
        raise _no_json(error) from None


def _has_texts(body: bytes) -> bool:
    if b'"texts"' not in body:  # most bodies have Cohere's shape and are parsed once
        return False
    fields = from_json(body)
    return isinstance(fields, dict) and "texts" in fields and "documents" not in fields


def _refusal(error: ValidationError) -> Refusal:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return _no_json(problems[0]["msg"])
    message = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in problems[:3])
    return Refusal(422, f"{clause(message)}. Correct the body; /openapi.json describes it.")


def _no_json(why: object) -> Refusal:
    return Refusal(400, f"The body is not JSON in UTF-8: {clause(why)}. Correct it.")


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


def _cohere(body: CohereBody) -> RerankBody:
    for position, document in enumerate(body.documents):
        if not isinstance(document, str):
            _check_numbers(document, f"documents.{position}")
    documents = [_document(each, body.rank_fields) for each in body.documents]
    # Of the servers with this shape only Infinity has `raw_scores`; its own client needs `document` to be a string.
    texts_only = body.raw_scores is not None
    return RerankBody(
        query=body.query,
        documents=documents,
        returned_documents=[_shown(each, texts_only=texts_only) for each in body.documents]
        if body.return_documents
        else None,
        model=body.model,
        top_n=body.top_n or None,
        instruction=body.instruction,
        max_tokens_per_doc=body.max_tokens_per_doc,
        raw_scores=body.raw_scores is True or body.use_activation is False,
        spans=body.relevant_spans if body.relevant_spans and body.relevant_spans.mode == "enabled" else None,
        warnings=_not_used(body, documents),
    )


def _not_used(body: CohereBody, documents: list[Any]) -> list[str]:
    warnings = [f"{name} is not used by this server" for name in NOT_USED if getattr(body, name) is not None]
    if body.max_tokens_per_doc is not None and not all(isinstance(each, str) for each in documents):
        warnings.append("max_tokens_per_doc is not used for documents of several fields")
    return warnings


def _document(document: str | dict[str, Any], rank_fields: list[str] | None) -> Any:
    if isinstance(document, str):
        return document
    if rank_fields is not None:
        document = {name: document[name] for name in rank_fields if name in document}
    # An object with one string field is that string, so that `max_tokens_per_doc` can cut it. The reranker reads all
    # others.
    return next((text for text in document.values() if len(document) == 1 and isinstance(text, str)), document)


def _shown(document: str | dict[str, Any], *, texts_only: bool) -> Any:
    """Return a document as it is sent back."""
    return {"text": document} if isinstance(document, str) and not texts_only else document


def _tei(body: TEIBody) -> RerankBody:
    return RerankBody(
        query=body.query,
        documents=list(body.texts),
        returned_documents=list(body.texts) if body.return_text else None,
        model=body.model,
        top_n=body.top_n or None,
        tei=True,
        raw_scores=body.raw_scores,
        truncate=body.truncate is not False,
    )


def encode_answer(
    call: RerankBody, response: RerankResponse, cut: frozenset[int] = frozenset(), public: Callable[[str], str] = str
) -> CohereAnswer | list[TEIResult]:
    """Return the JSON of an answer in the shape of its request.

    Both shapes need a number for each document. A document without a score (a blank one, or the answer of a fallback
    that keeps the order given) gets 0.0, or the lowest raw score, which keeps the order; it is marked `unscored`.

    Args:
        call: The request.
        response: The answer of the reranker.
        cut: The documents that were cut before the reranker saw them.
        public: Removes from a message what clients must not see.

    Raises:
        Refusal: 422: a document was cut, and the request forbids that.
    """
    cut_or_truncated = {result.index for result in response if result.truncated} | cut
    truncated = sorted(cut_or_truncated)
    if truncated and not call.truncate:
        raise Refusal(
            422, f"texts {_listed(truncated)} are longer than the model reads. Shorten them, or set truncate to true."
        )
    scores = _scores(call, response)
    if call.tei:
        return [
            _tei_result(call, result, score, truncated=result.index in cut_or_truncated)
            for result, score in zip(response, scores, strict=True)
        ]
    usage = response.usage
    meta: Meta = {"api_version": {"version": "2"}, "warnings": _warnings(call, response, truncated, public)}
    billed = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "search_units": usage.search_units,
    }
    if known := {name: value for name, value in billed.items() if value is not None}:
        meta["billed_units"] = known
    body: CohereAnswer = {
        "id": str(uuid.uuid4()),
        "model": public_label(response.model),
        "results": [
            _cohere_result(call, result, score, truncated=result.index in cut_or_truncated)
            for result, score in zip(response, scores, strict=True)
        ],
        "meta": meta,
        "degraded": response.degraded,
        # Clients of Jina, Infinity and vLLM take both for granted.
        "usage": _openai_usage(usage),
    }
    return body


def _openai_usage(usage: Usage) -> dict[str, int]:
    counts = {"prompt_tokens": usage.input_tokens or 0, "total_tokens": usage.total_tokens or 0}
    return counts if usage.output_tokens is None else {**counts, "completion_tokens": usage.output_tokens}


def _warnings(
    call: RerankBody, response: RerankResponse, truncated: list[int], public: Callable[[str], str]
) -> list[str]:
    warnings = list(call.warnings)
    if response.degraded:
        warnings.append(f"{DEGRADED_WARNING}{public(str(response.reason))}")
    elif response.reason:
        warnings.append(public(response.reason))
    if truncated:
        warnings.append(f"{TRUNCATED_WARNING}documents {_listed(truncated)}")
    if unscored := [result.index for result in response if result.relevance_score is None]:
        warnings.append(f"{UNSCORED_WARNING}documents {_listed(unscored)}")
    return warnings


def _listed(indexes: list[int]) -> str:
    return ", ".join(map(str, indexes[:20])) + (f" and {len(indexes) - 20} more" if len(indexes) > 20 else "")


def _scores(call: RerankBody, response: RerankResponse) -> list[float]:
    scores = [result.raw_score if call.raw_scores else result.relevance_score for result in response]
    lowest = min((score for score in scores if score is not None), default=0.0) if call.raw_scores else 0.0
    return [lowest if score is None else score for score in scores]


def _cohere_result(call: RerankBody, result: RerankResult, score: float, *, truncated: bool) -> CohereResult:
    body: CohereResult = {"index": result.index, "relevance_score": score}
    if truncated:
        body["truncated"] = True
    if result.relevance_score is None:
        body["unscored"] = True
    if call.returned_documents is not None:
        body["document"] = call.returned_documents[result.index]
    if call.spans is not None and (spans := _chosen_spans(result, call.spans)):
        body["relevant_spans"] = [{"start": span.start, "end": span.end, "score": span.score} for span in spans]
    return body


def _chosen_spans(result: RerankResult, options: Spans) -> Sequence[Span]:
    """Return the passages of a document that score enough, and the best of them where there are too many."""
    spans = [span for span in result.spans if options.threshold is None or span.score >= options.threshold]
    if options.max_spans is None or len(spans) <= options.max_spans:
        return spans
    best = sorted(range(len(spans)), key=lambda position: -spans[position].score)[: options.max_spans]
    return [spans[position] for position in sorted(best)]


def _tei_result(call: RerankBody, result: RerankResult, score: float, *, truncated: bool) -> TEIResult:
    body: TEIResult = {"index": result.index, "score": score}
    if truncated:
        body["truncated"] = True
    if result.relevance_score is None:
        body["unscored"] = True
    if call.returned_documents is not None:
        body["text"] = call.returned_documents[result.index]
    return body

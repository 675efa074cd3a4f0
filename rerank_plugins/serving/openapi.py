"""Describes the server: as OpenAPI 3.1, as an HTML page, and in the formats of TEI and of OpenAI's API."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..core.types import Capabilities
from .limits import Limits
from .schemas import schemas

__all__ = ["RERANK_PATHS", "html_page", "openai_model_list", "openapi_document", "tei_info"]

RERANK_PATHS = ("/v2/rerank", "/v1/rerank", "/rerank")

_ERRORS = {
    400: "not JSON, nested too deep, a blank query, or an instruction that the model cannot follow",
    401: "no key, or a wrong one",
    404: "another model is served here",
    408: "the body did not arrive in time",
    413: "more bytes or documents than the server accepts",
    415: "a body that is not application/json",
    422: "a body that does not match the schema, or the backend refused the request",
    429: "too many calls at once, or the vendor's limit; see Retry-After",
    500: "the server is configured wrongly",
    502: "the backend's answer cannot be used",
    503: "the backend does not answer; see Retry-After",
    504: "the deadline passed; see Retry-After",
}
"""Description of each HTTP status that is an error."""
_KEY_PROTECTED = {
    "/info": ("Model and limits, in the format of Text Embeddings Inference", "application/json", "object"),
    "/v1/models": ("Names of the model, in the format of OpenAI's API", "application/json", "object"),
    "/metrics": ("Prometheus metrics", "text/plain", "string"),
}
"""Paths for GET that need the server's key, if it has one: (summary, media type, type of the JSON Schema)."""


def openapi_document(
    models: Sequence[str], capabilities: Capabilities, limits: Limits, *, needs_key: bool
) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        models: The names that `model` may have; the first is the one served.
        capabilities: The capabilities of the scorer. They say whether it follows an instruction.
        limits: The limits of the server.
        needs_key: Whether clients must send a key.
    """
    body_schemas = schemas()
    cohere, tei = body_schemas["CohereBody"]["properties"], body_schemas["TEIBody"]["properties"]
    cohere["model"] = {"enum": [*models, None], "description": cohere["model"]["description"]}
    if not capabilities.instructions:
        cohere["instruction"] = {"type": "null", "description": "The model of this server follows no instruction."}
    # The limit holds for every list of a body: the parser counts items as they arrive, before it knows which list of
    # the body they belong to.
    for items in (cohere["documents"], tei["texts"], cohere["rank_fields"]["anyOf"][0]):
        items["maxItems"] = limits.max_documents
    security: dict[str, Any] = {"security": [{"key": []}]} if needs_key else {}
    paths: dict[str, Any] = {path: {"post": _post_operation(path) | security} for path in RERANK_PATHS}
    for path in ("/healthz", "/health"):
        paths[path] = {"get": _get_operation("Status of the server", "application/json", {"type": "object"})}
    paths["/readyz"] = {"get": _get_operation("Readiness, 503 if not", "application/json", {"type": "object"})}
    for path, (summary, media_type, schema_type) in _KEY_PROTECTED.items():
        paths[path] = {"get": _get_operation(summary, media_type, {"type": schema_type}) | security}
        if needs_key:
            paths[path]["get"]["responses"]["401"] = _error_response(401)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"rerank-plugins: {models[0]}",
            "version": __version__,
            "description": f"At most {limits.max_documents:,} documents and {limits.max_body_mb:g} MB in a request.",
        },
        "paths": paths,
        "components": {
            "schemas": body_schemas,
            **({"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if needs_key else {}),
        },
    }


def tei_info(model: str, dtype: str | None, capabilities: Capabilities, limits: Limits) -> dict[str, Any]:
    """Return the body of `GET /info` of Text Embeddings Inference. Its clients, such as Dify, request it first.

    https://github.com/huggingface/text-embeddings-inference, `Info` in router/src/lib.rs (read in November 2026).

    Args:
        model: The name of the model.
        dtype: The number format of the model, where known.
        capabilities: The capabilities of the scorer.
        limits: The limits of the server.
    """
    # Without a token limit, the limit of the body applies: a token has at least one byte.
    max_tokens = capabilities.max_tokens or limits.max_body
    return {
        "model_id": model,
        "model_sha": None,
        "model_dtype": dtype or "float32",
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": limits.max_queue,
        "max_input_length": max_tokens,
        "max_batch_tokens": max_tokens * limits.max_documents,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def openai_model_list(models: Sequence[str], created: int) -> dict[str, Any]:
    """Return the body of `GET /v1/models` of OpenAI's API. `created` is in Unix seconds."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "rerank-plugins"} for name in models]
    return {"object": "list", "data": data}


def _post_operation(path: str) -> dict[str, Any]:
    accepts_tei = path == "/rerank"
    bodies: list[dict[str, Any]] = [_ref("CohereBody")]
    replies: list[dict[str, Any]] = [_ref("CohereAnswer")]
    if accepts_tei:
        bodies, replies = [*bodies, _ref("TEIBody")], [*replies, {"type": "array", "items": _ref("TEIResult")}]
    return {
        "summary": "Order documents by how well they answer a query"
        + (" (Cohere's format, or TEI's)" if accepts_tei else ""),
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": bodies}}}},
        "responses": {
            "200": {"description": "best first", "content": {"application/json": {"schema": {"anyOf": replies}}}},
            **{str(status): _error_response(status) for status in _ERRORS},
        },
    }


def _error_response(status: int) -> dict[str, Any]:
    return {"description": _ERRORS[status], "content": {"application/json": {"schema": _ref("Error")}}}


def _get_operation(summary: str, media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {media_type: {"schema": schema}}}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def html_page(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as an HTML page without scripts and external resources."""
    rows = "".join(
        f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(operation['summary'])}</p><ul>"
        + "".join(
            f"<li><b>{status}</b> {html.escape(response['description'])}</li>"
            for status, response in operation["responses"].items()
        )
        + "</ul>"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas_json = html.escape(json.dumps(document["components"]["schemas"], indent=2))
    title = html.escape(document["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}</style>"
        f"<h1>{title}</h1><p>{html.escape(document['info']['description'])} "
        f'As JSON: <a href="openapi.json">openapi.json</a>.</p>{rows}<h2>Schemas</h2><pre>{schemas_json}</pre></html>'
    )

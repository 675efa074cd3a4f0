"""What the server tells about itself: OpenAPI 3.1, and the same as a page that needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..core.types import Capabilities
from .limits import Limits
from .schemas import schemas

__all__ = ["description", "info", "model_list", "page"]

RERANK = ("/v2/rerank", "/v1/rerank", "/rerank")

_REFUSALS = {
    400: "no JSON, nested too deep, a blank query, or an instruction that the model cannot follow",
    401: "no key, or a wrong one",
    404: "another model is served here",
    408: "the body did not arrive in time",
    413: "a longer body, or more documents, than the server takes",
    415: "a body that is not application/json",
    422: "not the shape below, or the backend refused the request",
    429: "as many calls are inside as the server takes, or the vendor's limit; see Retry-After",
    500: "the server cannot work as it was started",
    502: "the backend's answer cannot be used",
    503: "the backend does not answer; see Retry-After",
    504: "the deadline passed; see Retry-After",
}
_WITH_KEY = {
    "/info": ("What is served, as Text Embeddings Inference says it", "application/json", "object"),
    "/v1/models": ("The names of the model, as OpenAI's API lists them", "application/json", "object"),
    "/metrics": ("Prometheus metrics", "text/plain", "string"),
}


def description(models: Sequence[str], limits: Limits, *, key: bool, instructions: bool) -> dict[str, Any]:
    """Return the OpenAPI description of a server.

    Args:
        models: The names that `model` may have; the first is the one served.
        limits: What it takes.
        key: Whether it wants one.
        instructions: Whether what is served follows any.
    """
    shapes = schemas()
    cohere, tei = shapes["CohereBody"]["properties"], shapes["TEIBody"]["properties"]
    cohere["model"] = {"enum": [*models, None], "description": cohere["model"]["description"]}
    if not instructions:
        cohere["instruction"] = {"type": "null", "description": "What is served here follows none."}
    # The limit is of every list in a body: they are counted as they arrive, before anybody knows their names.
    for items in (cohere["documents"], tei["texts"], cohere["rank_fields"]["anyOf"][0]):
        items["maxItems"] = limits.max_documents
    closed: dict[str, Any] = {"security": [{"key": []}]} if key else {}
    paths: dict[str, Any] = {path: {"post": _rerank(path) | closed} for path in RERANK}
    for path in ("/healthz", "/health"):
        paths[path] = {"get": _told("How it stands", "application/json", {"type": "object"})}
    for path, (summary, kind, schema) in _WITH_KEY.items():
        paths[path] = {"get": _told(summary, kind, {"type": schema}) | closed}
        if key:
            paths[path]["get"]["responses"]["401"] = _refused(401)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"rerank-plugins: {models[0]}",
            "version": __version__,
            "description": f"At most {limits.max_documents:,} documents and {limits.max_body_mb:g} MB in a request.",
        },
        "paths": paths,
        "components": {
            "schemas": shapes,
            **({"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if key else {}),
        },
    }


def info(model: str, dtype: str | None, capabilities: Capabilities, limits: Limits) -> dict[str, Any]:
    """Return what `GET /info` of Text Embeddings Inference returns, which its clients (Dify's, say) read first.

    https://github.com/huggingface/text-embeddings-inference, `Info` in router/src/lib.rs (read in November 2026).

    Args:
        model: The name of the model.
        dtype: What it computes in, where known.
        capabilities: What the scorer takes.
        limits: What the server takes.
    """
    # Where the number of tokens is not bounded, the body is: no token is shorter than a byte.
    longest = capabilities.max_tokens or limits.max_body
    return {
        "model_id": model,
        "model_sha": None,
        "model_dtype": dtype or "float32",
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": limits.max_queue,
        "max_input_length": longest,
        "max_batch_tokens": longest * limits.max_documents,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def model_list(models: Sequence[str], created: int) -> dict[str, Any]:
    """Return the names of the model as `GET /v1/models` of OpenAI's API does; `created` in Unix seconds."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "rerank-plugins"} for name in models]
    return {"object": "list", "data": data}


def _rerank(path: str) -> dict[str, Any]:
    both = path == "/rerank"
    bodies: list[dict[str, Any]] = [_ref("CohereBody")]
    answers: list[dict[str, Any]] = [_ref("CohereAnswer")]
    if both:
        bodies, answers = [*bodies, _ref("TEIBody")], [*answers, {"type": "array", "items": _ref("TEIResult")}]
    return {
        "summary": "Order documents by how well they answer a query" + (" (Cohere's shape, or TEI's)" if both else ""),
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": bodies}}}},
        "responses": {
            "200": {"description": "best first", "content": {"application/json": {"schema": {"anyOf": answers}}}},
            **{str(status): _refused(status) for status in _REFUSALS},
        },
    }


def _refused(status: int) -> dict[str, Any]:
    return {"description": _REFUSALS[status], "content": {"application/json": {"schema": _ref("Error")}}}


def _told(summary: str, kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def page(told: Mapping[str, Any]) -> str:
    """Return the description as HTML: no script, nothing from elsewhere."""
    rows = "".join(
        f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(operation['summary'])}</p><ul>"
        + "".join(
            f"<li><b>{status}</b> {html.escape(each['description'])}</li>"
            for status, each in operation["responses"].items()
        )
        + "</ul>"
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
    )
    shapes = html.escape(json.dumps(told["components"]["schemas"], indent=2))
    title = html.escape(told["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}</style>"
        f"<h1>{title}</h1><p>{html.escape(told['info']['description'])} "
        f'As data: <a href="openapi.json">openapi.json</a>.</p>{rows}<h2>Shapes</h2><pre>{shapes}</pre></html>'
    )

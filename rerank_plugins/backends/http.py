"""Any server with a `/rerank` route: gateways, and servers without a backend or a preset of their own here.

Sends `{"model", "query", "documents"}` and reads `{"results": [{"index", "relevance_score"}]}`. This is the format of
Cohere's v1 and v2 API, which many servers and gateways share (https://docs.cohere.com/reference/rerank and
https://docs.vllm.ai; read in November 2026). Options rename the path and the fields, put texts into objects, and read
bare scores: a table in `rerank.toml` can describe a server as a preset does. The name of
a field may be a path with dots: `"parameters.truncate"`.
"""

from __future__ import annotations

from dataclasses import fields

from pydantic import field_validator

from ..core.errors import ConfigError
from ..core.types import Capabilities, Scale
from ..options import Count, refused
from .formats import FormattedBackend, FormattedOptions, header_name, resolved
from .presets.row import Columns, Format

__all__ = ["HTTP"]


class HTTPOptions(FormattedOptions, Columns):  # type: ignore[misc]  # both are frozen: pydantic by `model_config`
    """Options of a server with a route like Cohere's. `base_url` is required; `api_key` is the bearer token."""

    scale: Scale = "unit"
    """The scale of the scores: `unit`, `logit`, `cosine` or `ordinal`."""
    max_query_tokens: Count | None = None
    """The largest number of tokens of the query."""
    max_document_tokens: Count | None = None
    """The largest number of tokens of one document, for a server that counts it apart from the query."""
    max_total_tokens: Count | None = None
    """The largest number of tokens in one request."""
    max_bytes: Count | None = None
    """The largest number of bytes in one request."""
    listwise: bool = False
    """Whether a document's score depends on the other documents; such requests are never split."""

    @field_validator("query_field", "documents_field")
    @classmethod
    def _is_a_field(cls, name: str) -> str:
        if not name:
            raise refused("must name a field of the body, since the server cannot score what is not sent")
        return name

    @field_validator("key_header")
    @classmethod
    def _is_a_header(cls, name: str | None) -> str | None:
        return None if name is None else header_name(name)


class HTTP(FormattedBackend):
    """The backend of a server of your own, at `base_url`."""

    Options = HTTPOptions
    key_required = False
    learns_limits = False

    def __init__(self, model: str | None = None, options: HTTPOptions | None = None) -> None:
        """Read the options. Without `model`, the body has no field for one."""
        options = options or HTTPOptions()
        if options.document_id_field and not options.document_text_field:
            raise ConfigError("http.document_id_field needs http.document_text_field: an id stands in an object.")
        super().__init__(model, **options.shared())
        self.path_option = f"{self.name}.path" if "path" in options.model_fields_set else ""
        self._headers, self._body = resolved(options.headers or {}), resolved(options.body or {})
        self._set_format(Format(**{column.name: getattr(options, column.name) for column in fields(Columns)}))
        self.capabilities = Capabilities(
            scale=options.scale,
            scale_option='scale = "logit"',
            max_documents=options.max_documents,
            max_tokens=options.max_tokens,
            max_query_tokens=options.max_query_tokens,
            max_document_tokens=options.max_document_tokens,
            max_total_tokens=options.max_total_tokens,
            max_bytes=options.max_bytes,
            listwise=options.listwise,
            instructions=bool(options.instruction_field),
            cuts=False,  # for one document that is too long, many servers refuse the whole request
        )

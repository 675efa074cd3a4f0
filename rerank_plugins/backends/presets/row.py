"""What one row of a preset says: where a vendor or server listens, and how its route differs from Cohere's.

Rows are data. `formats.py` encodes requests and reads replies by a `Format`; `preset_backend.py` makes a backend of a
row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...core.types import Capabilities, Scale

__all__ = ["Authentication", "Columns", "Confirmed", "Format", "Preset", "Setting"]

Confirmed = Literal["docs", "sdk", "server"]
"""How a format was confirmed: by the vendor's documentation only, by the types or requests of the vendor's own package,
or by a run against the real server."""
Authentication = Literal["key", "google", "ibm", "aws"]
"""How requests are authenticated: with the key itself, or with what is made of it: an access token of Google or of IBM
Cloud, a signature of AWS."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How a route differs from Cohere's `/v1/rerank`: the columns of a row, and the options of `http`.

    The names of fields may be paths with dots: `"parameters.truncate"` is the field `truncate` in the object
    `parameters`. This module is read without pydantic, which takes the fields of a dataclass over.
    """

    path: str = "/rerank"
    """The path of the route; added to `base_url` unless that ends in it, so `""` adds nothing. `{model}` in it is
    the model's name with its slashes; in `{model_id}` they are quoted, and in `{model_path}` dots are underscores."""
    key_header: str | None = None
    """The header that holds the key, such as `Api-Key`; without it, `Authorization: Bearer KEY` is sent."""
    model_field: str | None = "model"
    """The field of the model in the body; `""` or `None` if the body has none."""
    query_field: str = "query"
    """The field of the query in the body."""
    query_text_field: str | None = None
    """For a server that takes the query as an object: the field of its text in that object."""
    query_per_document: bool = False
    """Whether the query is sent as a list that repeats it for each document."""
    documents_field: str = "documents"
    """The field of the documents in the body."""
    document_text_field: str | None = None
    """For a server that takes documents as objects: the field of a document's text in its object."""
    document_id_field: str | None = None
    """The field of such an object that holds the document's position as a string; the server repeats that string in
    `index_field`."""
    instruction_field: str | None = None
    """The field of the instruction in the body, for a server that follows one."""
    top_n_field: str | None = None
    """The field of the number of results, for a server that requires one. The number of documents is sent; `top_n` is
    applied here."""
    results_field: str | None = "results"
    """The field of the reply that has the list of results; `""` or `None` if the reply is that list, as SGLang's is."""
    index_field: str | None = "index"
    """The field of a result that has the document's position; `""` or `None` if results come in the order of the
    documents."""
    score_field: str | None = "relevance_score"
    """The field of a result that has the score; `""` or `None` if the results are the scores, in the order of the
    documents."""
    usage_field: str | None = None
    """The field of the reply that has the number of tokens; without it, the usual places are read."""
    units_field: str | None = None
    """The field of the reply that has the number of search units."""


@dataclass(frozen=True, kw_only=True)
class Format(Columns):
    """The columns of a route, with what every request carries besides."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value that the address or the body needs: `{NAME}` in the row stands for the option of that name."""

    variables: tuple[str, ...] = ()
    """Environment variables that are read without the option, first one first."""
    default: str | None = None
    """The value without either."""
    needed_by: Literal["address", "request", "nothing"] = "address"
    """What cannot do without it. An address of the user's own replaces the address, so it needs no such setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A vendor or a server that differs from others in data alone."""

    name: str
    """The backend's name in specs."""
    title: str
    """What it is, in a few words."""
    kind: Literal["hosted", "server"] = "hosted"
    """`server` for what users run themselves."""
    base_url: str = ""
    """The address. Empty: `base_url` is required."""
    base_url_variables: tuple[str, ...] = ()
    """Environment variables that replace the address."""
    model: str = ""
    """The default model. Empty: there is none, and no field for one is sent unless the spec names a model."""
    model_required: bool = False
    """Whether a request without a model fails."""
    key_variables: tuple[str, ...] = ()
    """Environment variables of the key, first one first."""
    key_required: bool = True
    """Whether a missing key is an error."""
    authentication: Authentication = "key"
    """What requests carry."""
    extra: str | None = None
    """The extra of this package that it needs."""
    packages: tuple[str, ...] = ()
    """The modules of that extra."""
    options: str = "PresetOptions"
    """The class of its options in `preset_options.py`."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """What the address and the body need besides the model and the key."""
    one_of: tuple[str, ...] = ()
    """Settings of which one is needed."""
    format: Format = field(default_factory=Format)
    """The route."""
    bodies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """More fields of the body, by the beginning of the model's name."""
    limits: Capabilities = field(default_factory=Capabilities)
    """Scale and limits."""
    models: Mapping[str, Capabilities] = field(default_factory=dict)
    """Scale and limits of models that differ."""
    scales: Mapping[str, Scale] = field(default_factory=dict)
    """Scale by a part of the model's name, in lower case: for servers that answer as the model does."""
    info: str = ""
    """How the server says its limits: a key of `READERS` in `server_info.py`; empty if it has no route for that."""
    transient_statuses: frozenset[int] = frozenset()
    """Statuses below 500 for failures that may pass, beyond the usual ones."""
    retired: Mapping[str, str] = field(default_factory=dict)
    """Models that are gone or on their way out, and what is known of that."""
    source: str
    """Where the format stands: a URL, or a package with its version and module."""
    read: str
    """When the source was read: YYYY-MM-DD."""
    confirmed: Confirmed
    """How the format was confirmed."""
    confirmed_by: str = ""
    """Name and version of the package or server that confirmed it."""
    price: str = ""
    """The page with the vendor's prices; for a server, the licence."""
    notes: str = ""
    """What a user should know besides."""

"""Encodes requests and reads replies by a `Format`, for `http` and for the presets."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any
from urllib.parse import quote, unquote

from pydantic import AfterValidator

from ..core.address import SECRET_NAME, looks_secret
from ..core.errors import ConfigError
from ..core.reply import reported_usage, token_count, unit_count
from ..core.secret import Secret
from ..core.types import RerankRequest, Usage
from ..options import Count, HostedOptions, Sealed, SecretText, refused
from .presets.row import Format
from .server_info import InformedBackend

__all__ = ["FormattedBackend", "FormattedOptions", "header_name", "resolved"]

_SCHEME = re.compile(r"(basic|bearer|digest|token|key|api-?key)\s", re.IGNORECASE)
"""The beginning of a header that holds a key."""
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_OF_MODEL = ("{model}", "{model_id}", "{model_path}")
_WRITTEN = ("model_field", "query_field", "documents_field", "instruction_field", "top_n_field")
"""The columns that name fields of the body."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def header_name(name: str) -> str:
    """Return `name` if it can be the name of a header."""
    if not _TOKEN.fullmatch(name):
        raise refused(f"has a header {name!r}, but the name of a header has letters, digits and hyphens only")
    return name


def _checked_headers(value: dict[str, Secret]) -> dict[str, Secret]:
    for name, secret in value.items():
        header_name(name)
        if any(character in secret.reveal() for character in "\r\n\0"):
            raise refused(f"has a line break in the header {name!r}, but a header is one line")
    return value


class FormattedOptions(HostedOptions):
    """Options of `http` and of the presets."""

    headers: Annotated[dict[str, SecretText], AfterValidator(_checked_headers)] | None = None
    """More headers. A value may be `"env:NAME"`; any other value is a secret, and left out where the spec is stored."""
    body: dict[str, Sealed] | None = None
    """More fields of the body. A string in it may be `"env:NAME"`, as in `headers`."""
    max_documents: Count | None = None
    """The largest number of documents in one request."""
    max_tokens: Count | None = None
    """The largest number of tokens of the query and one document; a longer document is cut before it is sent."""


class FormattedBackend(InformedBackend):
    """A backend whose route is described by a `Format`, with more headers and body fields of the user's own."""

    format: Format
    _headers: Mapping[str, Any]
    """Headers of the spec, as secrets."""
    _body: Mapping[str, Any]
    """Body fields of the spec; the strings in it are secrets."""

    def headers(self) -> Mapping[str, str]:
        """Return the key, the headers of the format and those of the spec."""
        name = self.format.key_header
        key = {name: self._key.reveal()} if name and self._key is not None else super().headers()
        if not self.format.headers and not self._headers:
            return key
        return {**key, **self.format.headers, **_revealed(self._headers)}

    def _set_format(self, columns: Format, settings: Iterable[str] = ()) -> None:
        """Set the format, after checking that its path and its fields fit together.

        Args:
            columns: The format, whose path has the values of the settings already.
            settings: Their names, for the error.

        Raises:
            ConfigError: The path has an unknown placeholder, or the model's name cannot stand in it; or a field of the
                body would replace another.
        """
        path = columns.path
        for placeholder in _PLACEHOLDER.findall(path):
            if placeholder not in _OF_MODEL:
                known = ", ".join((*_OF_MODEL, *(f"{{{name}}}" for name in settings)))
                raise ConfigError(f"{self.name}.path has {placeholder}, which stands for nothing: it may have {known}.")
        if "{model" in path:
            self._check_model(path)
        for column, other in itertools.permutations(_WRITTEN, 2):
            outer, inner = getattr(columns, column), getattr(columns, other)
            unused = "model_field" in (column, other) and not self.model
            if outer and inner and not unused and f"{inner}.".startswith(f"{outer}."):
                raise ConfigError(
                    f"{self.name}.{column} is {outer!r} and {self.name}.{other} is {inner!r}, so one would replace the "
                    "other: give each a field of its own."
                )
        self.format = columns

    def _check_model(self, path: str) -> None:
        if not self.model:
            raise ConfigError(
                f"{self.name}.path is {path!r}, and the spec names no model: write use = '{self.name}:MODEL'."
            )
        # HTTP clients and servers resolve such segments, some after decoding: then the request has another path.
        if not {".", ".."}.isdisjoint(re.split(r"[/\\]", unquote(self.model))):
            raise ConfigError(
                f"The model of {self.name} is a part of the path, so it may not have '.' or '..' between slashes: "
                f"write the model's name after '{self.name}:' as the vendor spells it."
            )

    @cached_property
    def _path(self) -> str:
        """The path of the format with the model's name in it."""
        path = self.format.path.replace("{model}", quote(self.model, safe="/"))
        path = path.replace("{model_id}", quote(self.model, safe=""))
        return path.replace("{model_path}", quote(self.model.replace(".", "_"), safe="/"))

    def credentials(self) -> tuple[str, ...]:
        """Return the key and every string in the headers and the body of the spec, which errors must not show."""
        if not self._headers and not self._body:
            return super().credentials()
        secrets = [*_secret_strings(self._headers), *_secret_strings(self._body)]
        # `Bearer KEY`: hide the key alone, too. The last word of any other text, such as a title, hides nothing.
        words = (
            value.rpartition(" ")[2]
            for name, value in secrets
            if SECRET_NAME.search(name) or _SCHEME.match(value) or looks_secret(value.rpartition(" ")[2])
        )
        return (*super().credentials(), *(value for _, value in secrets), *words)

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the path and the body that the format describes."""
        columns = self.format
        query: Any = request.query if not columns.query_text_field else {columns.query_text_field: request.query}
        written = {
            columns.model_field if self.model else None: self.model,
            columns.query_field: [query] * len(request.documents) if columns.query_per_document else query,
            columns.documents_field: _objects(columns, request)
            if columns.document_text_field
            else [*request.documents],
            columns.instruction_field if request.instruction is not None else None: request.instruction,
            columns.top_n_field: len(request.documents),
        }
        payload: dict[str, Any] = _copied(columns.body) if columns.body else {}
        for name, value in written.items():
            if name and "." in name:
                _put(payload, name, value)
            elif name:
                payload[name] = value
        return self._path, self._with_own_fields(payload) if self._body else payload

    def _with_own_fields(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return `payload` with the body fields of the spec."""
        return _merged(payload, _revealed(self._body)) if self._body else payload

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        columns = self.format
        results = body
        if name := columns.results_field:
            results = body[name] if isinstance(body, dict) and name in body else _get(body, name)
        if not isinstance(results, list):
            raise TypeError(f"the results must be a list, got {type(results).__name__}")
        index, score = columns.index_field, columns.score_field
        if not score:
            return enumerate(results)
        if not index:
            return ((position, _get(result, score)) for position, result in enumerate(results))
        if columns.document_id_field:
            return ((_position(_get(result, index)), _get(result, score)) for result in results)
        if "." in index or "." in score:
            return ((_get(result, index), _get(result, score)) for result in results)
        return ((result[index], result[score]) for result in results)

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return the tokens and the search units, in the fields of the format or in the usual ones."""
        columns = self.format
        if not columns.usage_field and not columns.units_field:
            return reported_usage(body)
        tokens = token_count(_find(body, columns.usage_field))
        return Usage(input_tokens=tokens or None, search_units=unit_count(_find(body, columns.units_field)))


def resolved(value: Any) -> Any:
    """Return `value` with every secret of the form `env:NAME` read from the environment."""
    if isinstance(value, Mapping):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item) for item in value]
    return value.resolved() if isinstance(value, Secret) else value


def _objects(columns: Format, request: RerankRequest) -> list[dict[str | None, str]]:
    """Return the documents as objects, with their positions if the format has a field for those."""
    text_field, id_field = columns.document_text_field, columns.document_id_field
    if not id_field:
        return [{text_field: text} for text in request.documents]
    return [{id_field: str(position), text_field: text} for position, text in enumerate(request.documents)]


def _position(value: Any) -> int:
    """Return the position in the id that we sent: a string of digits. Anything else raises a ValueError."""
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal():
        raise ValueError("an id is none of those that were sent")  # its text is left out: it may be a document
    return int(value)


def _put(payload: dict[str, Any], name: str, value: Any) -> None:
    """Set a field of the body; `name` may be a path with dots."""
    *parents, last = name.split(".")
    for parent in parents:
        payload = payload.setdefault(parent, {})
    payload[last] = value


def _get(body: Any, name: str) -> Any:
    """Return a field of a reply; `name` may be a path with dots. Raises a KeyError or TypeError if there is none."""
    if isinstance(body, Mapping) and name in body:
        return body[name]
    for part in name.split("."):
        body = body[part]
    return body


def _find(body: Any, name: str | None) -> Any:
    """Return a field of a reply, or `None` if there is none."""
    if not name:
        return None
    try:
        return _get(body, name)
    except (KeyError, TypeError, IndexError):
        return None


def _copied(value: Any) -> Any:
    """Return a copy of a row's constant that may be changed."""
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _merged(payload: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return `payload` with `more` in it: an object in both is merged, any other value is replaced."""
    for key, value in more.items():
        own = payload.get(key)
        payload[key] = _merged(own, value) if isinstance(own, dict) and isinstance(value, Mapping) else value
    return payload


def _revealed(value: Any) -> Any:
    """Return `value` with every secret as a plain string."""
    if isinstance(value, Mapping):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_revealed(item) for item in value]
    return value.reveal() if isinstance(value, Secret) else value


def _secret_strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every secret in `value` as a plain string, behind the names of the fields or of the header it is in."""
    if isinstance(value, Secret):
        yield name, value.reveal()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secret_strings(item, f"{name}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _secret_strings(item, name)

"""Parses a plain spec into typed, valid settings.

`RerankerOptions` combines the option models that policies and backends declare beside their own code. `parse_spec`
validates a plain mapping and the specs inside it. `build` relies on that and validates no option again.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, PrivateAttr, WithJsonSchema

from ..core.choices import described, nearest, unknown
from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..options import (
    Count,
    Fraction,
    HostedOptions,
    LocalOptions,
    Options,
    OrBool,
    Seconds,
    Short,
    names,
    parse,
    refused,
)
from ..policies.cache import CacheOptions
from ..policies.calibrate import CalibrationOptions
from ..policies.cascade import CascadeOptions
from ..policies.chunk import LongDocumentsOptions
from ..policies.circuit_breaker import BreakerOptions
from ..policies.diversify import DiversifyOptions
from ..policies.fallback import FallbackOptions
from ..policies.fusion import FuseOptions
from ..policies.rate_limit import LimitOptions
from ..policies.retry import RetryOptions
from .defaults import BackendSpec
from .error_tables import table_in_errors
from .registry import backend_class, entries, is_known, is_remote, options_model
from .sources import HOLDS_SPECS, NamedSpec, holds_client
from .unused import accepted, refuse_unused

__all__ = [
    "HOSTED",
    "LOCAL",
    "OPTIONS",
    "RerankerOptions",
    "backend_options",
    "check_tables",
    "parse_spec",
]

HOSTED = names(HostedOptions)
LOCAL = names(LocalOptions)
SHARED = dict.fromkeys((*HOSTED, *LOCAL)).keys()

INHERITED = ("retry", "timeout", "limit", "breaker", "cache")
"""Options that a string inside a spec inherits from the spec around it."""
REMOTE_ONLY = ("limit", "breaker")
"""Of those, the options that a local model does not inherit: they concern a vendor's quota and failures."""
NOT_OF_A_CASCADE = ("use", "long_documents", "calibration", "api_key", "base_url", "max_in_flight", "price", *LOCAL)
INSTEAD = {
    "backend": "The backend is named by `use`: use = 'cohere:MODEL'.",
    "model": "The model is a part of `use`: use = 'BACKEND:MODEL', such as 'cohere:rerank-v4.0-fast'.",
    "name": "The backend is named by `use`: use = 'cohere:MODEL'.",
    "reranker": "The backend is named by `use`: use = 'embedded'.",
    "top_k": "The number of results is `top_n`.",
    **dict.fromkeys(
        ("fetch_k", "similarity_top_k"),
        "A reranker finds no candidates: their number is `fetch_k` of LangChain's RerankRetriever, `similarity_top_k` "
        "of LlamaIndex's engine.",
    ),
    **dict.fromkeys(("max_retries", "retries"), "The number of attempts, the first one included, is `retry`."),
    **dict.fromkeys(
        ("proxy", "proxies"), "The proxy is named by the environment variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
    ),
}
"""Option names of other packages, and the advice for each."""


def _index(value: Any) -> Any:
    """Return an integer of another library, such as NumPy, as a Python integer."""
    return value if isinstance(value, bool) or not hasattr(type(value), "__index__") else operator.index(value)


def _list_or_mapping(value: Any) -> Any:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | Mapping | FallbackOptions | None):
        raise refused(f"must be a list, such as ['embedded', 'passthrough'], or a mapping, got {described(value)}")
    return value


def _field_names(value: Any) -> tuple[str, ...]:
    valid = isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value)
    if not valid or len(set(value)) < len(value):
        raise refused(
            f"must be a list of different field names, such as ['title', 'body'], got {described(value)}"
            if not valid
            else "must be a list of different field names, and one is there twice"
        )
    return tuple(value)


class RerankerOptions(HostedOptions, LocalOptions):
    """A reranker: one backend or a cascade, and the policies around it."""

    use: str | None = None
    """Backend, or backend and model, such as `"embedded"`, `"cohere:rerank-v4.0-fast"` or `"onnx:./folder"`. Needed
    unless there is a `cascade`."""
    top_n: Annotated[Count, BeforeValidator(_index)] | None = None
    """Maximum number of results. By default all documents come back."""
    instruction: str | None = None
    """Text that tells the model what counts as relevant. The backend must be one that can follow an instruction."""
    score_threshold: Fraction | None = None
    """Lowest `relevance_score` of a result; documents below it are left out. It is not applied to a degraded answer. By
    default nothing is left out."""
    fields: (
        Annotated[
            Sequence[str],
            PlainValidator(_field_names),
            WithJsonSchema(
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True}
            ),
        ]
        | None
    ) = None
    """Names of the fields that are read from documents that are mappings, in this order. By default all text and number
    fields are read."""
    deadline: Seconds | None = None
    """Time limit of the whole call in seconds, including retries and fallbacks. By default there is none."""
    fallback: Annotated[
        FallbackOptions | None,
        Short("specs", {"type": "array", "items": {"$ref": "#/$defs/Spec"}}),
        BeforeValidator(_list_or_mapping),
    ] = None
    """Rerankers that answer if this one fails: a list of specs, tried in order, or a mapping. By default the error is
    raised."""
    on_error: Literal["raise", "degrade"] = "raise"
    """`raise` raises the error of a failed call. `degrade` adds `passthrough` as the last fallback, which keeps the
    retriever's order."""
    retry: Annotated[RetryOptions | None, Short("attempts")] = None
    """Number of attempts, including the first one, or a mapping. By default 3 for hosted backends and 1 for local
    ones."""
    limit: LimitOptions | None = None
    """Rate limit of the account. By default there is none."""
    breaker: Annotated[BreakerOptions | None, OrBool()] = None
    """Circuit breaker, which stops requests to a vendor that keeps failing: `true` or a mapping. By default off."""
    cache: Annotated[CacheOptions | None, OrBool()] = None
    """Cache of scores: `true` or a mapping. By default off."""
    long_documents: Annotated[LongDocumentsOptions | None, Short("mode")] = Field(
        default=LongDocumentsOptions.model_construct(mode="truncate")
    )
    """How documents longer than the backend's limit are handled: a mode or a mapping."""
    calibration: Annotated[CalibrationOptions | None, Short("path")] = None
    """Path of a calibration file, which turns scores into probabilities. By default the backend's own scale is used."""
    cascade: CascadeOptions | None = None
    """Several rerankers in sequence, each over the best documents of the one before. It replaces `use`."""
    fuse: FuseOptions | None = None
    """Rank fusion of this reranker with other rerankers or with the retriever's order. By default off."""
    diversify: Annotated[DiversifyOptions | None, OrBool()] = None
    """Reordering of the first results so that they differ from each other: `true` or a mapping. By default off."""

    _backend: BackendSpec | None = PrivateAttr(default=None)
    _table: str = PrivateAttr(default="")

    @property
    def backend(self) -> BackendSpec | None:
        """The backend, or `None` for a cascade."""
        return self._backend

    @property
    def table(self) -> str:
        """File and table of a named reranker inside another spec, for error messages; empty for other specs."""
        return self._table


OPTIONS = frozenset(names(RerankerOptions))


def parse_spec(
    settings: Mapping[str, Any], path: str = "", inherited: Mapping[str, Any] = MappingProxyType({})
) -> RerankerOptions:
    """Validate a spec in its long form, in which named rerankers are spelled out.

    Args:
        settings: See `sources.spelled_out`.
        path: Where the spec stands in the one around it, such as `fallback[1]`; empty for the whole spec.
        inherited: Values of `settings` that were validated as options of the spec around it.

    Raises:
        ConfigError: The first mistake in the spec; the message names the option.
        MissingExtra: The backend needs a package that is not installed.
    """
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key in OPTIONS:
            if value is not None or key not in SHARED:  # None is as if it were not written
                values[key] = value
        elif not is_known(key):
            raise _no_option(key, path)
        elif not isinstance(value, Mapping):
            raise ConfigError(f"{_at(path, key)} must be a mapping of {key}'s options, got {described(value)}.")
    cascade, kind = settings.get("cascade"), None
    if cascade is None:
        use = settings.get("use")
        if not use or not isinstance(use, str):
            raise _no_backend(use, path)
        kind = backend_class(use.partition(":")[0])
    elif isinstance(cascade, Mapping):
        _check_cascade(settings, path)
    if SHARED & settings.keys():
        inside = [backend_class(spec.partition(":")[0]) for _, spec in _specs_inside(settings) if isinstance(spec, str)]
        refuse_unused(settings, kind, inside, SHARED, INHERITED)
    # The options of this spec come first: a mistake in one that others inherit is reported where it is written.
    if values.keys() == {"use"}:
        options = RerankerOptions.model_construct(**values)  # as in `options.parse`: nothing else to check
    else:
        options = parse(RerankerOptions, {**values, **inherited}, path)
    if HOLDS_SPECS.keys() & values.keys():
        options = options.model_copy(update=_nested(options, settings, path))
    if kind is not None:
        options._backend = _backend(kind, settings, path)
    return options


def _specs_inside(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each spec that a plain spec holds, such as `("fallback[0]", "embedded")`."""
    for option, inner in HOLDS_SPECS.items():
        value = settings.get(option)
        at, specs = (f"{option}.{inner}", value.get(inner)) if isinstance(value, Mapping) else (option, value)
        for place, spec in enumerate(specs if isinstance(specs, list | tuple) else ()):
            yield f"{at}[{place}]", spec


def _nested(outer: RerankerOptions, settings: Mapping[str, Any], path: str) -> dict[str, Options]:
    """Return the options of `outer` that hold specs, with those specs parsed.

    Args:
        outer: The options of one spec.
        settings: The plain spec.
        path: Where it stands in the whole spec.
    """
    nested: dict[str, Options] = {}
    for option, inner in HOLDS_SPECS.items():
        holder = getattr(outer, option)
        field = "partners" if inner == "with" else inner  # `with` is a keyword of Python
        if holder is None or isinstance(specs := getattr(holder, field), str):
            continue
        at = _at(path, f"{option}.{inner}" if isinstance(settings[option], Mapping) else option)
        parsed = [_parse_inside(each, outer, settings, f"{at}[{place}]") for place, each in enumerate(specs)]
        nested[option] = holder.model_copy(update={field: parsed})
    return nested


def _parse_inside(spec: Any, outer: RerankerOptions, settings: Mapping[str, Any], path: str) -> RerankerOptions:
    """Parse a spec inside another: a string inherits options of the outer one, a mapping does not."""
    if isinstance(spec, str):
        own = _inheriting(spec, settings)
        return parse_spec(own, path, {key: getattr(outer, key) for key in own if key != "use"})
    if not isinstance(spec, NamedSpec) or not spec.table:
        return parse_spec(spec, path)
    with table_in_errors(spec.table):
        options = parse_spec(spec)
    options._table = spec.table
    return options


def _inheriting(use: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    remote = is_remote(use.partition(":")[0])
    inherited = {"use": use}
    for key in INHERITED:
        if key in settings and (remote or key not in REMOTE_ONLY):
            inherited[key] = settings[key]
    if "timeout" in inherited and not remote and "timeout" not in accepted(backend_class(use.partition(":")[0])):
        del inherited["timeout"]  # `refuse_unused` would refuse it
    return inherited


def _no_backend(use: Any, path: str) -> ConfigError:
    if use:
        return ConfigError(f"{_at(path, 'use')} must be a string, got {described(use)}.")
    wrong = "an empty string" if use == "" else described(use)
    return ConfigError(f"{_at(path, 'use')} must name a backend, such as use = 'embedded', got {wrong}.")


def _backend(kind: type[Backend], settings: Mapping[str, Any], path: str) -> BackendSpec:
    name, _, model = settings["use"].partition(":")
    if isinstance(cache := settings.get("cache"), Mapping) and cache.get("kind") == "disk":
        if holds_client(settings.get(name)):
            raise ConfigError(
                "A disk cache cannot identify the scores of your own `client` after a restart: use cache = true "
                "(memory)."
            )
    arguments = backend_options(name, kind, settings, path)
    if model:
        if "model" not in inspect.signature(kind).parameters:
            raise ConfigError(f"{_at(path, 'use')}: {name} has no models. Write {name!r}.")
        arguments["model"] = model
    return BackendSpec(name, kind, arguments, settings)


def backend_options(name: str, kind: type[Backend], settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the arguments of a backend's constructor, from the shared options of a spec and the backend's own table.

    Raises:
        ConfigError: The backend has no such option, or a value is not valid.
    """
    own = settings.get(name, {})
    table = f"{path}.{name}" if path else name
    model: type[Options] | None = options_model(kind)
    if model is not None:
        top = {key for key in SHARED & set(names(model)) if settings.get(key) is not None}
        values = {key: settings[key] for key in top}
        return {"options": parse(model, {**values, **own}, table, top=top - own.keys(), top_path=path)}
    known = accepted(kind)
    for key in own:
        if key not in known:
            raise unknown(f"option of {table}", key, known)
    # The shared options have known types. The types of the other options are only known to the constructor.
    parse(RerankerOptions, {key: value for key, value in own.items() if key in SHARED}, table)
    return {key: settings[key] for key in known if key in SHARED and settings.get(key) is not None} | dict(own)


def check_tables(settings: Mapping[str, Any], path: str = "") -> None:
    """Check all tables of backends in a valid spec, including unused ones; skip backends that are not installed.

    Loading a reranker does not check unused tables, because that would import their backends.

    Raises:
        ConfigError: The backend has no such option, or a value is not valid.
    """
    for name, value in settings.items():
        if name in OPTIONS:
            continue
        if entries()[name].missing_package() is None:
            backend_options(name, backend_class(name), {name: value}, path)
    for place, spec in _specs_inside(settings):
        if isinstance(spec, Mapping):
            check_tables(spec, _at(path, place))


def _check_cascade(settings: Mapping[str, Any], path: str) -> None:
    for key in NOT_OF_A_CASCADE:
        if settings.get(key) is not None:
            raise ConfigError(
                f"A cascade has no {_at(path, key)} of its own: write it in the stage that it is for, as a mapping."
            )


def _no_option(key: str, path: str) -> ConfigError:
    error = unknown(f"option of {path}" if path else "option", key, OPTIONS)
    if (near := nearest(key, [*OPTIONS, *entries()])) is not None and near not in OPTIONS:
        return ConfigError(f"{str(error).partition('. ')[0]}. Did you mean the table {near!r}?")
    if key not in INSTEAD:
        return error
    return ConfigError(
        f"{str(error).partition('. ')[0]}. {INSTEAD[key]} The options are: {', '.join(sorted(OPTIONS))}."
    )


def _at(path: str, option: str) -> str:
    return f"{path}.{option}" if path else option

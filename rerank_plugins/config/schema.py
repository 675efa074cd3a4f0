"""A spec as typed settings: everything that can be checked before anything is built is checked here.

`RerankerOptions` is put together from the options that policies and backends declare beside their own code. `parse_spec`
makes one of a plain mapping, the specs inside it included; what it returns is valid, so `build` checks no option again.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ..policies.breaker import BreakerOptions
from ..policies.cache import CacheOptions
from ..policies.calibrate import CalibrationOptions
from ..policies.cascade import CascadeOptions
from ..policies.chunk import LongDocumentsOptions
from ..policies.diversify import DiversifyOptions
from ..policies.fallback import FallbackOptions
from ..policies.fuse import FuseOptions
from ..policies.limit import LimitOptions
from ..policies.retry import RetryOptions
from .registry import backend_class, entries, is_known, is_remote
from .sources import HOLDS_SPECS, holds_client
from .unused import accepted, refuse_unused

__all__ = [
    "HOSTED",
    "LOCAL",
    "OPTIONS",
    "BackendSpec",
    "RerankerOptions",
    "backend_options",
    "check_tables",
    "parse_spec",
]

HOSTED = names(HostedOptions)
LOCAL = names(LocalOptions)
SHARED = dict.fromkeys((*HOSTED, *LOCAL)).keys()

INHERITED = ("retry", "timeout", "limit", "breaker", "cache")
"""What a string inside a spec takes from the spec around it."""
REMOTE_ONLY = ("limit", "breaker")
"""… unless it is a local model: a vendor's quota is none of its business."""
NOT_OF_A_CASCADE = ("use", "long_documents", "calibration", "api_key", "base_url", "max_in_flight", "price", *LOCAL)
INSTEAD = {
    "backend": "The backend is named by `use`: use = 'cohere:MODEL'.",
    "model": "The model is a part of `use`: use = 'BACKEND:MODEL', such as 'cohere:rerank-v4.0-fast'.",
    "name": "The backend is named by `use`: use = 'cohere:MODEL'.",
    "reranker": "The backend is named by `use`: use = 'embedded'.",
    "top_k": "How many results come back is `top_n`.",
}
"""Names that other packages have for an option, and what is written here."""


def _index(value: Any) -> Any:
    """Return an integer of NumPy, say, as Python's."""
    return value if isinstance(value, bool) or not hasattr(type(value), "__index__") else operator.index(value)


def _field_names(value: Any) -> tuple[str, ...]:
    valid = isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value)
    if not valid or len(set(value)) < len(value):
        raise refused(
            f"must be a list of different field names, such as ['title', 'body'], got {described(value)}"
            if not valid
            else "must be a list of different field names, and one is there twice"
        )
    return tuple(value)


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One backend as it is constructed; nothing is loaded yet."""

    name: str
    kind: type[Backend]
    arguments: Mapping[str, Any]
    """Of its constructor."""
    settings: Mapping[str, Any]
    """The plain spec that names it."""


class RerankerOptions(HostedOptions, LocalOptions):
    """A reranker: one backend or a cascade, and the policies around it."""

    use: str | None = None
    """The backend, or backend and model: `"embedded"`, `"cohere:rerank-v4.0-fast"`, `"onnx:./folder"`."""
    top_n: Annotated[Count, BeforeValidator(_index)] | None = None
    """How many results come back; without it all."""
    instruction: str | None = None
    """What relevant means, for models that follow such a text."""
    score_threshold: Fraction | None = None
    """Leave out what has a `relevance_score` below it; never applied to a degraded answer."""
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
    """Of documents that are mappings, the fields that are read, in this order; without it all text and number fields."""
    deadline: Seconds | None = None
    """Seconds for the whole call, retries and fallbacks included."""
    fallback: Annotated[
        FallbackOptions | None, Short("specs", {"type": "array", "items": {"$ref": "#/$defs/Spec"}})
    ] = None
    """What answers where this reranker cannot: a list of specs, or a mapping."""
    on_error: Literal["raise", "degrade"] = "raise"
    """`degrade`: the last fallback is `passthrough`, the order given."""
    retry: Annotated[RetryOptions | None, Short("attempts")] = None
    """Attempts in all, or a mapping; 3 for hosted backends, 1 for local ones."""
    limit: LimitOptions | None = None
    """What the account may send in a minute."""
    breaker: Annotated[BreakerOptions | None, OrBool()] = None
    """Leave a vendor alone that keeps failing: `true`, or a mapping."""
    cache: Annotated[CacheOptions | None, OrBool()] = None
    """Keep scores that were paid for: `true`, or a mapping."""
    long_documents: Annotated[LongDocumentsOptions | None, Short("mode")] = Field(
        default=LongDocumentsOptions.model_construct(mode="truncate")
    )
    """What happens to a document that is longer than the backend reads: a mode (`"truncate"` unless written), or a mapping."""
    calibration: Annotated[CalibrationOptions | None, Short("path")] = None
    """The file of a calibration, which makes scores probabilities."""
    cascade: CascadeOptions | None = None
    """Several rerankers in turn, instead of `use`."""
    fuse: FuseOptions | None = None
    """Join this reranker's order with others."""
    diversify: Annotated[DiversifyOptions | None, OrBool()] = None
    """Spread out the first documents: `true`, or a mapping."""

    _backend: BackendSpec | None = PrivateAttr(default=None)

    @property
    def backend(self) -> BackendSpec | None:
        """The backend, unless this is a cascade."""
        return self._backend


OPTIONS = frozenset(names(RerankerOptions))


def parse_spec(settings: Mapping[str, Any], path: str = "") -> RerankerOptions:
    """Return a spec in its long form, whose named rerankers are spelled out, as typed settings.

    Args:
        settings: See `sources.spelled_out`.
        path: Where it stands in the spec around it, such as `fallback[1]`; empty for the whole.

    Raises:
        ConfigError: What is wrong first; the message names the option.
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
    inside: list[type[Backend]] = []
    for option, inner in HOLDS_SPECS.items():
        if (value := values.get(option)) is None:
            continue
        if isinstance(value, Mapping) and isinstance(specs := value.get(inner), list | tuple):
            values[option] = {**value, inner: _nested(specs, settings, _at(path, f"{option}.{inner}"), inside)}
        elif isinstance(value, list | tuple) and option == "fallback":
            values[option] = _nested(value, settings, _at(path, option), inside)
    cascade, kind = settings.get("cascade"), None
    if cascade is None:
        use = settings.get("use")
        if not use or not isinstance(use, str):
            raise _no_backend(use, path)
        kind = backend_class(use.partition(":")[0])
    elif isinstance(cascade, Mapping):
        _check_cascade(settings, path)
    if SHARED & settings.keys():
        refuse_unused(settings, kind, inside, SHARED, INHERITED)
    if values.keys() == {"use"}:
        options = RerankerOptions.model_construct(**values)  # as in `options.parse`: nothing else to check
    else:
        options = parse(RerankerOptions, values, path)
    if kind is not None:
        options._backend = _backend(kind, settings, path)
    return options


def _nested(
    specs: Sequence[Any], settings: Mapping[str, Any], path: str, inside: list[type[Backend]]
) -> list[RerankerOptions]:
    """Return specs inside another: a string takes the outer one's policies, a mapping stands alone.

    The backends of those that are strings are appended to `inside`.
    """
    nested = []
    for place, each in enumerate(specs):
        where = f"{path}[{place}]"
        if isinstance(each, str):
            options = parse_spec(_inheriting(each, settings), where)
            if options._backend is not None:
                inside.append(options._backend.kind)
        else:
            options = parse_spec(each, where)
        nested.append(options)
    return nested


def _inheriting(use: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    remote = is_remote(use.partition(":")[0])
    inherited = {"use": use}
    for key in INHERITED:
        if key in settings and (remote or key not in REMOTE_ONLY):
            inherited[key] = settings[key]
    if "timeout" in inherited and not remote and "timeout" not in accepted(backend_class(use.partition(":")[0])):
        del inherited["timeout"]  # it would be refused there, as an option that nothing uses
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
            raise ConfigError("A disk cache cannot tell what a `client` of yours asks: use cache = true (memory).")
    arguments = backend_options(name, kind, settings, path)
    if model:
        if "model" not in inspect.signature(kind).parameters:
            raise ConfigError(f"{_at(path, 'use')}: {name} has no models. Write {name!r}.")
        arguments["model"] = model
    return BackendSpec(name, kind, arguments, settings)


def backend_options(name: str, kind: type[Backend], settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the arguments of a backend's constructor: what is shared at the top of a spec, and the backend's own table.

    Raises:
        ConfigError: An option that the backend does not have, or a value that is refused.
    """
    own = settings.get(name, {})
    table = f"{path}.{name}" if path else name
    model: type[Options] | None = kind.Options
    if model is not None:
        top = {key for key in SHARED & set(names(model)) if settings.get(key) is not None}
        values = {key: settings[key] for key in top}
        return {"options": parse(model, {**values, **own}, table, top=top - own.keys())}
    known = accepted(kind)
    for key in own:
        if key not in known:
            raise unknown(f"option of {table}", key, known)
    # The shared options have types, wherever they stand. Of the others, only the constructor knows what they may be.
    parse(RerankerOptions, {key: value for key, value in own.items() if key in SHARED}, table)
    return {key: settings[key] for key in known if key in SHARED and settings.get(key) is not None} | dict(own)


def check_tables(settings: Mapping[str, Any], path: str = "") -> None:
    """Check the tables of backends that a valid spec does not use too; those of backends that are not installed pass.

    Loading does not: a table is inert under another backend, and reading it imports the backend.

    Raises:
        ConfigError: An option that the backend does not have, or a value that is refused.
    """
    for name, value in settings.items():
        if name in OPTIONS:
            continue
        if entries()[name].missing() is None:
            backend_options(name, backend_class(name), {name: value}, path)
    for option, inner in HOLDS_SPECS.items():
        value = settings.get(option)
        specs = value.get(inner) if isinstance(value, Mapping) else value
        for place, each in enumerate(specs if isinstance(specs, list | tuple) else ()):
            if isinstance(each, Mapping):
                at = f"{option}.{inner}" if isinstance(value, Mapping) else option
                check_tables(each, f"{_at(path, at)}[{place}]")


def _check_cascade(settings: Mapping[str, Any], path: str) -> None:
    for key in NOT_OF_A_CASCADE:
        if settings.get(key) is not None:
            raise ConfigError(
                f"A cascade has no {_at(path, key)} of its own: write it into the stage that it is for, as a mapping."
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

"""The strict pydantic base model of all options, and the options that hosted and local backends share.

A policy or a backend declares its options beside its own code, as a model on `Options`:

    class TEIOptions(HostedOptions):
        raw_scores: bool = False
        \"\"\"Ask for the model's logits instead of their sigmoid.\"\"\"

    class TEI(HostedBackend):
        Options = TEIOptions

        def __init__(self, model: str | None = None, options: TEIOptions | None = None) -> None:
            options = options or TEIOptions()
            super().__init__(model, **options.shared())

The models check each value once, before anything is built. Code that builds from a valid model checks nothing again.
`options` defaults to `None` instead of an instance, because pydantic compiles a model when its first instance is made,
and importing a backend should compile nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from .core.address import check_address
from .core.choices import described
from .core.credentials import FunctionKey, sealed_key
from .core.defaults import LIST, MAX_IN_FLIGHT, TIMEOUT
from .core.devices import devices
from .core.errors import ConfigError
from .core.numeric import MAX_INTEGER, MAX_SECONDS, MIN_TOKENS, finite, integer, seconds
from .core.secret import Secret, refuse_mask
from .option_errors import error_message, names

__all__ = [
    "CPU",
    "SPEC_SCHEMA",
    "URL",
    "Count",
    "Device",
    "FilePath",
    "Fraction",
    "HostedOptions",
    "Key",
    "LocalOptions",
    "Number",
    "Options",
    "OrBool",
    "PriceOptions",
    "Sealed",
    "Seconds",
    "SecretText",
    "Short",
    "Spec",
    "Tokens",
    "TorchOptions",
    "Wait",
    "checked",
    "has_number",
    "names",
    "number",
    "parse",
    "refused",
]


class Options(BaseModel):
    """Base of all option models: frozen, no unknown names, no type conversion, and no input values in errors.

    Example:
        >>> class AcmeOptions(Options):
        ...     depth: Count = 2
        >>> parse(AcmeOptions, {"depth": 0}, "acme")
        Traceback (most recent call last):
        rerank_plugins.core.errors.ConfigError: acme.depth must be an integer of at least 1, got 0.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        populate_by_name=True,
        defer_build=True,
    )


M = TypeVar("M", bound=Options)


def refused(reason: str) -> PydanticCustomError:
    """Return the error that a validator raises.

    Args:
        reason: What is wrong. It is put behind the option's name, and a full stop behind it.

    Returns:
        An error for pydantic, which `parse` turns into a `ConfigError`.

    Example:
        >>> refused("must be an even number")
        must be an even number [type=option, context={'reason': 'must be an even number'}]
    """
    return PydanticCustomError("option", "{reason}", {"reason": reason})


def has_number(*options: str) -> list[Any]:
    """Return a list of JSON Schemas, one per option, that a mapping matches if the option is a number in it.

    Args:
        *options: Names of options.

    Example:
        >>> has_number("depth")
        [{'required': ['depth'], 'properties': {'depth': {'type': 'number'}}}]
    """
    return [{"required": [option], "properties": {option: {"type": "number"}}} for option in options]


def checked(check: Callable[[Any, str], Any]) -> Callable[[Any], Any]:
    """Return a pydantic validator that runs a check of `rerank_plugins.core`.

    Args:
        check: A function of the value and the option's name. It returns the value or raises `ConfigError`.

    Example:
        >>> checked(integer)(3)
        3
    """

    def validate(value: Any) -> Any:
        try:
            return check(value, "")
        except ConfigError as error:
            # `parse` puts the option's path in front. The quoted value may be a key, so only its type is named.
            reason, separator, _ = str(error).strip().rstrip(".").partition(", got ")
            raise refused(f"{reason}{separator}{described(value) if separator else ''}") from None

    return validate


def _string(value: Any) -> Any:
    if not isinstance(value, str | Secret):
        raise refused(f"must be a string, got {described(value)}")
    return _sealed(value)


def _sealed(value: Any) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise refused(f"must have strings for keys, got {described(key)}")
        return {key: _sealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sealed(item) for item in value]
    if isinstance(value, FunctionKey):
        raise refused("must be plain data: only `api_key` itself may be a function")
    if isinstance(value, str | Secret):
        secret = value if isinstance(value, Secret) else Secret(value)
        checked(refuse_mask)(secret.reveal())
        return secret
    return value


def _device(value: Any, name: str) -> Any:
    names_of_devices = devices(value, name)
    return names_of_devices if len(names_of_devices) > 1 else names_of_devices[0]


class Short(BeforeValidator):
    """Annotation for an option that takes a mapping, or a bare value as shorthand for one entry of it (`retry = 3`).

    Args:
        option: Name of the entry in the mapping.
        json_schema: JSON Schema of the bare value; `None` uses that of the entry.

    Example:
        >>> class AcmeOptions(Options):
        ...     price: Annotated[PriceOptions | None, Short("per_search_unit")] = None
        >>> parse(AcmeOptions, {"price": 0.002}).price.per_search_unit
        0.002
    """

    option: str
    json_schema: Mapping[str, Any] | None

    def __init__(self, option: str, json_schema: Mapping[str, Any] | None = None) -> None:
        """Set the entry that a bare value stands for."""
        super().__init__(self._mapping)
        # The base is a frozen dataclass.
        object.__setattr__(self, "option", option)
        object.__setattr__(self, "json_schema", json_schema)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, get_json_schema: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return a JSON Schema that accepts a bare value or the mapping."""
        mapping = get_json_schema(schema)
        branches = mapping.get("anyOf", [mapping])
        own = self.json_schema or get_json_schema.resolve_ref_schema(branches[0])["properties"][self.option]
        return {"anyOf": [{key: each for key, each in own.items() if key not in ("default", "title")}, *branches]}

    def _mapping(self, value: Any) -> Any:
        return value if value is None or isinstance(value, Mapping | Options) else {self.option: value}


class OrBool(BeforeValidator):
    """Annotation for an option that takes a mapping, `true` (all defaults) or `false` (off).

    Example:
        >>> class AcmeOptions(Options):
        ...     hosted: Annotated[HostedOptions | None, OrBool()] = None
        >>> parse(AcmeOptions, {"hosted": True}).hosted.max_in_flight
        8
    """

    def __init__(self) -> None:
        """Add a step before the mapping's validation that turns a boolean into a mapping or `None`."""
        super().__init__(self._mapping)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, get_json_schema: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return a JSON Schema that accepts a boolean or the mapping."""
        return {"anyOf": [{"type": "boolean"}, get_json_schema(schema)]}

    @staticmethod
    def _mapping(value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else None
        if value is not None and not isinstance(value, Mapping | Options):
            raise refused(f"must be True, False or a mapping, got {described(value)}")
        return value


def number(
    kind: type[int | float], check: Callable[[Any, str], Any], low: float, high: float, *, above: bool = False
) -> tuple[PlainValidator, WithJsonSchema]:
    """Return the validator and the JSON Schema of a number option.

    Args:
        kind: `int` or `float`.
        check: A function of `core.numeric`. It converts numbers of other libraries and words the errors. Python's own
            numbers within the bounds skip it, because it is slower.
        low: The lower bound.
        high: The upper bound, inclusive.
        above: Whether `low` itself is refused.

    Returns:
        Two annotations, for `Annotated[kind, *number(...)]`.

    Example:
        >>> Percent = Annotated[int, *number(int, functools.partial(integer, low=0, high=100), 0, 100)]
    """
    validate = checked(check)
    plain = (int,) if kind is int else (float, int)

    def fast(value: Any) -> Any:
        if type(value) in plain and low <= value <= high and not (above and value == low):
            return kind(value)
        return validate(value)

    least = "exclusiveMinimum" if above else "minimum"
    return PlainValidator(fast), WithJsonSchema(
        {"type": "integer" if kind is int else "number", least: low, "maximum": high}
    )


Count = Annotated[int, *number(int, integer, 1, MAX_INTEGER)]
"""An integer of at least 1."""
Tokens = Annotated[int, *number(int, functools.partial(integer, low=MIN_TOKENS), MIN_TOKENS, MAX_INTEGER)]
"""An integer of at least 16: a query and a document need at least that many tokens."""
Seconds = Annotated[float, *number(float, seconds, 0, MAX_SECONDS, above=True)]
"""A number of seconds above 0."""
Wait = Annotated[float, *number(float, functools.partial(seconds, zero=True), 0, MAX_SECONDS)]
"""A number of seconds of at least 0."""
Number = Annotated[float, *number(float, functools.partial(finite, low=0.0, high=1e9), 0, 1e9)]
"""A finite number of at least 0."""
Fraction = Annotated[float, *number(float, functools.partial(finite, low=0.0, high=1.0), 0, 1)]
"""A number from 0 to 1."""


def _key(value: Any) -> Any:
    if isinstance(value, Secret):
        return value
    try:
        return sealed_key(value)
    except ConfigError as error:
        raise refused(str(error).removeprefix("api_key ").rstrip(".")) from None


Key = Annotated[Secret | FunctionKey, PlainValidator(_key), WithJsonSchema({"type": "string"})]
"""An API key: its text, `"env:NAME"`, `"file:PATH"` or a function. The type is not pydantic's `SecretStr`, which
pickles its value."""


URL = Annotated[
    str,
    PlainValidator(checked(check_address)),
    WithJsonSchema({"type": "string", "pattern": "^(https?://.+)?$"}),
]
"""A URL that starts with http:// or https://. Its user, password and query may be `env:NAME`."""
Device = Annotated[
    str | int | Sequence[str],
    PlainValidator(checked(_device)),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    ),
]
"""A device, or a list of GPUs of one kind. A list of one device becomes that device."""
CPU = Annotated[Literal["cpu", "auto"], BeforeValidator(checked(_device))]
"""The device of a backend that only runs on the CPU."""
SecretText = Annotated[Secret, PlainValidator(_string), WithJsonSchema({"type": "string"})]
"""A string that may be a credential, or `"env:NAME"`."""
Sealed = Annotated[Any, PlainValidator(_sealed), WithJsonSchema({})]
"""Any plain value. Every string in it becomes a `Secret`, because it may be a credential."""


def _path(value: Any) -> Any:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise refused(f"must be the path of a file, got {described(value) if value != '' else 'an empty string'}")
    return value


FilePath = Annotated[
    str | os.PathLike[str], PlainValidator(_path), WithJsonSchema({"type": "string", "minLength": 1, "format": "path"})
]
"""The path of a file."""
SPEC_SCHEMA = {"$ref": "#/$defs/Spec"}
Spec = Annotated[Any, WithJsonSchema(SPEC_SCHEMA)]
"""A spec inside a spec. `config.schema` parses it after the options that hold it."""


class PriceOptions(Options):
    """The vendor's prices in US dollars, from which `usage.cost_usd` is computed. At least one price is needed.

    Example:
        >>> parse(PriceOptions, {"per_million_tokens": 0.05}).per_million_tokens
        0.05
    """

    per_million_tokens: Number | None = None
    """US dollars for one million input tokens."""
    per_million_output_tokens: Number | None = None
    """US dollars for one million output tokens, where the vendor charges for them: chat models."""
    per_million_cached_tokens: Number | None = None
    """US dollars for one million input tokens that the vendor read from its prompt cache. Without it they cost
    `per_million_tokens`."""
    per_search_unit: Number | None = None
    """US dollars for one search unit (Cohere: one query with up to 100 documents)."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": has_number(
                "per_million_tokens", "per_million_output_tokens", "per_million_cached_tokens", "per_search_unit"
            )
        }
    )

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise refused(f"needs one or more of {', '.join(type(self).model_fields)}, in US dollars")
        return self


class _OrList:
    """Annotation for the option `price`: a mapping, or the word `list`.

    It stands for a union of the two, whose errors would name pydantic's branches instead of the option.
    """

    def __get_pydantic_core_schema__(self, _: Any, make_schema: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Return the schema of the mapping behind a step that lets the word pass."""
        return core_schema.no_info_wrap_validator_function(
            self._validate, make_schema.generate_schema(PriceOptions | None)
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, get_json_schema: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return a JSON Schema that accepts the word or the mapping."""
        mapping = get_json_schema(schema)
        return {"anyOf": [{"const": LIST}, *mapping.get("anyOf", [mapping])]}

    @staticmethod
    def _validate(value: Any, validate: Callable[[Any], Any]) -> Any:
        if isinstance(value, str) and value == LIST:
            return LIST
        if value is not None and not isinstance(value, Mapping | Options):
            options = ", ".join(names(PriceOptions))
            raise refused(f"must be a mapping or {LIST!r}, got {described(value)}. Its options are: {options}")
        return validate(value)


class HostedOptions(Options):
    """The options of every backend that sends requests over the network.

    Example:
        >>> parse(HostedOptions, {"timeout": 5}).timeout
        5.0
    """

    api_key: Key | None = None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: URL | None = Field(default=None, repr=False)
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: Seconds = TIMEOUT
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: Count = MAX_IN_FLIGHT
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Annotated[PriceOptions | Literal["list"] | None, _OrList()] = None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""

    def shared(self) -> dict[str, Any]:
        """Return the options of every hosted backend as keyword arguments of `Remote`."""
        shared = {name: getattr(self, name) for name in HostedOptions.model_fields}
        price = self.price.model_dump(exclude_none=True) if isinstance(self.price, PriceOptions) else self.price
        return shared | {"price": price}


class LocalOptions(Options):
    """The options of every backend that runs a model in this process.

    Example:
        >>> parse(LocalOptions, {"device": ["cuda:0", "cuda:1"]}).device
        ('cuda:0', 'cuda:1')
    """

    device: Device | None = None
    """Device that runs the model: `cpu`, `cuda`, `cuda:1`, `mps`, `auto`, or a list of GPUs of one kind. By default an
    NVIDIA GPU if torch runs the model and finds one, else the CPU."""
    runtime: str | None = None
    """Library that runs the model: `onnxruntime`, `openvino`, `torch` or `auto`. By default the model's files
    decide."""
    dtype: str | None = None
    """Number format of the weights: `float32`, `bfloat16`, `float16`, `int8`, or `auto` for the fastest that keeps the
    order. By default the backend decides; on a CPU it is float32."""
    max_tokens: Tokens | None = None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: Count | None = None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool = False
    """Whether to use only files that are on this machine, and send no request to the hub."""

    def engine(self) -> dict[str, Any]:
        """Return the options of how a model is run, as keyword arguments of an engine's backend."""
        return {name: getattr(self, name) for name in ("max_tokens", "batch_tokens", "device", "runtime", "dtype")}


class TorchOptions(LocalOptions):
    """The options of every backend that runs a model on torch.

    Example:
        >>> parse(TorchOptions, {"dtype": "bfloat16"}).dtype
        'bfloat16'
    """

    runtime: Literal["torch", "auto"] | None = None
    """Library that runs the model. It is always torch here."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None = None
    """Number format of the weights. By default float32 on a CPU, and bfloat16 on a GPU that supports it."""


def parse(
    model: type[M], values: Mapping[str, Any], path: str = "", *, top: Collection[str] = (), top_path: str = ""
) -> M:
    """Validate plain values against an option model.

    Args:
        model: The option model.
        values: The plain values by option name.
        path: Where `values` stands in the spec, such as `cohere` or `fallback[1].retry`; empty for the whole spec.
        top: Names in `values` that the spec holds at its top level instead: shared options, such as `timeout`.
        top_path: Where that spec stands in the whole one, such as `fallback[1]`.

    Returns:
        An instance of `model`.

    Raises:
        ConfigError: The model has no such option (the message lists the valid names and the nearest one), or a value is
            not valid. No message quotes a key.

    Example:
        >>> parse(HostedOptions, {"timeout": -1}, "acme")
        Traceback (most recent call last):
        rerank_plugins.core.errors.ConfigError: acme.timeout must be a number of seconds above 0 and ..., got -1.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'The options'} must be a mapping, got {described(values)}.")
    if not values and _defaults_are_valid(model):
        return model.model_construct()  # compiling the model takes longer than everything else here
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(error_message(model, error, path, top, top_path)) from None


@functools.cache
def _defaults_are_valid(model: type[Options]) -> bool:
    """Return whether the defaults alone are valid. Pydantic does not check them either."""
    checks = model.__pydantic_decorators__.model_validators
    return not checks and not any(field.is_required() for field in model.model_fields.values())

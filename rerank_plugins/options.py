"""The strict base of all options, and the two sets that families of backends share.

A policy or a backend declares its options beside its own code, as a model on `Options`:

    class TEIOptions(HostedOptions):
        raw_scores: bool = False
        \"\"\"Ask for the model's logits instead of their sigmoid.\"\"\"

    class TEI(HostedBackend):
        Options = TEIOptions

        def __init__(self, model: str | None = None, options: TEIOptions | None = None) -> None:
            options = options or TEIOptions()
            super().__init__(model, **options.shared())

Values are checked here, once, before anything is built. Whoever builds from a model checks nothing. (The default is `None`
and no instance, because pydantic compiles a model for its first instance: importing a backend should compile nothing.)
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
from .core.devices import devices
from .core.errors import ConfigError
from .core.hosted import TIMEOUT
from .core.numeric import LONGEST_S, MOST, finite, integer, seconds
from .core.scorer import MAX_IN_FLIGHT
from .core.secret import Secret, refuse_mask
from .option_errors import message, names

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
    "names",
    "number",
    "parse",
    "refused",
]


class Options(BaseModel):
    """Base of all options: frozen, no unknown names, no conversion of types, and no value in an error by accident."""

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
LEAST_TOKENS = 16


def refused(reason: str) -> PydanticCustomError:
    """Return the error for a validator to raise: `reason` follows the name of the option, and has no full stop."""
    return PydanticCustomError("option", "{reason}", {"reason": reason})


def checked(check: Callable[[Any, str], Any]) -> Callable[[Any], Any]:
    """Return a validator for pydantic out of one of `core.numeric`'s, which raises `ConfigError` with the option's name."""

    def validate(value: Any) -> Any:
        try:
            return check(value, "")
        except ConfigError as error:
            # The message without the name: `parse` puts the path of the option in front. What it quotes may be a key.
            reason, got, _ = str(error).strip().rstrip(".").partition(", got ")
            raise refused(f"{reason}{got}{described(value) if got else ''}") from None

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
    if isinstance(value, str | Secret):
        secret = value if isinstance(value, Secret) else Secret(value)
        checked(refuse_mask)(secret.reveal())
        return secret
    return value


def _device(value: Any, name: str) -> Any:
    named = devices(value, name)
    return named if len(named) > 1 else named[0]


class Short:
    """Marks a mapping for which a spec may also write a bare value: that of one of its options."""

    def __init__(self, option: str, json_schema: Mapping[str, Any] | None = None) -> None:
        """Name the option, and the JSON Schema of what stands alone (that of the option, unless given)."""
        self.option = option
        self.json_schema = json_schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Put the bare value before the mapping."""
        return core_schema.no_info_before_validator_function(self._mapping, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Say that a bare value is valid too."""
        mapping = handler(schema)
        branches = mapping.get("anyOf", [mapping])
        own = self.json_schema or handler.resolve_ref_schema(branches[0])["properties"][self.option]
        return {"anyOf": [{key: each for key, each in own.items() if key not in ("default", "title")}, *branches]}

    def _mapping(self, value: Any) -> Any:
        return value if value is None or isinstance(value, Mapping | Options) else {self.option: value}


class OrBool:
    """Marks a mapping that a spec may also write as `true`, for all of its defaults, or `false`, for none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Put the two booleans before the mapping."""
        return core_schema.no_info_before_validator_function(self._mapping, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Say that a boolean is valid too."""
        return {"anyOf": [{"type": "boolean"}, handler(schema)]}

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
    """Return the validator and the JSON Schema of numbers from `low` (or above it) to `high`.

    Python's own numbers of that kind pass at once, since most are; one of `core.numeric`'s checks knows those of other
    libraries, and what to say of the rest.
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


Count = Annotated[int, *number(int, integer, 1, MOST)]
"""An integer of at least 1."""
Tokens = Annotated[int, *number(int, functools.partial(integer, low=LEAST_TOKENS), LEAST_TOKENS, MOST)]
"""An integer of at least 16: fewer tokens hold no query and document."""
Seconds = Annotated[float, *number(float, seconds, 0, LONGEST_S, above=True)]
"""A number of seconds above 0."""
Wait = Annotated[float, *number(float, functools.partial(seconds, zero=True), 0, LONGEST_S)]
"""A number of seconds of at least 0."""
Number = Annotated[float, *number(float, functools.partial(finite, low=0.0, high=1e9), 0, 1e9)]
"""A finite number of at least 0."""
Fraction = Annotated[float, *number(float, functools.partial(finite, low=0.0, high=1.0), 0, 1)]
"""A number from 0 to 1."""


def _key(value: Any) -> Any:
    if isinstance(value, Secret):
        return value
    try:
        return Secret.of(value)
    except ConfigError as error:
        raise refused(str(error).removeprefix("api_key ").rstrip(".")) from None


Key = Annotated[
    Secret,
    BeforeValidator(_key),
    WithJsonSchema({"type": "string"}),
]
"""A key: the text itself, `"env:NAME"` or `"file:PATH"`. Never `SecretStr`, which pickles its value."""


URL = Annotated[
    str,
    PlainValidator(checked(check_address)),
    WithJsonSchema({"type": "string", "pattern": "^(https?://.+)?$"}),
]
"""An address that begins with http:// or https://. A user, a password and a query in it may be `env:NAME`."""
Device = Annotated[
    str | int | Sequence[str],
    PlainValidator(checked(_device)),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    ),
]
"""A device, or several GPUs of one kind; a list of one is that one."""
CPU = Annotated[Literal["cpu", "auto"], BeforeValidator(checked(_device))]
"""The one device of a backend that runs on no other."""
SecretText = Annotated[Secret, PlainValidator(_string), WithJsonSchema({"type": "string"})]
"""A string that may be a credential, or `"env:NAME"`."""
Sealed = Annotated[Any, PlainValidator(_sealed), WithJsonSchema({})]
"""Any plain value; every string in it may be a credential, so it becomes a `Secret`."""


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
"""A spec inside a spec; `config.schema` parses it before the options that hold it."""


class PriceOptions(Options):
    """What a vendor costs, in US dollars."""

    per_million_tokens: Number | None = None
    """For one million input tokens."""
    per_search_unit: Number | None = None
    """For one search unit (Cohere: a query with up to 100 documents)."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.per_million_tokens is None and self.per_search_unit is None:
            raise refused("needs per_million_tokens, per_search_unit or both, in US dollars")
        return self


class HostedOptions(Options):
    """What every backend takes that leaves the process."""

    api_key: Key | None = None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: URL | None = Field(default=None, repr=False)
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: Seconds = TIMEOUT
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: Count = MAX_IN_FLIGHT
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceOptions | None = None
    """What you pay, for `usage.cost_usd`."""

    def shared(self) -> dict[str, Any]:
        """Return the options of every hosted backend, as keyword arguments of `Remote`."""
        shared = {name: getattr(self, name) for name in HostedOptions.model_fields}
        return shared | {"price": self.price and self.price.model_dump(exclude_none=True)}


class LocalOptions(Options):
    """What every backend takes that runs a model in this process."""

    device: Device | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`; or a list of GPUs."""
    runtime: str | None = None
    """What runs the model: `onnxruntime`, `openvino`, `torch`."""
    dtype: str | None = None
    """`float32`, `auto`, `bfloat16`, `float16`, `int8`."""
    max_tokens: Tokens | None = None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: Count | None = None
    """Tokens of one batch."""
    revision: str | None = None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool = False
    """Ask no network."""

    def engine(self) -> dict[str, Any]:
        """Return how the model is run, as keyword arguments of an engine's backend."""
        return {name: getattr(self, name) for name in ("max_tokens", "batch_tokens", "device", "runtime", "dtype")}


class TorchOptions(LocalOptions):
    """What every backend takes that runs a model on torch."""

    runtime: Literal["torch", "auto"] | None = None
    """`torch`."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None = None
    """`float32`, `bfloat16`, `float16`, `auto`; `None` is float32 on a CPU, bfloat16 on a GPU that has it."""


def parse(model: type[M], values: Mapping[str, Any], path: str = "", *, top: Collection[str] = ()) -> M:
    """Return `values` as `model`.

    Args:
        model: The options that are expected.
        values: What a spec says, by name.
        path: Where `values` stands in the spec, such as `cohere` or `fallback[1].retry`; empty at the top.
        top: Names in `values` that the spec has at its top all the same: shared options, such as `timeout`.

    Raises:
        ConfigError: A name that the model does not have (the message lists the valid ones and the nearest), or a
            value that is refused. No message quotes a key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'The options'} must be a mapping, got {described(values)}.")
    if not values and _needs_nothing(model):
        return model.model_construct()  # compiling the model takes longer than everything else here
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(message(model, error, path, top)) from None


@functools.cache
def _needs_nothing(model: type[Options]) -> bool:
    """Tell whether the defaults alone are valid: pydantic does not check them either."""
    checks = model.__pydantic_decorators__.model_validators
    return not checks and not any(field.is_required() for field in model.model_fields.values())

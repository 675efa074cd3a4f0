"""The strict base of all options, and the two sets that families of backends share.

A policy or a backend declares its options beside its own code, as a model on `Options`:

    class TEIOptions(HostedOptions):
        raw_scores: bool = False
        \"\"\"Ask for the model's logits instead of their sigmoid.\"\"\"

    class TEI(HostedBackend):
        Options = TEIOptions

        def __init__(self, model: str | None = None, options: TEIOptions = TEIOptions()) -> None:
            super().__init__(model, **options.shared())

Values are checked here, once, before anything is built. Whoever builds from a model checks nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from .core.errors import ConfigError
from .core.hosted import TIMEOUT
from .core.numeric import LONGEST_S, MOST, finite, integer, seconds
from .core.scorer import MAX_IN_FLIGHT
from .core.secret import Secret

__all__ = [
    "Count",
    "Fraction",
    "HostedOptions",
    "Key",
    "LocalOptions",
    "Number",
    "Options",
    "PriceOptions",
    "Seconds",
    "Wait",
    "checked",
    "parse",
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


def checked(check: Callable[[Any, str], Any]) -> Callable[[Any], Any]:
    """Return a validator for pydantic out of one of `core.numeric`'s, which raises `ConfigError` with the option's name."""

    def validate(value: Any) -> Any:
        try:
            return check(value, "")
        except ConfigError as error:
            # The message without the name: `parse` puts the path of the option in front.
            raise PydanticCustomError("option", "{reason}", {"reason": str(error).strip().rstrip(".")}) from None

    return validate


Count = Annotated[
    int, PlainValidator(checked(integer)), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST})
]
"""An integer of at least 1."""
Seconds = Annotated[
    float,
    PlainValidator(checked(seconds)),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_S}),
]
"""A number of seconds above 0."""
Wait = Annotated[
    float,
    PlainValidator(checked(lambda value, name: seconds(value, name, zero=True))),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": LONGEST_S}),
]
"""A number of seconds of at least 0."""
Number = Annotated[
    float,
    PlainValidator(checked(lambda value, name: finite(value, name, 0.0, 1e9))),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1e9}),
]
"""A finite number of at least 0."""
Fraction = Annotated[
    float,
    PlainValidator(checked(lambda value, name: finite(value, name, 0.0, 1.0))),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
"""A number from 0 to 1."""
Key = Annotated[
    Secret,
    BeforeValidator(checked(lambda value, _: Secret.of(value))),
    WithJsonSchema({"type": "string"}),
]
"""A key: the text itself, or `"env:NAME"`. Never `SecretStr`, which pickles its value."""


class PriceOptions(Options):
    """What a vendor costs, in US dollars."""

    per_million_tokens: Number | None = None
    """For one million input tokens."""
    per_search_unit: Number | None = None
    """For one search unit (Cohere: a query with up to 100 documents)."""


class HostedOptions(Options):
    """What every backend takes that leaves the process."""

    api_key: Key | None = None
    """The key, or `"env:NAME"`; without it the vendor's own environment variables are read."""
    base_url: str | None = None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: Seconds = TIMEOUT
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: Count = MAX_IN_FLIGHT
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceOptions | None = None
    """What you pay, for `usage.cost_usd`."""

    def shared(self) -> dict[str, Any]:
        """Return the options of every hosted backend, as keyword arguments of `Remote`."""
        return {name: getattr(self, name) for name in HostedOptions.model_fields}


class LocalOptions(Options):
    """What every backend takes that runs a model in this process."""

    device: str | Sequence[str] | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`; or a list of GPUs."""
    runtime: str | None = None
    """What runs the model: `onnxruntime`, `openvino`, `torch`."""
    dtype: str | None = None
    """`float32`, `auto`, `bfloat16`, `float16`, `int8`."""
    max_tokens: Count | None = None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: Count | None = None
    """Tokens of one batch."""
    revision: str | None = None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool = False
    """Ask no network."""

    def replaced(self, **values: Any) -> Self:
        """Return a copy with other values, which are not checked."""
        return self.model_copy(update=values)


def parse(model: type[M], values: Mapping[str, Any], path: str = "") -> M:
    """Return `values` as `model`.

    Args:
        model: The options that are expected.
        values: What a spec says, by name.
        path: Where `values` stands in the spec, such as `cohere` or `fallback[1].retry`; empty at the top.

    Raises:
        ConfigError: A name that the model does not have (the message lists the valid ones and the nearest), or a
            value that is refused. No message quotes a key.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_message(model, error, path)) from None


def _message(model: type[Options], error: ValidationError, path: str) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    *outer, last = first["loc"] or ("",)
    where = ".".join([path, *map(str, outer)] if path else list(map(str, outer)))
    option = f"{where}.{last}" if where else str(last)
    if first["type"] == "extra_forbidden":
        names = sorted(field.alias or name for name, field in model.model_fields.items()) if not outer else []
        near = difflib.get_close_matches(str(last), names, n=1, cutoff=0.5)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        choose = f" Choose one of: {', '.join(names)}." if names else ""
        return f"There is no option {option!r}.{guess}{choose}"
    return f"{option} {first['msg'][:1].lower()}{first['msg'][1:]}."


def names(model: type[Options]) -> tuple[str, ...]:
    """Return the names that a spec uses for the options of `model`."""
    return tuple(field.alias or name for name, field in model.model_fields.items())

"""The options of the models in the wheel. They are apart from the models, which load without pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from ..core.errors import ConfigError
from ..core.numeric import MIN_TOKENS, integer
from ..options import CPU, Count, Fraction, Number, Options
from ..options import checked as validator
from .embedded import CACHE_MB, FOR_TOP, MISS

__all__ = ["BalancedOptions", "EmbeddedOptions"]

LONGEST = 512
"""The number of positions of the encoder."""
DocumentTokens = Annotated[
    int,
    PlainValidator(validator(lambda value, name: integer(value, name, MIN_TOKENS, LONGEST))),
    WithJsonSchema({"type": "integer", "minimum": MIN_TOKENS, "maximum": LONGEST}),
]


def _refuse_int8(value: Any, _: str) -> Any:
    if value == "int8":
        raise ConfigError(
            "must not be int8 for this model, which is slower than float32 on a CPU without AVX-512, and on others "
            "about as fast as bfloat16, which changes the order less: write bfloat16, or leave dtype out"
        )
    return value


Dtype = Annotated[Literal["float32", "auto", "bfloat16"], BeforeValidator(validator(_refuse_int8))]


class BalancedOptions(Options):
    """How many documents `embedded:balanced` reads."""

    for_top: Count = FOR_TOP
    """Number of first results that are protected."""
    miss: Fraction = MISS
    """Share of the relevance in these results that may be lost on average."""


class EmbeddedOptions(Options):
    """Options of the models in the wheel."""

    balanced: BalancedOptions | None = None
    """How many documents `embedded:balanced` reads; no effect on the other models."""

    cache_mb: Number = CACHE_MB
    """Megabytes of document vectors to cache for later queries (about 0.3 for a passage of 200 tokens); 0 turns the
    cache off. `fast` does not use it."""
    max_tokens: DocumentTokens | None = None
    """Tokens that are read of a document, special tokens included; 256 by default, 512 at most."""
    batch_tokens: Count | None = None
    """Tokens of one batch."""
    device: CPU | None = None
    """`cpu`."""
    runtime: Literal["onnxruntime", "auto"] | None = None
    """`onnxruntime`; with `dtype = "bfloat16"` OpenVINO. `fast` runs no network."""
    dtype: Dtype | None = None
    """`float32`, exact, also for `auto`; `bfloat16` on OpenVINO where the CPU computes it, and else float32."""

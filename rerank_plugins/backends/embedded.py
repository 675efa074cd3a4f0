"""The models in the wheel: token vectors compared with late interaction and lexical evidence. No key, no download; English."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import PlainValidator, WithJsonSchema

from ..core.errors import ConfigError
from ..core.numeric import integer
from ..engine.late_interaction.backend import LateInteraction
from ..options import CPU, Count, Number, Options
from ..options import checked as validator

__all__ = ["Embedded"]

FOLDER = Path(__file__).parent / "embedded_model"
MODELS = ("embedded", "fast")
DOCUMENT_TOKENS = 256
CACHE_MB = 256


LONGEST = 512
"""Tokens that the encoder has positions for."""
DocumentTokens = Annotated[
    int,
    PlainValidator(validator(lambda value, name: integer(value, name, 16, LONGEST))),
    WithJsonSchema({"type": "integer", "minimum": 16, "maximum": LONGEST}),
]


class EmbeddedOptions(Options):
    """Options of the models in the wheel."""

    cache_mb: Number = CACHE_MB
    """Megabytes of document vectors to keep for later queries (about 0.3 a passage of 200 tokens); 0 turns it off. `fast`
    needs none."""
    max_tokens: DocumentTokens | None = None
    """Tokens of a document that are read, special ones included; 256 unless given, 512 at most."""
    batch_tokens: Count | None = None
    """Tokens of one batch."""
    device: CPU | None = None
    """`cpu`."""
    runtime: Literal["onnxruntime", "auto"] | None = None
    """`onnxruntime`; `fast` takes none."""
    dtype: Literal["float32", "auto"] | None = None
    """`float32`."""


class Embedded(LateInteraction):
    """Late interaction joined with lexical evidence; `PreparedQuery` has the formula, `embedded_model/CARD.md` the figures.

    `embedded` takes the token vectors of a six-layer encoder, `embedded:fast` one vector a token from a table. raw is about
    -1 to 2; relevance_score = sigmoid((raw - offset) / divisor), which is the probability that a candidate of a lexical
    search is relevant, on the development data.
    """

    Options = EmbeddedOptions
    model = "embedded"

    def __init__(self, model: str | None = None, options: EmbeddedOptions | None = None) -> None:
        """Choose one of the two models: `None`, or `fast`.

        Raises:
            ConfigError: There is no such model.
        """
        options = options or EmbeddedOptions()
        name = model or "embedded"
        if name not in MODELS:
            raise ConfigError(f"There is no embedded model {model!r}: write 'embedded' or 'embedded:fast'.")
        super().__init__(
            FOLDER,
            name,
            document_tokens=options.max_tokens or DOCUMENT_TOKENS,
            cache_bytes=int(options.cache_mb * 1_000_000),
            from_table=name == "fast",
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            device=options.device,
            runtime=options.runtime,
            dtype=options.dtype,
        )

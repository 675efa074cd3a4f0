"""What a model's folder says about itself, whatever engine runs it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError

__all__ = ["Limits", "json_of"]

_log = logging.getLogger("rerank_plugins")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model's folder says about itself."""

    max_tokens: int
    pad: int

    @classmethod
    def read(cls, folder: Path) -> Limits:
        """Read `config.json` and `tokenizer_config.json`; warn where they disagree on the longest input."""
        config, tokenizer = json_of(folder / "config.json"), json_of(folder / "tokenizer_config.json")
        pad = config.get("pad_token_id")
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
            positions -= (pad if isinstance(pad, int) else 1) + 1  # their positions begin after the padding's
        told = tokenizer.get("model_max_length")
        told = int(told) if isinstance(told, int | float) and 0 < told < 10**6 else None
        sizes = [size for size in (positions, told) if isinstance(size, int)]
        if len(set(sizes)) > 1:
            _log.warning(
                "%s: its tokenizer says at most %s tokens and its model %s; %s are used. Set max_tokens to choose.",
                folder,
                told,
                positions,
                min(sizes),
            )
        return cls(min(sizes, default=512), pad if isinstance(pad, int) else 0)


def json_of(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file, or no object in it.

    Raises:
        ConfigError: It cannot be read, or is no JSON.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): fetch the model again.") from error
    return found if isinstance(found, dict) else {}

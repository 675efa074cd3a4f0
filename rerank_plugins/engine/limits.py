"""What a model's folder says about itself, whatever engine runs it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, clause
from .files import MOST_SETTINGS, read_text

__all__ = ["POSITION_TABLE", "Limits", "json_of", "saved"]

_ROBERTA = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"}
POSITION_TABLE = frozenset({*_ROBERTA, "bert", "electra", "distilbert", "albert"})
"""Model types whose positions are rows of a table: past its end there is nothing to read."""

_log = logging.getLogger("rerank_plugins")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model's folder says about itself."""

    max_tokens: int
    pad: int
    most: int | None = None
    """What no option can go above, where the positions are a table."""
    prompt: str = ""
    """What its maker sets before every query."""

    @classmethod
    def read(cls, folder: Path) -> Limits:
        """Read `config.json`, `tokenizer_config.json` and what sentence-transformers has; warn where they disagree on the longest input."""
        config, tokenizer = json_of(folder / "config.json"), json_of(folder / "tokenizer_config.json")
        theirs, its_transformer = saved(folder)
        pad = config.get("pad_token_id")
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in _ROBERTA:
            positions -= (pad if isinstance(pad, int) else 1) + 1  # their positions begin after the padding's
        told = its_transformer.get("max_seq_length") or tokenizer.get("model_max_length")
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
        table = (
            config.get("model_type") in POSITION_TABLE
            and config.get("position_embedding_type", "absolute") == "absolute"
        )
        most = positions if isinstance(positions, int) and table else None
        prompts = theirs.get("prompts")
        prompt = prompts.get(theirs.get("default_prompt_name")) if isinstance(prompts, dict) else None
        return cls(
            min(sizes, default=512),
            pad if isinstance(pad, int) and pad >= 0 else 0,
            most,
            prompt if isinstance(prompt, str) else "",
        )

    def longest(self, asked: int | None) -> int:
        """Return the most tokens of an input: as asked, else what the folder says.

        Raises:
            ConfigError: More is asked than the model has positions for.
        """
        if asked is not None and self.most is not None and asked > self.most:
            raise ConfigError(f"max_tokens {asked} is more than the model has positions for: take {self.most} at most.")
        return asked or self.max_tokens


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what sentence-transformers saved of a CrossEncoder, and of the transformer in it; nothing of another kind of model.

    Nor does it look there itself, but takes such a folder as a plain checkpoint: an embedding model's prompt is none of a
    reranker's.
    """
    theirs = json_of(folder / "config_sentence_transformers.json")
    if theirs.get("model_type") != "CrossEncoder":
        return {}, {}
    return theirs, json_of(folder / "sentence_bert_config.json")


def json_of(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file, or no object in it.

    Raises:
        ConfigError: It cannot be read, or is no JSON.
    """
    try:
        parsed = json.loads(read_text(path, MOST_SETTINGS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({clause(error)}): fetch the model again.") from error
    return parsed if isinstance(parsed, dict) else {}

"""What tells one set of weights from another, wherever the files lie."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import ConfigError
from ..core.loop import Workers
from .files import regular

__all__ = ["digest", "fingerprint", "reading"]

PARTS, PART_BYTES = 16, 65_536

reading = Workers(1, "rerank-digest")
"""Where samples of a model's files are read: not on an event loop, and not behind a model's batches."""


def digest(files: Iterable[Path]) -> str:
    """Return a hash over sizes and 16 evenly spread samples of 64 KB of each file: milliseconds, for 2 GB too.

    Training moves every weight, so that samples show it. What was read is remembered until a file's size or times change.

    Raises:
        ConfigError: A file cannot be read.
    """
    ages = []
    for file in files:
        try:
            status = regular(file)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror}): fetch the model again.") from error
        ages.append((file, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return _digest(tuple(ages))


@functools.lru_cache(64)
def _digest(ages: tuple[tuple[Path, int, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, size, *_ in ages:
        digest.update(str(size).encode())
        try:
            with file.open("rb") as data:
                for part in range(PARTS):
                    data.seek(max(0, size - PART_BYTES) * part // (PARTS - 1))
                    digest.update(data.read(PART_BYTES))
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror}): fetch the model again.") from error
    return f"sampled-sha256:{digest.hexdigest()[:32]}"


def fingerprint(folder: Path, weights: Iterable[Path]) -> str:
    """Return a hash over a model's weights and all its settings (tokenizer, config), which a score depends on too.

    Raises:
        ConfigError: A file cannot be read.
    """
    settings = [*folder.glob("*.json"), *folder.glob("*/config.json"), *folder.glob("vocab.txt")]
    return digest([*weights, *sorted(settings)])

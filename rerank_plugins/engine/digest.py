"""What tells one set of weights from another, wherever the files lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["digest"]

PARTS, PART_BYTES = 16, 65_536


def digest(files: Iterable[Path]) -> str:
    """Return a hash over sizes and 16 evenly spread samples of 64 KB of each file: milliseconds, for 2 GB too.

    Training moves every weight, so that samples show it.
    """
    told = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        told.update(str(size).encode())
        with file.open("rb") as data:
            for part in range(PARTS):
                data.seek(max(0, size - PART_BYTES) * part // (PARTS - 1))
                told.update(data.read(PART_BYTES))
    return f"sampled-sha256:{told.hexdigest()[:32]}"

"""Hashes of model files, to tell one set of weights from another wherever the files lie."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from ..core._runtime.background_loop import Workers
from ..core.errors import ConfigError
from .files import MAX_SETTINGS_BYTES, read_text, stat_regular

__all__ = ["digest", "fingerprint", "reading"]

PARTS, PART_BYTES = 16, 65_536

reading = Workers(1, "rerank-digest")
"""The thread that reads samples of model files, so that they wait neither on an event loop nor behind a model's
batches."""


def digest(files: Iterable[Path]) -> str:
    """Return a hash over the size and 16 evenly spread samples of 64 KB of each file. Takes milliseconds, for 2 GB too.

    Training changes every weight, so samples are enough. The result is cached until the size or a time of a file
    changes.

    Raises:
        ConfigError: A file cannot be read.
    """
    ages = []
    for file in files:
        try:
            status = stat_regular(file)
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
    """Return a hash over everything that a score depends on: the weights and all settings (tokenizer, config).

    Raises:
        ConfigError: A file cannot be read.
    """
    settings = {*folder.glob("*.json"), *folder.glob("*/config.json"), *folder.glob("vocab.txt")}
    settings.update(*(module.glob("*.json") for module in _modules(folder)))
    return digest([*weights, *sorted(settings)])


def _modules(folder: Path) -> list[Path]:
    """Return the folders of the modules that `modules.json` names, which may lie deeper than one level.

    Entries that cannot be read, or lead out of the folder, are left out: loading such a model raises the error.
    """
    try:
        modules = json.loads(read_text(folder / "modules.json", MAX_SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError, ConfigError):
        return []
    folders = []
    for module in modules if isinstance(modules, list) else ():
        path = module.get("path") if isinstance(module, dict) else None
        if isinstance(path, str) and path:
            where = PureWindowsPath(path)  # accepts both kinds of slashes
            with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a NUL
                if not where.anchor and ".." not in where.parts and (folder / path).is_dir():
                    folders.append(folder / path)
    return folders

"""Reads the files of a model's folder: only regular files of a bounded size, so that none of them can block a call.

Reading a named pipe blocks until another process writes to it, which may never happen. A device may have no end.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import ConfigError, clause

__all__ = [
    "MAX_SETTINGS_BYTES",
    "MAX_TOKENIZER_BYTES",
    "cache_folder",
    "has_onnx_file",
    "json_of",
    "onnx_file",
    "read_text",
    "refuse_special_files",
    "setting",
    "stat_regular",
    "stat_signature",
]

S = TypeVar("S")

MAX_SETTINGS_BYTES = 2**24
"""The largest settings file that is read. The largest in use (100,000 labels) have 4 MB."""
MAX_TOKENIZER_BYTES = 2**28
"""The largest tokenizer that is read. The largest in use (Gemma's, 262,144 tokens) have 33 MB."""


def cache_folder() -> Path:
    """Return the folder in which this package keeps its files: `rerank_plugins` in XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins"


def stat_signature(file: Path) -> list[int]:
    """Return size, mtime and ctime of a file, times in nanoseconds.

    An equal signature means that the file is unchanged. Every write changes the ctime, and no program can set it.
    """
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def stat_regular(file: Path) -> os.stat_result:
    """Return the status of a regular file.

    Raises:
        ConfigError: The path is a named pipe, a socket, a device or a folder.
        OSError: The file does not exist, or its status cannot be read.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{file} is not a regular file: replace it with the model's own file.")
    return status


def read_text(file: Path, max_bytes: int) -> str:
    """Return the text of a regular file.

    Args:
        file: The file.
        max_bytes: The largest size that is read.

    Raises:
        ConfigError: The file is not a regular file, or is larger.
        OSError: The file cannot be read.
        UnicodeDecodeError: The file is not UTF-8.
    """
    size = stat_regular(file).st_size
    if size > max_bytes:
        raise ConfigError(f"{file} has {size:,} bytes, and at most {max_bytes:,} are read: fetch the model again.")
    return file.read_text("utf-8")


def refuse_special_files(folder: Path) -> None:
    """Refuse a folder with pipes, sockets or devices at its top or one level below: libraries open files there by name.

    Raises:
        ConfigError: The folder holds one, or cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            top = [(entry, entry.is_dir()) for entry in entries]
        for entry, is_folder in top:
            if is_folder:
                with os.scandir(entry.path) as below:
                    for inner in below:
                        if not (inner.is_file() or inner.is_dir()):
                            _refuse_special(inner)
            elif not entry.is_file():
                _refuse_special(entry)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}): check its permissions.") from error


def _refuse_special(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(
        FileNotFoundError
    ):  # a dangling link or a file deleted meanwhile: if it is needed, reading it raises the error
        stat_regular(Path(entry.path))


def json_of(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file, or if it holds no object.

    Raises:
        ConfigError: The file cannot be read, or is not JSON.
    """
    try:
        parsed = json.loads(read_text(path, MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({clause(error)}): fetch the model again.") from error
    return parsed if isinstance(parsed, dict) else {}


def setting(folder: Path, settings: Mapping[str, Any], name: str, kind: type[S], wording: str) -> S | None:
    """Return a setting of a model's folder, or `None` if there is none of that name.

    Args:
        folder: The model's folder, for the error.
        settings: The object of a JSON file.
        name: The key.
        kind: The type that the value must have.
        wording: The type in words, for the error.

    Raises:
        ConfigError: The value has another type.
    """
    value = settings.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise ConfigError(f"{folder} has settings with {name} {value!r:.80}, which is no {wording}: fetch the model again.")


def has_onnx_file(folder: Path) -> bool:
    """Return whether a folder that the user named holds an ONNX file, at its top or in the folder `onnx`."""
    return bool(_onnx_files(folder))


def _onnx_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx")) or sorted(folder.glob("onnx/*.onnx"))


def onnx_file(folder: Path) -> Path:
    """Return the ONNX file in a model's folder: `model.onnx`, `onnx/model.onnx`, or the only one.

    Raises:
        ConfigError: There is no such folder, no ONNX file in it, or several and none has one of these names.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name a folder with an ONNX file and a tokenizer.json.")
    for known in ("model.onnx", "onnx/model.onnx"):
        if (folder / known).is_file():
            return folder / known
    files = _onnx_files(folder)
    if len(files) == 1:
        return files[0]
    why = f"holds several ONNX files ({', '.join(file.name for file in files)})" if files else "holds no ONNX file"
    raise ConfigError(f"{folder} {why}: put the one to use there as model.onnx.")

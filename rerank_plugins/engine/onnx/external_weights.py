"""Finds the files beside an ONNX file that hold its weights ("external data").

A model above two gigabytes has them, a limit of protobuf (https://onnx.ai/onnx/repo-docs/ExternalData.html, November
2026). Their names are free. The package onnx reads them, but it is not needed to run a model.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path, PureWindowsPath

from ...core.errors import ConfigError
from ..files import stat_regular

__all__ = ["external_weights", "missing_external_weights"]

_MAX_GRAPH = 2**26
"""The largest ONNX file that is searched. One whose weights are elsewhere holds the graph alone: a few megabytes."""
_PART, _OVERLAP = 2**20, 2**15
"""Bytes that are searched at once, and those that are searched again with the next part: an entry is shorter."""
_KEY = b"\n\x08location\x12"
_LOCATION = re.compile(re.escape(_KEY) + rb"([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
"""An entry of a tensor's `external_data` up to the length of its value: field 1 is the key, field 2 the value, and both
begin with their length as a varint."""


def external_weights(file: Path) -> list[Path]:
    """Return the files with weights beside an ONNX file: those that it names, and those with its own name in theirs.

    A name that leads out of the file's folder is left out.

    Args:
        file: The ONNX file. If it cannot be read, only the names of other files count: loading it raises the error.
    """
    # `os.path` has an answer for a name that is too long, and `Path.exists` an OSError.
    named = {file.parent / name for name in _locations(file) if _is_inside(name)}
    beside = set(file.parent.glob(f"{file.name}[._]data*"))  # a graph that is too large to be searched may need them
    return sorted(beside | {path for path in named if os.path.exists(path)})  # noqa: PTH110


def missing_external_weights(file: Path) -> list[str]:
    """Return the names of the files with weights that an ONNX file names and that are not beside it.

    Args:
        file: The ONNX file.
    """
    return sorted(name for name in _locations(file) if not os.path.isfile(file.parent / name))  # noqa: PTH113 (as above)


def _is_inside(name: str) -> bool:
    where = PureWindowsPath(name)  # accepts both kinds of slashes
    return not where.anchor and ".." not in where.parts


def _locations(file: Path) -> frozenset[str]:
    try:
        status = stat_regular(file)
        if status.st_size > _MAX_GRAPH:
            return frozenset()
        return _read_locations(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except (OSError, ConfigError):
        return frozenset()


@functools.lru_cache(64)
def _read_locations(file: Path, *_age: int) -> frozenset[str]:
    """Return all names of files with weights in an ONNX file. The result is cached until its size or a time changes."""
    names, before = set(), b""
    with file.open("rb") as stream:
        while part := stream.read(_PART):
            content = before + part
            if _KEY in content:  # much faster than the pattern, and most files have none
                for entry in _LOCATION.finditer(content):
                    size = entry[1][0] & 0x7F | (entry[1][1] << 7 if len(entry[1]) > 1 else 0)
                    if entry.end() + size <= len(content):  # else the next part has all of it
                        names.add(content[entry.end() : entry.end() + size].decode("utf-8", "replace"))
            before = content[-_OVERLAP:]
    return frozenset(names)

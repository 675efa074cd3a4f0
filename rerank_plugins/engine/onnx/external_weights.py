"""Names the files beside an ONNX file that hold its weights ("external data").

A model above two gigabytes has them, a limit of protobuf (https://onnx.ai/onnx/repo-docs/ExternalData.html, November
2026). The package onnx reads them, but it is not needed to run a model.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["missing_external_weights"]

_MAX_GRAPH = 2**26
"""The largest ONNX file that is searched. One whose weights are elsewhere holds the graph alone: a few megabytes."""
_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
"""An entry of a tensor's `external_data` up to the length of its value: field 1 is the key, field 2 the value, and both
begin with their length as a varint."""


def missing_external_weights(file: Path) -> list[str]:
    """Return the names of the files with weights that an ONNX file names and that are not beside it.

    Args:
        file: The ONNX file.
    """
    if file.stat().st_size > _MAX_GRAPH:
        return []
    content, names = file.read_bytes(), set()
    for entry in _LOCATION.finditer(content):
        size = entry[1][0] & 0x7F | (entry[1][1] << 7 if len(entry[1]) > 1 else 0)
        names.add(content[entry.end() : entry.end() + size].decode("utf-8", "replace"))
    return sorted(name for name in names if not (file.parent / name).is_file())

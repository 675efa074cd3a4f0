"""Imports onnxruntime and OpenVINO with their telemetry off: both report to their makers over the network by default.

A runtime that the program has imported before is left as it is.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["onnxruntime", "onnxruntime_version", "openvino"]


def onnxruntime() -> Any:
    """Import onnxruntime, which reports every session from 1.31 on.

    A program that wants that sets ORT_DISABLE_TELEMETRY itself. onnxruntime's `disable_telemetry_events` is too late:
    by then it has written a device identity to its cache and sent a report.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def onnxruntime_version() -> str:
    """Return the version and the build of onnxruntime."""
    ort = onnxruntime()
    return f"{ort.__version__} {getattr(ort, 'get_build_info', str)()}"


def openvino() -> Any:
    """Import OpenVINO, which reports every import through the package openvino_telemetry.

    Without that package it uses a stub.
    """
    name: str = "openvino_telemetry"
    modules: dict[str, Any] = sys.modules
    hidden = "openvino" not in modules and name not in modules
    if hidden:
        modules[name] = None
    try:
        import openvino
    finally:
        if hidden:
            modules.pop(name, None)
    return openvino

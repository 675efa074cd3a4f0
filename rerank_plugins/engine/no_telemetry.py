"""The runtimes, imported so that they tell nobody: both report to their makers, over the network, unless stopped beforehand.

Where the program has imported one earlier it is as it is.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["onnxruntime", "openvino"]


def onnxruntime() -> Any:
    """From 1.31 on it tells of every session; whoever wants that sets the variable himself.

    Its `disable_telemetry_events` comes too late: a device's identity lies in the cache by then, and the report goes out.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def openvino() -> Any:
    """It tells of every import; where the package that does so is not to be had, it takes a stub of its own."""
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

"""`rerank-plugins export`: a folder for the onnx backend, made from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from .command import Command
from .terminal import progress

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of a sequence-classification checkpoint (safetensors)")
    parser.add_argument("folder", metavar="DIR", help="where the ONNX folder is written")


def _run(arguments: argparse.Namespace) -> int:
    from ..engine.export import export

    with progress(f"exporting {arguments.model}"):
        made = export(Path(arguments.model).expanduser(), Path(arguments.folder).expanduser())
    last = "; last layer for the first token only" if made.first_token_only else ""
    print(
        f"ok: onnx:{arguments.folder} agrees with torch on {made.pairs} pairs: "
        f"largest difference {made.largest:.1e}, Kendall tau {made.tau:.4f}{last}"
    )
    return 0


COMMAND = Command(
    "export",
    "make a folder for the onnx backend from a checkpoint",
    _run,
    _options,
    "example:\n  rerank-plugins export ./my-cross-encoder ./my-onnx  # then: onnx:./my-onnx",
    "Float32; the result is held against torch before it is handed over. Needs 'rerank-plugins[export]'.",
)

"""`rerank-plugins export`: a folder for the onnx backend, made from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from .command import Command
from .terminal import progress, say

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder of a sequence-classification checkpoint (safetensors), or a hub's org/name",
    )
    parser.add_argument("--revision", metavar="COMMIT", help="of the hub's model; default: main, recorded at first use")
    parser.add_argument("folder", metavar="DIR", help="where the ONNX folder is written")


def _run(arguments: argparse.Namespace) -> int:
    from ..engine.onnx.export import export

    checkpoint = _folder(arguments.model, arguments.revision)
    with progress(f"exporting {arguments.model}"):
        made = export(checkpoint, Path(arguments.folder).expanduser())
    last = "; last layer for the first token only" if made.first_token_only else ""
    say(
        f"ok: onnx:{arguments.folder} agrees with torch on {made.pairs} pairs: "
        f"largest difference {made.largest:.1e}, Kendall tau {made.tau:.4f}{last}"
    )
    return 0


def _folder(model: str, revision: str | None) -> Path:
    from ..engine.hub import Repository, torch_files
    from ..engine.lazy import is_path, is_repository

    if is_path(model) or not is_repository(model):
        return Path(model).expanduser()
    return Repository(model, f"sentence-transformers:{model}", torch_files, revision).fetch()


COMMAND = Command(
    "export",
    "make a folder for the onnx backend from a checkpoint",
    _run,
    _options,
    """examples:
  rerank-plugins export ./my-cross-encoder ./my-onnx  # then: onnx:./my-onnx
  rerank-plugins export BAAI/bge-reranker-v2-m3 ./bge-onnx  # then: bge:./bge-onnx""",
    "Float32; the result is held against torch before it is handed over. Needs 'rerank-plugins[export]'.",
)

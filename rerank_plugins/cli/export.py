"""`rerank-plugins export`: make a folder for the onnx backend from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.errors import InputError
from .command import Command
from .terminal import progress, say

__all__ = ["COMMAND"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder of a sequence-classification checkpoint (safetensors), or org/name on the Hugging Face hub",
    )
    parser.add_argument(
        "--revision", metavar="COMMIT", help="commit of the hub's model; default: main, recorded at first use"
    )
    parser.add_argument("folder", metavar="DIR", help="folder to write")


def _run(arguments: argparse.Namespace) -> int:
    from ..engine.hub import is_path, is_repository

    is_folder = is_path(arguments.model) or not is_repository(arguments.model)
    if is_folder and arguments.revision is not None:
        raise InputError(
            f"--revision has no effect on the folder {arguments.model}: leave out --revision, or name a model of the "
            "hub as org/name."
        )
    from ..engine.onnx.export import export

    checkpoint = _checkpoint_folder(arguments.model, arguments.revision, is_folder=is_folder)
    with progress(f"exporting {arguments.model}"):
        exported = export(checkpoint, Path(arguments.folder).expanduser())
    last_layer = "; last layer for the first token only" if exported.first_token_only else ""
    say(
        f"ok: onnx:{arguments.folder} agrees with torch on {exported.pairs} pairs: "
        f"largest difference {exported.max_difference:.1e}, Kendall tau {exported.kendall_tau:.4f}{last_layer}"
    )
    return 0


def _checkpoint_folder(model: str, revision: str | None, *, is_folder: bool) -> Path:
    """Return the folder of the checkpoint; a model on the hub is downloaded."""
    from ..engine.hub import Repository
    from ..engine.hub_files import torch_files

    if is_folder:
        return Path(model).expanduser()
    return Repository(model, f"sentence-transformers:{model}", torch_files, revision).fetch()


COMMAND = Command(
    "export",
    "make a folder for the onnx backend from a checkpoint",
    _run,
    _add_options,
    """examples:
  rerank-plugins export ./my-cross-encoder ./my-onnx  # then: onnx:./my-onnx
  rerank-plugins export BAAI/bge-reranker-v2-m3 ./bge-onnx  # then: bge:./bge-onnx""",
    "The weights are float32. The scores of the result are compared with torch's before the folder is written. Needs\n"
    "'rerank-plugins[export]'.",
)

"""`rerank-plugins fetch`: download the models of a reranker."""

from __future__ import annotations

import argparse

from .command import Command, add_spec_argument, load_named_reranker
from .terminal import say

__all__ = ["COMMAND"]


def _run(arguments: argparse.Namespace) -> int:
    from ..config import backends

    with load_named_reranker(arguments, {"top_n": None, "score_threshold": None}) as reranker:
        for backend in backends(reranker):
            location = backend.fetch()  # the client of the hub shows its own progress bar
            say(f"{backend.label}: {location if location is not None else 'needs no files'}")
    return 0


COMMAND = Command(
    "fetch",
    "download the models of a reranker",
    _run,
    add_spec_argument,
    """examples:
  rerank-plugins fetch ms-marco
  rerank-plugins fetch onnx:BAAI/bge-reranker-base
  rerank-plugins fetch production --config rerank.toml""",
    "Also downloads the models of its fallbacks. Afterwards the reranker needs no network: see local_files_only and\n"
    "HF_HUB_OFFLINE.",
)

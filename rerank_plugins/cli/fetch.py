"""`rerank-plugins fetch`: a reranker's models, brought to this machine."""

from __future__ import annotations

import argparse

from .command import Command, named, spec_argument
from .terminal import say

__all__ = ["COMMAND"]


def _run(arguments: argparse.Namespace) -> int:
    from ..config import backends

    with named(arguments, {"top_n": None, "score_threshold": None}) as reranker:
        for backend in backends(reranker):
            told = backend.fetch()  # the hub's client shows its bar
            say(f"{backend.label}: {told if told is not None else 'needs no files'}")
    return 0


COMMAND = Command(
    "fetch",
    "bring a reranker's models to this machine",
    _run,
    spec_argument,
    """examples:
  rerank-plugins fetch ms-marco
  rerank-plugins fetch onnx:BAAI/bge-reranker-base
  rerank-plugins fetch production --config rerank.toml""",
    "Stand-ins of its fallback too. Afterwards no network is needed: see local_files_only and HF_HUB_OFFLINE.",
)

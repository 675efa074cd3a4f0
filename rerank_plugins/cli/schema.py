"""`rerank-plugins schema`: the JSON Schema of a configuration file."""

from __future__ import annotations

import argparse

from .command import Command
from .terminal import json_text, say

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    """Take no options."""


def _run(_: argparse.Namespace) -> int:
    from ..config.generate import json_schema

    say(json_text(json_schema(), indent=2))
    return 0


COMMAND = Command(
    "schema",
    "print the JSON Schema of a configuration file, with which editors complete and check it",
    _run,
    _options,
    """examples:
  rerank-plugins schema > rerank.schema.json
  sed -i '1i #:schema ./rerank.schema.json' rerank.toml""",
    "It is of the draft 2020-12, and knows the options of every backend that is installed here. A single spec is its\n"
    "definition Spec.",
)

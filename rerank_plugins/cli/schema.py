"""`rerank-plugins schema`: print the JSON Schema of a configuration file."""

from __future__ import annotations

import argparse

from .command import Command
from .terminal import json_text, say

__all__ = ["COMMAND"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no options."""


def _run(_: argparse.Namespace) -> int:
    from ..config.generate import json_schema

    say(json_text(json_schema(), indent=2))
    return 0


COMMAND = Command(
    "schema",
    "print the JSON Schema of a configuration file, for completion and checks in editors",
    _run,
    _add_options,
    """examples:
  rerank-plugins schema > rerank.schema.json
  sed -i '1i #:schema ./rerank.schema.json' rerank.toml""",
    "The schema is of draft 2020-12 and has the options of all backends that are installed. Its definition Spec\n"
    "describes a single spec.",
)

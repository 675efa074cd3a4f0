"""Run the command line with `python -m rerank_plugins`, as `rerank-plugins` does."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

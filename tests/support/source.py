"""Python source as a syntax tree, for tests that read the package's own code."""

from __future__ import annotations

import ast
import gc


def parse_source(source: str) -> ast.Module:
    """Return `ast.parse(source)`, without a garbage collection in between.

    CPython 3.11 counts the recursion depth of all parses in one place. A garbage collection may let another thread or a
    finalizer parse in the middle of this parse, which then raises SystemError: "AST constructor recursion depth
    mismatch" (https://github.com/python/cpython/issues/106905). It was seen in a process with garbage of many tests.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if collects:
            gc.enable()

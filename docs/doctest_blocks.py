"""Show the examples of docstrings as code: mkdocstrings takes a `>>>` outside of an `Examples:` section as text.

mkdocs.yml names this file as an extension of griffe (https://mkdocstrings.github.io/griffe/guide/users/extending/).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# A prompt, the lines up to the next empty one, and further examples behind empty lines.
_EXAMPLES = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)(?! *```)\S.*|\n(?P=indent) +\S.*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """Return `text` with each example between fences, as a block of the language `pycon`."""

    def block(match: re.Match[str]) -> str:
        indent = match["indent"]
        return f"{indent}```pycon\n{match[0]}\n{indent}```"

    return _EXAMPLES.sub(block, text)


class DoctestBlocks(griffe.Extension):
    """Put a fence around the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object, once it is loaded."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)

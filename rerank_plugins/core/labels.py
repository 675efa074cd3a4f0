"""Labels say who answers, for people: `embedded [onnxruntime float32]`, of several `lexical → cohere:rerank-v4.0-fast`."""

from __future__ import annotations

import re

__all__ = ["without_detail"]


def without_detail(label: str) -> str:
    """Return a label without how each of its backends is run: what one writes in a spec."""
    return re.sub(r" \[[^\[\]]*\]", "", label)

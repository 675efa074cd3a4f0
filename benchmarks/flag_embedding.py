"""FlagEmbedding's `FlagReranker` by its own file; the package as a whole does not import beside transformers 5.24.

Its `__init__` files also import a MiniCPM model, which imports `transformers.modeling_attn_mask_utils`, gone in transformers 5.24
(FlagEmbedding 1.4.2, November 2026). So the packages on the way are entered without their `__init__`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

__all__ = ["FlagReranker"]

_root = Path(find_spec("FlagEmbedding").origin).parent
for _name in ("FlagEmbedding", "FlagEmbedding.inference", "FlagEmbedding.inference.reranker"):
    if _name not in sys.modules:
        _package = ModuleType(_name)
        _package.__path__ = [str(_root.joinpath(*_name.split(".")[1:]))]
        sys.modules[_name] = _package

from FlagEmbedding.inference.reranker.encoder_only import FlagReranker  # noqa: E402

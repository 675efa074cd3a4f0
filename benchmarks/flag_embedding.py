"""FlagEmbedding's `FlagReranker` for `contenders.py`, imported without the package's `__init__` files.

The `__init__` files of FlagEmbedding 1.4.2 (November 2026) also import a MiniCPM model. That one imports
`transformers.modeling_attn_mask_utils`, which transformers 5.24 no longer has.

Install: pip install FlagEmbedding==1.4.2
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

"""jina-reranker-v3: one pass over query and documents, a projector, and cosines; on transformers' Qwen3, no remote code.

Source: modeling.py of https://huggingface.co/jinaai/jina-reranker-v3 (JinaForRanking.forward and rerank; November 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError
from ...core.scorer import failed
from ..causal_lm.model import Trunk, load_trunk
from ..checkpoint import missing_weights
from ..tokenizer import PairTokenizer
from ..torch.loading import TorchModel
from .prompts import Block, ListPrompts

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["ARCHITECTURE", "ListwiseModel", "cosines"]

ARCHITECTURE = "JinaForRanking"
_FIRST, _SECOND = "projector.0.weight", "projector.2.weight"


class ListwiseNetwork(Trunk):
    """A Qwen3 trunk and its projector."""

    def __init__(
        self, module: Any, first: torch.Tensor, second: torch.Tensor, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Keep them; the projector is second(relu(first(state))), in float32, without biases."""
        super().__init__(module, device, dtype)
        self._first, self._second = first, second

    def embed(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return the embeddings of the passages, (passages, size), and of the query, (size,), float32."""
        import torch

        with torch.inference_mode():
            places = torch.tensor([*block.passages, block.query], device=self.device)
            states = self.states([block.ids])[places].float()
            embedded = (torch.relu(states @ self._first.T) @ self._second.T).cpu().numpy()
            return embedded[:-1], embedded[-1]


class ListwiseModel(TorchModel[ListwiseNetwork, ListPrompts]):
    """One listwise model in memory."""

    @property
    def tokenizer(self) -> PairTokenizer:
        """Its tokenizer."""
        return self.reader.tokenizer

    def read(self) -> ListPrompts:
        """Read the tokenizer, for the prompt."""
        return ListPrompts(self.folder / "tokenizer.json")

    def load(self) -> ListwiseNetwork:
        """Read the weights: the trunk by transformers, the projector by name."""
        from transformers import Qwen3Model

        self.reader  # noqa: B018 (another family's tokenizer shows before the wait)
        first, second = _named(self.folder, _FIRST), _named(self.folder, _SECOND)
        device, dtype, module = load_trunk(self.folder, self.options, Qwen3Model)
        return ListwiseNetwork(module.to(device), first.float().to(device), second.float().to(device), device, dtype)

    def embed(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Run one block on the network (on the worker); see there."""
        try:
            return self.network.embed(block)
        except ConfigError:
            raise
        except Exception as error:
            raise failed(str(self.folder), error) from error


def _named(folder: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            if name in weights.keys():  # noqa: SIM118 (it is no mapping)
                tensor: torch.Tensor = weights.get_tensor(name)
                return tensor
    raise missing_weights(folder, [name], head=False)


def cosines(embedded: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the cosine of each passage with the query, blocks in order.

    The query's embedding is averaged over the blocks, each weighted by (1 + its best cosine) / 2.
    """
    import numpy as np

    weights = [(1.0 + _cosine(passages, query).max()) / 2.0 for passages, query in embedded]
    query = np.average([vector for _, vector in embedded], axis=0, weights=weights)
    return [float(value) for passages, _ in embedded for value in _cosine(passages, query)]


def _cosine(passages: np.ndarray, query: np.ndarray) -> np.ndarray:
    import numpy as np

    lengths = np.linalg.norm(passages, axis=1) * np.linalg.norm(query)
    cosine: np.ndarray = passages @ query / np.maximum(lengths, 1e-12)
    return cosine

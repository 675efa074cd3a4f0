"""jina-reranker-v3: one pass over query and documents, a projector, and cosines; on transformers' Qwen3, no remote code.

Source: modeling.py of https://huggingface.co/jinaai/jina-reranker-v3 (JinaForRanking.forward and rerank; November 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from ..core.scorer import failed
from .causal_load import Trunk, trunk
from .encoder import Encoder
from .listwise_prompts import Block, ListPrompts
from .resident import Placement, Resident, resident

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["ARCHITECTURE", "ListwiseModel", "cosines", "loaded"]

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
            found = (torch.relu(states @ self._first.T) @ self._second.T).cpu().numpy()
            return found[:-1], found[-1]


class ListwiseModel(Resident[ListwiseNetwork, ListPrompts]):
    """One listwise model in memory. Made by `loaded`."""

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer."""
        return self.reader.encoder

    def read(self) -> ListPrompts:
        """Read the tokenizer, for the prompt."""
        return ListPrompts(self.folder / "tokenizer.json")

    def load(self) -> ListwiseNetwork:
        """Read the weights: the trunk by transformers, the projector by name."""
        from transformers import Qwen3Model

        self.reader  # noqa: B018 (another family's tokenizer shows before the wait)
        first, second = _named(self.folder, _FIRST), _named(self.folder, _SECOND)
        device, dtype, module = trunk(self.folder, self.placement, Qwen3Model)
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
                found: torch.Tensor = weights.get_tensor(name)
                return found
    raise ConfigError(f"The weights in {folder} lack {name}, so this is no jina-reranker-v3: fetch it again.")


def cosines(embedded: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the cosine of each passage with the query, blocks in order.

    The query's embedding is averaged over the blocks, each weighted by (1 + its best cosine) / 2.
    """
    import numpy as np

    weights = [(1.0 + _cosine(passages, query).max()) / 2.0 for passages, query in embedded]
    query = np.average([each for _, each in embedded], axis=0, weights=weights)
    return [float(value) for passages, _ in embedded for value in _cosine(passages, query)]


def _cosine(passages: np.ndarray, query: np.ndarray) -> np.ndarray:
    import numpy as np

    lengths = np.linalg.norm(passages, axis=1) * np.linalg.norm(query)
    found: np.ndarray = passages @ query / np.maximum(lengths, 1e-12)
    return found


def loaded(folder: Path, placement: Placement) -> ListwiseModel:
    """Return the process's one listwise model of a folder, device and dtype; see `resident`."""
    return resident(ListwiseModel, folder, placement)

"""The model of jina-reranker-v3: one pass over query and documents, a projector, and cosines.

On transformers' Qwen3, without remote code. Source: modeling.py of https://huggingface.co/jinaai/jina-reranker-v3
(JinaForRanking.forward and rerank; November 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError
from ...core.scorer import unexpected_error
from ..causal_lm.model import Decoder, load_decoder
from ..checkpoint import missing_weights
from ..tokenizer import PairTokenizer
from ..torch.base import TorchModel
from .prompts import Block, ListPrompts

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["ARCHITECTURE", "ListwiseModel", "cosines"]

ARCHITECTURE = "JinaForRanking"
_FIRST, _SECOND = "projector.0.weight", "projector.2.weight"


class ListwiseNetwork(Decoder):
    """A Qwen3 decoder and its projector."""

    def __init__(
        self, module: Any, first: torch.Tensor, second: torch.Tensor, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Take a decoder's module and the projector's matrices.

        The projector is second(relu(first(state))), in float32, without biases.
        """
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
        """The model's tokenizer."""
        return self.preprocessor.tokenizer

    def load_preprocessor(self) -> ListPrompts:
        """Read the tokenizer for the prompt."""
        return ListPrompts(self.folder / "tokenizer.json")

    def load_network(self) -> ListwiseNetwork:
        """Read the weights: the decoder with transformers, the projector by its names."""
        from transformers import Qwen3Model

        self.preprocessor  # noqa: B018 (reports the tokenizer of another family before the long wait)
        first, second = _tensor(self.folder, _FIRST), _tensor(self.folder, _SECOND)
        device, dtype, module = load_decoder(self.folder, self.options, Qwen3Model)
        return ListwiseNetwork(module.to(device), first.float().to(device), second.float().to(device), device, dtype)

    def embed(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Run one block on the network, on the worker; see `ListwiseNetwork.embed`."""
        try:
            return self.network.embed(block)
        except ConfigError:
            raise
        except Exception as error:
            raise unexpected_error(str(self.folder), error) from error


def _tensor(folder: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            if name in weights.keys():  # noqa: SIM118 (not a mapping)
                tensor: torch.Tensor = weights.get_tensor(name)
                return tensor
    raise missing_weights(folder, [name], head=False)


def cosines(embedded: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the cosine of each passage with the query, in the order of the blocks.

    The query's embedding is the average over the blocks, weighted by (1 + best cosine of the block) / 2.
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

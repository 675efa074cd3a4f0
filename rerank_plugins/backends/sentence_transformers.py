"""Any CrossEncoder checkpoint, on torch: the same scores as sentence-transformers', in less time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from ..core.types import Capabilities, RerankRequest
from ..engine.checkpoint import check
from ..engine.logits import logits
from ..engine.torch_backend import TorchBackend
from ..engine.torch_model import Placement, TorchModel, loaded, map_rows
from ..options import TorchOptions

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SentenceTransformers", "SentenceTransformersOptions"]


class SentenceTransformersOptions(TorchOptions):
    """Options of a cross-encoder on torch."""

    trust_remote_code: bool = False
    """Run the repository's own code: only of a model on the hub, at a commit (40 digits)."""


class SentenceTransformers(TorchBackend[TorchModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a sequence-classification model.

    The raw score is the logit, in float32 whatever the model computes in; of two labels the difference. The activation
    that a checkpoint names is not applied: `relevance_score` comes from the declared scale.
    """

    Options = SentenceTransformersOptions
    capabilities = Capabilities(scale="logit")
    several = True

    def __init__(self, model: str | None = None, options: SentenceTransformersOptions | None = None) -> None:
        """Point at the folder `model`; whoever sets `trust_remote_code` has looked at the code in it.

        Raises:
            ConfigError: No folder was named, or it holds no cross-encoder.
        """
        options = options or SentenceTransformersOptions()
        trusted = options.trust_remote_code
        super().__init__(loaded, model, Placement(remote_code=trusted), **options.engine())
        check(self.folder, remote_code=trusted)
        self.capabilities = Capabilities(scale="logit", max_tokens=self.torch_model.limits.longest(options.max_tokens))

    async def scored(self, models: list[TorchModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Score every pair."""
        model, longest = models[0], self.capabilities.max_tokens or 512
        encoder = await model.workers.run(lambda: model.encoder)
        if not encoder.joins_pairs:
            raise ConfigError(f"The tokenizer in {self.folder} joins no pair of texts: this is no cross-encoder's.")
        query = model.limits.prompt + request.query
        rows = await model.workers.run(partial(encoder.pairs, query, request.documents, longest))
        values: list[float] = [0.0] * len(rows)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for position, value in zip(positions, logits(output, self.folder), strict=True):
                values[position] = value

        await map_rows(models, rows, self.batch_tokens, keep)
        return values, [row.truncated for row in rows], None

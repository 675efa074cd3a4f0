"""Any CrossEncoder checkpoint, by name, on torch."""

from __future__ import annotations

import re
from functools import partial

from pydantic import ValidationInfo, field_validator

from ..core.errors import ConfigError
from ..core.types import Capabilities
from ..engine.hub import torch_files
from ..engine.lazy import UNKNOWN_LENGTH, LazyBackend, is_path, located, needed
from ..engine.torch.backend import TorchCrossEncoder
from ..options import TorchOptions, refused

__all__ = ["TorchByName", "TorchByNameOptions"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PIN = (
    "runs code of the repository's, so it needs a model on the hub and its commit: set revision to the 40 digits of the "
    "one that you have read"
)


class TorchByNameOptions(TorchOptions):
    """Options of a cross-encoder on torch, by name."""

    trust_remote_code: bool = False
    """Run the repository's own code: only of a model on the hub, at a commit (40 digits)."""

    @field_validator("trust_remote_code")
    @classmethod
    def _pinned(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not _COMMIT.fullmatch(info.data.get("revision") or ""):
            raise refused(_PIN)
        return value


class TorchByName(LazyBackend):
    """`sentence-transformers:/folder` or `sentence-transformers:org/name`: safetensors, on torch."""

    Options = TorchByNameOptions

    def __init__(self, model: str | None = None, options: TorchByNameOptions | None = None) -> None:
        """Name a folder, or `org/name` on the hub.

        Raises:
            ConfigError: No model was named, what is there is none, or code of a folder's.
        """
        options = options or TorchByNameOptions()
        model, trusted = needed(model, self.name), options.trust_remote_code
        if trusted and is_path(model):
            raise ConfigError(f"trust_remote_code {_PIN}.")
        TorchCrossEncoder.check_options(**options.engine())
        more = {"sentence-transformers": {"trust_remote_code": True}} if trusted else {}
        where = located(
            model,
            f"{self.name}:{model}",
            partial(torch_files, code=trusted),
            options.revision,
            options.local_files_only,
            more,
        )
        declared = Capabilities(scale="logit", max_tokens=options.max_tokens or UNKNOWN_LENGTH)
        make = partial(TorchCrossEncoder, trust_remote_code=trusted, **options.engine())
        super().__init__(model, where, make, declared)

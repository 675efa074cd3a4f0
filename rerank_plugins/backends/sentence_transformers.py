"""Any checkpoint of sentence-transformers' CrossEncoder, from a folder or a hub repository, on torch."""

from __future__ import annotations

import re
from functools import partial

from pydantic import ValidationInfo, field_validator

from ..core.errors import ConfigError
from ..core.types import Capabilities
from ..engine.hub import folder_or_repository, is_path, require_model
from ..engine.hub_files import torch_files
from ..engine.model_backend import UNKNOWN_LENGTH, LazyBackend
from ..engine.torch.cross_encoder import TorchCrossEncoder
from ..options import TorchOptions, refused
from .recipes import refusal

__all__ = ["SentenceTransformers", "SentenceTransformersOptions"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NEEDS_COMMIT = (
    "runs code from the repository, so it needs a model on the hub and its commit: set revision to the 40 digits of "
    "the commit whose code you have read"
)


class SentenceTransformersOptions(TorchOptions):
    """Options of a cross-encoder on torch."""

    trust_remote_code: bool = False
    """Run Python code from the repository. It needs a model on the hub, and a commit of 40 digits as `revision`."""

    @field_validator("trust_remote_code")
    @classmethod
    def _require_commit(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not _COMMIT.fullmatch(info.data.get("revision") or ""):
            raise refused(_NEEDS_COMMIT)
        return value


class SentenceTransformers(LazyBackend):
    """`sentence-transformers:/folder` or `sentence-transformers:org/name`: safetensors on torch."""

    Options = SentenceTransformersOptions

    def __init__(self, model: str | None = None, options: SentenceTransformersOptions | None = None) -> None:
        """Take a folder, or `org/name` on the hub.

        Args:
            model: The folder or repository.
            options: See `SentenceTransformersOptions`.

        Raises:
            ConfigError: `model` is missing or known not to work, the folder holds no model, or `trust_remote_code` is
                set for a folder.
        """
        options = options or SentenceTransformersOptions()
        model, trust_remote_code = require_model(model, self.name), options.trust_remote_code
        if trust_remote_code and is_path(model):
            raise ConfigError(f"trust_remote_code {_NEEDS_COMMIT}.")
        if not is_path(model) and (why := refusal(model, options.revision)):
            raise ConfigError(f"{self.name} does not offer {model!r}: {why}.")
        TorchCrossEncoder.check_options(**options.engine())
        fetch_options = {"sentence-transformers": {"trust_remote_code": True}} if trust_remote_code else {}
        source = folder_or_repository(
            model,
            f"{self.name}:{model}",
            partial(torch_files, code=trust_remote_code),
            options.revision,
            options.local_files_only,
            fetch_options,
        )
        capabilities = Capabilities(scale="logit", max_tokens=options.max_tokens or UNKNOWN_LENGTH)
        make = partial(TorchCrossEncoder, trust_remote_code=trust_remote_code, **options.engine())
        super().__init__(model, source, make, capabilities)

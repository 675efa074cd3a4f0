"""`ModelId`: a model and how it is run. Its text is the label that people read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelId"]


@dataclass(frozen=True, slots=True)
class ModelId:
    """A model of a backend, and how it is run.

    >>> str(ModelId("bge", "bge-reranker-base", runtime="onnxruntime", dtype="float32"))
    'bge:bge-reranker-base [onnxruntime float32]'
    """

    backend: str
    """The backend's name in specs."""
    model: str = ""
    """Name or folder of the model. Empty if the backend has no models."""
    revision: str | None = None
    """Identifies the weights. `None` if it is unknown, or not read yet."""
    runtime: str | None = None
    """Library that runs a local model. `None` if unknown, and for a vendor's model."""
    dtype: str | None = None
    """Number format of a local model. `None` if unknown, and for a vendor's model."""

    @property
    def spec(self) -> str:
        """`backend:model`, the form that a spec uses."""
        return f"{self.backend}:{self.model}" if self.model and self.model != self.backend else self.backend

    def __str__(self) -> str:
        """Return the spec, with runtime and dtype, and without the revision, which is long."""
        run_by = " ".join(part for part in (self.runtime, self.dtype) if part)
        return f"{self.spec} [{run_by}]" if run_by else self.spec

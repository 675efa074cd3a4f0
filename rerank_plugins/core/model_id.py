"""Which model answers, as a value; its text is the label that people read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelId"]


@dataclass(frozen=True, slots=True)
class ModelId:
    """A model behind a backend, and how it is run: `str()` gives `embedded [onnxruntime float32]`, say."""

    backend: str
    """The backend's name in specs."""
    model: str = ""
    """The model's name, or its folder; empty where the backend has none."""
    revision: str | None = None
    """What tells its weights from others of its name; `None` where that is not known, or not read yet."""
    runtime: str | None = None
    """What runs a local model; `None` where it is not known, and for a vendor's."""
    dtype: str | None = None
    """What a local model computes in; `None` where it is not known, and for a vendor's."""

    @property
    def spec(self) -> str:
        """`backend:model`, as a spec says it."""
        return f"{self.backend}:{self.model}" if self.model and self.model != self.backend else self.backend

    def __str__(self) -> str:
        """Return the spec, and how the model is run; without the revision, which is long."""
        run_by = " ".join(part for part in (self.runtime, self.dtype) if part)
        return f"{self.spec} [{run_by}]" if run_by else self.spec

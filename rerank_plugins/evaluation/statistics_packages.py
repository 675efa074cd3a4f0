"""The packages that the statistics of a comparison come from."""

from __future__ import annotations

import importlib.util

from ..core.errors import MissingExtra

__all__ = ["require_statistics"]


def require_statistics() -> None:
    """Check, before any answer is paid for, that the packages of the statistics are installed.

    Raises:
        MissingExtra: ir-measures or scikit-learn (which brings SciPy) is not installed.
    """
    for module, package in (("ir_measures", "ir-measures"), ("sklearn", "scikit-learn")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("A comparison", extra="evaluation", package=package)

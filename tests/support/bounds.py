"""Bounds for the difference of scores that were computed twice; they depend on the dtype and the size of the scores.

A sum of float32 numbers is rounded relative to its largest terms, and CPUs, batch sizes and libraries add in different
orders. So an absolute bound that holds for scores of 1 fails for scores of 10 on another CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

SAME_CODE = 84 * 2.0**-23
"""One model on one runtime in different batches: 84 roundings, 1e-5. The largest measured is 15 (Zen 3, AVX2)."""
OTHER_CODE = 10 * SAME_CODE
"""Another library, which adds in another order. The largest measured is 81 roundings (Zen 3, AVX2)."""
SAME_INPUT = 8 * 2.0**-23
"""The same input and code again: only the division of work between threads may differ."""
BFLOAT16 = 32 * 2.0**-7
"""bfloat16 against float32, in roundings of bfloat16, which has 8 bits of precision instead of 24."""
INT8 = 1 / 127
"""One step of a signed int8 value, relative to its largest value."""


def near(expected: Any, bound: float = SAME_CODE) -> Any:
    """Return a `pytest.approx` that equals scores which differ from `expected` only by rounding.

    Args:
        expected: A score, or a list, a tuple or a mapping of scores of one model. The bound is relative to the largest
            of them, but to 1 at least: a score near 0 is a difference of larger numbers.
        bound: The allowed difference for scores of size 1.
    """
    if isinstance(expected, Mapping):
        values = list(expected.values())
    else:
        values = list(expected) if isinstance(expected, list | tuple) else [expected]
    return pytest.approx(expected, abs=bound * max(1.0, *(abs(value) for value in values)))

"""How near two computations of the same scores have to be: the bound follows from the dtype and from the size of the scores.

A sum of float32 numbers is rounded relative to its largest parts, and no two CPUs, batch sizes or libraries add in the same
order. So an absolute bound that holds for scores of 1 fails for scores of 10 on the next CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

SAME_CODE = 84 * 2.0**-23
"""One model on one runtime, in other batches: 1e-5, as so many roundings of float32. The largest seen is 15 (Zen 3, AVX2)."""
OTHER_CODE = 10 * SAME_CODE
"""Another library's arithmetic, with sums in another order throughout. The largest seen is 81 roundings (Zen 3, AVX2)."""
SAME_INPUT = 8 * 2.0**-23
"""The same numbers through the same code once more: only the division of work between threads may differ."""
BFLOAT16 = 32 * 2.0**-7
"""bfloat16 against float32: so many roundings of bfloat16, which has 8 bits of precision where float32 has 24."""
INT8 = 1 / 127
"""A step of an int8 value with a sign, relative to the largest value that it holds."""


def near(expected: Any, bound: float = SAME_CODE) -> Any:
    """Return what equals scores that differ from `expected` by rounding alone.

    Args:
        expected: A score, or a list, a tuple or a mapping of scores of one model. The largest of them is the size that the
            bound is relative to, and 1 at least: a score near 0 is a difference of larger numbers.
        bound: The allowed difference for scores of size 1.
    """
    if isinstance(expected, Mapping):
        values = list(expected.values())
    else:
        values = list(expected) if isinstance(expected, list | tuple) else [expected]
    return pytest.approx(expected, abs=bound * max(1.0, *(abs(value) for value in values)))

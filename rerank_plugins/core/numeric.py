"""Numbers of options: one check for all of them, so that NaN, infinity and absurd sizes are refused everywhere."""

from __future__ import annotations

import math
from typing import Any

from .errors import ConfigError

__all__ = ["LONGEST_S", "MOST", "finite", "integer", "seconds", "shown"]

MOST = 2**31 - 1
"""The largest count or size of an option."""
LONGEST_S = 10 * 365 * 86_400.0
"""The longest duration of an option, ten years: timers and SQLite overflow far above it, not below."""


def finite(value: Any, name: str, low: float | None = None, high: float | None = None) -> float:
    """Return `value` as a float: a finite number from `low` to `high`.

    Raises:
        ConfigError: It is no such number.
    """
    # The comparisons come first: an integer of 400 digits compares, and only then overflows in float().
    if (
        not _is_number(value)
        or (low is not None and not value >= low)
        or (high is not None and not value <= high)
        or not _is_finite(value)
    ):
        raise _wrong(value, name, "finite number", low, high)
    return float(value)


def seconds(value: Any, name: str, *, zero: bool = False) -> float:
    """Return a number of seconds above 0 (with `zero`: 0 too), at most ten years.

    Raises:
        ConfigError: It is no such number.
    """
    if zero and _is_number(value) and value == 0:
        return 0.0
    if not _is_number(value) or not 0 < value <= LONGEST_S:
        least = "of at least 0" if zero else "above 0"
        raise ConfigError(
            f"{name} must be a number of seconds {least} and at most {LONGEST_S:,.0f}, got {shown(value)}."
        )
    return float(value)


def integer(value: Any, name: str, low: int | None = 1, high: int | None = MOST) -> int:
    """Return `value`: an integer from `low` to `high`. A bool is none, and neither is 3.0.

    Raises:
        ConfigError: It is no such integer.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        # The upper bound is only worth mentioning to someone who is above it.
        above = isinstance(value, int) and high is not None and value > high
        raise _wrong(value, name, "integer", low, high if above or high != MOST else None)
    return value


def shown(value: Any) -> str:
    """Return what an error message quotes of a value: at most 60 characters."""
    try:
        text = repr(value)
    except Exception:  # an integer of more than 4,300 digits has no repr, and a caller's object may raise anything
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _wrong(value: Any, name: str, what: str, low: float | None, high: float | None) -> ConfigError:
    if low is not None and high is not None:
        bounds = f" from {low:,.10g} to {high:,.10g}"
    elif low is not None:
        bounds = f" of at least {low:,.10g}"
    else:
        bounds = "" if high is None else f" of at most {high:,.10g}"
    article = "an" if what == "integer" else "a"
    return ConfigError(f"{name} must be {article} {what}{bounds}, got {shown(value)}.")

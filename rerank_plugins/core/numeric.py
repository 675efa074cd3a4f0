"""Checks for numbers in options. All options use them, so NaN, infinity and absurd sizes are refused everywhere."""

from __future__ import annotations

import math
import operator
from numbers import Integral, Real
from typing import Any

from .errors import ConfigError

__all__ = ["MAX_INTEGER", "MAX_SECONDS", "MIN_TOKENS", "finite", "integer", "plain_number", "seconds", "shown"]

MIN_TOKENS = 16
"""The smallest window of a local model: fewer tokens hold no query and document."""
MAX_INTEGER = 2**31 - 1
"""Largest count or size of an option."""
MAX_SECONDS = 10 * 365 * 86_400.0
"""Longest duration of an option: ten years. Timers and SQLite overflow only far above it."""


def finite(value: Any, name: str, low: float | None = None, high: float | None = None) -> float:
    """Return `value` as a float.

    Raises:
        ConfigError: It is not a finite number from `low` to `high`.
    """
    shown_value, value = value, plain_number(value)
    # The comparisons come first: an integer of 400 digits can be compared, but overflows in float().
    if (
        not _is_number(value)
        or (low is not None and not value >= low)
        or (high is not None and not value <= high)
        or not _is_finite(value)
    ):
        raise _range_error(shown_value, name, "finite number", low, high)
    return float(value)


def seconds(value: Any, name: str, *, zero: bool = False) -> float:
    """Return a number of seconds as a float.

    Raises:
        ConfigError: It is not a number above 0 (with `zero`: 0 or more), or it is more than ten years.
    """
    shown_value, value = value, plain_number(value)
    if zero and _is_number(value) and value == 0:
        return 0.0
    if not _is_number(value) or not 0 < value <= MAX_SECONDS:
        least = "of at least 0" if zero else "above 0"
        raise ConfigError(
            f"{name} must be a number of seconds {least} and at most {MAX_SECONDS:,.0f}, got {shown(shown_value)}."
        )
    return float(value)


def integer(value: Any, name: str, low: int | None = 1, high: int | None = MAX_INTEGER) -> int:
    """Return `value` as an `int`. Integers of NumPy are accepted; bools and floats such as 3.0 are not.

    Raises:
        ConfigError: It is not an integer from `low` to `high`.
    """
    number = _index(value)
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        # The default upper bound is only mentioned if the value exceeds it.
        above = number is not None and high is not None and number > high
        raise _range_error(value, name, "integer", low, high if above or high != MAX_INTEGER else None)
    return number


def plain_number(value: Any) -> Any:
    """Return a number of another library as an `int` or `float`, so that it can be stored; other values as they are."""
    if type(value) in (int, float) or not _is_number(value):
        return value
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except OverflowError:  # a fraction beyond float64
        return value


def shown(value: Any) -> str:
    """Return `repr(value)` for an error message, shortened to 60 characters."""
    try:
        text = repr(value)
    except Exception:  # integers of more than 4,300 digits have no repr, and other objects may raise anything
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _index(value: Any) -> int | None:
    """Return an integer of any library as an `int`, and `None` for any other value."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):
        return None


def _is_number(value: Any) -> bool:
    """Return whether `value` is a number. NumPy registers its numbers as `Real`, so it need not be imported."""
    # NumPy registers its durations as integers too, whatever their unit is.
    return isinstance(value, Real) and not isinstance(value, bool) and type(value).__name__ != "timedelta64"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _range_error(value: Any, name: str, what: str, low: float | None, high: float | None) -> ConfigError:
    if low is not None and high is not None:
        bounds = f" from {low:,.10g} to {high:,.10g}"
    elif low is not None:
        bounds = f" of at least {low:,.10g}"
    else:
        bounds = "" if high is None else f" of at most {high:,.10g}"
    article = "an" if what == "integer" else "a"
    return ConfigError(f"{name} must be {article} {what}{bounds}, got {shown(value)}.")

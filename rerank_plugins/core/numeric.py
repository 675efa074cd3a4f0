"""Numbers of options: one check for all of them, so that NaN, infinity and absurd sizes are refused everywhere."""

from __future__ import annotations

import math
import operator
from numbers import Integral, Real
from typing import Any

from .errors import ConfigError

__all__ = ["LONGEST_S", "MOST", "finite", "integer", "plain_number", "seconds", "shown"]

MOST = 2**31 - 1
"""The largest count or size of an option."""
LONGEST_S = 10 * 365 * 86_400.0
"""The longest duration of an option, ten years: timers and SQLite overflow far above it, not below."""


def finite(value: Any, name: str, low: float | None = None, high: float | None = None) -> float:
    """Return `value` as a float: a finite number from `low` to `high`.

    Raises:
        ConfigError: It is no such number.
    """
    shown_value, value = value, plain_number(value)
    # The comparisons come first: an integer of 400 digits compares, and only then overflows in float().
    if (
        not _is_number(value)
        or (low is not None and not value >= low)
        or (high is not None and not value <= high)
        or not _is_finite(value)
    ):
        raise _wrong(shown_value, name, "finite number", low, high)
    return float(value)


def seconds(value: Any, name: str, *, zero: bool = False) -> float:
    """Return a number of seconds above 0 (with `zero`: 0 too), at most ten years.

    Raises:
        ConfigError: It is no such number.
    """
    shown_value, value = value, plain_number(value)
    if zero and _is_number(value) and value == 0:
        return 0.0
    if not _is_number(value) or not 0 < value <= LONGEST_S:
        least = "of at least 0" if zero else "above 0"
        raise ConfigError(
            f"{name} must be a number of seconds {least} and at most {LONGEST_S:,.0f}, got {shown(shown_value)}."
        )
    return float(value)


def integer(value: Any, name: str, low: int | None = 1, high: int | None = MOST) -> int:
    """Return `value` as an `int` from `low` to `high`; NumPy's integers are some. A bool is none, and neither is 3.0.

    Raises:
        ConfigError: It is no such integer.
    """
    number = _index(value)
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        # The upper bound is only worth mentioning to someone who is above it.
        above = number is not None and high is not None and number > high
        raise _wrong(value, name, "integer", low, high if above or high != MOST else None)
    return number


def plain_number(value: Any) -> Any:
    """Return a number of another library as Python's own, so that it can be stored; anything else as it is."""
    if type(value) in (int, float) or not _is_number(value):
        return value
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except OverflowError:  # a fraction beyond float64
        return value


def shown(value: Any) -> str:
    """Return what an error message quotes of a value: at most 60 characters."""
    try:
        text = repr(value)
    except Exception:  # an integer of more than 4,300 digits has no repr, and a caller's object may raise anything
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _index(value: Any) -> int | None:
    """Return an integer of any library as an `int`; `None` where `value` is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):
        return None


def _is_number(value: Any) -> bool:
    """Return whether `value` is a number. The abstract classes know NumPy's, which is not imported for that."""
    # To Python a duration of NumPy's is an integer too, although its unit may be any.
    return isinstance(value, Real) and not isinstance(value, bool) and type(value).__name__ != "timedelta64"


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

"""Errors for names that are none of the valid ones: they list those, and the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .errors import ConfigError

__all__ = ["choose", "described", "nearest", "unknown"]

_LONGEST_NAME = 60


def nearest(name: object, valid: Iterable[str]) -> str | None:
    """Return the one of `valid` that `name` may be a misspelling of."""
    return next(iter(difflib.get_close_matches(str(name)[:200], list(valid), n=1, cutoff=0.5)), None)


def choose(name: object, valid: Iterable[str]) -> str:
    """Return the sentences that help to choose one of `valid` instead of `name`, with a space in front."""
    names = sorted(valid)
    if not names:
        return " There is none: leave it out."
    near = nearest(name, names)
    guess = f" Did you mean {near!r}?" if near else ""
    return f"{guess} Choose one of: {', '.join(names)}."


def unknown(what: str, name: object, valid: Iterable[str]) -> ConfigError:
    """Return the error for a name that nothing has: it lists the valid ones and the nearest."""
    text = str(name)
    shown = repr(name) if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]!r}…"
    return ConfigError(f"There is no {what} {shown}.{choose(name, valid)}")


def described(value: object) -> str:
    """Return what an error may say of a refused value: numbers as they are, of all else its type. It may be a key."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return repr(value)
    words: dict[type, str] = {str: "a string", dict: "a mapping", list: "a list", tuple: "a tuple", bytes: "bytes"}
    return words.get(type(value), f"a value of type {type(value).__name__}")

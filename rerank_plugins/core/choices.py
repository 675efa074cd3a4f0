"""Errors for unknown names: they list the valid names and suggest the nearest."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ConfigError

__all__ = ["choose", "described", "nearest", "unknown"]

_LONGEST_NAME = 60


def nearest(name: object, valid: Iterable[str]) -> str | None:
    """Return the name in `valid` that `name` is probably a misspelling of, or `None`."""
    import difflib  # only for errors

    return next(iter(difflib.get_close_matches(str(name)[:200], list(valid), n=1, cutoff=0.55)), None)


def choose(name: object, valid: Iterable[str]) -> str:
    """Return advice for an unknown `name`: the nearest of the `valid` names, and all. It starts with a space."""
    names = sorted(valid)
    if not names:
        return " There is none: leave it out."
    near = nearest(name, names)
    guess = f" Did you mean {near!r}?" if near else ""
    return f"{guess} Choose one of: {', '.join(names)}."


def unknown(what: str, name: object, valid: Iterable[str]) -> ConfigError:
    """Return the error for an unknown name. `what` says what is named, such as `backend`."""
    text = str(name)
    shown = repr(name) if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]!r}…"
    return ConfigError(f"There is no {what} {shown}.{choose(name, valid)}")


def described(value: object) -> str:
    """Describe a refused value for an error: a number as it is, any other value by its type, since it may be a key."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return repr(value)
    names: dict[type, str] = {str: "a string", dict: "a mapping", list: "a list", tuple: "a tuple", bytes: "bytes"}
    return names.get(type(value), f"a value of type {type(value).__name__}")

"""The common options of local models, checked."""

from __future__ import annotations

import re
from typing import Any

from ..core.errors import ConfigError
from ..core.numeric import integer

__all__ = ["devices", "offered", "size"]

_NUMBERED = re.compile(r"([a-z]+):(0|[1-9][0-9]*)")


def devices(value: Any) -> tuple[Any, ...]:
    """Return the devices that a spec names: one, or several GPUs of one kind, each by its number.

    Whether this machine has them shows when the model is loaded.

    Raises:
        ConfigError: None, one twice, or several that are not GPUs of one kind.
    """
    if value is not None and not isinstance(value, str | int | list | tuple):
        raise ConfigError(f"device has to be a name, as 'cuda:0', or a list of names, and {value!r} is not.")
    if not isinstance(value, list | tuple):
        return (value,)
    if not value:
        raise ConfigError("device names nothing: name a device, as 'cuda:0', or leave it out.")
    if len(value) == 1:
        return devices(value[0])
    kinds = set[str]()
    for each in value:
        named = _NUMBERED.fullmatch(each) if isinstance(each, str) else None
        if named is None or named[1] == "cpu":
            raise ConfigError(
                f"device names {each!r} beside others: several devices are GPUs, each by its number, as "
                "['cuda:0', 'cuda:1']."
            )
        if value.count(each) > 1:
            raise ConfigError(f"device names {each!r} twice: a GPU holds one copy of the model, so name it once.")
        kinds.add(named[1])
    if len(kinds) > 1:
        raise ConfigError(
            f"device names {' and '.join(sorted(kinds))}: GPUs of two kinds may give two scores for one text, so name one kind."
        )
    return tuple(value)


def offered(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`; `None` is always fine.

    Raises:
        ConfigError: It is not among them.
    """
    if value is not None and value not in choices:
        raise ConfigError(f"{name} {value!r} is not offered here; choose one of: {', '.join(choices)}.")


def size(name: str, value: Any, least: int = 16) -> None:
    """Refuse a number of tokens that is no whole number of at least `least`; `None` is always fine.

    Raises:
        ConfigError: It is none.
    """
    if value is not None:
        integer(value, name, least)

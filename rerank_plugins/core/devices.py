"""Check the option `device` of local models."""

from __future__ import annotations

import re
from typing import Any

from .errors import ConfigError
from .numeric import shown

__all__ = ["devices"]

_NUMBERED = re.compile(r"([a-z]+):(0|[1-9][0-9]*)")


def devices(value: Any, name: str = "device") -> tuple[Any, ...]:
    """Return the devices that the option names: one, or several GPUs of one kind, each with its number.

    It does not check whether this machine has them; loading the model does.

    Raises:
        ConfigError: The list is empty, names a device twice, or names several that are not GPUs of one kind.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | list | tuple | None):
        raise ConfigError(f"{name} must be a name such as 'cuda:0', or a list of names, got {shown(value)}.")
    if not isinstance(value, list | tuple):
        return (value,)
    if not value:
        raise ConfigError(f"{name} must not be an empty list. Name a device, such as 'cuda:0', or leave it out.")
    if len(value) == 1:
        return devices(value[0], name)
    kinds = set[str]()
    for device in value:
        named = _NUMBERED.fullmatch(device) if isinstance(device, str) else None
        if named is None or named[1] == "cpu":
            raise ConfigError(
                f"{name} names {device!r} beside others: several devices are GPUs, each by its number, as "
                "['cuda:0', 'cuda:1']."
            )
        if value.count(device) > 1:
            raise ConfigError(f"{name} names {device!r} twice: a GPU holds one copy of the model, so name it once.")
        kinds.add(named[1])
    if len(kinds) > 1:
        raise ConfigError(
            f"{name} names {' and '.join(sorted(kinds))}: GPUs of two kinds may give two scores for one text. "
            "Name one kind."
        )
    return tuple(value)

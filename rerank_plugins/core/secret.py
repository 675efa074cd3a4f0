"""A key: readable by whoever sends it, by nobody who prints, pickles or serialises what holds it."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from .errors import ConfigError
from .redaction import MASK

__all__ = ["Secret", "refuse_mask"]

_SHOWN = MASK


def refuse_mask(value: Any, name: str) -> None:
    """Refuse what `without_keys` left of a credential.

    Raises:
        ConfigError: `value` is the mask.
    """
    if isinstance(value, str) and MASK in value:
        raise ConfigError(
            f"{name} holds {MASK}: this spec was stored, and what it held there was left out, since it may be a "
            'credential. Write "env:NAME" there, which is stored, and set that variable where the spec is read.'
        )


class Secret:
    """A string that prints as asterisks and refuses to be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Hide `value`: a key, or `"env:NAME"`, the name of the variable that holds it."""
        self._value = value

    @classmethod
    def of(cls, value: Any) -> Secret | None:
        """Return `value` (text, one of ours, or pydantic's SecretStr) as a secret; `None` stays."""
        if value is None or isinstance(value, Secret):
            return value
        revealed = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(revealed, str) or not revealed.strip():
            raise ConfigError('api_key has to be a text: the key, or "env:NAME" for an environment variable.')
        return cls(revealed.strip())

    def reveal(self) -> str:
        """Return the text."""
        return self._value

    def resolved(self) -> Secret:
        """Return the key itself, read from the environment where this is `env:NAME`.

        Raises:
            ConfigError: The variable is not set.
        """
        if not self._value.startswith("env:"):
            return self
        variable = self._value[4:]
        if value := os.environ.get(variable, "").strip():
            return Secret(value)
        raise ConfigError(f'The spec takes its key from "env:{variable}", and {variable} is not set: export it.')

    def __eq__(self, other: object) -> bool:
        """Compare the texts."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Show nothing."""
        return f"Secret('{_SHOWN}')"

    def __str__(self) -> str:
        """Show nothing."""
        return _SHOWN

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        """Copies within the process share it."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickle is a file that travels."""
        raise TypeError("A key is never pickled; the environment has it where the pickle is read.")

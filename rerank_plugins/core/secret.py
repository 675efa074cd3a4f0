"""`Secret`: an API key that cannot be printed, pickled or serialised by accident."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from .choices import described
from .errors import ConfigError
from .redaction import MASK

__all__ = ["Secret", "refuse_mask"]


def refuse_mask(value: Any, name: str) -> None:
    """Refuse a value in which `without_keys` has masked a credential.

    Raises:
        ConfigError: `value` contains the mask.
    """
    if isinstance(value, str) and MASK in value:
        raise ConfigError(
            f"{name} holds {MASK}: this spec was stored, and the value was masked, since it may be a credential. "
            'Write "env:NAME" there, which is stored, and set that variable where the spec is read.'
        )


class Secret:
    """A string that prints as asterisks and cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Hide `value`: a key, or `"env:NAME"` or `"file:PATH"`, which name its place."""
        self._value = value

    @classmethod
    def of(cls, value: Any) -> Secret | None:
        """Return `value` (a string, a `Secret`, or pydantic's `SecretStr`) as a `Secret`, and `None` as `None`.

        Raises:
            ConfigError: It is none of these, or it is empty.
        """
        if value is None or isinstance(value, Secret):
            return value
        revealed = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(revealed, str) or not revealed.strip():
            got = "an empty string" if isinstance(revealed, str) else described(revealed)
            raise ConfigError(
                'api_key must be a string: the key, "env:NAME" for an environment variable, or "file:PATH" for a file; '
                f"or, in Python, a function that returns the key; got {got}."
            )
        return cls(revealed.strip())

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def resolved(self) -> Secret:
        """Return the value of the variable for `env:NAME`, and any other value as it is.

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
        """Compare the strings."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Hash the string."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Return a mask."""
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        """Return a mask."""
        return MASK

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        """Return this object: copies within the process share it."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse, since pickles are stored and sent."""
        raise TypeError("A key cannot be pickled. Set it in the environment of the process that reads the pickle.")

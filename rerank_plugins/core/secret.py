"""A key: readable by whoever sends it, by nobody who prints, pickles or serialises what holds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from .choices import described
from .errors import ConfigError
from .redaction import MASK

__all__ = ["Secret", "refuse_mask"]

_SHOWN = MASK
_LONGEST_KEY = 65_536
"""Characters: more than any key has, so that a wrong path does not read gigabytes."""


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


def _read_key(path: str) -> str:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            key = file.read(_LONGEST_KEY).strip()
    except (OSError, ValueError, RuntimeError) as error:  # no UTF-8, a NUL in the path, no home folder
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"The spec takes its key from the file {path}, which cannot be read: {why}.") from None
    if not key:
        raise ConfigError(f"The spec takes its key from the file {path}, which is empty: write the key into it.")
    return key


class Secret:
    """A string that prints as asterisks and refuses to be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Hide `value`: a key, or `"env:NAME"` or `"file:PATH"`, which name where it is."""
        self._value = value

    @classmethod
    def of(cls, value: Any) -> Secret | None:
        """Return `value` (text, one of ours, or pydantic's SecretStr) as a secret; `None` stays."""
        if value is None or isinstance(value, Secret):
            return value
        revealed = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(revealed, str) or not revealed.strip():
            got = "an empty string" if isinstance(revealed, str) else described(revealed)
            raise ConfigError(
                'api_key must be a string: the key, "env:NAME" for an environment variable, or "file:PATH" for a file, '
                f"got {got}."
            )
        return cls(revealed.strip())

    def reveal(self) -> str:
        """Return the text."""
        return self._value

    def resolved(self, *, files: bool = False) -> Secret:
        """Return the key itself, read from the environment where this is `env:NAME`.

        Args:
            files: Whether `file:PATH` is read too. Only for keys: other texts that are sent may begin so.

        Raises:
            ConfigError: The variable is not set, or the file cannot be read.
        """
        if files and self._value.startswith("file:"):
            return Secret(_read_key(self._value[5:]))
        if not self._value.startswith("env:"):
            return self
        variable = self._value[4:]
        if value := os.environ.get(variable, "").strip():
            return Secret(value)
        raise ConfigError(f'The spec takes its key from "env:{variable}", and {variable} is not set: export it.')

    def file_version(self) -> list[int]:
        """Return what changes when the file of `file:PATH` does; without a file, nothing."""
        if not self._value.startswith("file:"):
            return []
        try:
            status = Path(self._value[5:]).expanduser().stat()
        except (OSError, ValueError, RuntimeError):
            return []
        return [status.st_ino, status.st_size, status.st_mtime_ns]

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

"""Puts the file and table of a spec in front of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import ConfigError

__all__ = ["add_table", "table_in_errors"]


@contextmanager
def table_in_errors(table: str) -> Iterator[None]:
    """Put `table` in front of the message of a ConfigError, unless a table inside that one is already there."""
    try:
        yield
    except ConfigError as error:
        add_table(error, table)
        raise


def add_table(error: ConfigError, table: str) -> None:
    """Put `table` in front of the message of `error`, unless a table is already there."""
    named = "table" in vars(error) or str(error).startswith(table)
    if table and error.args and not named:
        vars(error)["table"] = table
        error.args = (f"{table}: {error.args[0]}", *error.args[1:])

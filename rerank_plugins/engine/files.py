"""Files of a model's folder are opened here: regular files of a bounded size, so that none of them can block a call.

Reading a named pipe waits until somebody writes to it, which may be never; a device may have no end.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, clause

__all__ = ["MOST_SETTINGS", "MOST_TOKENIZER", "json_of", "only_regular", "read_text", "regular"]

MOST_SETTINGS = 2**24
"""Bytes of a file of settings; the largest in use (100,000 labels) have 4 MB."""
MOST_TOKENIZER = 2**28
"""Bytes of a tokenizer; the largest in use (Gemma's, 262,144 tokens) have 33 MB."""


def regular(file: Path) -> os.stat_result:
    """Return a file's status.

    Raises:
        ConfigError: It is a named pipe, a socket, a device or a folder.
        OSError: It is not there, or cannot be looked at.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{file} is not a regular file: replace it with the model's own file.")
    return status


def read_text(file: Path, most: int) -> str:
    """Return the text of a regular file of at most `most` bytes.

    Raises:
        ConfigError: It is not a regular file, or is larger.
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    size = regular(file).st_size
    if size > most:
        raise ConfigError(f"{file} has {size:,} bytes, and at most {most:,} are read: fetch the model again.")
    return file.read_text("utf-8")


def only_regular(folder: Path) -> None:
    """Refuse a folder with anything but regular files and folders at its top or one level below: libraries open them by name.

    Raises:
        ConfigError: There is one, or the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            top = [(entry, entry.is_dir()) for entry in entries]
        for entry, is_folder in top:
            if is_folder:
                with os.scandir(entry.path) as below:
                    for each in below:
                        if not (each.is_file() or each.is_dir()):
                            _refuse_special(each)
            elif not entry.is_file():
                _refuse_special(entry)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}): check its permissions.") from error


def _refuse_special(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(FileNotFoundError):  # a link to nothing, or just deleted: whoever needs it says so
        regular(Path(entry.path))


def json_of(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file, or no object in it.

    Raises:
        ConfigError: It cannot be read, or is no JSON.
    """
    try:
        parsed = json.loads(read_text(path, MOST_SETTINGS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({clause(error)}): fetch the model again.") from error
    return parsed if isinstance(parsed, dict) else {}

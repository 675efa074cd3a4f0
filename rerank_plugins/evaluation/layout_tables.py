"""The tables of a data set in a layout of the hub: which files hold each split of each subset.

The table of subsets is the one in the front matter of README.md, as `datasets.load_dataset` reads it; without one, the
names of folders and files.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError, clause
from .hub_data import DataFiles

__all__ = ["Tables", "files_of", "find_tables"]

Tables = Mapping[str, Mapping[str, Sequence[str]]]
"""Subset → split → names of files. A split that README.md declares has none where the data set is a part of a copy."""
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".tsv")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_FOLDERS_WITHOUT_NAME = ("data", "")


def find_tables(files: DataFiles) -> Tables:
    """Return subset → split → names of files: those of README.md, and those that folders and files name."""
    names = [name for name in files.names() if name.endswith(SUFFIXES)]
    tables: dict[str, dict[str, list[str]]] = {}
    for name in names:
        *folders, file = name.split("/")
        split = _PART.sub(
            "",
            next(
                file.removesuffix(suffix) for suffix in sorted(SUFFIXES, key=len, reverse=True) if file.endswith(suffix)
            ),
        )
        folder = "/".join(folders)
        subset = (
            folder if folder not in _FOLDERS_WITHOUT_NAME else split if split in ("corpus", "queries") else "default"
        )
        tables.setdefault(subset, {}).setdefault(split, []).append(name)
    if "README.md" in files.names():
        for subset, declared in _declared_tables(files.path("README.md"), names).items():
            by_name = tables.get(subset, {})
            with_files = {split: listed or by_name.get(split, []) for split, listed in declared.items()}
            # Declared splits stay without files: dropped, a part of a data set would be measured as the whole.
            tables[subset] = with_files if any(declared.values()) else {**by_name, **with_files}
    return tables


def files_of(name: str, tables: Tables, subset: str, split: str) -> Sequence[str]:
    """Return the names of the files of a split.

    Args:
        name: The name of the data set, for the error.
        tables: From `find_tables`.
        subset: A subset of `tables`.
        split: One of its splits.

    Raises:
        InputError: README.md declares the split, and none of its files is there.
    """
    splits = tables[subset]
    if not splits[split]:
        here = ", ".join(each for each, listed in splits.items() if listed) or "none"
        raise InputError(
            f"{name} has no file ({', '.join(SUFFIXES)}) of the split {split!r} of {subset!r}, which its README.md "
            f"declares: download it, or name what is to be measured with --subset. Here are the files of: {here}."
        )
    return splits[split]


def _declared_tables(readme: Path, names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return the tables that the front matter of a README.md declares, also splits without a file among `names`."""
    from huggingface_hub.repocard import metadata_load

    try:
        metadata: Any = metadata_load(readme)
    except Exception as error:  # PyYAML's errors and those of huggingface_hub share no base class
        raise InputError(f"{readme} has a front matter that does not parse: {clause(error)}. Correct it.") from error
    tables: dict[str, dict[str, list[str]]] = {}
    declared = metadata.get("configs") if isinstance(metadata, dict) else None
    for entry in declared if isinstance(declared, list) else ():
        if not isinstance(entry, dict):
            continue
        splits = tables.setdefault(str(entry.get("config_name", "default")), {})
        for item in _strings_or_mappings(entry.get("data_files"), readme):
            split, paths = (item.get("split", "train"), item.get("path")) if isinstance(item, dict) else ("train", item)
            patterns = [str(pattern) for pattern in _strings_or_mappings(paths, readme)]
            matching = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
            # Several items of one split belong together, and each file is read once.
            splits[str(split)] = list(dict.fromkeys([*splits.get(str(split), []), *matching]))
    return {name: splits for name, splits in tables.items() if splits}


def _strings_or_mappings(value: Any, readme: Path) -> list[Any]:
    """Return the items of `data_files` or `path`, which may be one item."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(item, (str, dict)) for item in items):
        raise InputError(
            f"{readme}: data_files must be a path, a list of paths, or a list of mappings with split and path, got "
            f"{value!r}. Correct it."
        )
    return items

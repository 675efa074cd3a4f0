"""Specs as plain data: reads them from files and the environment, resolves names in them, and removes keys."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..core.address import SECRET_NAME, storable_url
from ..core.choices import described
from ..core.credentials import FunctionKey, identity_of, sealed_key
from ..core.errors import ConfigError, clause
from ..core.numeric import plain_number, shown
from ..core.redaction import MASK
from ..core.secret import Secret
from ..core.text import sendable
from .error_tables import table_in_errors
from .registry import is_known, unknown_backend_error

__all__ = [
    "NamedSpec",
    "canonical",
    "guarded",
    "holds_client",
    "parse",
    "profiles",
    "spelled_out",
    "without_keys",
]

SPEC_VARIABLE = "RERANK_PLUGINS_RERANKER"
CONFIG_VARIABLE = "RERANK_PLUGINS_CONFIG"
DEFAULT = "embedded"

MAX_DEPTH = 64
"""Maximum number of nested lists and mappings in a spec. It is far below Python's recursion limit."""
MAX_SPECS = 1_000
MAX_VALUES = 10_000
"""Maximum number of values in a spec, including those of the named rerankers in it."""
HOLDS_SPECS = {"fallback": "specs", "cascade": "stages", "fuse": "with"}
"""Options that hold other specs, and the key of their list of specs."""

ADDRESSES = ("base_url", "token_url")
"""Options that are a URL, which may hold a password or a key."""
SENT_ALONG = ("headers", "body", "query", "params")
"""Options whose strings are sent with each request. Any of them may be a credential."""

_ENVIRONMENT = re.compile(r'env:([^"&@/?#\s]+)')

PLAIN = (str, int, float, bool, type(None))
"""Types without inner values. Checking the type here avoids a function call for most values."""

Named = Mapping[str, Mapping[str, Any]]


class Profiles(dict[str, Mapping[str, Any]]):
    """The named rerankers of a configuration file, by name. Empty without a file."""

    file: Path | None = None

    def table(self, spec: object) -> str:
        """Return the origin of `spec` for error messages: a table of the file, the environment variable, or `""`."""
        variable = os.environ.get(SPEC_VARIABLE) if spec is None else None
        name = (variable or "default") if spec is None else spec
        if isinstance(name, str) and name in self:
            return f"{self.file} [rerankers.{name}]"
        return SPEC_VARIABLE if variable else ""


class NamedSpec(dict[str, Any]):
    """The spec of a named reranker inside another spec."""

    table: str = ""
    """The file and table that hold it, for error messages."""


def profiles(path: str | os.PathLike[str] | None) -> Profiles:
    """Return the named rerankers of a TOML file.

    Args:
        path: The file. `None` takes the one that RERANK_PLUGINS_CONFIG names; without that variable, there are none.

    Raises:
        ConfigError: The file cannot be read, is not valid TOML, or has no `[rerankers.NAME]` tables.
    """
    chosen = path or os.environ.get(CONFIG_VARIABLE)
    if not chosen:
        return Profiles()
    if not isinstance(chosen, str | os.PathLike):
        raise ConfigError(f"config must be the path of a TOML file, got {shown(chosen)}.")
    try:
        file = Path(chosen).expanduser()
        content = file.read_bytes()
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # a NUL in the path, a bytes path, no home folder
        origin = "" if path else f" (named by {CONFIG_VARIABLE})"
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The configuration file {_cut(os.fspath(chosen))}{origin} cannot be read: {why}. Check the path."
        ) from error
    # The cache key is the content: a replaced file may have the same size and time, and the content is small.
    return _parsed(file.absolute(), file, content)


@functools.lru_cache(maxsize=16)
def _parsed(place: Path, file: Path, content: bytes) -> Profiles:
    import tomllib

    try:
        parsed = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, an integer of 5,000 digits, nested too deep
        raise ConfigError(f"{file} is not valid TOML: {clause(error)}. Correct that line.") from error
    tables = parsed.get("rerankers")
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise ConfigError(
            f'{file} names no rerankers: it must have tables such as [rerankers.production] with use = "…".'
        )
    named = Profiles((name, _with_absolute_paths(table, place.parent)) for name, table in tables.items())
    named.file = file
    return named


def _with_absolute_paths(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy of a spec in which relative paths are joined to `folder`, the folder of its file."""

    def path(value: Any) -> Any:
        # An absolute path stays the same when joined. A path that starts with ~ is in the user's home folder.
        return str(folder / value) if isinstance(value, str) and value and value[0] != "~" else value

    def entry(value: Any) -> Any:
        if isinstance(value, str):
            backend, colon, model = value.partition(":")
            relative = model in (".", "..") or model.startswith(("./", "../", ".\\", "..\\"))
            return f"{backend}{colon}{folder / model}" if relative else value
        return _with_absolute_paths(value, folder) if isinstance(value, Mapping) else value

    def entries_of(value: Any) -> Any:
        return [entry(each) for each in value] if isinstance(value, list) else value

    copy = dict(spec)
    for key, value in spec.items():
        if key == "use":
            copy[key] = entry(value)
        elif key == "api_key" and isinstance(value, str) and value.startswith("file:"):
            copy[key] = f"file:{path(value[5:])}"
        elif key in ("calibration", "cache_path") and isinstance(value, str):
            copy[key] = path(value)
        elif key in ("cache", "calibration") and isinstance(value, Mapping) and "path" in value:
            copy[key] = {**value, "path": path(value["path"])}
        elif key in HOLDS_SPECS and isinstance(value, Mapping):
            inner = HOLDS_SPECS[key]
            copy[key] = {**value, inner: entries_of(value[inner])} if inner in value else value
        elif key == "fallback":
            copy[key] = entries_of(value)
        elif isinstance(value, Mapping) and not value.keys().isdisjoint(("api_key", "cache_path")):  # a backend's table
            copy[key] = _with_absolute_paths(value, folder)
    return copy


def parse(spec: str | Mapping[str, Any] | None, named: Named, *, explicit: bool = False) -> dict[str, Any]:
    """Return a spec in its long form, a mapping with `use`. The values in it are not checked.

    Args:
        spec: A string, a mapping, or `None` for the spec in the environment.
        named: The named rerankers that a string can refer to.
        explicit: Whether the caller passed a configuration file. Then `spec=None` needs a reranker named `default`.

    Raises:
        ConfigError: The name is unknown, or the value has another type.
    """
    if spec is None:
        spec = os.environ.get(SPEC_VARIABLE) or None
        if spec is None:
            if explicit and "default" not in named:
                raise ConfigError(
                    f"The file has no reranker named `default`. Name one of: {', '.join(sorted(named))}; or call one "
                    "`default`."
                )
            spec = "default" if "default" in named else DEFAULT
        else:
            spec = parse_json_spec(spec, SPEC_VARIABLE)
    if isinstance(spec, Mapping):
        return dict(spec)
    if not isinstance(spec, str):
        own = " A backend is named by its entry point: install its package, and pass that name."
        raise ConfigError(
            "A reranker must be a string such as 'embedded' or 'cohere:MODEL', or a mapping with `use`, got "
            f"{described(spec)}.{own if hasattr(spec, 'capabilities') else ''}"
        )
    if spec in named:
        return dict(named[spec])
    backend = spec.partition(":")[0]
    if not is_known(backend):
        raise unknown_backend_error(spec, named)
    return {"use": spec}


def parse_json_spec(text: str, source: str) -> Any:
    """Return the value that `text` holds if it starts like a JSON object, else `text` itself.

    Args:
        text: A spec: a string such as `"embedded"`, or a JSON object.
        source: What held the text, for the error: the name of a variable or of an argument.

    Raises:
        ConfigError: The text starts like JSON but does not parse.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{source} starts like JSON but does not parse: {clause(error)}. Check its quotes."
        ) from error


def spelled_out(spec: Mapping[str, Any], named: Named) -> dict[str, Any]:
    """Return a copy that does not need the file: names inside are replaced by their specs, keys by `Secret`.

    Raises:
        ConfigError: A name is unknown, or a reranker contains itself or too many others.
    """
    parsed = _spelled_out(spec, named, (), itertools.count(1))
    _check_plain(parsed)
    return parsed


def _spelled_out(
    spec: Mapping[str, Any], named: Named, within: tuple[str, ...], specs: Iterator[int]
) -> dict[str, Any]:
    # Ten named rerankers that each name the next one twice contain the last one 1,024 times. So the specs are counted,
    # not only their depth.
    if len(within) > MAX_DEPTH or next(specs) > MAX_SPECS:
        raise ConfigError(
            f"A spec may contain {MAX_SPECS:,} specs, nested {MAX_DEPTH} deep, including the named rerankers in it. "
            "Name fewer."
        )

    def entry(item: Any) -> Any:
        if item is None:
            raise ConfigError("A list of specs holds None: write 'passthrough' for the order given.")
        if not isinstance(item, str):
            return _spelled_out(parse(item, named), named, within, specs)
        if item not in named:
            if not is_known(item.partition(":")[0]):
                raise unknown_backend_error(item, named)
            return item
        if item in within:
            raise ConfigError(f"The reranker {item!r} contains itself ({' → '.join((*within, item))}): name another.")
        table = named.table(item) if isinstance(named, Profiles) else ""
        with table_in_errors(table):
            inner = NamedSpec(_spelled_out(named[item], named, (*within, item), specs))
        inner.table = table
        return inner

    copy = guarded(spec)
    if isinstance(fallback := copy.get("fallback"), list):
        copy["fallback"] = [entry(each) for each in fallback]
    for option, key in HOLDS_SPECS.items():
        value = copy.get(option)
        if isinstance(value, Mapping) and isinstance(value.get(key), list):
            copy[option] = {**value, key: [entry(each) for each in value[key]]}
    return copy


def guarded(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which every `api_key`, at any depth, is a `Secret`, or a `FunctionKey` for a function.

    Raises:
        ConfigError: The spec is nested too deep (or contains itself), a key is not a string, a number is not finite, or
            a string cannot be encoded as UTF-8, so that every request would fail.
    """
    _check_plain(spec)
    return _guarded(spec)


def _guarded(spec: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "api_key":
            copied[key] = value if isinstance(value, Secret) else sealed_key(value)
        elif isinstance(value, PLAIN):
            copied[key] = value
        else:
            copied[key] = _guarded(value) if isinstance(value, Mapping) else _inside(value, _guarded)
    return copied


def _check_plain(spec: Mapping[str, Any]) -> None:
    """Check that a spec can be walked, compared and written as JSON.

    Raises:
        ConfigError: See `guarded`.
    """
    waiting: list[tuple[str, Any, int]] = [("", spec, 1)]
    count = 0
    while waiting:
        path, value, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ConfigError(
                f"The spec is too large, or contains itself (at {_cut(path) or 'its top'}): it may have {MAX_DEPTH} "
                f"levels of lists and mappings and {MAX_VALUES:,} values. Nest fewer specs."
            )
        if isinstance(value, Mapping):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise ConfigError(f"There is no option {shown(key)}: the keys of a spec must be strings.")
                if not key.isascii() and sendable(key) != key:
                    raise _not_encodable(path or "spec")
                waiting.append((f"{path}.{key}" if path else key, each, depth + 1))
        elif isinstance(value, list | tuple):
            for place, each in enumerate(value):
                waiting.append((f"{path}[{place}]", each, depth + 1))
        elif isinstance(value, str):
            # An instruction is handled like the text of a query, which may contain lone surrogates.
            if not value.isascii() and path.rpartition(".")[2] != "instruction" and sendable(value) != value:
                raise _not_encodable(path)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{_cut(path)} must be a finite number, got {value}. Leave the option out for no limit.")
        elif isinstance(value, int) and value.bit_length() > 64:
            raise ConfigError(f"{_cut(path)} must be a number of at most 64 bits, got one of {value.bit_length()}.")


def _cut(text: str | bytes) -> str:
    shown_text = text if isinstance(text, str) else repr(text)
    return shown_text if len(shown_text) <= 200 else f"{shown_text[:100]}…{shown_text[-50:]}"


def without_keys(spec: Mapping[str, Any], *, functions: bool = False) -> dict[str, Any]:
    """Return a plain copy that may be printed, pickled and stored: it contains no key and no possible credential.

    An `api_key` is removed, unless it is `"env:NAME"` or `"file:PATH"`, which only say where the key is; with
    `functions`, a function stays too, which pickles by its name or refuses to be pickled. Entries of
    headers and bodies with the name of a credential are removed too. Other strings in headers, bodies and the query of
    a URL are replaced by a mask, unless they are `"env:NAME"`. A backend refuses a spec with a mask, so that it
    never sends less than before.
    """
    copy: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "api_key":
            sealed = sealed_key(value)
            if isinstance(sealed, FunctionKey):
                copy |= {key: sealed} if functions else {}
            elif sealed is not None and sealed.reveal().startswith(("env:", "file:")):
                copy[key] = sealed.reveal()
        elif key in SENT_ALONG and isinstance(value, Mapping):
            copy[key] = _masked(value)
        elif key in ADDRESSES and isinstance(value, str):
            copy[key] = storable_url(value)
        elif key != "client":
            copy[key] = value if type(value) in PLAIN else _inside(value, partial(without_keys, functions=functions))
    return copy


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        masked = {key: _masked(each) for key, each in value.items()}
        return {key: each for key, each in masked.items() if each != MASK or not SECRET_NAME.search(str(key))}
    if isinstance(value, list | tuple):
        return [_masked(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value.reveal() if isinstance(value, Secret) else value
    return text if isinstance(text, str) and text.startswith("env:") else MASK


def _inside(value: Any, change: Any) -> Any:
    if isinstance(value, Mapping):
        return change(value)
    if isinstance(value, list | tuple):
        return [each if type(each) in PLAIN else _inside(each, change) for each in value]
    return plain_number(value)


def _not_encodable(path: str) -> ConfigError:
    return ConfigError(f"{path} holds a lone surrogate, which UTF-8 cannot encode. Remove it from the text.")


def canonical(spec: Mapping[str, Any]) -> str:
    """Return a hash of a spec and its keys, including keys in the environment.

    A changed variable changes the hash, so that a shared reranker is replaced. A key in a file or from a function does
    not: the reranker itself reads it anew.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Secret):
            return value.reveal()
        if isinstance(value, FunctionKey):
            return repr(identity_of(value.function))
        return f"{type(value).__qualname__}@{id(value)}"

    keys = sorted(item for item in os.environ.items() if item[0].endswith(("KEY", "TOKEN", "_PATH", "_URL")))
    try:
        text = json.dumps([spec, keys], sort_keys=True, default=plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The spec is not plain data: {clause(error)}. Use strings, numbers, lists and mappings."
        ) from error
    named = [os.environ.get(name) for name in _ENVIRONMENT.findall(text)]
    text = json.dumps([text, named])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def holds_client(value: Any) -> bool:
    """Return whether a spec contains a `client` of the user's: a live object, which a plain copy cannot contain."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Mapping):
            if current.get("client") is not None:
                return True
            waiting.extend(current.values())
        elif isinstance(current, list | tuple):
            waiting.extend(current)
    return False

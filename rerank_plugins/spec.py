"""Specs as plain data: where they come from, what names them, and what is left of them without keys."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .core.errors import ConfigError
from .core.secret import Secret
from .core.text import sendable
from .registry import entries, unknown

__all__ = [
    "canonical",
    "check_encodable",
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

HOLDS_SPECS = {"fallback": "specs", "cascade": "stages", "fuse": "with"}
"""Where a spec holds other specs."""

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_ENVIRONMENT = re.compile(r'"env:([^"]+)"')

Profiles = Mapping[str, Mapping[str, Any]]


def profiles(path: str | os.PathLike[str] | None) -> Profiles:
    """Return the named rerankers of a TOML file; without a path, of the file that RERANK_PLUGINS_CONFIG names.

    Raises:
        ConfigError: The file is not there, is no TOML, or has no `[rerankers.NAME]` tables.
    """
    chosen = path or os.environ.get(CONFIG_VARIABLE)
    if not chosen:
        return {}
    file = Path(chosen).expanduser()
    try:
        return _read(file, file.stat().st_mtime_ns)
    except OSError as error:
        origin = "" if path else f" (named by {CONFIG_VARIABLE})"
        raise ConfigError(
            f"The configuration file {file}{origin} cannot be read: {error.strerror}. Check the path."
        ) from error


@functools.lru_cache(maxsize=16)
def _read(file: Path, changed: int) -> Profiles:  # noqa: ARG001 (a key of the cache)
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}. Mend that line.") from error
    named = found.get("rerankers")
    if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
        raise ConfigError(f'{file} names no rerankers: it needs tables such as [rerankers.production] with use = "…".')
    return named


def parse(spec: str | Mapping[str, Any] | None, named: Profiles, *, explicit: bool = False) -> dict[str, Any]:
    """Return a spec in its long form, a mapping with `use`.

    Args:
        spec: A string, a mapping, or `None` for the environment's.
        named: The named rerankers a string may mean.
        explicit: Whether the caller named a configuration file, so that not naming a reranker in it is a mistake.

    Raises:
        ConfigError: A name nobody knows, or a value of another type.
    """
    if spec is None:
        spec = os.environ.get(SPEC_VARIABLE) or None
        if spec is None:
            if explicit and "default" not in named:
                raise ConfigError(
                    f"Which reranker of the file? Name one of: {', '.join(sorted(named))}; or call one `default`."
                )
            spec = "default" if "default" in named else DEFAULT
        elif spec.lstrip().startswith("{"):
            try:
                spec = json.loads(spec)
            except ValueError as error:
                raise ConfigError(f"{SPEC_VARIABLE} begins like JSON and is none: {error}.") from error
    if isinstance(spec, Mapping):
        return guarded(spec)
    if not isinstance(spec, str):
        raise ConfigError(
            f"A reranker is named by a text such as 'embedded' or 'cohere:MODEL', or by a mapping with `use`; "
            f"not by a {type(spec).__name__}."
        )
    if spec in named:
        return guarded(named[spec])
    backend = spec.partition(":")[0]
    known = entries()
    if backend not in known:
        raise unknown("backend or named reranker" if named else "backend", backend, [*known, *named])
    return {"use": spec}


def spelled_out(spec: Mapping[str, Any], named: Profiles, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a guarded copy in which the specs inside are the named rerankers themselves: it means the same without the file.

    Raises:
        ConfigError: A name nobody knows, or a reranker that is made of itself.
    """

    def entry(each: Any) -> Any:
        if each is None:
            raise ConfigError("A list of specs holds None, which is none: write 'passthrough' for the order given.")
        if isinstance(each, str) and each not in named:
            parse(each, named)  # for its error, which lists the names too
            return each
        if isinstance(each, str) and each in within:
            raise ConfigError(f"The reranker {each!r} is made of itself ({' → '.join((*within, each))}): name another.")
        deeper = (*within, each) if isinstance(each, str) else within
        return spelled_out(parse(each, named), named, deeper)

    found = guarded(spec)
    if isinstance(fallback := found.get("fallback"), list):
        found["fallback"] = [entry(each) for each in fallback]
    for option, key in HOLDS_SPECS.items():
        value = found.get(option)
        if isinstance(value, Mapping) and isinstance(value.get(key), list):
            found[option] = {**value, key: [entry(each) for each in value[key]]}
    return found


def guarded(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which every `api_key`, however deep, is a `Secret`."""
    return {key: Secret.of(value) if key == "api_key" else _inside(value, guarded) for key, value in spec.items()}


def without_keys(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain copy that may be printed, pickled and stored: no key, no header or address that holds one.

    `"env:NAME"` stays, since it names a key and is none.
    """
    kept: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "api_key":
            told = Secret.of(value)
            if told is not None and told.reveal().startswith("env:"):
                kept[key] = told.reveal()
        elif key == "headers" and isinstance(value, Mapping):
            kept[key] = {
                name: each
                for name, each in value.items()
                if str(each).startswith("env:") or not _SECRET_HEADER.search(name)
            }
        elif key == "base_url" and isinstance(value, str):
            kept[key] = _without_credentials(value)
        elif key != "client":
            kept[key] = _inside(value, without_keys)
    return kept


def _without_credentials(address: str) -> str:
    """Return an address without user and password, and without a query that may hold a key."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise ConfigError(f"base_url is no address ({error}): write it like http://127.0.0.1:8000.") from error
    query = "" if _SECRET_HEADER.search(parts.query) else parts.query
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def _inside(value: Any, change: Any) -> Any:
    if isinstance(value, Mapping):
        return change(value)
    if isinstance(value, list | tuple):
        return [_inside(each, change) for each in value]
    return value


def check_encodable(value: Any, path: str) -> None:
    """Refuse strings that UTF-8 cannot encode, wherever they stand: they would fail every request.

    Raises:
        ConfigError: It names the option.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_encodable(item, f"{path}.{key}" if path else str(key))
            check_encodable(str(key), path or "spec")
    elif isinstance(value, list | tuple):
        for item in value:
            check_encodable(item, path)
    elif isinstance(value, str) and sendable(value) != value:
        raise ConfigError(f"{path} holds a lone surrogate, which UTF-8 cannot encode. Write the text without it.")


def canonical(spec: Mapping[str, Any]) -> str:
    """Return a name that is the same for the same spec and keys, and tells neither.

    Keys in the environment count too, so that a rotated one makes a new reranker.
    """

    def told(value: Any) -> str:
        return value.reveal() if isinstance(value, Secret) else f"{type(value).__qualname__}@{id(value)}"

    keys = sorted(item for item in os.environ.items() if item[0].endswith(("KEY", "TOKEN", "_PATH", "_URL")))
    text = json.dumps([spec, keys], sort_keys=True, default=told)
    named = [os.environ.get(name) for name in _ENVIRONMENT.findall(text)]
    text = json.dumps([text, named])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def holds_client(value: Any) -> bool:
    """Tell whether a spec holds a `client` that the user made: a live object, which no plain copy can replace."""
    if isinstance(value, Mapping):
        return value.get("client") is not None or any(holds_client(each) for each in value.values())
    return isinstance(value, list | tuple) and any(holds_client(each) for each in value)

"""Specs as plain data: where they come from, what names them, and what is left of them without keys."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.address import SECRET_NAME, storable_url
from ..core.choices import described
from ..core.errors import ConfigError, clause
from ..core.numeric import plain_number, shown
from ..core.redaction import MASK
from ..core.secret import Secret
from ..core.text import sendable
from .registry import is_known, unknown_backend

__all__ = [
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

DEEPEST = 64
"""Levels of lists and mappings in a spec: far from Python's limit of recursion, which the build would meet."""
MOST_SPECS = 1_000
LARGEST = 10_000
"""Values in a spec, those of the named rerankers in it included."""
HOLDS_SPECS = {"fallback": "specs", "cascade": "stages", "fuse": "with"}
"""Where a spec holds other specs."""

SENT_ALONG = ("headers", "body", "query", "params")
"""Options whose texts are sent along with each request: any of them may be a credential."""

_ENVIRONMENT = re.compile(r'env:([^"&@/?#\s]+)')

PLAIN = (str, int, float, bool, type(None))
"""Values that nothing is inside of: most of them, and not worth a call."""

Named = Mapping[str, Mapping[str, Any]]


class Profiles(dict[str, Mapping[str, Any]]):
    """The named rerankers of a configuration file; without a file, none."""

    file: Path | None = None

    def table(self, spec: object) -> str:
        """Return where `spec` comes from, as errors name it: a table of the file, or the environment; else nothing."""
        variable = os.environ.get(SPEC_VARIABLE) if spec is None else None
        name = (variable or "default") if spec is None else spec
        if isinstance(name, str) and name in self:
            return f"{self.file} [rerankers.{name}]"
        return SPEC_VARIABLE if variable else ""


def profiles(path: str | os.PathLike[str] | None) -> Profiles:
    """Return the named rerankers of a TOML file; without a path, of the file that RERANK_PLUGINS_CONFIG names.

    Raises:
        ConfigError: The file is not there, is no TOML, or has no `[rerankers.NAME]` tables.
    """
    chosen = path or os.environ.get(CONFIG_VARIABLE)
    if not chosen:
        return Profiles()
    if not isinstance(chosen, str | os.PathLike):
        raise ConfigError(f"config must be the path of a TOML file, got {shown(chosen)}.")
    try:
        file = Path(chosen).expanduser()
        content = file.read_bytes()
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # a NUL in it, a path of bytes, no home folder
        origin = "" if path else f" (named by {CONFIG_VARIABLE})"
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The configuration file {_cut(os.fspath(chosen))}{origin} cannot be read: {why}. Check the path."
        ) from error
    # The content is the key: size and time of a file may stay the same when it is replaced, and it is small.
    return _parsed(file.absolute(), file, content)


@functools.lru_cache(maxsize=16)
def _parsed(place: Path, file: Path, content: bytes) -> Profiles:
    try:
        parsed = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, an integer of 5,000 digits; nested too deep
        raise ConfigError(f"{file} is not valid TOML: {clause(error)}. Mend that line.") from error
    named = parsed.get("rerankers")
    if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
        raise ConfigError(f'{file} names no rerankers: it needs tables such as [rerankers.production] with use = "…".')
    found = Profiles((name, _anchored(table, place.parent)) for name, table in named.items())
    found.file = file
    return found


def _anchored(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a spec of a file in `folder`, in which no path depends on the folder that the process runs in."""

    def path(value: Any) -> Any:
        # Joined, an absolute path stays as it is; one that begins with ~ is the user's.
        return str(folder / value) if isinstance(value, str) and value and value[0] != "~" else value

    def entry(value: Any) -> Any:
        if isinstance(value, str):
            backend, colon, model = value.partition(":")
            relative = model in (".", "..") or model.startswith(("./", "../", ".\\", "..\\"))
            return f"{backend}{colon}{folder / model}" if relative else value
        return _anchored(value, folder) if isinstance(value, Mapping) else value

    def entries_of(value: Any) -> Any:
        return [entry(each) for each in value] if isinstance(value, list) else value

    anchored = dict(spec)
    for key, value in spec.items():
        if key == "use":
            anchored[key] = entry(value)
        elif key == "api_key" and isinstance(value, str) and value.startswith("file:"):
            anchored[key] = f"file:{path(value[5:])}"
        elif key == "calibration" and isinstance(value, str):
            anchored[key] = path(value)
        elif key in ("cache", "calibration") and isinstance(value, Mapping) and "path" in value:
            anchored[key] = {**value, "path": path(value["path"])}
        elif key in HOLDS_SPECS and isinstance(value, Mapping):
            inner = HOLDS_SPECS[key]
            anchored[key] = {**value, inner: entries_of(value[inner])} if inner in value else value
        elif key == "fallback":
            anchored[key] = entries_of(value)
        elif isinstance(value, Mapping) and "api_key" in value:  # a backend's own table
            anchored[key] = _anchored(value, folder)
    return anchored


def parse(spec: str | Mapping[str, Any] | None, named: Named, *, explicit: bool = False) -> dict[str, Any]:
    """Return a spec in its long form, a mapping with `use`; what is in it is not looked at.

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
            except (ValueError, RecursionError) as error:
                raise ConfigError(
                    f"{SPEC_VARIABLE} starts like JSON but does not parse: {clause(error)}. Check its quotes."
                ) from error
    if isinstance(spec, Mapping):
        return dict(spec)
    if not isinstance(spec, str):
        raise ConfigError(
            f"A reranker must be a string such as 'embedded' or 'cohere:MODEL', or a mapping with `use`, got {described(spec)}."
        )
    if spec in named:
        return dict(named[spec])
    backend = spec.partition(":")[0]
    if not is_known(backend):
        raise unknown_backend(spec, named)
    return {"use": spec}


def spelled_out(spec: Mapping[str, Any], named: Named) -> dict[str, Any]:
    """Return a guarded copy in which the specs inside are the named rerankers themselves: it means the same without the file.

    Raises:
        ConfigError: A name nobody knows, a reranker that is made of itself, or of too many others.
    """
    parsed = _spelled_out(spec, named, (), itertools.count(1))
    _check_plain(parsed)
    return parsed


def _spelled_out(
    spec: Mapping[str, Any], named: Named, within: tuple[str, ...], specs: Iterator[int]
) -> dict[str, Any]:
    # Ten named rerankers that each name the next one twice are 1,024 of the last: so all are counted, not only the depth.
    if len(within) > DEEPEST or next(specs) > MOST_SPECS:
        raise ConfigError(
            f"A spec may hold {MOST_SPECS:,} specs, {DEEPEST} inside each other, the named rerankers in it included. Name fewer."
        )

    def entry(each: Any) -> Any:
        if each is None:
            raise ConfigError("A list of specs holds None: write 'passthrough' for the order given.")
        if isinstance(each, str) and each not in named:
            if not is_known(each.partition(":")[0]):
                raise unknown_backend(each, named)
            return each
        if isinstance(each, str) and each in within:
            raise ConfigError(f"The reranker {each!r} is made of itself ({' → '.join((*within, each))}): name another.")
        deeper = (*within, each) if isinstance(each, str) else within
        return _spelled_out(parse(each, named), named, deeper, specs)

    found = guarded(spec)
    if isinstance(fallback := found.get("fallback"), list):
        found["fallback"] = [entry(each) for each in fallback]
    for option, key in HOLDS_SPECS.items():
        value = found.get(option)
        if isinstance(value, Mapping) and isinstance(value.get(key), list):
            found[option] = {**value, key: [entry(each) for each in value[key]]}
    return found


def guarded(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which every `api_key`, however deep, is a `Secret`.

    Raises:
        ConfigError: The spec is nested too deep (or holds itself), a key is no string, a number is not finite, or a string
            cannot be encoded: it would fail every request.
    """
    _check_plain(spec)
    return _guarded(spec)


def _guarded(spec: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "api_key":
            copied[key] = value if isinstance(value, Secret) else Secret.of(value)
        elif isinstance(value, PLAIN):
            copied[key] = value
        else:
            copied[key] = _guarded(value) if isinstance(value, Mapping) else _inside(value, _guarded)
    return copied


def _check_plain(spec: Mapping[str, Any]) -> None:
    """Refuse a spec that the code after this could not walk, compare or write as JSON.

    Raises:
        ConfigError: See `guarded`.
    """
    waiting: list[tuple[str, Any, int]] = [("", spec, 1)]
    seen = 0
    while waiting:
        path, value, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > LARGEST:
            raise ConfigError(
                f"The spec is too large, or holds itself (at {_cut(path) or 'its top'}): it may have {DEEPEST} levels of lists and "
                f"mappings and {LARGEST:,} values. Nest fewer specs."
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
            # An instruction is treated as the text of a query, which may hold anything.
            if not value.isascii() and path.rpartition(".")[2] != "instruction" and sendable(value) != value:
                raise _not_encodable(path)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{_cut(path)} must be a finite number, got {value}. Leave it out for no bound.")
        elif isinstance(value, int) and value.bit_length() > 64:
            raise ConfigError(f"{_cut(path)} must be a number of at most 64 bits, got one of {value.bit_length()}.")


def _cut(text: str | bytes) -> str:
    shown_text = text if isinstance(text, str) else repr(text)
    return shown_text if len(shown_text) <= 200 else f"{shown_text[:100]}…{shown_text[-50:]}"


def without_keys(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain copy that may be printed, pickled and stored: no key, and nothing that may be a credential.

    A key is left out (`"env:NAME"` and `"file:PATH"`, which only say where it is, stay), and so is what else has the name
    of a credential. Of headers, bodies and the query of a `base_url` only `"env:NAME"` stays, which names a credential and is none, and what
    is no text. A mask stands for every other text: a backend refuses a spec with one, rather than send less than before.
    """
    kept: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "api_key":
            told = value if isinstance(value, Secret) else Secret.of(value)
            if told is not None and told.reveal().startswith(("env:", "file:")):
                kept[key] = told.reveal()
        elif key in SENT_ALONG and isinstance(value, Mapping):
            kept[key] = _masked(value)
        elif key == "base_url" and isinstance(value, str):
            kept[key] = storable_url(value)
        elif key != "client":
            kept[key] = value if type(value) in PLAIN else _inside(value, without_keys)
    return kept


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
    return ConfigError(f"{path} holds a lone surrogate, which UTF-8 cannot encode. Write the text without it.")


def canonical(spec: Mapping[str, Any]) -> str:
    """Return a name that is the same for the same spec and keys, and tells neither.

    Keys in the environment and in files count too, so that a rotated one makes a new reranker.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Secret):
            return [value.reveal(), value.file_version()]
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
    """Tell whether a spec holds a `client` that the user made: a live object, which no plain copy can replace."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            if each.get("client") is not None:
                return True
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
    return False

"""Check a spec that a call names, which may come from outside of the program: it must not reach the program's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from ..core.errors import ConfigError
from ..core.remote import Remote
from ..core.secret import Secret
from .registry import backend_class, is_known

__all__ = ["refuse_key_references"]

_REFERENCE = re.compile(r"(^|[:/=@?&])\s*(env|file):")
_INSTRUCTION = re.compile(r"((fallback(\.specs)?|cascade\.stages|fuse\.with)\[\d+\]\.)*instruction")
"""The paths of instructions, which are never resolved, so they may say anything. A header or a field of the body may
have that name too, and is resolved."""
_DROPPED_FROM_URLS = str.maketrans("", "", "\t\r\n")
"""Characters that `urlsplit` drops: with one of them inside, "env:" would not look like it."""
_ADVICE = "Give this spec a name in the configuration file, and let the call name it."


def refuse_key_references(spec: Any) -> None:
    """Check a spec that a call names. It may hold keys of its own.

    Raises:
        ConfigError: The spec, or one inside it, holds `"env:NAME"` or `"file:PATH"`, or it would have the key in the
            backend's environment variable sent to an address that it names.
    """
    waiting: list[tuple[str, Any]] = [("", spec)]
    while waiting:
        path, value = waiting.pop()
        value = value.reveal() if isinstance(value, Secret) else value
        if isinstance(value, Mapping):
            if place := _place_named_without_key(value):
                raise ConfigError(
                    f"{path or 'The spec'} names {place} and no api_key, so the program's own key would be sent there, "
                    f"and a call must not choose where it goes. Add an api_key. Or: {_ADVICE}"
                )
            waiting += [(f"{path}.{key}" if path else str(key), each) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}[{place}]", each) for place, each in enumerate(value)]
        elif isinstance(value, str) and not _INSTRUCTION.fullmatch(path) and _holds_reference(value):
            raise ConfigError(
                f'{path or "The spec"} holds "env:NAME" or "file:PATH", but a reranker that a call names must not read '
                f"keys of the program. {_ADVICE}"
            )


def _holds_reference(text: str) -> bool:
    # A URL may hold "env:" in escaped form, which is resolved too.
    return _REFERENCE.search(unquote_plus(text.translate(_DROPPED_FROM_URLS))) is not None


def _place_named_without_key(spec: Mapping[str, Any]) -> str | None:
    """Return the option by which a spec chooses where a key of the environment goes; `None` if it chooses nothing.

    Besides an address these are the path, which selects an operation of the program's server, and the header `host`,
    which selects one of several servers behind an address.
    """
    use = spec.get("use")
    name = use.partition(":")[0] if isinstance(use, str) else ""
    if not is_known(name):
        return None
    own = spec.get(name)
    values = {**spec, **own} if isinstance(own, Mapping) else spec
    if values.get("api_key"):
        return None
    kind = backend_class(name)
    if not (issubclass(kind, Remote) and (kind.key_variables or kind.finds_credentials)):
        return None
    for option in ("base_url", "token_url", "path"):
        if values.get(option) is not None:  # "" is a path too
            return f"a {option}"
    headers = values.get("headers")
    if isinstance(headers, Mapping) and any(str(key).strip().lower() == "host" for key in headers):
        return "a header host"
    return None

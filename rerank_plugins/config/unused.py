"""Options at the top of a spec that none of its backends has."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..options import Options, names
from .registry import backend_class

__all__ = ["accepted", "options_of", "refuse_unused"]


def accepted(kind: type[Backend]) -> list[str]:
    """Return the names of what a backend takes: the options that it declares, else those of its constructor."""
    model: type[Options] | None = kind.Options
    if model is not None:
        return list(names(model))
    parameters = inspect.signature(kind).parameters.values()
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


def options_of(name: str) -> list[str]:
    """Return the names of the options that a backend takes from the top of a spec."""
    kind = backend_class(name)
    # A local backend that fetches nothing holds what `local_files_only` asks for.
    return accepted(kind) if kind.remote else [*accepted(kind), "local_files_only"]


def refuse_unused(settings: Mapping[str, Any], shared: Collection[str], inherited: Collection[str]) -> None:
    """Refuse an option at the top of a spec that would change nothing, such as `max_tokens` over a vendor that has none.

    The backend under `use` takes them all; specs inside that are strings take the `inherited` ones. Options in a table of
    a backend's own name are not looked at: they do nothing for others, so that a spec can hold those of several vendors.

    Args:
        settings: One spec; those inside of it that are mappings stand alone and are not looked at.
        shared: The options that many backends share.
        inherited: Those that a string inside takes from the spec around it.

    Raises:
        ConfigError: No backend of the spec has it. It says where the option belongs.
    """
    use = settings.get("use")
    name = use.partition(":")[0] if isinstance(use, str) else "cascade"
    own = options_of(name) if isinstance(use, str) else ()
    inside = {each.partition(":")[0] for each in _strings_inside(settings)}
    for option in shared:
        if settings.get(option) is None or option in own:
            continue
        if option in inherited and any(option in options_of(each) for each in inside):
            continue
        near = difflib.get_close_matches(option, own, n=1, cutoff=0.6)
        advice = f"write {name} = {{{near[0]} = …}} for that of {name}, or leave it out" if near else "leave it out"
        entry = "a stage" if name == "cascade" else "a stand-in"
        raise ConfigError(
            f"{name} has no option {option!r}, and nothing else in this spec takes it from here: {advice}. If it is for "
            f"{entry}, write that as a mapping: {{'use': …, {option!r}: …}}."
        )


def _strings_inside(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the specs inside that are strings; a value of another form is refused elsewhere."""
    fallback, fuse, cascade = (settings.get(key) for key in ("fallback", "fuse", "cascade"))
    lists = (
        fallback.get("specs") if isinstance(fallback, Mapping) else fallback,
        fuse.get("with") if isinstance(fuse, Mapping) else None,
        cascade.get("stages") if isinstance(cascade, Mapping) else None,
    )
    for each in lists:
        if isinstance(each, list | tuple):
            yield from (spec for spec in each if isinstance(spec, str))

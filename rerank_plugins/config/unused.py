"""Options at the top of a spec that none of its backends has."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..options import Options, names

__all__ = ["accepted", "refuse_unused"]


@functools.cache
def accepted(kind: type[Backend]) -> tuple[str, ...]:
    """Return the names of the options that a backend takes: those that it declares, else those of its constructor."""
    model: type[Options] | None = kind.Options
    if model is not None:
        own = names(model)
    else:
        parameters = inspect.signature(kind).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        own = tuple(each.name for each in parameters if each.kind in named and each.name != "model")
    # A local backend that fetches nothing holds what `local_files_only` asks for.
    return own if kind.remote else (*own, "local_files_only")


def refuse_unused(
    settings: Mapping[str, Any],
    kind: type[Backend] | None,
    inside: Collection[type[Backend]],
    shared: Collection[str],
    inherited: Collection[str],
) -> None:
    """Refuse an option at the top of a spec that would change nothing, such as `max_tokens` over a vendor that has none.

    The backend under `use` takes them all; specs inside that are strings take the `inherited` ones. Options in a table of
    a backend's own name are not looked at: they do nothing for others, so that a spec can hold those of several vendors.

    Args:
        settings: One spec; those inside of it that are mappings stand alone and are not looked at.
        kind: The class of its backend; `None` for a cascade.
        inside: The classes behind the specs inside it that are strings.
        shared: The options that many backends share.
        inherited: Those that a string inside takes from the spec around it.

    Raises:
        ConfigError: No backend of the spec has it. It says where the option belongs.
    """
    own = () if kind is None else accepted(kind)
    for option in shared:
        if settings.get(option) is None or option in own:
            continue
        if option in inherited and any(option in accepted(each) for each in inside):
            continue
        name = "cascade" if kind is None else settings["use"].partition(":")[0]
        near = difflib.get_close_matches(option, own, n=1, cutoff=0.6)
        advice = f"write {name} = {{{near[0]} = …}} for that of {name}, or leave it out" if near else "leave it out"
        entry = "a stage" if kind is None else "a stand-in"
        raise ConfigError(
            f"{name} has no option {option!r}, and nothing else in this spec takes it from here: {advice}. If it is for "
            f"{entry}, write that as a mapping: {{'use': …, {option!r}: …}}."
        )

"""Refuses options at the top of a spec that none of its backends has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..options import Options, names
from .registry import options_model

__all__ = ["accepted", "refuse_unused"]


@functools.cache
def accepted(kind: type[Backend]) -> tuple[str, ...]:
    """Return the option names of a backend: those of its option model, else the parameters of its constructor."""
    model: type[Options] | None = options_model(kind)
    if model is not None:
        own = names(model)
    else:
        parameters = inspect.signature(kind).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        own = tuple(each.name for each in parameters if each.kind in named and each.name != "model")
    # A local backend that downloads nothing satisfies `local_files_only` too.
    return own if kind.remote else (*own, "local_files_only")


def refuse_unused(
    settings: Mapping[str, Any],
    kind: type[Backend] | None,
    inside: Collection[type[Backend]],
    shared: Collection[str],
    inherited: Collection[str],
) -> None:
    """Refuse an option at the top of a spec that has no effect, such as `max_tokens` for a vendor without that option.

    The backend under `use` takes all options at the top. Strings inside the spec take the `inherited` ones. The tables
    of backends are not checked: a spec may hold options of several vendors, and a table has no effect on other
    backends.

    Args:
        settings: One spec. Mappings inside it inherit nothing and are not checked here.
        kind: The class of its backend; `None` for a cascade.
        inside: The classes behind the strings inside it.
        shared: The names of the options that many backends share.
        inherited: The names of the options that a string inherits from the spec around it.

    Raises:
        ConfigError: No backend of the spec has the option. The message says where the option belongs.
    """
    own = () if kind is None else accepted(kind)
    for option in shared:
        if settings.get(option) is None or option in own:
            continue
        if option in inherited and any(option in accepted(each) for each in inside):
            continue
        name = "cascade" if kind is None else settings["use"].partition(":")[0]
        import difflib  # only for errors

        near = difflib.get_close_matches(option, own, n=1, cutoff=0.6)
        advice = f"write {name} = {{{near[0]} = …}} for {name}'s option, or leave it out" if near else "leave it out"
        if option == "timeout":
            advice += "; `deadline` limits the whole call"
        entry = "a stage" if kind is None else "an entry of the fallback"
        raise ConfigError(
            f"{name} has no option {option!r}, and nothing inside this spec inherits it: {advice}. If it is "
            f"for {entry}, write that as a mapping: {{'use': …, {option!r}: …}}."
        )

"""Loads a reranker from plain data: a new one, or the process-wide shared one of a spec.

The modules that build are imported when the first spec is loaded, and those that parse options, which import
pydantic, when the first spec with options is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from ..core._runtime.fork_hooks import Lock
from ..core._runtime.lru import LRU
from .error_tables import table_in_errors
from .sources import canonical, parse, profiles, spelled_out

if TYPE_CHECKING:
    from ..reranker import Reranker
    from .keywords import KnownReranker, RerankerKeywords

__all__ = ["load_reranker", "shared"]


def load_reranker(
    spec: KnownReranker | str | Mapping[str, Any] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    **options: Unpack[RerankerKeywords],
) -> Reranker:
    """Build a reranker from plain data.

    Args:
        spec: `"backend"`, `"backend:model"`, the name of a reranker in the configuration file, or a mapping with `use`
            and options. `None` takes the environment variable RERANK_PLUGINS_RERANKER (any of these; a mapping as
            JSON), else the file's reranker named `default`, else `"embedded"`.
        config: Path of a TOML file with `[rerankers.NAME]` tables. `None` takes the file that the environment variable
            RERANK_PLUGINS_CONFIG names.
        **options: Options of the spec, such as `top_n=5`. They replace the same options in `spec`.

    Returns:
        A reranker with its own connections and threads. Models are shared within the process. Models and clients are
        loaded at the first call or at `warmup()`.

    Raises:
        ConfigError: A backend, option or name is unknown (the message lists the valid ones), a value is not valid, or
            a file or key is missing.
        MissingExtra: The backend needs a package that is not installed. The message contains the pip command.

    Example:
        >>> reranker = load_reranker("lexical", top_n=1)
        >>> response = reranker.rerank("tides", ["bananas", "the moon causes tides"])
        >>> response[0].document
        'the moon causes tides'
    """
    named = profiles(config)
    with table_in_errors(named.table(spec)):
        return _build(spelled_out({**parse(spec, named, explicit=config is not None), **options}, named))


_table: LRU[str, Reranker] = LRU(64)
_table_lock = Lock()


def shared(spec: str | Mapping[str, Any] | None, *, config: str | os.PathLike[str] | None = None) -> Reranker:
    """Return the process-wide shared reranker of a spec and its keys, so that a call with another spec creates nothing.

    The table holds the 64 specs used last. Callers must not close a shared reranker.

    Args:
        spec: See `load_reranker`.
        config: See `load_reranker`. Two files with the same table for a name share one reranker.

    Raises:
        ConfigError: See `load_reranker`.
    """
    named = profiles(config)
    with table_in_errors(named.table(spec)):
        settings = spelled_out(parse(spec, named, explicit=config is not None), named)
        name = canonical(settings)
        with _table_lock:
            return _table.get_or_make(name, lambda: _build(settings))


def _build(settings: Mapping[str, Any]) -> Reranker:
    from .build import build
    from .defaults import default_options

    options = default_options(settings)
    if options is None:
        from .schema import parse_spec

        return build(parse_spec(settings), settings)
    return build(options, settings)

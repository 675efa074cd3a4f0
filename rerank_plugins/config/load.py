"""Plain data → Reranker: made anew, or the process's one live reranker of a spec.

What parses and builds is imported at the first spec: until then, pydantic is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from ..core.errors import ConfigError
from ..core.fork import Lock
from ..core.lru import LRU
from .sources import Profiles, canonical, parse, profiles, spelled_out

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
            and options. `None` is the environment variable RERANK_PLUGINS_RERANKER (any of these; a mapping as JSON),
            else the file's reranker named `default`, else `"embedded"`.
        config: A TOML file with `[rerankers.NAME]` tables; else the one named by RERANK_PLUGINS_CONFIG.
        **options: Options of the spec, such as `top_n=5`; they win over the spec's own.

    Returns:
        A reranker with connections and threads of its own (models are shared within the process). Nothing heavy is
        loaded before the first call or `warmup()`.

    Raises:
        ConfigError: An unknown backend, option or name (the message lists the valid ones), a wrong value, a missing
            file or key.
        MissingExtra: The backend needs a package that is not installed; the message is the pip command.
    """
    named = profiles(config)
    with _placed(spec, named):
        return _build(spelled_out({**parse(spec, named, explicit=config is not None), **options}, named))


_table: LRU[str, Reranker] = LRU(64)
_table_lock = Lock()


def shared(spec: str | Mapping[str, Any] | None, *, config: str | os.PathLike[str] | None = None) -> Reranker:
    """Return the process's one live reranker of a spec and its keys, so that switching per call makes nothing anew.

    The 64 specs used last are kept. Whoever gets a reranker here does not close it.

    Args:
        spec: As of `load_reranker`.
        config: As of `load_reranker`. Two files that say the same of a name give the same reranker.

    Raises:
        ConfigError: As `load_reranker`.
    """
    named = profiles(config)
    with _placed(spec, named):
        settings = spelled_out(parse(spec, named, explicit=config is not None), named)
        name = canonical(settings)
        with _table_lock:
            return _table.get_or_make(name, lambda: _build(settings))


def _build(settings: Mapping[str, Any]) -> Reranker:
    from .build import build
    from .schema import parse_spec

    return build(parse_spec(settings), settings)


@contextmanager
def _placed(spec: object, named: Profiles) -> Iterator[None]:
    """Name file and table in the errors about a named reranker."""
    try:
        yield
    except ConfigError as error:
        table = named.table(spec)
        if table and error.args and not str(error).startswith(table):
            error.args = (f"{table}: {error.args[0]}", *error.args[1:])
        raise

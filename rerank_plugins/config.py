"""Spec → Reranker. The one file that knows every policy and their order.

Inside out: backend → observe → limit → retry → breaker → split → cache → truncate, one such stack per backend; then
fallback over stacks; then one deadline. (A retry around a split would send every part again for the one that failed; a cache
around a fallback would file a stand-in's scores under the failed backend's name; a limit around a retry would not see what is
sent again.)
"""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import __version__
from .core.errors import ConfigError, RerankError
from .core.hosted import HostedBackend
from .core.scorer import Backend, Scorer, Wrapper
from .policies.breaker import FAILURES, RESET_S, Breaker
from .policies.cache import Cache
from .policies.deadline import Deadline
from .policies.fallback import CAUSES, DEFAULT_CAUSES, Fallback
from .policies.limit import Limit
from .policies.memory import MemoryStore
from .policies.observe import Observe
from .policies.retry import Retry
from .policies.split import Split
from .policies.truncate import MODES, Truncate
from .registry import backend_class, entries, unknown
from .reranker import Reranker, check_threshold
from .spec import canonical, holds_client, parse, profiles, spelled_out, without_keys

__all__ = ["backends", "load_reranker", "shared", "with_threshold"]

HOSTED_OPTIONS = ("api_key", "base_url", "timeout", "max_in_flight", "price")
LOCAL_OPTIONS = ("device", "runtime", "dtype", "max_tokens", "batch_tokens", "revision", "local_files_only")
INHERITED = ("retry", "timeout", "limit", "breaker", "cache")
"""What a fallback entry that is a string takes from the spec around it."""
REMOTE_ONLY = ("limit", "breaker")
"""… unless it is a local model: a vendor's quota is none of its business."""
OPTIONS = (
    "use",
    "top_n",
    "instruction",
    "score_threshold",
    "retry",
    "deadline",
    "fallback",
    "on_error",
    "limit",
    "breaker",
    "cache",
    "long_documents",
    *HOSTED_OPTIONS,
    *LOCAL_OPTIONS,
)
ATTEMPTS = 3
CACHE_ENTRIES = 100_000
"""Scores (of a listwise backend: lists); about 20 MB in memory."""


def load_reranker(
    spec: str | Mapping[str, Any] | None = None, *, config: str | os.PathLike[str] | None = None, **options: Any
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
    return _build(spelled_out({**parse(spec, named, explicit=config is not None), **options}, named))


_table: OrderedDict[str, Reranker] = OrderedDict()
_table_lock = threading.Lock()
_TABLE_SIZE = 64


def _after_fork() -> None:
    global _table_lock
    _table_lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def shared(spec: str | Mapping[str, Any] | None) -> Reranker:
    """Return the process's one live reranker of a spec and its keys, so that switching per call makes nothing anew.

    The 64 specs used last are kept. Whoever gets a reranker here does not close it.

    Raises:
        ConfigError: As `load_reranker`.
    """
    named = profiles(None)
    settings = spelled_out(parse(spec, named), named)
    name = canonical(settings)
    with _table_lock:
        found = _table.get(name)
        if found is None:
            found = _table[name] = _build(settings)
            if len(_table) > _TABLE_SIZE:
                _table.popitem(last=False)
        _table.move_to_end(name)
        return found


def with_threshold(reranker: Reranker, score_threshold: float) -> Reranker:
    """Return a light copy of `reranker` that leaves out what is below `score_threshold`; the scorer is the same one.

    Raises:
        ConfigError: It is no number in [0, 1], or the scorer's stand-ins have other scales, or none.
    """
    _check_scales(reranker.scorer, score_threshold)
    return Reranker(
        reranker.scorer,
        top_n=reranker.top_n,
        score_threshold=score_threshold,
        instruction=reranker.instruction,
        spec=None if reranker.spec is None else {**reranker.spec, "score_threshold": score_threshold},
        counters=reranker.counters,
    )


def backends(reranker: Reranker) -> list[Backend]:
    """Return every backend that a reranker may ask, the first choice first."""
    return [leaf for leaf in _leaves(reranker.scorer) if isinstance(leaf, Backend)]


def _build(settings: Mapping[str, Any]) -> Reranker:
    scorer = _scorer(settings)
    threshold = settings.get("score_threshold")
    if threshold is not None:
        _check_scales(scorer, threshold)
    return Reranker(
        scorer,
        top_n=settings.get("top_n"),
        score_threshold=threshold,
        instruction=_text(settings.get("instruction"), "instruction"),
        spec=None if holds_client(settings) else without_keys(settings),
    )


def _scorer(settings: Mapping[str, Any]) -> Scorer:
    """Return the scorer of a whole spec: its stack, its stand-ins, its deadline."""
    _check_options(settings)
    main = _stack(settings)
    stand_ins, causes = _fallback(settings)
    if _choice(settings.get("on_error", "raise"), "on_error", ("raise", "degrade")) == "degrade":
        if not (stand_ins and stand_ins[-1].instant):
            stand_ins.append(_stack({"use": "passthrough"}))
    scorer = Fallback([main, *stand_ins], on=causes) if stand_ins else main
    deadline = settings.get("deadline")
    return scorer if deadline is None else Deadline(scorer, _seconds(deadline, "deadline"))


def _stack(settings: Mapping[str, Any]) -> Scorer:
    """Return one backend with the policies that belong to it."""
    backend = _backend(settings)
    scorer: Scorer = Observe(backend)
    if (limit := settings.get("limit")) is not None:
        scorer = _limit(scorer, backend, limit)
    retry = settings.get("retry", ATTEMPTS if backend.remote else None)
    if retry is not None:
        scorer = _retry(scorer, retry)
    if (breaker := settings.get("breaker")) not in (None, False):
        scorer = _breaker(scorer, backend, breaker)
    limits = backend.capabilities
    if limits.max_documents or limits.max_total_tokens or limits.max_bytes:
        scorer = Split(scorer, backend.max_in_flight)
    if (cache := settings.get("cache")) not in (None, False) and not backend.instant:
        scorer = _cache(scorer, backend, cache, settings)
    mode = _choice(settings.get("long_documents", "truncate"), "long_documents", MODES)
    if limits.max_tokens or limits.max_document_tokens:
        scorer = Truncate(scorer, mode)
    return scorer


def _backend(settings: Mapping[str, Any]) -> Backend:
    name, _, model = settings["use"].partition(":")
    kind = backend_class(name)
    own = settings.get(name, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"The options of {name} belong into a mapping: {name} = {{…}}.")
    accepted = {
        parameter.name: parameter
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    valid = [key for key in accepted if key != "model"]
    for key in own:
        if key not in valid:
            raise unknown(f"option of {name}", key, valid)
    given = {key: settings[key] for key in (*HOSTED_OPTIONS, *LOCAL_OPTIONS) if key in settings and key in valid}
    given |= own
    if model:
        if "model" not in accepted:
            raise ConfigError(f"{name} has no models: write {name!r}, not {settings['use']!r}.")
        given["model"] = model
    # The name is set before the constructor runs, so that its errors can say it.
    backend = kind.__new__(kind)
    backend.name = name
    try:
        backend.__init__(**given)  # type: ignore[misc]
    except RerankError:
        raise
    except (TypeError, ValueError, AttributeError) as error:  # a wrong type that the backend itself does not look for
        raise ConfigError(f"{name} cannot be made with these options: {error}. Check their types.") from error
    if isinstance(backend, HostedBackend) and backend.transport is None:
        from .transport import HTTPXTransport

        backend.transport = HTTPXTransport()
    return backend


def _limit(scorer: Scorer, backend: Backend, value: Any) -> Scorer:
    valid = ("requests_per_minute", "tokens_per_minute")
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"limit is a mapping such as {{'requests_per_minute': 60}}; {value!r} is not.")
    given = _known(value, "limit", valid)
    return Limit(scorer, backend.account, **{key: _count(each, f"limit.{key}") for key, each in given.items()})


def _breaker(scorer: Scorer, backend: Backend, value: Any) -> Scorer:
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(f"breaker is true, or a mapping such as {{'failures': 5, 'reset_s': 30}}; {value!r} is not.")
    given = _known({} if value is True else value, "breaker", ("failures", "reset_s"))
    return Breaker(
        scorer,
        backend.account,
        failures=_count(given.get("failures", FAILURES), "breaker.failures"),
        reset_s=_seconds(given.get("reset_s", RESET_S), "breaker.reset_s"),
    )


def _cache(scorer: Scorer, backend: Backend, value: Any, settings: Mapping[str, Any]) -> Scorer:
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(f"cache is true, or a mapping such as {{'kind': 'memory', 'ttl_s': 3600}}; {value!r} is not.")
    given = _known({} if value is True else value, "cache", ("kind", "max_entries", "path", "ttl_s"))
    kind = _choice(given.get("kind", "memory"), "cache.kind", ("memory", "disk"))
    most = _count(given.get("max_entries", CACHE_ENTRIES), "cache.max_entries")
    ttl = None if given.get("ttl_s") is None else _seconds(given["ttl_s"], "cache.ttl_s")
    if kind == "disk":
        if holds_client(settings.get(backend.name)):
            raise ConfigError("A disk cache cannot tell what a `client` of yours asks: use cache = true (memory).")
        from .policies.disk import DiskStore  # SQLite

        return Cache(scorer, DiskStore(_cache_path(given.get("path")), most, ttl), _identity(backend, settings))
    if given.get("path") is not None:
        raise ConfigError("cache.path is for cache.kind 'disk': a memory cache has no file.")
    return Cache(scorer, MemoryStore(most, ttl), _identity(backend, settings))


def _cache_path(value: Any) -> Path:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"cache.path is the path of a file, and {value!r} is not.")
    if value:
        return Path(value).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins" / "scores.sqlite3"


def _identity(backend: Backend, settings: Mapping[str, Any]) -> str:
    """Return what, beside the texts, a score may depend on: every option but those of the way there."""
    own = without_keys(settings.get(backend.name, {}))
    options = {key: settings[key] for key in LOCAL_OPTIONS if key in settings} | own
    told = {key: each for key, each in options.items() if key not in (*HOSTED_OPTIONS, "local_files_only")}
    return json.dumps([__version__, backend.fingerprint, told], sort_keys=True, default=str)


def _retry(scorer: Scorer, value: Any) -> Scorer:
    given = _known(
        value if isinstance(value, Mapping) else {"attempts": value}, "retry", ("attempts", "wait_initial", "wait_max")
    )
    attempts = given.pop("attempts", ATTEMPTS)
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ConfigError(f"retry counts all attempts, so it is at least 1; {attempts!r} is not.")
    waits = {key: _seconds(seconds, f"retry.{key}", zero=True) for key, seconds in given.items()}
    return Retry(scorer, attempts=attempts, **waits) if attempts > 1 else scorer


def _fallback(settings: Mapping[str, Any]) -> tuple[list[Scorer], tuple[Any, ...]]:
    value = settings.get("fallback")
    causes: tuple[Any, ...] = DEFAULT_CAUSES
    if isinstance(value, Mapping):
        value = _known(value, "fallback", ("specs", "on"))
        told = value.get("on", DEFAULT_CAUSES)
        if not isinstance(told, list | tuple):
            raise ConfigError(f"fallback.on is a list of: {', '.join(CAUSES)}; {told!r} is not.")
        causes = tuple(_choice(each, "fallback.on", CAUSES) for each in told)
        value = value.get("specs")
    if value is None:
        return [], causes
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ConfigError(
            f"fallback is a list of specs, tried in order, such as ['embedded', 'passthrough']; not {value!r}."
        )
    return [_scorer(_inheriting(entry, settings) if isinstance(entry, str) else entry) for entry in value], causes


def _inheriting(use: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    remote = backend_class(use.partition(":")[0]).remote
    taken = {key: settings[key] for key in INHERITED if key in settings and (remote or key not in REMOTE_ONLY)}
    return {"use": use, **taken}


def _check_options(settings: Mapping[str, Any]) -> None:
    known = entries()
    for key, value in settings.items():
        if key in OPTIONS or (key in known and isinstance(value, Mapping)):
            continue
        if key in known:
            raise ConfigError(f"The options of {key} belong into a mapping: {key} = {{…}}.")
        raise unknown("option", key, OPTIONS)
    use = settings.get("use")
    if not isinstance(use, str) or not use:
        raise ConfigError(
            f"A spec names its backend under `use`, such as use = 'embedded'; this one has {use!r} there."
        )


def _check_scales(scorer: Scorer, threshold: Any) -> None:
    scales: dict[str, str] = {}
    for leaf in _leaves(scorer):
        if not leaf.instant:
            check_threshold(threshold, leaf.capabilities, leaf.label)
            scales.setdefault(leaf.capabilities.scale, leaf.label)
    if not scales:
        check_threshold(threshold, scorer.capabilities, scorer.label)
    if len(scales) > 1:
        told = ", ".join(f"{label} ({scale})" for scale, label in scales.items())
        raise ConfigError(
            f"score_threshold would mean different things for {told}. Use top_n, or stand-ins of one scale."
        )


def _leaves(scorer: Scorer) -> Iterator[Scorer]:
    if isinstance(scorer, Wrapper):
        yield from _leaves(scorer.inner)
    elif isinstance(scorer, Fallback):
        for entry in scorer.entries:
            yield from _leaves(entry)
    else:
        yield scorer


def _known(value: Mapping[str, Any], name: str, valid: tuple[str, ...]) -> dict[str, Any]:
    for key in value:
        if key not in valid:
            raise unknown(f"option of {name}", key, valid)
    return dict(value)


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is a whole number of at least 1, and {value!r} is not.")
    return value


def _choice(value: Any, name: str, offered: tuple[Any, ...]) -> Any:
    if value not in offered:
        raise unknown(f"value of {name},", value, offered)
    return value


def _seconds(value: Any, name: str, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 or (zero and value == 0)):
        raise ConfigError(f"{name} is a number of seconds above 0, and {value!r} is not.")
    return float(value)


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} has to be a text, and {value!r} is not.")
    return value

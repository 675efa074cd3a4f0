"""Policies from their form in a spec: a bare value in the common case, a mapping for the rest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..calibration.file import read
from ..calibration.identity import difference, identity, pending
from ..core.errors import ConfigError, clause
from ..core.numeric import integer
from ..core.scorer import Backend, Scorer
from ..core.secret import Secret
from ..policies.breaker import FAILURES, RESET_S, Breaker
from ..policies.cache import Cache
from ..policies.calibrate import Calibrate
from ..policies.cascade import Cascade
from ..policies.chunk import AGGREGATES, Chunk
from ..policies.diversify import LAMBDA, TOP_N, Diversify, term_overlap
from ..policies.fuse import METHODS, RRF_K, Fuse
from ..policies.limit import Limit
from ..policies.memory import MemoryStore
from ..policies.retry import Retry
from ..policies.truncate import MODES, Truncate
from .sources import SENT_ALONG, holds_client, without_keys
from .values import choice, count, known, number, seconds

__all__ = [
    "HOSTED_OPTIONS",
    "LOCAL_OPTIONS",
    "cached",
    "calibrated",
    "cascaded",
    "diversified",
    "fitted",
    "fused",
    "guarded",
    "identified",
    "limited",
    "retried",
]

HOSTED_OPTIONS = ("api_key", "base_url", "timeout", "max_in_flight", "price")
LOCAL_OPTIONS = ("device", "runtime", "dtype", "max_tokens", "batch_tokens", "revision", "local_files_only")
ATTEMPTS = 3
CACHE_ENTRIES = 100_000
"""Scores (of a listwise backend: lists); about 40 MB in memory."""


def limited(scorer: Scorer, backend: Backend, value: Any) -> Scorer:
    """Return `scorer` held to the requests and tokens a minute of the backend's account."""
    valid = ("requests_per_minute", "tokens_per_minute")
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"limit is a mapping such as {{'requests_per_minute': 60}}; {value!r} is not.")
    given = known(value, "limit", valid)
    return Limit(scorer, backend.account, **{key: count(each, f"limit.{key}") for key, each in given.items()})


def guarded(scorer: Scorer, backend: Backend, value: Any) -> Scorer:
    """Return `scorer` behind the breaker of the backend's account."""
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(f"breaker is true, or a mapping such as {{'failures': 5, 'reset_s': 30}}; {value!r} is not.")
    given = known({} if value is True else value, "breaker", ("failures", "reset_s"))
    return Breaker(
        scorer,
        backend.account,
        failures=count(given.get("failures", FAILURES), "breaker.failures"),
        reset_s=seconds(given.get("reset_s", RESET_S), "breaker.reset_s"),
    )


def cached(scorer: Scorer, backend: Backend, value: Any, settings: Mapping[str, Any]) -> Scorer:
    """Return `scorer` with a cache of what it says."""
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(f"cache is true, or a mapping such as {{'kind': 'memory', 'ttl_s': 3600}}; {value!r} is not.")
    given = known({} if value is True else value, "cache", ("kind", "max_entries", "path", "ttl_s"))
    kind = choice(given.get("kind", "memory"), "cache.kind", ("memory", "disk"))
    most = count(given.get("max_entries", CACHE_ENTRIES), "cache.max_entries")
    ttl = None if given.get("ttl_s") is None else seconds(given["ttl_s"], "cache.ttl_s")
    identify = partial(_identity, backend, settings)
    if kind == "disk":
        if holds_client(settings.get(backend.name)):
            raise ConfigError("A disk cache cannot tell what a `client` of yours asks: use cache = true (memory).")
        from ..policies.disk import DiskStore  # SQLite

        return Cache(scorer, DiskStore(_cache_path(given.get("path")), most, ttl), identify)
    if given.get("path") is not None:
        raise ConfigError("cache.path is for cache.kind 'disk': a memory cache has no file.")
    return Cache(scorer, MemoryStore(most, ttl), identify)


def _cache_path(value: Any) -> Path:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"cache.path is the path of a file, and {value!r} is not.")
    try:
        if value:
            return Path(value).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins" / "scores.sqlite3"
    except RuntimeError as error:  # a container's user without a home
        raise ConfigError(
            f"cache.path: this user's home folder is not known ({clause(error)}): name a file."
        ) from error


async def _identity(backend: Backend, settings: Mapping[str, Any]) -> str:
    """Return what, beside the texts, a score may depend on: every option but those of the way there, and the model's files."""
    options = _options(backend, settings)
    told = {key: each for key, each in options.items() if key not in (*HOSTED_OPTIONS, "local_files_only")}
    # What `without_keys` masks may change the scores too; as a hash it is in no dump of a cache's attributes.
    sent = {key: each for key, each in settings.get(backend.name, {}).items() if key in SENT_ALONG}
    digest = hashlib.sha256(json.dumps(sent, sort_keys=True, default=_plain).encode()).hexdigest() if sent else ""
    return json.dumps([__version__, await backend.afingerprint(), told, digest], sort_keys=True, default=str)


def _plain(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def _options(backend: Backend, settings: Mapping[str, Any]) -> dict[str, Any]:
    own = without_keys(settings.get(backend.name, {}))
    return {key: settings[key] for key in LOCAL_OPTIONS if key in settings} | own


def identified(backend: Backend, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose scores the stack of `settings` gives, as a calibration's file names them."""
    return identity(backend, _options(backend, settings), settings.get("long_documents", "truncate"))


def calibrated(scorer: Scorer, backend: Backend, value: Any, settings: Mapping[str, Any]) -> Scorer:
    """Return `scorer` with the relevance that the file at `value` makes of its raw scores."""
    if scorer.instant or scorer.capabilities.scale == "ordinal":
        raise ConfigError(f"{backend.label} only orders documents: there are no scores to calibrate. Leave it out.")
    found = read(value)

    def check() -> bool:
        now = identified(backend, settings)
        what = difference(found.of, now)
        if what is not None:
            of = ":".join(dict.fromkeys(str(each) for each in (found.of["backend"], found.of["model"]) if each))
            raise ConfigError(
                f"The calibration {value} was fitted to the scores of {of}, and this is {backend.label}: {what}. Leave "
                "`calibration` out, or make one for this reranker with `rerank-plugins calibrate`."
            )
        return not pending(found.of, now)

    check()
    return Calibrate(scorer, found.curve, check)


def retried(scorer: Scorer, value: Any) -> Scorer:
    """Return `scorer` asked again after what may pass."""
    given = known(
        value if isinstance(value, Mapping) else {"attempts": value}, "retry", ("attempts", "wait_initial", "wait_max")
    )
    attempts = given.pop("attempts", ATTEMPTS)
    attempts = count(attempts, "retry (all attempts, the first one included)")
    waits = {key: seconds(each, f"retry.{key}", zero=True) for key, each in given.items()}
    return Retry(scorer, attempts=attempts, **waits) if attempts > 1 else scorer


def fitted(scorer: Scorer, value: Any) -> Scorer:
    """Return `scorer` with what `long_documents` says of documents that are longer than it reads."""
    given = value if isinstance(value, Mapping) else {"mode": value}
    given = known(given, "long_documents", ("mode", "tokens", "overlap", "aggregate"))
    mode = choice(given.pop("mode", "chunk"), "long_documents", (*MODES, "chunk"))
    limits = scorer.capabilities
    limited = limits.max_tokens is not None or limits.max_document_tokens is not None
    if mode != "chunk":
        if given:
            raise ConfigError(f"long_documents: {', '.join(given)} belong to mode 'chunk', and the mode is {mode!r}.")
        return Truncate(scorer, mode) if limited else scorer
    tokens = None if given.get("tokens") is None else count(given["tokens"], "long_documents.tokens")
    overlap = None if given.get("overlap") is None else integer(given["overlap"], "long_documents.overlap", 0)
    if tokens is not None and overlap is not None and overlap >= tokens:
        raise ConfigError(f"long_documents.overlap ({overlap}) has to be below long_documents.tokens ({tokens}).")
    how = choice(given.get("aggregate", "max"), "long_documents.aggregate", AGGREGATES)
    if scorer.instant or not (limited or tokens):
        return scorer
    return Chunk(scorer, tokens=tokens, overlap=overlap, aggregate=how)


def cascaded(stages: list[Scorer], value: Mapping[str, Any]) -> Scorer:
    """Return the cascade over `stages` that `value` (`keep`, `gate`) describes."""
    keep = value.get("keep")
    keep = [keep] if isinstance(keep, int) else keep
    if not isinstance(keep, list | tuple) or len(keep) != len(stages) - 1:
        raise ConfigError(
            f"cascade.keep is a list of how many documents go on after each stage but the last: {len(stages) - 1} "
            f"numbers here, and it is {keep!r}."
        )
    gate = value.get("gate")
    if gate is not None:
        gate = number(gate, "cascade.gate", 0.0, 1.0)
        for stage in stages[:-1]:
            if stage.capabilities.scale == "ordinal":
                raise ConfigError(
                    f"cascade.gate needs scores with a scale, and {stage.label} only orders: leave it out."
                )
    return Cascade(stages, [count(each, "cascade.keep") for each in keep], gate)


def fused(scorers: list[Scorer], value: Mapping[str, Any], *, retrieval: bool) -> Scorer:
    """Return the fusion of `scorers`, and of the retriever's order, that `value` (`method`, `weights`, `k`) describes."""
    method = choice(value.get("method", "rrf"), "fuse.method", METHODS)
    weights = value.get("weights")
    if weights is not None:
        lists = len(scorers) + retrieval
        if not isinstance(weights, list | tuple) or len(weights) != lists:
            raise ConfigError(
                f"fuse.weights is a list of {lists} numbers, one for each list that is fused; not {weights!r}."
            )
        weights = [number(each, "fuse.weights", 0.0, 1e9) for each in weights]
        if not any(weights):
            raise ConfigError("fuse.weights are all 0: nothing would be fused.")
    if "k" in value and method != "rrf":
        raise ConfigError("fuse.k belongs to the method 'rrf'.")
    k = number(value.get("k", RRF_K), "fuse.k", 0.0, 1e9)
    return Fuse(scorers, retrieval=retrieval, method=method, weights=weights, k=k)


def diversified(scorer: Scorer, value: Any) -> Scorer:
    """Return `scorer` with its best documents spread out."""
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(f"diversify is true, or a mapping such as {{'lambda': 0.7, 'top_n': 10}}; {value!r} is not.")
    given = known({} if value is True else value, "diversify", ("lambda", "top_n", "similarity"))
    similarity = given.get("similarity", term_overlap)
    if not callable(similarity):
        raise ConfigError("diversify.similarity is a function of two texts that gives a number from 0 to 1.")
    trade = number(given.get("lambda", LAMBDA), "diversify.lambda", 0.0, 1.0)
    top_n = count(given.get("top_n", TOP_N), "diversify.top_n")
    return Diversify(scorer, trade=trade, top_n=top_n, similarity=similarity)

"""Spec → Reranker. The one file that knows every policy and their order.

Inside out: backend → observe → limit → retry → breaker → split → cache → truncate or chunk → calibrate, one such stack per backend; then
cascade and fuse over stacks; then fallback; then one deadline; then diversity. (A retry around a split would send every part again for the one that failed; a cache
around a fallback would file a stand-in's scores under the failed backend's name; a limit around a retry would not see what is
sent again.)
"""

from __future__ import annotations

import inspect
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.errors import ConfigError, RerankError
from ..core.fork import Lock
from ..core.hosted import HostedBackend
from ..core.scorer import Backend, Scorer, Wrapper
from ..options import names
from ..options import parse as parse_options
from ..policies.calibrate import Calibrate
from ..policies.cascade import Cascade
from ..policies.deadline import Deadline
from ..policies.fallback import CAUSES, DEFAULT_CAUSES, Fallback
from ..policies.loading import Loading
from ..policies.observe import Observe
from ..policies.several import Several
from ..policies.split import Split
from ..reranker import Reranker, check_threshold
from .forms import (
    ATTEMPTS,
    HOSTED_OPTIONS,
    LOCAL_OPTIONS,
    cached,
    calibrated,
    cascaded,
    diversified,
    fitted,
    fused,
    guarded,
    identified,
    limited,
    retried,
)
from .registry import backend_class, entries, unknown
from .sources import canonical, check_encodable, holds_client, parse, profiles, spelled_out, without_keys
from .values import choice, known, seconds, text

__all__ = ["backends", "identity", "load_reranker", "shared", "with_threshold"]

INHERITED = ("retry", "timeout", "limit", "breaker", "cache")
"""What a fallback entry that is a string takes from the spec around it."""
REMOTE_ONLY = ("limit", "breaker")
"""… unless it is a local model: a vendor's quota is none of its business."""
OPTIONS = (
    "use",
    "top_n",
    "instruction",
    "score_threshold",
    "fields",
    "retry",
    "deadline",
    "fallback",
    "on_error",
    "limit",
    "breaker",
    "cache",
    "cascade",
    "fuse",
    "diversify",
    "long_documents",
    "calibration",
    *HOSTED_OPTIONS,
    *LOCAL_OPTIONS,
)


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
_table_lock = Lock()
_TABLE_SIZE = 64


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
        fields=reranker.fields,
    )


def backends(reranker: Reranker) -> list[Backend]:
    """Return every backend that a reranker may ask, the first choice first; of cascades and fusions all of theirs."""
    return list(_backends(reranker.scorer))


def identity(reranker: Reranker) -> dict[str, Any]:
    """Return whose raw scores `reranker` gives, as plain data; all of it is known once it is warmed up.

    Raises:
        ConfigError: Not one backend alone, made from plain data, with scores.
    """
    spec, asked = reranker.spec, backends(reranker)
    if spec is None or len(asked) != 1 or "use" not in spec or spec.get("fuse") is not None:
        raise ConfigError(
            "A calibration is of one backend's scores: name that backend alone, as plain data. The stages of a cascade, what "
            "is fused and what stands in have one each."
        )
    if reranker.scorer.capabilities.scale == "ordinal":
        raise ConfigError(f"{asked[0].label} only orders documents: there are no scores to calibrate.")
    return identified(asked[0], spec)


def _build(settings: Mapping[str, Any]) -> Reranker:
    # Not the instruction: it is treated as the text of a query.
    check_encodable({key: value for key, value in settings.items() if key != "instruction"}, "")
    scorer = _scorer(settings)
    threshold = settings.get("score_threshold")
    if threshold is not None:
        _check_scales(scorer, threshold)
    return Reranker(
        scorer,
        top_n=settings.get("top_n"),
        score_threshold=threshold,
        instruction=text(settings.get("instruction"), "instruction"),
        fields=settings.get("fields"),
        spec=None if holds_client(settings) else without_keys(settings),
    )


def _scorer(settings: Mapping[str, Any]) -> Scorer:
    """Return the scorer of a whole spec: its stack, its stand-ins, its deadline."""
    _check_options(settings)
    main = _stack(settings) if "use" in settings else _cascade(settings)
    if (fuse := settings.get("fuse")) is not None:
        main = _fuse(main, fuse, settings)
    stand_ins, causes = _fallback(settings)
    if choice(settings.get("on_error", "raise"), "on_error", ("raise", "degrade")) == "degrade":
        if not (stand_ins and stand_ins[-1].instant):
            stand_ins.append(_stack({"use": "passthrough"}))
    scorer = Fallback([main, *stand_ins], on=causes) if stand_ins else main
    if (deadline := settings.get("deadline")) is not None:
        scorer = Deadline(scorer, seconds(deadline, "deadline"))
    if (diversify := settings.get("diversify")) not in (None, False):
        scorer = diversified(scorer, diversify)
    return scorer


def _stack(settings: Mapping[str, Any]) -> Scorer:
    """Return one backend with the policies that belong to it."""
    backend = _backend(settings)
    loads = not backend.remote and type(backend).awarmup is not Scorer.awarmup
    scorer: Scorer = Observe(Loading(backend) if loads else backend)
    if (limit := settings.get("limit")) is not None:
        scorer = limited(scorer, backend, limit)
    retry = settings.get("retry", ATTEMPTS if backend.remote else None)
    if retry is not None:
        scorer = retried(scorer, retry)
    if (breaker := settings.get("breaker")) not in (None, False):
        scorer = guarded(scorer, backend, breaker)
    limits = backend.capabilities
    if limits.max_documents or limits.max_total_tokens or limits.max_bytes:
        scorer = Split(scorer, backend.max_in_flight)
    if (cache := settings.get("cache")) not in (None, False) and not backend.instant:
        scorer = cached(scorer, backend, cache, settings)
    scorer = fitted(scorer, settings.get("long_documents", "truncate"))
    if (calibration := settings.get("calibration")) is not None:
        scorer = calibrated(scorer, backend, calibration, settings)
    return scorer


def _backend(settings: Mapping[str, Any]) -> Backend:
    name, _, model = settings["use"].partition(":")
    kind = backend_class(name)
    own = settings.get(name, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"The options of {name} belong into a mapping: {name} = {{…}}.")
    accepted = {
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    valid = accepted - {"model"} if kind.Options is None else set(names(kind.Options))
    shared = {key: settings[key] for key in (*HOSTED_OPTIONS, *LOCAL_OPTIONS) if key in settings and key in valid}
    arguments: dict[str, Any] = {**shared, **own}
    if kind.Options is not None:
        arguments = {"options": parse_options(kind.Options, arguments, name, top=shared.keys() - own.keys())}
    elif unknown_names := [key for key in own if key not in valid]:
        raise unknown(f"option of {name}", unknown_names[0], valid)
    if model:
        if "model" not in accepted:
            raise ConfigError(f"{name} has no models: write {name!r}, not {settings['use']!r}.")
        arguments["model"] = model
    # The name is set before the constructor runs, so that its errors can say it.
    backend = kind.__new__(kind)
    backend.name = name
    try:
        backend.__init__(**arguments)  # type: ignore[misc]
    except RerankError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # what the backend itself does not look for
        raise ConfigError(f"{name} cannot be made with these options: {error}. Check their types.") from error
    except OSError as error:  # a path that is too long, a folder that may not be read
        why = error.strerror or str(error)
        raise ConfigError(
            f"{name} cannot be made: {why}. Check the paths in the spec, and the model's name."
        ) from error
    if isinstance(backend, HostedBackend) and backend.transport is None:
        from ..transport import HTTPXTransport

        backend.transport = HTTPXTransport()
    return backend


def _fallback(settings: Mapping[str, Any]) -> tuple[list[Scorer], tuple[Any, ...]]:
    value = settings.get("fallback")
    causes: tuple[Any, ...] = DEFAULT_CAUSES
    if isinstance(value, Mapping):
        value = known(value, "fallback", ("specs", "on"))
        told = value.get("on", DEFAULT_CAUSES)
        if not isinstance(told, list | tuple):
            raise ConfigError(f"fallback.on is a list of: {', '.join(CAUSES)}; {told!r} is not.")
        causes = tuple(choice(each, "fallback.on", CAUSES) for each in told)
        value = value.get("specs")
    if value is None:
        return [], causes
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ConfigError(
            f"fallback is a list of specs, tried in order, such as ['embedded', 'passthrough']; not {value!r}."
        )
    return [_entry(each, settings) for each in value], causes


def _cascade(settings: Mapping[str, Any]) -> Scorer:
    value = settings["cascade"]
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"cascade is a mapping such as {{'stages': ['lexical', 'embedded'], 'keep': [30]}}; not {value!r}."
        )
    value = known(value, "cascade", ("stages", "keep", "gate"))
    stages = value.get("stages")
    if not isinstance(stages, list | tuple) or len(stages) < 2:
        raise ConfigError("cascade.stages is a list of two specs or more, the cheapest first.")
    return cascaded([_entry(each, settings) for each in stages], value)


def _fuse(main: Scorer, value: Any, settings: Mapping[str, Any]) -> Scorer:
    if not isinstance(value, Mapping) or not value.get("with"):
        raise ConfigError(
            f"fuse is a mapping such as {{'with': 'retrieval'}} or {{'with': ['lexical']}}; not {value!r}."
        )
    value = known(value, "fuse", ("with", "method", "weights", "k"))
    partners = value["with"]
    if partners == "retrieval":
        return fused([main], value, retrieval=True)
    if not isinstance(partners, list | tuple):
        raise ConfigError(f"fuse.with is 'retrieval' or a list of specs, and {partners!r} is neither.")
    return fused([main, *(_entry(each, settings) for each in partners)], value, retrieval=False)


def _entry(spec: Any, settings: Mapping[str, Any]) -> Scorer:
    """Return the scorer of a spec inside another: a string takes the outer one's policies, a mapping stands alone."""
    return _scorer(_inheriting(spec, settings) if isinstance(spec, str) else spec)


def _inheriting(use: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    remote = backend_class(use.partition(":")[0]).remote
    taken = {key: settings[key] for key in INHERITED if key in settings and (remote or key not in REMOTE_ONLY)}
    return {"use": use, **taken}


def _check_options(settings: Mapping[str, Any]) -> None:
    backends = entries()
    for key, value in settings.items():
        if key in OPTIONS or (key in backends and isinstance(value, Mapping)):
            continue
        if key in backends:
            raise ConfigError(f"The options of {key} belong into a mapping: {key} = {{…}}.")
        raise unknown("option", key, OPTIONS)
    if settings.get("cascade") is not None:
        for key in (
            "use",
            "long_documents",
            "calibration",
            "api_key",
            "base_url",
            "max_in_flight",
            "price",
            *LOCAL_OPTIONS,
        ):
            if settings.get(key) is not None:
                raise ConfigError(
                    f"A cascade has no {key} of its own: write it into the stage that it is for, as a mapping."
                )
        return
    use = settings.get("use")
    if not isinstance(use, str) or not use:
        raise ConfigError(
            f"A spec names its backend under `use`, such as use = 'embedded'; this one has {use!r} there."
        )


def _check_scales(scorer: Scorer, threshold: Any) -> None:
    scales: dict[str, str] = {}
    for leaf in _leaves(scorer, whole=(Calibrate,)):
        if not leaf.instant:
            check_threshold(threshold, leaf.capabilities, leaf.label)
            calibrated_or = "probability" if leaf.capabilities.curve is not None else leaf.capabilities.scale
            scales.setdefault(calibrated_or, leaf.label)
    if not scales:
        check_threshold(threshold, scorer.capabilities, scorer.label)
    if len(scales) > 1:
        told = ", ".join(f"{label} ({scale})" for scale, label in scales.items())
        raise ConfigError(
            f"score_threshold would mean different things for {told}. Use top_n, or stand-ins of one scale."
        )


def _backends(scorer: Scorer) -> Iterator[Backend]:
    if isinstance(scorer, Backend):
        yield scorer
    elif isinstance(scorer, Wrapper):
        yield from _backends(scorer.inner)
    elif isinstance(scorer, Fallback | Several):
        for each in scorer.entries if isinstance(scorer, Fallback) else scorer.scorers:
            yield from _backends(each)


def _leaves(scorer: Scorer, whole: tuple[type[Scorer], ...] = ()) -> Iterator[Scorer]:
    """Yield the scorers whose scores may be the answer; those of a type of `whole` as they are."""
    if isinstance(scorer, Wrapper) and not isinstance(scorer, whole):
        yield from _leaves(scorer.inner, whole)
    elif isinstance(scorer, Fallback):
        for entry in scorer.entries:
            yield from _leaves(entry, whole)
    elif isinstance(scorer, Cascade):
        for stage in scorer.scorers if scorer.gate is not None else scorer.scorers[-1:]:
            yield from _leaves(stage, whole)
    else:
        yield scorer

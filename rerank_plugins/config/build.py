"""Valid settings → Reranker. The one file that knows every policy and their order.

Inside out: backend → observe → limit → retry → breaker → split → cache → truncate or chunk → calibrate, one such stack per backend; then
cascade and fuse over stacks; then fallback; then one deadline; then diversity. (A retry around a split would send every part again for the one that failed; a cache
around a fallback would file a stand-in's scores under the failed backend's name; a limit around a retry would not see what is
sent again.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import __version__
from ..calibration.identity import identity as identify
from ..core.errors import ConfigError, RerankError, clause
from ..core.hosted import HostedBackend
from ..core.scorer import Backend, Scorer
from ..core.secret import Secret
from ..policies.cascade import Cascade, CascadeOptions
from ..policies.deadline import Deadline
from ..policies.fallback import Fallback, FallbackOptions
from ..policies.loading import Loading
from ..policies.observe import Observe
from ..policies.retry import RetryOptions
from ..policies.split import Split
from ..policies.stack import Stack
from ..reranker import Reranker
from .schema import HOSTED, LOCAL, OPTIONS, BackendSpec, RerankerOptions, parse_spec
from .sources import SENT_ALONG, holds_client, without_keys

__all__ = ["OPTIONS", "backends", "build", "identity"]


def backends(reranker: Reranker) -> list[Backend]:
    """Return every backend that a reranker may ask, the first choice first; of cascades and fusions all of theirs."""
    return [scorer for scorer in reranker.scorer.walk() if isinstance(scorer, Backend)]


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
    return _scored(asked[0], spec)


def build(options: RerankerOptions, spec: Mapping[str, Any]) -> Reranker:
    """Return the reranker of valid settings.

    Args:
        options: See `schema.parse_spec`.
        spec: The plain mapping that they were made of.

    Raises:
        ConfigError: What only shows when a backend is there: a missing key or file, scores that cannot be compared.
    """
    scorer = _scorer(options)
    if options.instruction and not scorer.capabilities.instructions:
        raise ConfigError(
            f"{scorer.label} cannot follow an instruction: leave it out, put it into the query, or name a backend that can."
        )
    return Reranker(
        scorer,
        top_n=options.top_n,
        score_threshold=options.score_threshold,
        instruction=options.instruction,
        fields=options.fields,
        spec=None if holds_client(spec) else without_keys(spec),
    )


def _scorer(options: RerankerOptions) -> Scorer:
    """Return the scorer of a whole spec: its stack, its stand-ins, its deadline."""
    main = _stack(options) if options.cascade is None else _cascade(options.cascade)
    if options.fuse is not None:
        partners = [] if options.fuse.retrieval else options.fuse.partners
        main = options.fuse.fused([main, *map(_scorer, partners)])
    fallback = options.fallback or FallbackOptions.model_construct()
    stand_ins = list(map(_scorer, fallback.specs))
    if options.on_error == "degrade" and not (stand_ins and stand_ins[-1].instant):
        stand_ins.append(_scorer(parse_spec({"use": "passthrough"})))
    scorer = Fallback([main, *stand_ins], on=fallback.on) if stand_ins else main
    if options.deadline is not None:
        scorer = Deadline(scorer, options.deadline)
    return scorer if options.diversify is None else options.diversify.wrap(scorer)


def _stack(options: RerankerOptions) -> Scorer:
    """Return one backend with the policies that belong to it."""
    spec = options.backend
    assert spec is not None, "a spec without a backend is a cascade"
    backend = _backend(spec)
    stack = Stack(backend, partial(_cache_identity, backend, spec.settings), partial(_scored, backend, spec.settings))
    scorer: Scorer = backend
    for policy in STACK:
        if not isinstance(policy, str):
            scorer = policy(scorer, backend)
        elif policy == "retry" and backend.remote and "retry" not in options.model_fields_set:
            scorer = RetryOptions.model_construct().wrap(scorer, stack)
        elif (own := getattr(options, policy)) is not None:
            scorer = own.wrap(scorer, stack)
    return scorer


def _observed(_: Scorer, backend: Backend) -> Scorer:
    loads = not backend.remote and type(backend).awarmup is not Scorer.awarmup
    return Observe(Loading(backend) if loads else backend)


def _split(scorer: Scorer, backend: Backend) -> Scorer:
    limits = backend.capabilities
    limited = limits.max_documents or limits.max_total_tokens or limits.max_bytes
    return Split(scorer, backend.max_in_flight) if limited else scorer


STACK: tuple[str | Callable[[Scorer, Backend], Scorer], ...] = (
    _observed,
    "limit",
    "retry",
    "breaker",
    _split,
    "cache",
    "long_documents",
    "calibration",
)
"""The policies around one backend, inside out. A name is an option, whose model makes its policy."""


def _backend(spec: BackendSpec) -> Backend:
    # The name is set before the constructor runs, so that its errors can say it.
    backend = spec.kind.__new__(spec.kind)
    backend.name = name = spec.name
    try:
        backend.__init__(**spec.arguments)  # type: ignore[misc]
    except RerankError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # what the backend itself does not look for
        raise ConfigError(f"{name} cannot be made with these options: {clause(error)}. Check their types.") from error
    except OSError as error:  # a path that is too long, a folder that may not be read
        why = error.strerror or str(error)
        raise ConfigError(
            f"{name} cannot be made: {why}. Check the paths in the spec, and the model's name."
        ) from error
    if isinstance(backend, HostedBackend) and backend.transport is None:
        from ..transport import HTTPXTransport

        backend.transport = HTTPXTransport()
    return backend


def _cascade(options: CascadeOptions) -> Scorer:
    stages = list(map(_scorer, options.stages))
    if options.gate is not None:
        for stage in stages[:-1]:
            if stage.capabilities.scale == "ordinal":
                raise ConfigError(
                    f"cascade.gate needs scores with a scale, and {stage.label} only orders: leave it out."
                )
    return Cascade(stages, options.keep, options.gate)


async def _cache_identity(backend: Backend, settings: Mapping[str, Any]) -> str:
    """Return what, beside the texts, a score may depend on: every option but those of the way there, and the model's files."""
    options = _model_options(backend, settings)
    read = {key: each for key, each in options.items() if key not in (*HOSTED, "local_files_only")}
    # What `without_keys` masks may change the scores too; as a hash it is in no dump of a cache's attributes.
    sent = {key: each for key, each in settings.get(backend.name, {}).items() if key in SENT_ALONG}
    digest = hashlib.sha256(json.dumps(sent, sort_keys=True, default=_plain).encode()).hexdigest() if sent else ""
    return json.dumps([__version__, await backend.afingerprint(), read, digest], sort_keys=True, default=str)


def _plain(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def _model_options(backend: Backend, settings: Mapping[str, Any]) -> dict[str, Any]:
    own = without_keys(settings.get(backend.name, {}))
    return {key: settings[key] for key in LOCAL if key in settings} | own


def _scored(backend: Backend, settings: Mapping[str, Any]) -> dict[str, Any]:
    return identify(backend, _model_options(backend, settings), settings.get("long_documents", "truncate"))

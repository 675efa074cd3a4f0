"""Builds a reranker from valid settings. This file alone defines the order of the policies.

From the inside out: backend → instrumentation → rate limit → retry → circuit breaker → split → cache → adaptive depth
→ truncate or chunk → calibrate → require a score. Each backend has one such stack. Cascade and fusion combine stacks.
Around them come the fallback, then one deadline, then diversity.

What pydantic is needed for is imported inside functions: a spec that only names a local model needs none of it.

The order matters:

- A retry around the split would send all parts again because one of them failed.
- A cache around the fallback would store a fallback answer's scores under the name of the backend that failed.
- A rate limit around the retry would not count the requests that are sent again.
- Truncation inside the adaptive depth would refuse a document that is too long only if it happens to be read.
- A cache around the adaptive depth would hold whole lists: which documents have no score depends on the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..calibration.identity import identity as identify
from ..core.errors import ConfigError, RerankError, clause
from ..core.scorer import Backend, Scorer
from ..core.secret import Secret
from ..policies.adaptive_depth import AdaptiveDepth
from ..policies.blocks import InBlocks
from ..policies.deadline import Deadline
from ..policies.instrumented import Instrumented
from ..policies.loading import BackgroundLoading
from ..policies.refusals import RequireScore
from ..policies.request_warning import RequestWarning
from ..policies.split import Split
from ..policies.stack import Stack
from ..reranker import Reranker
from .defaults import BackendSpec, DefaultOptions
from .error_tables import add_table
from .sources import SENT_ALONG, holds_client, without_keys

if TYPE_CHECKING:
    from ..policies.cascade import CascadeOptions
    from .schema import RerankerOptions

__all__ = ["backends", "build", "identity"]


def backends(reranker: Reranker) -> list[Backend]:
    """Return every backend inside a reranker, including those of cascades, fusions and fallbacks, in order of use."""
    return [scorer for scorer in reranker.scorer.walk() if isinstance(scorer, Backend)]


def identity(reranker: Reranker) -> dict[str, Any]:
    """Return the identity of the raw scores of `reranker`, as plain data. It is complete after the reranker's warm-up.

    Raises:
        ConfigError: The reranker is not a single backend with scores, made from plain data.
    """
    spec, every = reranker.spec, backends(reranker)
    if spec is None or len(every) != 1 or "use" not in spec or spec.get("fuse") is not None:
        raise ConfigError(
            "A calibration belongs to the scores of one backend: name that backend alone, as plain data. Calibrate the "
            "stages of a cascade, the parts of a fusion and the entries of a fallback one by one."
        )
    if reranker.scorer.capabilities.scale == "ordinal":
        raise ConfigError(
            f"{every[0].label} only orders documents: there are no scores to calibrate. Name a backend with scores."
        )
    return _score_identity(every[0], spec)


def build(options: RerankerOptions | DefaultOptions, spec: Mapping[str, Any]) -> Reranker:
    """Build a reranker.

    Args:
        options: Valid settings; see `schema.parse_spec` and `defaults.default_options`.
        spec: The plain mapping from which they were parsed.

    Raises:
        ConfigError: A mistake that only shows when a backend is constructed: a missing key or file, scores that cannot
            be compared.
    """
    return _reranker(_scorer(options), options, None if holds_client(spec) else without_keys(spec, functions=True))


def build_around(make: Callable[[Backend, Any], Backend], spec: Mapping[str, Any]) -> Reranker:
    """Build a reranker around a backend that no spec can name, such as a chat model of a framework.

    Args:
        make: Returns the backend, from the backend that `spec` names and its options. That one is only built.
        spec: The policies, and a backend with the same options.

    Raises:
        ConfigError: See `build`; or an option of `spec` is not valid.
    """
    from .schema import parse_spec

    options = parse_spec(spec)
    assert options.backend is not None, "the caller names a backend"
    backend = make(_backend(options.backend), options.backend.arguments["options"])
    return _reranker(_scorer(options, backend), options, None)


def _reranker(scorer: Scorer, options: RerankerOptions | DefaultOptions, spec: Mapping[str, Any] | None) -> Reranker:
    if options.instruction and not scorer.capabilities.instructions:
        raise ConfigError(
            f"{scorer.label} cannot follow an instruction: leave it out, put it in the query, or name another backend."
        )
    return Reranker(
        scorer,
        top_n=options.top_n,
        score_threshold=options.score_threshold,
        instruction=options.instruction,
        fields=options.fields,
        spec=spec,
    )


def _scorer(options: RerankerOptions | DefaultOptions, backend: Backend | None = None) -> Scorer:
    """Build the stack of a spec and the policies around it: fusion, fallback, deadline, diversity."""
    try:
        main = _stack(options, backend) if options.cascade is None else _cascade(options.cascade)
    except ConfigError as error:
        add_table(error, options.table)
        raise
    if options.fuse is not None:
        partners = [] if options.fuse.retrieval else options.fuse.partners
        main = options.fuse.fused([main, *map(_scorer, partners)])
    scorer = main if options.fallback is None and options.on_error == "raise" else _with_fallbacks(main, options)
    if options.deadline is not None:
        scorer = Deadline(scorer, options.deadline)
    return scorer if options.diversify is None else options.diversify.wrap(scorer)


def _with_fallbacks(main: Scorer, options: RerankerOptions | DefaultOptions) -> Scorer:
    from ..policies.fallback import Fallback, FallbackOptions
    from .schema import parse_spec

    fallback = options.fallback or FallbackOptions.model_construct()
    fallbacks = list(map(_scorer, fallback.specs))
    if options.on_error == "degrade" and not (fallbacks and fallbacks[-1].instant):
        fallbacks.append(_scorer(parse_spec({"use": "passthrough"})))
    return Fallback([main, *fallbacks], on=fallback.on) if fallbacks else main


def _stack(options: RerankerOptions | DefaultOptions, backend: Backend | None = None) -> Scorer:
    """Build one backend, unless it is built already, and the policies around it."""
    spec = options.backend
    assert spec is not None, "a spec without a backend is a cascade"
    backend = backend or _backend(spec)
    backend.sent_digest = _sent_digest(backend, spec.settings)
    stack = Stack(
        backend, partial(_cache_identity, backend, spec.settings), partial(_score_identity, backend, spec.settings)
    )
    scorer: Scorer = backend
    for policy in _policies(backend):
        if not isinstance(policy, str):
            scorer = policy(scorer, backend)
        elif policy == "retry" and backend.remote and "retry" not in options.model_fields_set:
            from ..policies.retry import RetryOptions

            scorer = RetryOptions.model_construct().wrap(scorer, stack)
        elif (own := getattr(options, policy)) is not None:
            scorer = own.wrap(scorer, stack)
    return scorer


def _instrumented(_: Scorer, backend: Backend) -> Scorer:
    loads = not backend.remote and type(backend).awarmup is not Scorer.awarmup
    return Instrumented(BackgroundLoading(backend) if loads else backend)


def _split(scorer: Scorer, backend: Backend) -> Scorer:
    if backend.blocks is not None:
        return InBlocks(scorer, backend.blocks, backend.max_in_flight)
    limits = backend.capabilities
    limited = limits.max_documents or limits.max_total_tokens or limits.max_bytes
    return Split(scorer, backend.max_in_flight) if limited else scorer


def _require_score(scorer: Scorer, backend: Backend) -> Scorer:
    return RequireScore(scorer) if backend.capabilities.refuses else scorer


def _request_warning(scorer: Scorer, backend: Backend) -> Scorer:
    has_warning = type(backend).request_warning is not Scorer.request_warning
    return RequestWarning(scorer, backend) if has_warning else scorer


def _adaptive_depth(scorer: Scorer, backend: Backend) -> Scorer:
    return AdaptiveDepth(scorer, backend.depth) if backend.depth is not None else scorer


def _policies(backend: Backend) -> Iterator[str | Callable[[Scorer, Backend], Scorer]]:
    """Yield the policies around `backend`, from the inside out.

    Around a joint backend the cache is inside the split: its entries are whole parts, since a score may move with the
    documents of its part.
    """
    if not backend.capabilities.joint:
        yield from STACK
        return
    for policy in STACK:
        if policy is _split:
            yield from ("cache", _split)
        elif policy != "cache":
            yield policy


STACK: tuple[str | Callable[[Scorer, Backend], Scorer], ...] = (
    _instrumented,
    "limit",
    "retry",
    "breaker",
    _split,
    "cache",
    _adaptive_depth,
    "long_documents",
    "calibration",
    _require_score,
    _request_warning,
)
"""The policies around one backend, from the inside out. A string is the name of an option, whose model wraps the
scorer."""


def _backend(spec: BackendSpec) -> Backend:
    # The name is set before the constructor runs, so that its errors contain it.
    backend = spec.kind.__new__(spec.kind)
    backend.name = name = spec.name
    try:
        backend.__init__(**spec.arguments)  # type: ignore[misc]
    except RerankError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # a mistake that the backend does not check
        raise ConfigError(
            f"{name} cannot be created with these options: {clause(error)}. Check their types."
        ) from error
    except OSError as error:  # a path that is too long, a folder without read permission
        reason = error.strerror or str(error)
        raise ConfigError(
            f"{name} cannot be created: {reason}. Check the paths in the spec, and the model's name."
        ) from error
    if backend.remote:
        _set_transport(backend)
    return backend


def _set_transport(backend: Backend) -> None:
    # Imported here, because local models need neither.
    from ..core.hosted import HTTPBackend

    if isinstance(backend, HTTPBackend) and backend.transport is None:
        from ..transport import HTTPXTransport

        backend.transport = HTTPXTransport()


def _cascade(options: CascadeOptions) -> Scorer:
    from ..policies.cascade import Cascade

    stages = list(map(_scorer, options.stages))
    if options.gate is not None:
        for stage in stages[:-1]:
            if stage.capabilities.scale == "ordinal":
                raise ConfigError(
                    f"cascade.gate needs scores with a scale, and {stage.label} only orders documents: leave gate out."
                )
    depth = options.depth
    if depth is not None:
        last = stages[-1].capabilities
        if last.listwise or last.scale == "ordinal":
            why = "only orders documents" if last.scale == "ordinal" else "scores documents by comparing them"
            raise ConfigError(
                f"cascade.keep = 'auto' needs a last stage that scores each document by itself, and "
                f"{stages[-1].label} {why}: write a number in keep."
            )
    return Cascade(stages, options.keep if depth is None else depth, options.gate)


async def _cache_identity(backend: Backend, settings: Mapping[str, Any]) -> str:
    """Return a string of everything except the texts that a score may depend on: the model's files and most options.

    The options of the connection (address, key, timeout) are left out.
    """
    from .schema import HOSTED

    options = _model_options(backend, settings)
    own = {key: each for key, each in options.items() if key not in (*HOSTED, "local_files_only")}
    identity_parts = [__version__, await backend.afingerprint(), own, backend.sent_digest]
    return json.dumps(identity_parts, sort_keys=True, default=str)


def _sent_digest(backend: Backend, settings: Mapping[str, Any]) -> str:
    """Return a hash of the values that are sent along with each request; `""` for none.

    The strings among them that `without_keys` masks may change the scores too. Hashed, they appear in no dump of a
    cache.
    """
    sent = {key: each for key, each in settings.get(backend.name, {}).items() if key in SENT_ALONG}
    return hashlib.sha256(json.dumps(sent, sort_keys=True, default=_plain).encode()).hexdigest() if sent else ""


def _plain(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def _model_options(backend: Backend, settings: Mapping[str, Any]) -> dict[str, Any]:
    from .schema import LOCAL

    own = without_keys(settings.get(backend.name, {}))
    return {key: settings[key] for key in LOCAL if key in settings} | own


def _score_identity(backend: Backend, settings: Mapping[str, Any]) -> dict[str, Any]:
    return identify(backend, _model_options(backend, settings), settings.get("long_documents", "truncate"))

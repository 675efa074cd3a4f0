"""A check of every backend of a reranker: one small call with a known answer, past everything that could hide a fault.

A service that starts with a wrong key, model, address or scale would answer by its fallback for ever. The check calls
the backends themselves: no cache, fallback, retry, rate limit or circuit breaker is between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .call import record_attempts
from .deadline import run_with_deadline
from .errors import BackendError, BadResponse
from .plain_data import plain_data
from .scorer import Backend, Scorer
from .types import Attempt, RerankRequest, Scale, Scores, Usage, outside_scale

__all__ = ["BackendCheck", "CheckReport", "check_scorer"]

CHECK_QUERY = "How does a reranker order search results?"
CHECK_DOCUMENTS = (
    "Bananas are yellow and rich in potassium.",
    "A reranker reads the query together with each of the search results and orders them, the best first.",
    "Bread rises because yeast makes gas in the dough.",
)
CHECK_BEST = 1
WRONG_ORDER = (
    "it did NOT put the right document first. The question is easy: the model may not be trained to rerank, or may get "
    "the wrong prompt. Try `rerank-plugins check --golden`, or `rerank-plugins compare` on your own data."
)

State = Literal["ok", "failed", "degraded", "wrong_order", "outside_scale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCheck:
    """What one backend answered to a query with a known answer.

    >>> from rerank_plugins import load_reranker
    >>> check = load_reranker("lexical").check().backends[0]
    >>> check.model, check.ok, check.state, check.scale
    ('lexical', True, 'ok', 'unit')
    """

    model: str
    """Label of the model, such as `cohere:rerank-v4.0-fast`."""
    state: State
    """`ok`; `failed` (it raised an error); `degraded` (the server answered by a fallback of its own); `wrong_order`
    (the right document is not first); `outside_scale` (scores outside the declared scale)."""
    reason: str | None = None
    """What is wrong or unusual, and what to do about it. It may quote the vendor; it never holds a key."""
    error: str | None = None
    """Class name of the error, such as `AuthenticationFailed`. `None` without one."""
    status: int | None = None
    """HTTP status of the reply. `None` if no reply came, and for a model in this process."""
    seconds: float = 0.0
    """Duration of the call."""
    load_seconds: float = 0.0
    """Duration of loading the model or the SDK before it."""
    scale: Scale = "unit"
    """The declared scale; see `Capabilities.scale`."""
    scale_seen: Literal["unit", "cosine", "logit"] | None = None
    """The narrowest scale that holds the scores of this call. Logits may lie between 0 and 1 by chance. `None` without
    scores."""
    raw_scores: tuple[float | None, ...] = ()
    """The raw scores of the three documents. The second one is the right document."""
    usage: Usage = field(default_factory=Usage)
    """What the call consumed."""
    server: Mapping[str, Any] | None = None
    """What the server says about itself: model, limits, version. `None` if the backend does not ask for it."""
    exception: Exception | None = field(default=None, repr=False, compare=False)
    """The error itself. It is not in `to_dict`."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.state == "ok"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, without `exception`, as plain data for `json.dumps`."""
        data = asdict(replace(self, exception=None))
        del data["exception"]
        return {"ok": self.ok, **data, "raw_scores": list(self.raw_scores), "server": plain_data(self.server)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The result of `Reranker.check`, for a health endpoint.

    >>> from rerank_plugins import load_reranker
    >>> report = load_reranker("lexical", fallback=["passthrough"]).check()
    >>> report.ok, report.available, [check.model for check in report.backends]
    (True, True, ['lexical', 'passthrough'])
    """

    backends: tuple[BackendCheck, ...]
    """One for each backend, in the order of use."""
    available: bool
    """Whether a call would be answered now, if need be by a fallback."""
    checked_at: float
    """Unix time of the check."""
    seconds: float
    """Duration of the whole check."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with any backend, fallbacks included."""
        return all(check.ok for check in self.backends)

    def raise_for_error(self) -> None:
        """Raise the error of the first backend with one, in the order of use. Do nothing if all is well.

        Raises:
            BackendError: A backend failed: the error that a call without a fallback would have raised, such as
                `AuthenticationFailed`. `BadResponse` if it answered with a wrong order or wrong scores.
            ConfigError: The configuration of a backend is wrong.
            DeadlineExceeded: A backend did not answer within the deadline of the check.
        """
        for check in self.backends:
            if check.exception is not None:
                raise check.exception
            if not check.ok:
                raise BadResponse(f"{check.model}: {check.reason}", backend=check.model, status=check.status)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for `json.dumps`. It never contains a key or a text of the user.

        Returns:
            A dict with `ok`, `available`, `checked_at`, `seconds`, and `backends`: a list of dicts with `ok` and the
            fields of `BackendCheck`.
        """
        return {
            "ok": self.ok,
            "available": self.available,
            "checked_at": self.checked_at,
            "seconds": self.seconds,
            "backends": [check.to_dict() for check in self.backends],
        }


async def check_scorer(scorer: Scorer, deadline: float | None = None) -> CheckReport:
    """Check every backend inside `scorer`, all at the same time.

    Args:
        scorer: A backend with the policies around it.
        deadline: Seconds for the whole check; `None` for no limit besides the backends' own.
    """
    started, checked_at = time.perf_counter(), time.time()
    probes = list(scorer.probes())
    checks = await asyncio.gather(*(_check_probe(probe, deadline) for probe in probes))
    failures = {id(probe): check.exception for probe, check in zip(probes, checks, strict=True)}
    return CheckReport(
        backends=tuple(checks),
        available=scorer.failure(failures) is None,
        checked_at=checked_at,
        seconds=time.perf_counter() - started,
    )


async def _check_probe(probe: Scorer, deadline: float | None) -> BackendCheck:
    started = time.perf_counter()
    with record_attempts() as attempts:
        try:
            return await run_with_deadline(deadline, _ask(probe, attempts, load=deadline is None), probe.label)
        except Exception as error:
            status = error.status if isinstance(error, BackendError) else None
            return BackendCheck(
                model=probe.label,
                state="failed",
                reason=str(error),
                error=type(error).__name__,
                status=_last_status(attempts) if status is None else status,
                seconds=time.perf_counter() - started,
                scale=probe.capabilities.scale,
                usage=_usage(Usage(), attempts),
                exception=error,
            )


async def _ask(probe: Scorer, attempts: Sequence[Attempt], *, load: bool) -> BackendCheck:
    started = time.perf_counter()
    if load:  # with a deadline, the call itself loads the model, and loading goes on after the deadline
        await probe.awarmup()
    loaded = time.perf_counter()
    scores = await _scores(probe)
    ended = time.perf_counter()
    backend = next((each for each in probe.walk() if isinstance(each, Backend)), None)
    state, reason = _judged(scores)
    return BackendCheck(
        model=scores.model,
        state=state,
        reason=reason,
        status=_last_status(attempts),
        seconds=ended - loaded,
        load_seconds=loaded - started,
        scale=scores.capabilities.scale,
        scale_seen=_scale_seen(scores.values),
        raw_scores=scores.values,
        usage=_usage(scores.usage, attempts),
        server=None if backend is None else await _server_info(backend),
    )


async def _scores(probe: Scorer) -> Scores:
    """Score the documents, in one call if the backend takes as many."""
    size = min(probe.capabilities.max_documents or len(CHECK_DOCUMENTS), len(CHECK_DOCUMENTS))
    parts = [
        await probe.ascore(RerankRequest(query=CHECK_QUERY, documents=CHECK_DOCUMENTS[start : start + size]))
        for start in range(0, len(CHECK_DOCUMENTS), size)
    ]
    if len(parts) == 1:
        return parts[0]
    usage = sum((part.usage for part in parts), Usage())
    return replace(parts[0], values=tuple(value for part in parts for value in part.values), usage=usage, order=None)


def _judged(scores: Scores) -> tuple[State, str | None]:
    if scores.degraded:
        return "degraded", scores.reason or "the server answered by a fallback and does not say why."
    if (outside := outside_scale(scores)) is not None:
        return "outside_scale", outside.removeprefix(f"{scores.model}: ")
    if all(value is None for value in scores.values):
        return "ok", "it keeps the order given and returns no scores."
    best = scores.best_first()[0]
    ties = [value for value in scores.values if value == scores.values[best]]
    if best != CHECK_BEST or len(ties) > 1:
        return "wrong_order", WRONG_ORDER
    return "ok", scores.reason


def _scale_seen(values: Sequence[float | None]) -> Literal["unit", "cosine", "logit"] | None:
    scores = [value for value in values if value is not None]
    if not scores:
        return None
    low, high = min(scores), max(scores)
    return "unit" if low >= 0.0 and high <= 1.0 else "cosine" if low >= -1.0 and high <= 1.0 else "logit"


def _usage(usage: Usage, attempts: Sequence[Attempt]) -> Usage:
    return replace(usage, requests=sum(attempt.remote for attempt in attempts))


def _last_status(attempts: Sequence[Attempt]) -> int | None:
    return attempts[-1].status if attempts else None


async def _server_info(backend: Backend) -> Mapping[str, Any] | None:
    """Return what the server says about itself. An error is left out: scores are what the check is about."""
    try:
        return await backend.server_info()
    except Exception:
        return None

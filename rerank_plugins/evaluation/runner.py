"""Run every reranker over every question, and collect the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..config import backends, load_reranker
from ..core._runtime.background_loop import run_sync
from ..core._runtime.gather import gather
from ..core.errors import AuthenticationFailed, ConfigError, RerankError
from ..core.remote import Remote
from ..core.scorer import Backend
from ..reranker import Reranker
from .abstention import relevant_positions, without_relevant
from .answer_cache import Answer, AnswerCache
from .data import Dataset, Question

if TYPE_CHECKING:
    from .ray_pool import RayPool

__all__ = ["Progress", "RerankerRun", "collect_answers", "prepare_runs", "rerank_question", "run_labels"]

Progress = Callable[[str, int, int], None]
"""Called with the label of a reranker, the number of its answers so far, and how many there will be."""
UNCUT: Mapping[str, Any] = {"top_n": None, "score_threshold": None}
"""Metrics are computed over the whole order, so a spec's own `top_n` and threshold are switched off."""
MAX_CONSECUTIVE_FAILURES = 3
"""After this many failed calls in a row, the run of a reranker stops: its backend is down."""


@dataclass(slots=True)
class RerankerRun:
    """One reranker of the comparison, and its answers."""

    label: str
    reranker: Reranker
    backends: Sequence[Backend]
    """The backends inside the reranker."""
    pointwise: bool
    """Whether the answer over many candidates determines the answer over fewer: no score depends on other documents."""
    remote: bool
    """Whether requests leave the process."""
    answers: dict[int, dict[str, Answer]] = field(default_factory=dict)
    """Depth → query id → answer."""
    error: RerankError | None = None
    """Why the run stopped early."""
    consecutive_failures: int = 0
    vendors: Mapping[str, Remote] = field(default_factory=dict)
    """Label → hosted backend, whose prices count."""
    threshold: float | None = None
    """The `score_threshold` of the spec."""
    without_relevant: dict[str, Answer] = field(default_factory=dict)
    """Query id → answer over the whole list without its relevant documents, where that cannot be computed."""

    async def identity(self) -> str:
        """Return everything that an answer depends on beside the question. Downloads missing models."""
        # The spec of a reranker holds a mask for each string that is sent along, such as those of `body`.
        models = [[await backend.afingerprint(), backend.sent_digest] for backend in self.backends]
        return json.dumps([__version__, _without_prices(self.reranker.spec), models], sort_keys=True, default=str)

    def with_cost(self, answer: Answer) -> Answer:
        """Return the answer with its cost at the prices of this spec; `None` where a price is unknown."""
        costs = [
            self.vendors[model].priced(usage).cost_usd if model in self.vendors else None
            for model, usage in answer.used
        ]
        known = [cost for cost in costs if cost is not None]
        return replace(answer, cost_usd=sum(known) if known and len(known) == len(costs) else None)


def prepare_runs(
    specs: Sequence[str | Mapping[str, Any] | Reranker],
    config: str | None = None,
    *,
    reserved_labels: Sequence[str] = (),
) -> list[RerankerRun]:
    """Return one run per spec, with unique labels and without answers.

    Args:
        specs: Specs, names of rerankers in `config`, or ready rerankers.
        config: Path of a TOML file of named rerankers.
        reserved_labels: Labels that no run may have.

    Raises:
        ConfigError: As `load_reranker`. Also for a ready `Reranker` without a spec, whose answers cannot be cached.
    """
    runs: list[RerankerRun] = []
    for spec in specs:
        reranker = _without_cuts(spec) if isinstance(spec, Reranker) else load_reranker(spec, config=config, **UNCUT)
        if reranker.spec is None:
            raise ConfigError(
                "A comparison needs rerankers that a spec describes, got one made with a `client`: pass its spec."
            )
        leaves = backends(reranker)
        label = spec if isinstance(spec, str) else reranker.scorer.spec_name
        used_labels = [*reserved_labels, *(run.label for run in runs)]
        numbered = [label, *(f"{label} ({number})" for number in range(2, len(specs) + 2))]
        runs.append(
            RerankerRun(
                label=next(name for name in numbered if name not in used_labels),
                reranker=reranker,
                backends=leaves,
                pointwise=not (
                    reranker.scorer.capabilities.listwise
                    or reranker.scorer.capabilities.joint
                    or reranker.spec.get("diversify")
                ),
                remote=any(backend.remote for backend in leaves),
                vendors={backend.label: backend for backend in leaves if isinstance(backend, Remote)},
                threshold=_declared_threshold(spec, config),
            )
        )
    return runs


def run_labels(
    specs: Sequence[str | Mapping[str, Any]], config: str | None = None, *, reserved_labels: Sequence[str] = ()
) -> list[str]:
    """Return the labels that the rerankers of a comparison will have. Nothing is sent.

    Raises:
        ConfigError: See `prepare_runs`.
    """
    runs = prepare_runs(specs, config, reserved_labels=reserved_labels)
    for run in runs:
        run.reranker.close()
    return [run.label for run in runs]


def _declared_threshold(spec: str | Mapping[str, Any] | Reranker, config: str | None) -> float | None:
    """Return the `score_threshold` of a spec, which the comparison itself switches off."""
    if isinstance(spec, Reranker):
        return spec.score_threshold
    try:
        with load_reranker(spec, config=config) as reranker:
            return reranker.score_threshold
    except ConfigError:  # a threshold over scores that have no scale, which does not matter without it
        return None


def _without_prices(spec: Any) -> Any:
    """Return a spec without prices, because no answer depends on them."""
    if isinstance(spec, Mapping):
        return {key: _without_prices(value) for key, value in spec.items() if key != "price"}
    return [_without_prices(value) for value in spec] if isinstance(spec, list | tuple) else spec


def _without_cuts(reranker: Reranker) -> Reranker:
    """Return a reranker over the same scorer that returns the whole order."""
    return Reranker(
        reranker.scorer,
        instruction=reranker.instruction,
        spec=None if reranker.spec is None else {**reranker.spec, **UNCUT},
        counters=reranker.counters,
    )


def collect_answers(
    run: RerankerRun,
    dataset: Dataset,
    depths: Sequence[int],
    cache: AnswerCache,
    *,
    at_once: int = 1,
    fresh: bool = False,
    abstention: bool = False,
    pool: RayPool | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill `answers` of a run: over all candidates, and over fewer where that costs nothing.

    One scoring of the longest list determines a pointwise reranker's order of shorter lists, and its best score
    without the relevant documents. A listwise reranker (a cascade, a fusion, BM25 over the candidates) and a joint one
    (a decision model) runs again for each, unless that would send requests to a vendor.

    Args:
        run: The reranker. An error that every other question would meet too is set as its `error`.
        dataset: The questions.
        depths: Numbers of candidates, ascending. The last is the length of the longest list.
        cache: Answers are read from it and written to it.
        at_once: Questions in flight at the same time. More than 1 is faster for hosted rerankers. Their latencies are
            then those under that load.
        fresh: Delete the cached answers of this reranker and these questions first.
        abstention: Rerank each list again without its relevant documents, even where that is paid for.
        pool: Actors of Ray that rerank, instead of this process.
        progress: Called after every answer.
    """
    try:
        identity = run_sync(run.identity())
    except RerankError as error:  # a model cannot be downloaded
        run.error = error
        return
    costs = run.remote and not run.pointwise
    shorter = [] if run.pointwise or costs else list(depths[:-1])
    removed = not run.pointwise and (abstention or not costs)
    jobs = _Jobs(dataset, [dataset.depth, *shorter], removed)
    if fresh:
        for job in jobs:
            cache.delete(cache.key(identity, job.question))
    collector = _AnswerCollector(run, identity, jobs, cache, at_once, progress)
    if pool is None:
        run_sync(collector.collect())
    else:
        collector.collect_on_ray(pool)


@dataclass(frozen=True, slots=True)
class _Job:
    """One list to rerank."""

    question: Question
    """With the candidates of the list."""
    depth: int | None
    """The number of candidates; `None` for the whole list without its relevant documents."""


@dataclass(frozen=True, slots=True)
class _Jobs:
    """All lists that a run reranks. They are made one question at a time, so that the texts need not fit in memory."""

    dataset: Dataset
    depths: Sequence[int]
    """Numbers of candidates; the first is that of the longest list."""
    removed: bool
    """Whether each list is also reranked without its relevant documents."""

    def __iter__(self) -> Iterator[_Job]:
        grades = self.dataset.grades
        for question in self.dataset.questions:
            for depth in self.depths:
                cut = question.cut(depth)
                if depth == self.depths[0] or len(cut.candidates) < len(question.candidates):
                    yield _Job(cut, depth)
            if self.removed:
                relevant = relevant_positions(question, grades.get(question.id, {}))
                if 0 < len(relevant) < len(question.candidates):
                    yield _Job(without_relevant(question, relevant), None)

    def __len__(self) -> int:
        # Counts lists that are skipped because they are short, or hold nothing relevant: to leave them out, every text
        # would be read once more.
        return len(self.dataset.questions) * (len(self.depths) + self.removed)


class _AnswerCollector:
    """Answers the lists of one run: from the cache, in this process `at_once` at a time, or on a pool of Ray."""

    def __init__(
        self,
        run: RerankerRun,
        identity: str,
        jobs: _Jobs,
        cache: AnswerCache,
        at_once: int,
        progress: Progress | None,
    ) -> None:
        self.run, self.identity, self.jobs, self.cache = run, identity, jobs, cache
        self.at_once, self.progress = at_once, progress
        self.total = len(jobs)
        self.done = 0
        self.warm_up = asyncio.Lock()
        """Held by the worker that warms up the reranker; the others wait."""
        self.is_warm = False

    def pending(self) -> Iterator[tuple[_Job, bytes] | None]:
        """Yield each list with its key; `None` for a list whose answer was known, and is recorded."""
        for job in self.jobs:
            key = self.cache.key(self.identity, job.question)
            answer = self.cache.get(key) if job.question.candidates else Answer((), (), 0.0, "no candidates")
            if answer is None:
                yield job, key
            else:
                self.record(job, answer)
                yield None

    async def collect(self) -> None:
        queue = self.pending()

        async def worker() -> None:
            for entry in queue:
                await asyncio.sleep(0)  # a long file of known answers must not hold the event loop
                if entry is None:
                    continue
                await self.ensure_warm()
                if self.run.error is not None:
                    return
                job, key = entry
                # Look again: another question with the same texts may have been answered meanwhile.
                answer = self.cache.get(key) or await self.rerank(job.question)
                self.keep(job, key, answer)

        await gather(worker() for _ in range(self.at_once))

    async def ensure_warm(self) -> None:
        """Load the model before the first call: that time is not part of a call's latency."""
        async with self.warm_up:
            if not self.is_warm and self.run.error is None:
                self.is_warm = True
                try:
                    await self.run.reranker.awarmup()
                except RerankError as error:
                    self.run.error = error

    def collect_on_ray(self, pool: RayPool) -> None:
        """Answer on a pool. It blocks, so it runs on the thread of the caller, not on the event loop."""
        entries = (entry for entry in self.pending() if entry is not None)
        try:
            for (job, key), answer in pool.answers(self.run.reranker, entries, lambda entry: entry[0].question):
                self.keep(job, key, self.failure(answer, job) if isinstance(answer, RerankError) else answer)
                if self.run.error is not None:
                    return
        except RerankError as error:
            self.run.error = error

    def keep(self, job: _Job, key: bytes, answer: Answer) -> None:
        """Write an answer to the cache, and record it."""
        if not answer.failed:
            self.run.consecutive_failures = 0
        if not answer.failed and not answer.degraded:
            self.cache.put(key, answer)
        self.record(job, answer)

    async def rerank(self, question: Question) -> Answer:
        try:
            return await rerank_question(self.run.reranker, question, self.at_once)
        except RerankError as error:
            return self.failure(error, _Job(question, None))

    def failure(self, error: RerankError, job: _Job) -> Answer:
        """Return the answer of a list that no backend answered. Sets the run's error where it should stop."""
        self.run.consecutive_failures += 1
        if (
            isinstance(error, ConfigError | AuthenticationFailed)  # every other question would fail in the same way
            or self.run.consecutive_failures >= MAX_CONSECUTIVE_FAILURES
        ):
            self.run.error = error
        count = len(job.question.candidates)
        return Answer(tuple(range(count)), (None,) * count, 0.0, "none", degraded=True, failed=True)

    def record(self, job: _Job, answer: Answer) -> None:
        answer = self.run.with_cost(answer)
        if job.depth is None:
            self.run.without_relevant[job.question.id] = answer
        else:
            self.run.answers.setdefault(job.depth, {})[job.question.id] = answer
        self.done += 1
        if self.progress is not None:
            self.progress(self.run.label, self.done, self.total)


async def rerank_question(reranker: Reranker, question: Question, at_once: int) -> Answer:
    """Rerank the candidates of a question.

    Args:
        reranker: The reranker.
        question: The question.
        at_once: Number of questions in flight at the same time, for the record.

    Raises:
        RerankError: No backend answered.
    """
    texts = [candidate.text for candidate in question.candidates]
    response = await reranker.arerank(question.text, texts, top_n=len(texts), retrieval_scores=question.scores())
    scores = {result.index: result.raw_score for result in response}
    return Answer(
        order=tuple(result.index for result in response),
        scores=tuple(scores.get(at) for at in range(len(texts))),
        latency_ms=response.latency_ms,
        model=response.model,
        requests=response.usage.requests,
        used=tuple(
            (attempt.model, replace(attempt.usage, cost_usd=None))
            for attempt in response.attempts
            if attempt.remote and attempt.usage is not None
        ),
        degraded=response.degraded,
        at_once=at_once,
    )

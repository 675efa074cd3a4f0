"""`Reranker`: check the input, ask one scorer, order, cut, explain. Everything that every user needs, once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .core.call import record_attempts
from .core.counters import Counters
from .core.deadline import counting, within
from .core.errors import ConfigError, DeadlineExceeded, InputError
from .core.loop import require_asyncio, run_sync
from .core.numeric import finite, integer, shown
from .core.redaction import one_line
from .core.response import RerankResponse, RerankResult
from .core.scorer import Scorer
from .core.text_work import INLINE, run_text_work, size_of
from .core.types import Attempt, Scores, outside_scale
from .documents import Batch, RerankCall, as_list, snapshot, unread_request, unread_results
from .fields import check_names
from .telemetry import watching

__all__ = ["RerankResponse", "RerankResult", "Reranker"]

_log = logging.getLogger("rerank_plugins")

_ITEMS_PER_RESULT = 8
"""A result takes as long as about so many items of other work on text."""


class Reranker:
    """Reranks documents with one scorer. Made by `load_reranker`; safe to share between threads and event loops."""

    def __init__(
        self,
        scorer: Scorer,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        spec: Mapping[str, Any] | None = None,
        counters: Counters | None = None,
        fields: Sequence[str] | None = None,
    ) -> None:
        """Own `scorer`.

        Args:
            scorer: Any scorer, policies included.
            top_n: How many results a call gives unless it says otherwise; `None` is all.
            score_threshold: Leave out results whose `relevance_score` is below it; never applied to a degraded answer.
            instruction: What relevant means, for calls that bring none of their own.
            spec: The plain data this was built from, without keys; what a pickle holds.
            counters: Where calls are counted; its own unless a copy shares another's.
            fields: Of documents that are mappings, the fields that are read, in this order; `None` is all.

        Raises:
            ConfigError: `top_n` is below 1, `fields` is no list of names, or a threshold that cannot mean anything.
        """
        try:
            top_n = check_top_n(top_n)
            self.fields = check_names(fields)
        except (InputError, ValueError) as error:
            raise ConfigError(str(error)) from error
        if score_threshold is not None:
            check_threshold(score_threshold, scorer)
        self.scorer = scorer
        self.top_n = top_n
        self.score_threshold = score_threshold
        self.instruction = instruction
        self.spec = spec
        self.counters = counters or Counters()
        self._warned = False

    def rerank(
        self,
        query: str,
        documents: Iterable[Any],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse:
        """Score `documents` against `query` and return them best first. Works inside a running event loop too.

        Args:
            query: What is asked; not blank.
            documents: Strings, or mappings of fields; any number, blanks and repeats included. Any iterable that has an
                order: a list, a generator, a column of a table. Of a mapping all text and number fields are read, or those
                of the option `fields`. A list of more than 16 numbers is not read, nor a mapping of more than 64; the result's
                `reason` says so. If one text field is left, its value alone is sent, else the fields as YAML.
            top_n: How many results to give, at least 1; `None` is the reranker's own, and without one all.
            instruction: What relevant means here, for models that follow such a text.
            retrieval_scores: The retriever's score of each document, for scorers that use it.

        Raises:
            InputError: A blank query, `top_n` below 1, documents without an order (a set, a table), a document that is
                neither text nor mapping, an instruction that the backend cannot follow. Nothing is sent.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        call = RerankCall(
            query=query,
            documents=documents,
            top_n=top_n,
            instruction=instruction,
            retrieval_scores=retrieval_scores,
        )
        return self._run(call)

    async def arerank(
        self,
        query: str,
        documents: Iterable[Any],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse:
        """Do what `rerank` does, on the caller's event loop, which it never blocks.

        Raises:
            ConfigError: The event loop is not asyncio's; and all that `rerank` raises.
        """
        call = RerankCall(
            query=query,
            documents=documents,
            top_n=top_n,
            instruction=instruction,
            retrieval_scores=retrieval_scores,
        )
        return await self._arun(call)

    def _run(self, call: RerankCall) -> RerankResponse:
        # Iterators are read on the caller's own thread: a database cursor, say, may be used on no other.
        call = replace(call, documents=snapshot(call.documents), retrieval_scores=snapshot(call.retrieval_scores))
        return run_sync(self._arun(call))

    async def _arun(self, call: RerankCall) -> RerankResponse:
        require_asyncio("arerank")
        with watching(self.scorer) as span, record_attempts(span) as attempts:
            try:
                response = await self._answer(call, attempts)
            except BaseException as error:
                self.counters.failed(error, attempts)
                raise
            if span is not None:
                span.answered(response)
            return response

    async def _answer(self, call: RerankCall, attempts: Sequence[Attempt]) -> RerankResponse:
        started = time.perf_counter()
        top_n = check_top_n(self.top_n if call.top_n is None else call.top_n)
        listed = as_list(call.documents)
        with counting(self.scorer.deadline):
            try:
                batch = await self._read(call, listed)
            except DeadlineExceeded:
                scores, results = await self._unread(listed)
            else:
                if batch.request.documents:
                    scores = await self.scorer.ascore(batch.request)
                else:
                    scores = Scores(values=(), model=self.scorer.label, capabilities=self.scorer.capabilities)
                results = await run_text_work(len(listed) * _ITEMS_PER_RESULT, batch.results, scores)
        threshold = self.score_threshold if call.score_threshold is None else call.score_threshold
        if threshold is not None and not scores.degraded:
            results = [
                each for each in results if each.relevance_score is not None and each.relevance_score >= threshold
            ]
        reason = scores.reason
        if not reason and (reason := outside_scale(scores)) and not self._warned:
            self._warned = True
            _log.warning("%s (said once)", one_line(reason))
        response = RerankResponse(
            results=tuple(results[:top_n]),
            model=scores.model,
            scale=scores.capabilities.scale,
            usage=replace(scores.usage, requests=sum(attempt.remote for attempt in attempts)),
            degraded=scores.degraded,
            reason=reason,
            attempts=tuple(attempts),
            latency_ms=(time.perf_counter() - started) * 1000.0,
        )
        self.counters.answered(response, len(listed))
        return response

    async def _read(self, call: RerankCall, documents: list[Any]) -> Batch:
        """Read the input, on a worker thread where it is large, and within the deadline."""
        instruction = self.instruction if call.instruction is None else call.instruction
        call = replace(call, instruction=instruction or None, retrieval_scores=snapshot(call.retrieval_scores))
        size = size_of([call.query, call.instruction, documents], INLINE)
        work = run_text_work(size, Batch, call, documents, self.fields)
        deadline = self.scorer.deadline
        batch = await (work if deadline is None else within(deadline, work, self.scorer.label))
        if batch.request.instruction is not None and not self.scorer.capabilities.instructions:
            raise InputError(
                f"{self.scorer.label} cannot follow an instruction: leave it out, put it into the query, or name a "
                "backend that follows one."
            )
        return batch

    async def _unread(self, documents: list[Any]) -> tuple[Scores, list[RerankResult]]:
        """Return the answer of a stand-in to documents that nobody had the time to read: the order given.

        Raises:
            DeadlineExceeded: The spec names no such stand-in.
        """
        with counting(-1.0):  # passed for certain, so that no backend is asked about text that is not there
            scores = await self.scorer.ascore(unread_request(documents))
        return scores, unread_results(documents)

    def stats(self) -> dict[str, Any]:
        """Return what happened since this reranker was made, as plain data that a health endpoint can show as JSON.

        `calls` (`answered` + `failed`), `degraded`, `errors` by class, `answered_by` and `attempts` by model, `requests`
        that left the process, `documents`, `mean_latency_ms`, `last_degraded_at` (Unix seconds) with `last_reason`; and
        `backends`: by label, what the policies know now: `breaker` ("closed", "open", "half_open"), `limit` (the last
        minute's `requests` and `tokens`, and who is `waiting`), `cache` (`hits`, `misses`, `hit_rate`, of documents).
        """
        return {**self.counters.told(), "backends": {label: dict(each) for label, each in self.scorer.state().items()}}

    def warmup(self) -> None:
        """Load the model now rather than at the first call."""
        run_sync(self.scorer.awarmup())

    async def awarmup(self) -> None:
        """Load the model now rather than at the first call."""
        require_asyncio("awarmup")
        await self.scorer.awarmup()

    def close(self) -> None:
        """Give back connections, threads and the model; a later call makes them anew."""
        run_sync(self.scorer.aclose())

    async def aclose(self) -> None:
        """Give back connections, threads and the model; a later call makes them anew."""
        require_asyncio("aclose")
        await self.scorer.aclose()

    def __enter__(self) -> Reranker:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Reranker:
        """Return itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show who answers, never a key."""
        return f"Reranker({self.scorer.label!r}, top_n={self.top_n})"

    def __copy__(self) -> Reranker:
        """Return another with the same scorer, and so connections, models and keys: a pickle's spec has no key."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Reranker:
        """Copies within the process share connections, models and keys."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the spec without keys; they are found again in the environment."""
        if self.spec is None:
            raise TypeError(
                "Only a reranker made by load_reranker() from plain data can be pickled: this one has no spec, or a "
                "`client` in it. Build it where it is used."
            )
        from .config import load_reranker

        return load_reranker, (dict(self.spec),)


def check_top_n(top_n: Any, name: str = "top_n") -> int | None:
    """Return `top_n` as an `int` (NumPy's integers become one), or `None`.

    Raises:
        InputError: It is no integer of at least 1.
    """
    if top_n is None:
        return None
    try:
        return integer(top_n, name, 1, None)
    except ConfigError as error:
        raise InputError(f"{name} must be an integer of at least 1, or None for all; got {shown(top_n)}.") from error


def check_threshold(threshold: float | None, scorer: Scorer) -> None:
    """Refuse a threshold that cannot mean anything, or not the same for all who may answer.

    Raises:
        ConfigError: It is no number in [0, 1], or the scores that may be the answer have several scales, or none.
    """
    if threshold is None:
        return
    finite(threshold, "score_threshold", 0.0, 1.0)
    scales: dict[str, str] = {}
    # Instant stand-ins keep the order given: their answers are degraded, and no threshold applies to those.
    for answering in [*(leaf for leaf in scorer.leaves() if not leaf.instant), scorer]:
        capabilities = answering.capabilities
        if capabilities.scale == "ordinal":
            raise ConfigError(
                f"{answering.label} only orders documents: its scores have no scale that a score_threshold could cut. "
                "Use top_n, or a backend with scores."
            )
        if answering is not scorer:
            scales.setdefault("probability" if capabilities.curve is not None else capabilities.scale, answering.label)
    if len(scales) > 1:
        named = ", ".join(f"{label} ({scale})" for scale, label in scales.items())
        raise ConfigError(
            f"score_threshold would mean different things for {named}. Use top_n, or stand-ins of one scale."
        )

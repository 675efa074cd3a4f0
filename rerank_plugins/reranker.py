"""`Reranker`: check the input, ask one scorer, order, cut, explain. Everything that every user needs, once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .core.counters import Counters
from .core.errors import ConfigError, InputError
from .core.journal import gathering
from .core.loop import run_sync
from .core.response import RerankResponse, RerankResult
from .core.scorer import Scorer
from .core.types import Attempt, Capabilities, RerankRequest, Scores
from .fields import as_json, as_text, sendable
from .telemetry import watching

__all__ = ["RerankResponse", "RerankResult", "Reranker"]

BLANK = "blank: there is no text to score"


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
    ) -> None:
        """Own `scorer`.

        Args:
            scorer: Any scorer, policies included.
            top_n: How many results a call gives unless it says otherwise; `None` is all.
            score_threshold: Leave out results whose `relevance_score` is below it; never applied to a degraded answer.
            instruction: What relevant means, for calls that bring none of their own.
            spec: The plain data this was built from, without keys; what a pickle holds.
            counters: Where calls are counted; its own unless a copy shares another's.

        Raises:
            ConfigError: `top_n` is below 1, or a threshold over scores that have no scale.
        """
        try:
            check_top_n(top_n)
        except InputError as error:
            raise ConfigError(str(error)) from error
        check_threshold(score_threshold, scorer.capabilities, scorer.label)
        self.scorer = scorer
        self.top_n = top_n
        self.score_threshold = score_threshold
        self.instruction = instruction
        self.spec = spec
        self.counters = counters or Counters()

    def rerank(
        self,
        query: str,
        documents: Sequence[Any],
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Sequence[float] | None = None,
    ) -> RerankResponse:
        """Score `documents` against `query` and return them best first. Works inside a running event loop too.

        Args:
            query: What is asked; not blank.
            documents: Texts, or mappings of fields; any number, blanks and repeats included.
            top_n: How many results to give, at least 1; `None` is the reranker's own, and without one all.
            instruction: What relevant means here, for models that follow such a text.
            retrieval_scores: The retriever's score of each document, for scorers that use it.

        Raises:
            InputError: A blank query, `top_n` below 1, a document that is neither text nor mapping, an instruction
                that the backend cannot follow. Nothing is sent.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        return run_sync(self.arerank(query, documents, top_n, instruction, retrieval_scores))

    async def arerank(
        self,
        query: str,
        documents: Sequence[Any],
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Sequence[float] | None = None,
    ) -> RerankResponse:
        """Do what `rerank` does, on the caller's event loop, which it never blocks."""
        with watching(self.scorer.label) as call, gathering(call) as attempts:
            try:
                response = await self._answer(query, documents, top_n, instruction, retrieval_scores, attempts)
            except BaseException as error:
                self.counters.failed(error, attempts)
                raise
            if call is not None:
                call.answered(response)
            return response

    async def _answer(
        self,
        query: str,
        documents: Sequence[Any],
        top_n: int | None,
        instruction: str | None,
        retrieval_scores: Sequence[float] | None,
        attempts: Sequence[Attempt],
    ) -> RerankResponse:
        started = time.perf_counter()
        top_n = self.top_n if top_n is None else top_n
        check_top_n(top_n)
        instruction = self.instruction if instruction is None else instruction
        batch = _Batch(query, documents, instruction or None, retrieval_scores)
        if batch.request.instruction is not None and not self.scorer.capabilities.instructions:
            raise InputError(
                f"{self.scorer.label} cannot follow an instruction: leave it out, put it into the query, or name a "
                "backend that follows one."
            )
        scores = await self._scores(batch.request)
        results = batch.results(scores)
        if self.score_threshold is not None and not scores.degraded:
            least = self.score_threshold
            results = [each for each in results if each.relevance_score is not None and each.relevance_score >= least]
        response = RerankResponse(
            results=tuple(results[:top_n]),
            model=scores.model,
            scale=scores.capabilities.scale,
            usage=replace(scores.usage, requests=sum(attempt.remote for attempt in attempts)),
            degraded=scores.degraded,
            reason=scores.reason,
            attempts=tuple(attempts),
            latency_ms=(time.perf_counter() - started) * 1000.0,
        )
        self.counters.answered(response, len(batch.documents))
        return response

    async def _scores(self, request: RerankRequest) -> Scores:
        if not request.documents:
            return Scores(values=(), model=self.scorer.label, capabilities=self.scorer.capabilities)
        return await self.scorer.ascore(request)

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
        await self.scorer.awarmup()

    def close(self) -> None:
        """Give back connections, threads and the model; a later call makes them anew."""
        run_sync(self.scorer.aclose())

    async def aclose(self) -> None:
        """Give back connections, threads and the model; a later call makes them anew."""
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


class _Batch:
    """The caller's documents, and the request that is made of them: no blanks, nothing twice."""

    def __init__(
        self,
        query: str,
        documents: Sequence[Any],
        instruction: str | None,
        retrieval_scores: Sequence[float] | None,
    ) -> None:
        if not isinstance(query, str):
            raise InputError(f"The query has to be a text, and this is a {type(query).__name__}.")
        if not query.strip():
            raise InputError("The query is blank: there is nothing to compare the documents with.")
        if instruction is not None and not isinstance(instruction, str):
            raise InputError(f"The instruction has to be a text, and this is a {type(instruction).__name__}.")
        if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
            raise InputError(f"documents has to be a list of texts or mappings, not one {type(documents).__name__}.")
        self.documents = list(documents)
        retrieved = None if retrieval_scores is None else _numbers(retrieval_scores, len(self.documents))
        slots: dict[str, int] = {}
        self.slots: list[int | None] = []
        """For each of the caller's documents its place in the request; `None` for a blank one."""
        first: list[int] = []
        for index, document in enumerate(self.documents):
            text = _text(document, index)
            if not text.strip():
                self.slots.append(None)
                continue
            slot = slots.setdefault(text, len(slots))
            if slot == len(first):
                first.append(index)
            self.slots.append(slot)
        fields = None
        if any(isinstance(self.documents[index], Mapping) for index in first):
            given = (self.documents[index] for index in first)
            fields = tuple(as_json(each) if isinstance(each, Mapping) else None for each in given)
        self.request = RerankRequest(
            query=sendable(query),
            documents=tuple(slots),
            instruction=instruction,
            retrieval_scores=None if retrieved is None else tuple(retrieved[index] for index in first),
            fields=fields,
            positions=tuple(first) if len(first) != len(self.documents) else None,
        )

    def results(self, scores: Scores) -> list[RerankResult]:
        """Return every document, best first, ties in the order given, blanks last."""
        ranks = scores.ranks()
        # Stable: ties, repeats of one text among them, stay as they were given.
        kept = [(index, slot) for index, slot in enumerate(self.slots) if slot is not None]
        kept.sort(key=lambda pair: ranks[pair[1]])
        relevances = scores.relevances()
        truncated, spans, reasons = scores.truncated, scores.spans, scores.reasons
        scored = [
            RerankResult(
                index=index,
                document=self.documents[index],
                relevance_score=relevances[slot],
                raw_score=scores.values[slot],
                truncated=bool(truncated and truncated[slot]),
                spans=spans[slot] if spans else (),
                reason=reasons[slot] if reasons else None,
            )
            for index, slot in kept
        ]
        blanks = [
            RerankResult(
                index=index, document=self.documents[index], relevance_score=None, raw_score=None, reason=BLANK
            )
            for index, slot in enumerate(self.slots)
            if slot is None
        ]
        return scored + blanks


def _numbers(retrieval_scores: Iterable[Any], count: int) -> list[float]:
    try:
        numbers = [float(each) for each in retrieval_scores]
    except (TypeError, ValueError) as error:
        raise InputError("retrieval_scores has to be a list of numbers, one for each document.") from error
    if not all(map(math.isfinite, numbers)):
        raise InputError("retrieval_scores has a number that is not finite: leave them out, or give real scores.")
    if len(numbers) != count:
        raise InputError(f"{len(numbers)} retrieval_scores were given for {count} documents: one for each is needed.")
    return numbers


def _text(document: Any, index: int) -> str:
    if isinstance(document, str):
        return sendable(document)
    if isinstance(document, Mapping):
        return as_text(document, index)
    raise InputError(
        f"Document {index} is a {type(document).__name__}: documents are texts or mappings of fields. "
        "Leave it out, or turn it into a text."
    )


def check_top_n(top_n: int | None) -> None:
    if top_n is None:
        return
    if isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1:
        raise InputError(f"top_n has to be a whole number of at least 1, or None for all; {top_n!r} is not.")


def check_threshold(threshold: float | None, capabilities: Capabilities, label: str) -> None:
    """Refuse a threshold that cannot mean anything.

    Raises:
        ConfigError: It is no number in [0, 1], or the backend's scores have no scale.
    """
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"score_threshold has to be a number from 0 to 1, and {threshold!r} is not.")
    if capabilities.scale == "ordinal":
        raise ConfigError(
            f"{label} only orders documents: its scores have no scale that a score_threshold could cut. "
            "Use top_n, or a backend with scores."
        )

"""`Reranker`: check the input, score it with one scorer, sort, apply threshold and `top_n`, and explain the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from .core._runtime.background_loop import require_asyncio, run_sync
from .core._runtime.text_work import MAX_INLINE_SIZE, approximate_size, run_text_work
from .core.call import record_attempts
from .core.deadline import deadline_scope, run_with_deadline
from .core.errors import ConfigError, DeadlineExceeded, InputError
from .core.numeric import finite, integer, seconds, shown
from .core.redaction import one_line
from .core.response import DocumentT, RerankResponse, RerankResult
from .core.scorer import Scorer
from .core.stats import Counters
from .core.types import Attempt, Scores, outside_scale
from .documents import Batch, RerankCall, as_list, snapshot, unread_request, unread_results
from .structured_documents import check_names
from .telemetry import trace_call

if TYPE_CHECKING:
    from .core.health import CheckReport

__all__ = ["RerankResponse", "RerankResult", "Reranker"]

_log = logging.getLogger("rerank_plugins")

_ITEMS_PER_RESULT = 8
"""To build one result takes about as long as this many items of other work on text (see `run_text_work`)."""


class Reranker:
    """Reranks documents with one scorer. `load_reranker` builds it. Threads and event loops can share one.

    >>> from rerank_plugins import load_reranker
    >>> with load_reranker("lexical", top_n=1) as reranker:
    ...     response = reranker.rerank(
    ...         "capital of Germany", ["Bananas are yellow.", "Berlin is the capital of Germany."]
    ...     )
    >>> response[0].index, response[0].document
    (1, 'Berlin is the capital of Germany.')
    """

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
        """Take over `scorer`: `close` closes it.

        Args:
            scorer: The scorer, with all policies around it.
            top_n: Number of results, at least 1, for calls without a `top_n`; `None` is all.
            score_threshold: Smallest `relevance_score` of a result, from 0 to 1; `None` is no threshold. It is not
                applied to a degraded response.
            instruction: What relevant means, for calls without an `instruction`.
            spec: The plain data that this reranker was built from, without keys. A pickle holds it.
            counters: Statistics to add to; `None` starts new ones.
            fields: The fields to read of documents that are mappings, in this order; `None` reads all.

        Raises:
            ConfigError: `top_n` is below 1, `fields` is not a list of names, or the threshold has no meaning for this
                scorer.
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

    # The second overload is for a list display of strings and mappings together, whose items mypy would join to
    # Collection[str]. It takes a list, which is invariant, so that a list[dict[str, Any]] matches the first one only.
    # mypy does not see that the first overload's bound rejects such a display.
    @overload
    def rerank(
        self,
        query: str,
        documents: Iterable[DocumentT],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse[DocumentT]: ...
    @overload
    def rerank(  # type: ignore[overload-cannot-match]
        self,
        query: str,
        documents: list[str | Mapping[str, Any]],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse[str | Mapping[str, Any]]: ...
    def rerank(
        self,
        query: str,
        documents: Iterable[Any],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse[Any]:
        """Score `documents` against `query` and return them best first. It also works inside a running event loop.

        Args:
            query: The question. It must not be blank.
            documents: Strings, or mappings of fields, in any iterable with an order: a list, a generator, a column of a
                table. Blank and repeated documents are allowed. Of a mapping, all text and number fields are read, or
                those in the option `fields`. Lists of more than 16 numbers and mappings of more than 64 are not read;
                `reason` of the result says so. If one text field remains, its value is sent, else the fields as YAML.
            top_n: Number of results, at least 1; `None` is the reranker's own `top_n`, and all without one.
            instruction: What relevant means in this call, for models that follow instructions.
            retrieval_scores: The retriever's score of each document, for scorers that use it (`fuse`, `cascade`).

        Returns:
            A sequence of results, best first. Equal scores keep the order of the reply, else the order of `documents`.
            Documents without a score come last.

        Raises:
            InputError: The query is blank, `top_n` is below 1, `documents` has no order (a set, a table), a document is
                neither a string nor a mapping, or the backend cannot follow an instruction. Nothing is sent.
            BackendError: The backend returned no scores, and no fallback did.
            DeadlineExceeded: The call took longer than the deadline in the spec.
        """
        call = RerankCall(
            query=query,
            documents=documents,
            top_n=top_n,
            instruction=instruction,
            retrieval_scores=retrieval_scores,
        )
        return self._run(call)

    @overload
    async def arerank(
        self,
        query: str,
        documents: Iterable[DocumentT],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse[DocumentT]: ...
    @overload
    async def arerank(  # type: ignore[overload-cannot-match]
        self,
        query: str,
        documents: list[str | Mapping[str, Any]],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse[str | Mapping[str, Any]]: ...
    async def arerank(
        self,
        query: str,
        documents: Iterable[Any],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        retrieval_scores: Iterable[float] | None = None,
    ) -> RerankResponse[Any]:
        """Do what `rerank` does, on the caller's event loop, without blocking it.

        Args:
            query: The question. It must not be blank.
            documents: Strings, or mappings of fields; see `rerank`.
            top_n: Number of results, at least 1; `None` is the reranker's own `top_n`, and all without one.
            instruction: What relevant means in this call, for models that follow instructions.
            retrieval_scores: The retriever's score of each document, for scorers that use it (`fuse`, `cascade`).

        Returns:
            A sequence of results, best first; see `rerank`.

        Raises:
            ConfigError: The event loop is not asyncio's.
            InputError: An argument is wrong; see `rerank`. Nothing is sent.
            BackendError: The backend returned no scores, and no fallback did.
            DeadlineExceeded: The call took longer than the deadline in the spec.
        """
        call = RerankCall(
            query=query,
            documents=documents,
            top_n=top_n,
            instruction=instruction,
            retrieval_scores=retrieval_scores,
        )
        return await self._arun(call)

    def _run(self, call: RerankCall[DocumentT]) -> RerankResponse[DocumentT]:
        # Iterators are read on the caller's thread: some, such as a database cursor, must not be used on another one.
        call = replace(call, documents=snapshot(call.documents), retrieval_scores=snapshot(call.retrieval_scores))
        return run_sync(self._arun(call))

    async def _arun(self, call: RerankCall[DocumentT]) -> RerankResponse[DocumentT]:
        require_asyncio("arerank")
        with trace_call(self.scorer) as span, record_attempts(span) as attempts:
            try:
                response = await self._answer(call, attempts)
            except BaseException as error:
                self.counters.count_error(error, attempts)
                raise
            if span is not None:
                span.record_response(response)
            return response

    async def _answer(self, call: RerankCall[DocumentT], attempts: Sequence[Attempt]) -> RerankResponse[DocumentT]:
        started = time.perf_counter()
        top_n = check_top_n(self.top_n if call.top_n is None else call.top_n)
        listed: list[DocumentT] = as_list(call.documents)
        with deadline_scope(self.scorer.deadline):
            try:
                batch = await self._read(call, listed)
            except DeadlineExceeded:
                scores, results = await self._answer_unread(listed)
            else:
                if batch.request.documents:
                    scores = await self.scorer.ascore(batch.request)
                else:
                    scores = Scores(values=(), model=self.scorer.label, capabilities=self.scorer.capabilities)
                results = await run_text_work(len(listed) * _ITEMS_PER_RESULT, batch.results, scores)
        threshold = self.score_threshold if call.score_threshold is None else call.score_threshold
        if threshold is not None and not scores.degraded:
            results = [
                result
                for result in results
                if result.relevance_score is not None and result.relevance_score >= threshold
            ]
        outside = outside_scale(scores)
        if outside and not self._warned:
            self._warned = True
            _log.warning("%s (logged once)", one_line(outside))
        reason = "; ".join(text for text in (scores.reason, outside) if text) or None
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
        self.counters.count_response(response, len(listed))
        return response

    async def _read(self, call: RerankCall[DocumentT], documents: list[DocumentT]) -> Batch[DocumentT]:
        """Check and convert the input within the deadline; large input on a worker thread."""
        instruction = self.instruction if call.instruction is None else call.instruction
        call = replace(call, instruction=instruction or None, retrieval_scores=snapshot(call.retrieval_scores))
        size = approximate_size([call.query, call.instruction, documents], MAX_INLINE_SIZE)
        work = run_text_work(size, Batch, call, documents, self.fields)
        deadline = self.scorer.deadline
        batch = await (work if deadline is None else run_with_deadline(deadline, work, self.scorer.label))
        if batch.request.instruction is not None and not self.scorer.capabilities.instructions:
            raise InputError(
                f"{self.scorer.label} cannot follow an instruction: leave it out, put it into the query, or name a "
                "backend that follows one."
            )
        return batch

    async def _answer_unread(self, documents: list[DocumentT]) -> tuple[Scores, list[RerankResult[DocumentT]]]:
        """Return the documents in the order given, if the deadline passed before they were read.

        Raises:
            DeadlineExceeded: The fallback of the spec does not end with an instant entry, such as `passthrough`.
        """
        with deadline_scope(-1.0):  # certainly over, so only an instant entry is called: there is no text to score
            scores = await self.scorer.ascore(unread_request(documents))
        return scores, unread_results(documents)

    def stats(self) -> dict[str, Any]:
        """Return statistics since this reranker was created, as plain data that a health endpoint can send as JSON.

        Returns:
            A dict with these keys:

            - `calls` (`answered` plus `failed`), `answered`, `failed`, `degraded`.
            - `errors`: number of failed calls by class of the error.
            - `answered_by`: number of responses by model. `attempts`: by model and outcome.
            - `requests` that left the process, `documents`, `mean_latency_ms` (`None` before the first response).
            - `last_degraded_at` (Unix seconds) and `last_reason`; `None` if no response was degraded.
            - `backends`: the current state of the policies, by label of the backend. `breaker` is "closed", "open" or
              "half_open". `limit` has the `requests` and `tokens` of the last minute, and the calls `waiting`.
              `cache` has `hits`, `misses` and `hit_rate`, counted in documents.
        """
        return {
            **self.counters.as_dict(),
            "backends": {label: dict(state) for label, state in self.scorer.state().items()},
        }

    def warmup(self, *, check: bool = False) -> None:
        """Load the model now, not in the first call.

        Args:
            check: Whether to `check` every backend too, and to raise the first error. Set it where a service starts.

        Raises:
            BackendError: The model could not be loaded, or a backend failed the check.
        """
        run_sync(self.awarmup(check=check))

    async def awarmup(self, *, check: bool = False) -> None:
        """Load the model now, as `warmup` does, without blocking the event loop.

        Args:
            check: Whether to `check` every backend too, and to raise the first error.
        """
        require_asyncio("awarmup")
        await self.scorer.awarmup()
        if check:
            await self.acheck(raise_on_error=True)

    def check(self, *, raise_on_error: bool = False, deadline: float | None = None) -> CheckReport:
        """Ask every backend a question with a known answer, and judge the order and the scale of the scores.

        A wrong key, model, address or scale is found at the start of a service, where a fallback would otherwise hide
        it. Each backend, those of fallbacks, cascades and fusions included, gets one call of about 100 tokens, which
        its vendor bills. No cache, fallback, `on_error`, retry, `limit` or `breaker` comes between, and `stats()` does
        not count the calls.

        Args:
            raise_on_error: Whether to raise the first error; see `CheckReport.raise_for_error`.
            deadline: Seconds for the whole check. `None`: the `timeout` of each backend limits its call; loading a
                model has no limit. The spec's own `deadline` is not applied, since it is for calls.

        Returns:
            A report with the state of each backend; `report.to_dict()` is plain data for a health endpoint.

        Raises:
            BackendError: A backend failed, with `raise_on_error` only.

        >>> from rerank_plugins import load_reranker
        >>> report = load_reranker("lexical").check()
        >>> report.ok, report.backends[0].state
        (True, 'ok')
        """
        return run_sync(self.acheck(raise_on_error=raise_on_error, deadline=deadline))

    async def acheck(self, *, raise_on_error: bool = False, deadline: float | None = None) -> CheckReport:
        """Do what `check` does, without blocking the event loop.

        Args:
            raise_on_error: Whether to raise the first error.
            deadline: Seconds for the whole check; see `check`.

        Returns:
            A report with the state of each backend; see `check`.

        Raises:
            BackendError: A backend failed, with `raise_on_error` only.
        """
        require_asyncio("acheck")
        from .core.health import check_scorer

        report = await check_scorer(self.scorer, None if deadline is None else seconds(deadline, "deadline"))
        if raise_on_error:
            report.raise_for_error()
        return report

    def close(self) -> None:
        """Release connections, threads and the model. A later call opens them again."""
        run_sync(self.scorer.aclose())

    async def aclose(self) -> None:
        """Release connections, threads and the model. A later call opens them again."""
        require_asyncio("aclose")
        await self.scorer.aclose()

    def __enter__(self) -> Reranker:
        """Return this reranker."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Reranker:
        """Return this reranker."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close."""
        await self.aclose()

    def __repr__(self) -> str:
        """Return the label of the scorer and `top_n`; no key."""
        return f"Reranker({self.scorer.label!r}, top_n={self.top_n})"

    def __copy__(self) -> Reranker:
        """Return a copy that shares scorer, connections and keys: a copy through the spec would have no keys."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Reranker:
        """Return this reranker: copies within the process share connections, models and keys."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the spec without keys. Unpickling reads them from the environment."""
        if self.spec is None:
            raise TypeError(
                "Only a reranker that load_reranker() built from plain data can be pickled: this one has no spec, or a "
                "`client` in it. Build it where it is used."
            )
        from .config import load_reranker

        return load_reranker, (dict(self.spec),)


def check_top_n(top_n: Any, name: str = "top_n") -> int | None:
    """Return `top_n` as an `int` (it may be NumPy's), or `None`.

    Raises:
        InputError: It is not an integer of at least 1.
    """
    if top_n is None:
        return None
    try:
        return integer(top_n, name, 1, None)
    except ConfigError as error:
        raise InputError(f"{name} must be an integer of at least 1, or None for all; got {shown(top_n)}.") from error


def check_threshold(threshold: float | None, scorer: Scorer) -> None:
    """Check that a threshold has a meaning, and the same for all models that may answer.

    Raises:
        ConfigError: It is not a number in [0, 1], or the scores that may be the answer have several scales, or none.
    """
    if threshold is None:
        return
    finite(threshold, "score_threshold", 0.0, 1.0)
    scales: dict[str, str] = {}
    # Instant fallbacks keep the order given. Their answers are degraded, and no threshold applies to those.
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
            f"score_threshold would mean different things for {named}. Use top_n, or fallbacks of one scale."
        )

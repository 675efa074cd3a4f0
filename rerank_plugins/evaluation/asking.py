"""Ask every reranker every question, and keep what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import backends, load_reranker
from ..core.errors import AuthenticationFailed, ConfigError, RerankError
from ..core.hosted import Remote
from ..core.scorer import Backend
from ..core.types import Usage
from ..reranker import Reranker
from .data import Dataset, Question
from .kept import Answer, Kept

__all__ = ["Asked", "Progress", "ask", "entered"]

Progress = Callable[[str, int, int], None]
"""Told the reranker's label, how many of its answers there are, and how many there will be."""
UNCUT: Mapping[str, Any] = {"top_n": None, "score_threshold": None}
"""Everything is measured on the whole order: cuts and thresholds are for the user's own program."""
FAILURES_IN_A_ROW = 3
"""So many, and a reranker is given up: it is down, and the others wait."""


@dataclass(slots=True)
class Asked:
    """One reranker of the comparison, and its answers."""

    label: str
    reranker: Reranker
    leaves: Sequence[Backend]
    """The backends in it."""
    pointwise: bool
    """Whether its answer over many candidates tells its answer over fewer."""
    remote: bool
    """Whether requests leave the process."""
    answers: dict[int, dict[str, Answer]] = field(default_factory=dict)
    """Depth → query id → answer."""
    error: RerankError | None = None
    """Why it was given up."""
    failures: int = 0
    """In a row."""
    vendors: Mapping[str, Remote] = field(default_factory=dict)
    """By label: whose prices count."""

    async def identity(self) -> str:
        """Return all that its answers depend on beside the question, after fetching models that are not on this machine."""
        files = [await each.afingerprint() for each in self.leaves]
        return json.dumps([_unpriced(self.reranker.spec), files], sort_keys=True, default=str)

    def priced(self, answer: Answer) -> Answer:
        """Return an answer with its cost at the prices of this spec; `None` where one is not known."""
        costs = [
            self.vendors[model].priced(Usage(1, tokens, units)).cost_usd if model in self.vendors else None
            for model, tokens, units in answer.used
        ]
        known = [each for each in costs if each is not None]
        return replace(answer, cost_usd=sum(known) if known and len(known) == len(costs) else None)


def entered(
    specs: Sequence[str | Mapping[str, Any] | Reranker], config: str | None = None, *, known: Sequence[str] = ()
) -> list[Asked]:
    """Return the rerankers that specs name, none of them asked yet.

    Raises:
        ConfigError: As `load_reranker`; or a ready `Reranker` that no spec describes, whose answers could not be filed.
    """
    found: list[Asked] = []
    for spec in specs:
        reranker = _uncut(spec) if isinstance(spec, Reranker) else load_reranker(spec, config=config, **UNCUT)
        if reranker.spec is None:
            raise ConfigError("A comparison needs rerankers that a spec describes: this one was made with a `client`.")
        leaves = backends(reranker)
        label = spec if isinstance(spec, str) else reranker.scorer.spec_name
        taken = [*known, *(each.label for each in found)]
        numbered = [label, *(f"{label} ({number})" for number in range(2, len(specs) + 2))]
        found.append(
            Asked(
                label=next(each for each in numbered if each not in taken),
                reranker=reranker,
                leaves=leaves,
                pointwise=not reranker.scorer.capabilities.listwise and not reranker.spec.get("diversify"),
                remote=any(each.remote for each in leaves),
                vendors={each.label: each for each in leaves if isinstance(each, Remote)},
            )
        )
    return found


def _unpriced(spec: Any) -> Any:
    """Return a spec without prices, which no answer depends on."""
    if isinstance(spec, Mapping):
        return {key: _unpriced(each) for key, each in spec.items() if key != "price"}
    return [_unpriced(each) for each in spec] if isinstance(spec, list | tuple) else spec


def _uncut(reranker: Reranker) -> Reranker:
    """Return a light copy of a ready reranker that gives the whole order; the scorer is the same one."""
    return Reranker(
        reranker.scorer,
        instruction=reranker.instruction,
        spec=None if reranker.spec is None else {**reranker.spec, **UNCUT},
        counters=reranker.counters,
    )


async def ask(
    asked: Sequence[Asked],
    dataset: Dataset,
    depths: Sequence[int],
    kept: Kept,
    *,
    at_once: int = 1,
    fresh: bool = False,
    progress: Progress | None = None,
) -> None:
    """Fill `answers` of every reranker: over all candidates, and over fewer where that is known or costs nothing.

    One scoring of the longest list tells a pointwise reranker's order of shorter ones. A listwise one (a cascade, a fusion,
    BM25 over the candidates) is asked anew for each depth, unless that would send requests to a vendor.

    Args:
        asked: The rerankers, one after the other.
        dataset: The questions.
        depths: How many candidates, ascending; the last are all.
        kept: Where answers come from and go to.
        at_once: Questions under way at the same time. More than 1 is faster for hosted rerankers; their latencies are then
            those under that load.
        fresh: Forget what is kept of these rerankers and questions.
        progress: Called after every answer.
    """
    for one in asked:
        try:
            identity = await one.identity()
        except RerankError as error:  # its model cannot be fetched
            one.error = error
            continue
        if fresh:
            for depth in depths:
                for question in dataset.cut(depth).questions:
                    kept.forget(kept.name(identity, question))
        todo = [dataset.depth] if one.pointwise or one.remote else [dataset.depth, *depths[:-1]]
        jobs = [
            (depth, question)
            for depth in todo
            for question in dataset.cut(depth).questions
            if question.candidates or depth == dataset.depth
        ]
        await _Asking(one, identity, jobs, kept, at_once, progress).run()


class _Asking:
    """The questions to one reranker."""

    def __init__(
        self,
        one: Asked,
        identity: str,
        jobs: Sequence[tuple[int, Question]],
        kept: Kept,
        at_once: int,
        progress: Progress | None,
    ) -> None:
        self.one, self.kept, self.at_once, self.progress = one, kept, at_once, progress
        self.total = len(jobs)
        self.done = 0
        self.todo: list[tuple[int, Question, bytes]] = []
        for depth, question in jobs:
            name = kept.name(identity, question)
            answer = kept.get(name) if question.candidates else Answer((), (), 0.0, "nobody: no candidates")
            if answer is None:
                self.todo.append((depth, question, name))
            else:
                self.note(depth, question, answer)

    async def run(self) -> None:
        if self.todo:
            try:
                await self.one.reranker.awarmup()  # loading a model is no latency of a call
            except RerankError as error:
                self.one.error = error
                return
        waiting = iter(self.todo)

        async def worker() -> None:
            for depth, question, name in waiting:
                if self.one.error is not None:
                    return
                await self.answer(depth, question, name)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.at_once):
                group.create_task(worker())

    async def answer(self, depth: int, question: Question, name: bytes) -> None:
        # A shorter list may be one that was already asked: the whole list of a question with few candidates.
        found = self.kept.get(name) or await self.asked(question)
        if not found.failed and not found.degraded:
            self.kept.put(name, found)
        self.note(depth, question, found)

    async def asked(self, question: Question) -> Answer:
        texts = [each.text for each in question.candidates]
        try:
            response = await self.one.reranker.arerank(
                question.text, texts, top_n=len(texts), retrieval_scores=question.scores()
            )
        except (ConfigError, AuthenticationFailed) as error:  # the next question would fare no better
            self.one.error = error
            return _unanswered(len(texts))
        except RerankError as error:
            self.one.failures += 1
            if self.one.failures >= FAILURES_IN_A_ROW:
                self.one.error = error
            return _unanswered(len(texts))
        self.one.failures = 0
        scores = {result.index: result.raw_score for result in response}
        return Answer(
            order=tuple(result.index for result in response),
            scores=tuple(scores.get(at) for at in range(len(texts))),
            latency_ms=response.latency_ms,
            model=response.model,
            requests=response.usage.requests,
            used=tuple(
                (each.model, each.usage.input_tokens, each.usage.search_units)
                for each in response.attempts
                if each.remote and each.usage is not None
            ),
            degraded=response.degraded,
            at_once=self.at_once,
        )

    def note(self, depth: int, question: Question, answer: Answer) -> None:
        self.one.answers.setdefault(depth, {})[question.id] = self.one.priced(answer)
        self.done += 1
        if self.progress is not None:
            self.progress(self.one.label, self.done, self.total)


def _unanswered(count: int) -> Answer:
    return Answer(tuple(range(count)), (None,) * count, 0.0, "nobody", degraded=True, failed=True)

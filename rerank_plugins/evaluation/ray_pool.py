"""Actors of Ray that rerank the questions of a comparison.

The driver reads the questions, sends some at a time, and alone writes the file of answers, so actors share no file.
Ray restarts an actor that dies and repeats its work. Tested with Ray 2.60.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ..core._runtime.background_loop import run_sync
from ..core.errors import BackendError, InputError, MissingExtra, RerankError, clause
from ..ray_cluster import connect
from ..reranker import Reranker
from .answer_cache import Answer
from .data import Question
from .runner import rerank_question

__all__ = ["RayPool"]

Item = TypeVar("Item")
CHUNK = 16
"""Questions in one call of an actor."""
CALLS_PER_ACTOR = 2
"""Calls of an actor that are sent before the first is answered. They bound the texts in Ray's object store."""


class _Actor:
    """Reranks questions in a process of Ray."""

    def __init__(self, reranker: Reranker, at_once: int) -> None:
        self._reranker, self._at_once = reranker, at_once

    def answers(self, questions: Sequence[Question]) -> list[Answer | RerankError]:
        """Return one answer or error per question. Errors are data: Ray would wrap an exception in its traceback."""
        return run_sync(self._answers(questions))

    async def _answers(self, questions: Sequence[Question]) -> list[Answer | RerankError]:
        answers: list[Answer | RerankError] = []
        try:
            await self._reranker.awarmup()
        except RerankError as error:
            return [error for _ in questions]
        for question in questions:
            try:
                answers.append(await rerank_question(self._reranker, question, self._at_once))
            except RerankError as error:
                answers.append(error)
        return answers


class RayPool:
    """A pool of actors for `compare`. `rerank-plugins compare --ray` makes one.

    ```python
    from rerank_plugins.evaluation import RayPool, compare, read

    comparison = compare(read("lists.jsonl"), ["embedded"], ray=RayPool(actors=8))
    ```

    Args:
        actors: The number of actors. Each of them loads the model.
        num_cpus: CPUs that Ray reserves for each actor.
        address: The address of a cluster. `None` uses RAY_ADDRESS, or starts a local cluster without usage reports.

    Raises:
        MissingExtra: Ray is not installed.
        InputError: A number is out of its range, or the cluster has too few CPUs for the actors.
        BackendError: The cluster does not answer, or none can be started. That takes at most 10 seconds where nothing
            listens at the address, and a minute where something else does.
    """

    def __init__(self, actors: int = 2, num_cpus: float = 1.0, address: str | None = None) -> None:
        """Connect to the cluster, or start one. See the class."""
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingExtra("A comparison on Ray", extra="ray", package="ray") from error
        if actors < 1 or not num_cpus > 0:
            raise InputError(f"actors and num_cpus must be at least 1 and above 0, got {actors} and {num_cpus}.")
        self._ray: Any = ray
        self._actors, self._num_cpus = actors, num_cpus
        connect(address)
        self._check_cpus()

    def _check_cpus(self) -> None:
        """Refuse actors for which no node has CPUs. Ray would wait for new nodes, for ever where none is added."""
        nodes = [node["Resources"].get("CPU", 0.0) for node in self._ray.nodes() if node["Alive"]]
        places = sum(int(cpus / self._num_cpus + 1e-9) for cpus in nodes)
        if places < self._actors:
            raise InputError(
                f"{self._actors} actors with {self._num_cpus:g} CPUs each do not fit into the cluster of Ray, which "
                f"has {sum(nodes):g} CPUs on {len(nodes)} nodes and places for {places}: use fewer actors (--actors) "
                "or fewer CPUs for each (--cpus-per-actor)."
            )

    def answers(
        self, reranker: Reranker, items: Iterable[Item], question_of: Callable[[Item], Question]
    ) -> Iterator[tuple[Item, Answer | RerankError]]:
        """Yield each item with its answer or error, as they come.

        Args:
            reranker: The reranker, which a spec describes. Its keys come from the environment of the actors.
            items: Read as they are needed, a few calls ahead.
            question_of: Function from an item to its question.

        Raises:
            BackendError: An actor does not start, or does not come back.
        """
        ray = self._ray
        source = iter(items)
        chunks: Iterator[list[Item]] = iter(lambda: list(itertools.islice(source, CHUNK)), [])
        # No more actors than chunks. Without a chunk everything was answered before, and no actor has to start.
        ahead = list(itertools.islice(chunks, self._actors))
        chunks = itertools.chain(ahead, chunks)
        actor = ray.remote(num_cpus=self._num_cpus, max_restarts=3, max_task_retries=3)(_Actor)
        actors = [actor.remote(reranker, len(ahead)) for _ in ahead]
        running: dict[Any, tuple[list[Item], Any]] = {}
        try:
            for chunk, worker in zip(chunks, itertools.cycle(actors), strict=False):
                running[worker.answers.remote(list(map(question_of, chunk)))] = chunk, worker
                if len(running) == len(actors) * CALLS_PER_ACTOR:
                    break
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                chunk, worker = running.pop(ready)
                following = next(chunks, None)
                if following is not None:
                    running[worker.answers.remote(list(map(question_of, following)))] = following, worker
                try:
                    answers = ray.get(ready)
                except ray.exceptions.RayError as error:
                    raise BackendError(
                        f"An actor of Ray failed ({clause(error)}): check that actors can import rerank_plugins, and "
                        "find the keys of the spec in their own environment."
                    ) from error
                yield from zip(chunk, answers, strict=True)
        finally:
            for worker in actors:
                ray.kill(worker)

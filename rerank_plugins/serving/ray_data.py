"""Reranking on Ray: a stage for `Dataset.map_batches`, and the parts of a batch on a pool of actors.

Ray restarts an actor that dies and gives its batch to another, so a stage only has to be the same twice; a part of a batch
is written whole, under one name. Written against Ray 2.60.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..config import load_reranker
from ..core.errors import BackendError, ConfigError, MissingExtra, RerankError
from ..core.loop import run_sync
from ..reranker import Reranker
from .batch import Done, Job, do
from .files import TAKEN, Part, added
from .rows import ADDED, Bad, Columns, rerank_rows

try:
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy, Dataset
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.serving.ray_data", extra="ray", package="ray") from error

__all__ = ["RerankStage", "on_ray", "rerank"]

_NOTHING: dict[str, Any] = dict.fromkeys(ADDED) | {"reranked": [], "rerank_degraded": False}


class RerankStage:
    """For `map_batches(RerankStage, batch_format="pyarrow", …)`: rows of query and candidates in, with their order out.

    All columns stay; added are `reranked`, `rerank_model`, `rerank_degraded`, `rerank_reason` (see `rerank_rows`) and
    `rerank_error`: why a row could not be reranked, else null. A row at fault is never dropped and fails nobody else; a
    backend that is down fails the batch.
    """

    def __init__(
        self,
        reranker: str | Mapping[str, Any] | Reranker | None = None,
        *,
        query: str = "query",
        documents: str = "documents",
        top_n: int | None = None,
        in_flight: int = 8,
    ) -> None:
        """Load the reranker, once an actor.

        Args:
            reranker: A spec; keys are found in the actor's environment, or written as `"env:NAME"`.
            query: The column of the query.
            documents: The column of the candidates.
            top_n: How many to keep of each row; `None` is all.
            in_flight: Rows at the same time.
        """
        self._reranker = reranker if isinstance(reranker, Reranker) else load_reranker(reranker)
        self._columns = Columns(query, documents)
        self._top_n, self._in_flight = top_n, in_flight
        self._reranker.warmup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rerank a batch.

        Raises:
            ConfigError: It has a column of a name that is added here.
        """
        if taken := [name for name in (*ADDED, "rerank_error") if name in batch.column_names]:
            raise ConfigError(f"The dataset has a column {taken[0]!r}, {TAKEN} Before a second stage: drop it.")
        work = rerank_rows(
            self._reranker, batch.to_pylist(), self._columns, top_n=self._top_n, in_flight=self._in_flight
        )
        outcomes = run_sync(work)
        for name, values in added([_NOTHING if isinstance(each, Bad) else each for each in outcomes]):
            batch = batch.append_column(name, values)
        errors = [each.reason if isinstance(each, Bad) else None for each in outcomes]
        return batch.append_column("rerank_error", pa.array(errors, pa.string()))


def rerank(
    dataset: Dataset,
    reranker: str | Mapping[str, Any] | Reranker | None = None,
    *,
    actors: int = 2,
    num_cpus: float = 1.0,
    batch_size: int = 32,
    **stage: Any,
) -> Dataset:
    """Return `dataset` with a `RerankStage` behind it, on a pool of `actors` with `num_cpus` each.

    Leave CPUs for Ray's own reading and writing: a pool that takes all of them waits for ever.

    Args:
        dataset: Rows of a query and its candidates.
        reranker: A spec.
        actors: How many, each with the model.
        num_cpus: CPUs that Ray sets aside for each.
        batch_size: Rows in one call.
        **stage: `query`, `documents`, `top_n`, `in_flight` of `RerankStage`.
    """
    return dataset.map_batches(
        RerankStage,
        fn_constructor_kwargs={"reranker": reranker, **stage},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors),
        num_cpus=num_cpus,
    )


class _PartStage:
    """Does parts of a batch; what goes through Ray is only which one, and what came of it.

    An error of ours is what came of it, too: as an exception, Ray would give it back as pages of traceback without it.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reranker: Reranker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done, told, wrong_spec = Done(), "", False
        try:
            if self._reranker is None:
                self._reranker = self._job.reranker()
            for part in batch["item"]:
                done += do(self._job, Part(**part), self._reranker)
        except RerankError as error:
            told, wrong_spec = str(error), isinstance(error, ConfigError)
        return {name: [value] for name, value in {**asdict(done), "error": told, "wrong_spec": wrong_spec}.items()}


def on_ray(job: Job, parts: list[Part], *, actors: int, num_cpus: float, address: str | None = None) -> Iterator[Done]:
    """Do the parts of a batch on a pool of actors.

    Args:
        job: What to do; every actor has to reach its input and its output.
        parts: What is not done yet.
        actors: How many, at most one a part.
        num_cpus: CPUs of each.
        address: Of a cluster; `None` is RAY_ADDRESS, else one is started here, which tells nobody.

    Raises:
        BackendError: The backend is down.
        ConfigError: The spec does not work where the actors run.
    """
    if not parts:
        return
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ours = not (address or os.environ.get("RAY_ADDRESS"))
        ray.init(address=address, log_to_driver=False, include_dashboard=False if ours else None)
    ray.data.DataContext.get_current().enable_progress_bars = False  # whoever runs the batch shows its own
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    dataset = ray.data.from_items([{"item": asdict(part)} for part in parts], override_num_blocks=len(parts))
    done = dataset.map_batches(
        _PartStage,
        fn_constructor_args=[job],
        batch_size=1,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=min(actors, len(parts)), max_tasks_in_flight_per_actor=2),
        num_cpus=num_cpus,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise (ConfigError if row["wrong_spec"] else BackendError)(row["error"])
        yield Done(**{name: int(row[name]) for name in asdict(Done())})

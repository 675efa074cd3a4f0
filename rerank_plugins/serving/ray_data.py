"""Rerank on Ray: a stage for `Dataset.map_batches`, and the parts of a batch job on a pool of actors.

Ray restarts an actor that dies and repeats its work, so a stage must be idempotent: a part is written as a whole, under
a name that does not change. Tested with Ray 2.60.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..config import load_reranker
from ..core._runtime.background_loop import run_sync
from ..core.errors import BackendError, ConfigError, MissingExtra, RerankError
from ..ray_cluster import connect
from ..reranker import Reranker
from .batch import BatchCounts, BatchJob, rerank_part
from .batch_rows import ADDED, Columns, RejectedRow, rerank_rows
from .files import TAKEN, Part, added

try:
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy, Dataset
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.serving.ray_data", extra="ray", package="ray") from error

__all__ = ["RerankStage", "on_ray", "rerank"]

_REJECTED: dict[str, Any] = dict.fromkeys(ADDED) | {"reranked": [], "rerank_degraded": False}


class RerankStage:
    """A stage that reranks rows of a query and its candidates: `map_batches(RerankStage, batch_format="pyarrow", …)`.

    A row keeps its columns and gets five more:

    - `reranked`: a list, best first, of `index`, `document`, `relevance_score`, `raw_score`, `truncated` and `reason`.
    - `rerank_model`, `rerank_degraded`, `rerank_reason`: as in `RerankResponse`.
    - `rerank_error`: why the row could not be reranked; null for other rows.

    A row that cannot be reranked is not dropped and does not affect other rows. A backend that is down fails the batch.

    >>> stage = RerankStage("lexical", top_n=1)
    >>> table = stage(pa.table({"query": ["red apple"], "documents": [["a car", "a red apple"]]}))
    >>> [result["document"] for result in table["reranked"][0].as_py()]
    ['a red apple']
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
        """Load the reranker. Ray does this once in each actor.

        Args:
            reranker: A spec, or a `Reranker`; `None` means `load_reranker()`. Keys come from the environment of the
                actor.
            query: The column of the query.
            documents: The column of the candidates.
            top_n: The number of results of a row; `None` keeps all.
            in_flight: The number of rows that are reranked at the same time.
        """
        self._reranker = reranker if isinstance(reranker, Reranker) else load_reranker(reranker)
        self._columns = Columns(query, documents)
        self._top_n, self._in_flight = top_n, in_flight
        self._reranker.warmup()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a batch with the added columns.

        Args:
            batch: Rows with the columns of the query and the candidates.

        Raises:
            ConfigError: The batch has a column of a name that this stage adds.
        """
        if taken := [name for name in (*ADDED, "rerank_error") if name in batch.column_names]:
            raise ConfigError(f"The dataset has a column {taken[0]!r}, {TAKEN} Before a second stage: drop it.")
        work = rerank_rows(
            self._reranker, batch.to_pylist(), self._columns, top_n=self._top_n, in_flight=self._in_flight
        )
        outcomes = run_sync(work)
        for name, values in added([_REJECTED if isinstance(row, RejectedRow) else row for row in outcomes]):
            batch = batch.append_column(name, values)
        errors = [row.reason if isinstance(row, RejectedRow) else None for row in outcomes]
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
    """Return a dataset whose rows are reranked by a `RerankStage` on a pool of actors.

    Leave CPUs for Ray's own reading and writing: a pool that takes all of them waits forever.

    ```python
    import ray
    from rerank_plugins.serving.ray_data import rerank

    questions = ray.data.read_parquet("questions/")
    rerank(questions, "embedded", actors=4, top_n=10).write_parquet("reranked/")
    ```

    Args:
        dataset: Rows of a query and its candidates.
        reranker: A spec, or a `Reranker`; `None` means `load_reranker()`.
        actors: The number of actors. Each of them loads the model.
        num_cpus: CPUs that Ray reserves for each actor.
        batch_size: Rows in one call of the stage.
        **stage: `query`, `documents`, `top_n` and `in_flight` of `RerankStage`.
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
    """Reranks parts of a batch job in an actor. Only the descriptions of the parts and the counts go through Ray.

    Errors of this package are returned as data: Ray would wrap an exception in pages of traceback.
    """

    def __init__(self, job: BatchJob) -> None:
        self._job = job
        self._reranker: Reranker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts, message, wrong_spec = BatchCounts(), "", False
        try:
            if self._reranker is None:
                self._reranker = self._job.reranker()
            for part in batch["item"]:
                counts += rerank_part(self._job, Part(**part), self._reranker)
        except RerankError as error:
            message, wrong_spec = str(error), isinstance(error, ConfigError)
        return {name: [value] for name, value in {**asdict(counts), "error": message, "wrong_spec": wrong_spec}.items()}


def on_ray(
    job: BatchJob, parts: list[Part], *, actors: int, num_cpus: float, address: str | None = None
) -> Iterator[BatchCounts]:
    """Rerank the parts of a batch job on a pool of actors. `rerank-plugins batch --ray` calls this.

    ```python
    from rerank_plugins.serving.batch import BatchCounts

    counts = BatchCounts()
    for part_counts in on_ray(job, parts, actors=4, num_cpus=1.0):
        counts += part_counts
    ```

    Args:
        job: The settings of the job. Every actor must be able to open the input and the output.
        parts: The parts that are not done yet.
        actors: The largest number of actors; there is at most one for each part.
        num_cpus: CPUs that Ray reserves for each actor.
        address: The address of a cluster. `None` uses RAY_ADDRESS, or starts a local cluster without usage reports.

    Yields:
        The counts of each part, when it is done.

    Raises:
        BackendError: The backend is down, or the cluster does not answer. That takes at most 10 seconds where nothing
            listens at the address, and a minute where something else does.
        ConfigError: The spec does not work where the actors run.
    """
    if not parts:
        return
    connect(address)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the command shows its own progress
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
        yield BatchCounts(**{name: int(row[name]) for name in asdict(BatchCounts())})

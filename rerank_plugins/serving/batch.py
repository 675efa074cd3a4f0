"""Rerank files of queries and candidates in parts; a part that is done is never done again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..config import load_reranker
from ..config.sources import parse, profiles, spelled_out, without_keys
from ..core._runtime.background_loop import run_sync
from ..core.errors import ConfigError, InputError
from ..reranker import Reranker, check_top_n
from .arrow_schema import Types, as_json
from .batch_rows import Columns, RejectedRow, rerank_rows
from .files import Folder, Part, parts_of, read

__all__ = ["BatchCounts", "BatchJob", "in_one_process", "run"]

_log = logging.getLogger("rerank_plugins")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """The settings of a batch: plain data, so that it can be pickled for Ray's actors."""

    input: str
    """A Parquet or JSONL file, or a folder of them; a path or `s3://…`."""
    output: str
    """A folder."""
    spec: str | Mapping[str, Any] | None = None
    config: str | None = None
    columns: Columns = field(default_factory=Columns)
    top_n: int | None = None
    kind: str = "parquet"
    """The format of the output: `parquet` or `jsonl`."""
    rows_per_part: int = 500
    in_flight: int = 8
    """Rows that are reranked at the same time."""
    schema: Any = None
    """The Parquet schema of JSONL rows; `run` infers it."""

    def reranker(self) -> Reranker:
        """Load the reranker."""
        return load_reranker(self.spec, config=self.config)


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """The counts of one part, or of all parts."""

    parts: int = 0
    reranked: int = 0
    set_aside: int = 0
    degraded: int = 0

    def __add__(self, other: BatchCounts) -> BatchCounts:
        """Return the sums."""
        return BatchCounts(
            self.parts + other.parts,
            self.reranked + other.reranked,
            self.set_aside + other.set_aside,
            self.degraded + other.degraded,
        )


RunParts = Callable[[BatchJob, list[Part]], Iterable[BatchCounts]]
"""Reranks parts: yields the counts of each, in any order."""


def run(job: BatchJob, run_parts: RunParts, on_progress: Callable[[BatchCounts, int], object]) -> BatchCounts:
    """Rerank the parts that are not done yet, and return the counts of all parts.

    Args:
        job: The settings of the batch.
        run_parts: `in_one_process`, or `on_ray` with its options.
        on_progress: Called after each part with the counts so far and the number of parts.

    Raises:
        ConfigError: The input cannot be read, or the output holds the work of another job.
        BackendError: The backend is down. The same call continues after the parts that are done.
    """
    _check(job)
    folder = Folder(job.output, job.kind)
    parts = parts_of(job.input, job.rows_per_part, job.columns)
    _check_names(job, parts)  # before the folder is claimed, so that a corrected command can use it
    _claim(folder, job, parts)
    finished = {name.removesuffix(".json") for name in folder.names("_done")}
    total = BatchCounts()
    for part in parts:
        if part.name in finished:
            total += BatchCounts(**json.loads(folder.text(f"_done/{part.name}.json") or "{}"))
    on_progress(total, len(parts))
    left = [part for part in parts if part.name not in finished]
    if left and job.kind == "parquet":
        job = replace(job, schema=_schema(job, parts))
    for done in run_parts(job, left):
        total += done
        on_progress(total, len(parts))
    return total


def in_one_process(job: BatchJob, parts: list[Part]) -> Iterator[BatchCounts]:
    """Rerank the parts one after the other, with one reranker."""
    with job.reranker() as reranker:
        for part in parts:
            yield rerank_part(job, part, reranker)


def rerank_part(job: BatchJob, part: Part, reranker: Reranker) -> BatchCounts:
    """Read a part, rerank it, and write the results: rejected rows first, the mark that it is done last."""
    numbers, rows, table = read(part)
    outcomes = run_sync(rerank_rows(reranker, rows, job.columns, top_n=job.top_n, in_flight=job.in_flight))
    good = [position for position, each in enumerate(outcomes) if not isinstance(each, RejectedRow)]
    bad = [(numbers[position], each) for position, each in enumerate(outcomes) if isinstance(each, RejectedRow)]
    answers = [each for each in outcomes if not isinstance(each, RejectedRow)]
    folder = Folder(job.output, job.kind)
    if bad:
        folder.write_bad(part, bad)
    else:  # a killed attempt may have rejected, or reranked, other rows
        folder.remove(folder.bad_of(part))
    if good:
        reranked = [row for position in good if not isinstance(row := rows[position], RejectedRow)]
        typed = None if table is None else table.take(good)
        folder.write_rows(part, reranked, answers, typed, job.columns.documents, job.schema)
    else:
        folder.remove(folder.rows_of(part))
    done = BatchCounts(1, len(good), len(bad), sum(each["rerank_degraded"] for each in answers))
    folder.write(f"_done/{part.name}.json", json.dumps(asdict(done)).encode())
    return done


def _schema(job: BatchJob, parts: list[Part]) -> Any:
    types = Types()
    lists = [part for part in parts if part.format == "jsonl"]
    for part in lists:
        types.look(_other_columns(job, part))
    if types.changed:
        for part in lists:
            types.look_again(_other_columns(job, part))
    schema = types.schema()
    if names := as_json(schema):
        _log.warning(
            "%s: written as text, each value as JSON, since Parquet has no one type for their values: %s",
            job.input,
            ", ".join(names),
        )
    return schema


def _other_columns(job: BatchJob, part: Part) -> list[dict[str, Any]]:
    """Return the rows of a part without the candidates; rejected rows are left out."""
    _, rows, _ = read(part)
    usable = [row for row in rows if not isinstance(row, RejectedRow) and job.columns.fit(row)]
    return [{name: row[name] for name in row if name != job.columns.documents} for row in usable]


def _check_names(job: BatchJob, parts: list[Part]) -> None:
    """Refuse JSONL whose first rows all lack a named column: the command is wrong, not the rows.

    Parquet files are checked when they are listed.

    Raises:
        ConfigError: No row has the column.
    """
    first = next((part for part in parts if part.format == "jsonl"), None)
    if first is None:
        return
    rows = [row for row in read(first)[1] if not isinstance(row, RejectedRow)]
    columns = (job.columns.query, job.columns.documents, job.columns.retrieval_scores)
    for name in filter(None, columns):
        if rows and not any(name in row for row in rows):
            names = ", ".join(dict.fromkeys(each for row in rows for each in row))
            raise ConfigError(
                f"No row of {first.path} (lines {first.first + 1} to {first.first + first.rows}) has a field "
                f"{name!r}; they have {names}. Name the field to read: --query-column, --documents-column, "
                "--retrieval-scores-column."
            )


def _check(job: BatchJob) -> None:
    for name in ("rows_per_part", "in_flight"):
        if getattr(job, name) < 1:
            raise ConfigError(f"{name} must be at least 1, got {getattr(job, name)}.")
    try:
        check_top_n(job.top_n)
    except InputError as error:
        raise ConfigError(str(error)) from error


def _claim(folder: Folder, job: BatchJob, parts: list[Part]) -> None:
    """Record the job in the folder, or check that the folder belongs to the same job."""
    named = profiles(job.config)
    settings = spelled_out(parse(job.spec, named, explicit=job.config is not None), named)
    mine = json.loads(
        json.dumps(
            {
                "reranker": without_keys(settings),
                "columns": asdict(job.columns),
                "top_n": job.top_n,
                "kind": job.kind,
                "rows_per_part": job.rows_per_part,
                "parts": [[part.name, part.path, part.first, part.rows, part.size, part.digest] for part in parts],
            },
            default=str,
        )
    )
    text = folder.text("_job.json")
    if text is None:
        if not folder.empty():
            raise ConfigError(f"{job.output} is not empty and holds no batch. Name an empty folder, or a new one.")
        folder.write("_job.json", json.dumps(mine).encode())
        return
    theirs = json.loads(text)
    if different := [name for name in mine if mine[name] != theirs.get(name)]:
        edited = " (an input file was edited, added or removed)" if different == ["parts"] else ""
        raise ConfigError(
            f"{job.output} holds the work of another job: {', '.join(different)} differ{edited}. Name another folder, "
            "or give the same command again to continue."
        )

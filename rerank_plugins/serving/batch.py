"""Files of queries and candidates, reranked part by part: what is done stays done, whatever happens next."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..config import load_reranker
from ..config.sources import parse, profiles, spelled_out, without_keys
from ..core.errors import ConfigError, InputError
from ..core.loop import run_sync
from ..reranker import Reranker, check_top_n
from .columns import Types, as_json
from .files import Folder, Part, parts_of, read
from .rows import Bad, Columns, rerank_rows

__all__ = ["Done", "Job", "in_one_process", "run"]

_log = logging.getLogger("rerank_plugins")


@dataclass(frozen=True, slots=True)
class Job:
    """What a batch does: plain data, so that it travels to where it is done."""

    input: str
    """A Parquet or JSONL file, or a folder of them; a path or `s3://…`."""
    output: str
    """A folder."""
    spec: str | Mapping[str, Any] | None = None
    config: str | None = None
    columns: Columns = field(default_factory=Columns)
    top_n: int | None = None
    kind: str = "parquet"
    """Of the output: `parquet` or `jsonl`."""
    rows_per_part: int = 500
    in_flight: int = 8
    """Rows at the same time."""
    schema: Any = None
    """Of JSONL rows in Parquet; `run` finds it."""

    def reranker(self) -> Reranker:
        """Load it."""
        return load_reranker(self.spec, config=self.config)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a part, or of all of them."""

    parts: int = 0
    reranked: int = 0
    set_aside: int = 0
    degraded: int = 0

    def __add__(self, other: Done) -> Done:
        """Add up."""
        return Done(
            self.parts + other.parts,
            self.reranked + other.reranked,
            self.set_aside + other.set_aside,
            self.degraded + other.degraded,
        )


Way = Callable[[Job, list[Part]], Iterable[Done]]
"""How parts are done: yields what came of each, in any order."""


def run(job: Job, way: Way, told: Callable[[Done, int], object]) -> Done:
    """Do the parts that are not done yet, and return what came of all of them.

    Args:
        job: What to do.
        way: `in_one_process`, or Ray's.
        told: Called after each part with what came of all so far, and how many parts there are.

    Raises:
        ConfigError: The input cannot be read, or the output holds the work of another job.
        BackendError: The backend is down; done parts stay, and the same call goes on from there.
    """
    _check(job)
    folder = Folder(job.output, job.kind)
    parts = parts_of(job.input, job.rows_per_part, job.columns)
    _check_names(job, parts)  # before the folder is claimed, so that the corrected command may use it
    _claim(folder, job, parts)
    finished = {name.removesuffix(".json") for name in folder.names("_done")}
    total = Done()
    for part in parts:
        if part.name in finished:
            total += Done(**json.loads(folder.text(f"_done/{part.name}.json") or "{}"))
    told(total, len(parts))
    left = [part for part in parts if part.name not in finished]
    if left and job.kind == "parquet":
        job = replace(job, schema=_schema(job, parts))
    for done in way(job, left):
        total += done
        told(total, len(parts))
    return total


def in_one_process(job: Job, parts: list[Part]) -> Iterator[Done]:
    """Do parts one after the other, with one reranker."""
    with job.reranker() as reranker:
        for part in parts:
            yield do(job, part, reranker)


def do(job: Job, part: Part, reranker: Reranker) -> Done:
    """Read a part, rerank it, and write what came of it: set-aside rows first, the mark that it is done last."""
    numbers, rows, table = read(part)
    outcomes = run_sync(rerank_rows(reranker, rows, job.columns, top_n=job.top_n, in_flight=job.in_flight))
    good = [position for position, each in enumerate(outcomes) if not isinstance(each, Bad)]
    bad = [(numbers[position], each) for position, each in enumerate(outcomes) if isinstance(each, Bad)]
    answers = [each for each in outcomes if not isinstance(each, Bad)]
    folder = Folder(job.output, job.kind)
    if bad:
        folder.write_bad(part, bad)
    else:  # a try that was killed may have set aside, or reranked, what this one did not
        folder.remove(folder.bad_of(part))
    if good:
        kept = [each for position in good if not isinstance(each := rows[position], Bad)]
        typed = None if table is None else table.take(good)
        folder.write_rows(part, kept, answers, typed, job.columns.documents, job.schema)
    else:
        folder.remove(folder.rows_of(part))
    done = Done(1, len(good), len(bad), sum(each["rerank_degraded"] for each in answers))
    folder.write(f"_done/{part.name}.json", json.dumps(asdict(done)).encode())
    return done


def _schema(job: Job, parts: list[Part]) -> Any:
    types = Types()
    lists = [part for part in parts if part.format == "jsonl"]
    for part in lists:
        types.look(_besides(job, part))
    if types.changed:
        for part in lists:
            types.look_again(_besides(job, part))
    schema = types.schema()
    if names := as_json(schema):
        _log.warning(
            "%s: written as text, each value as JSON, since Parquet has no one type for their values: %s",
            job.input,
            ", ".join(names),
        )
    return schema


def _besides(job: Job, part: Part) -> list[dict[str, Any]]:
    """Return what a part's rows hold beside the candidates; rows at fault count for no type."""
    _, rows, _ = read(part)
    usable = [row for row in rows if not isinstance(row, Bad) and job.columns.fit(row)]
    return [{name: row[name] for name in row if name != job.columns.documents} for row in usable]


def _check_names(job: Job, parts: list[Part]) -> None:
    """Refuse JSONL whose first rows all lack a column that was named: that is the command's fault and not the rows'.

    Parquet files are checked as they are listed.

    Raises:
        ConfigError: No row has the column.
    """
    first = next((part for part in parts if part.format == "jsonl"), None)
    if first is None:
        return
    rows = [row for row in read(first)[1] if not isinstance(row, Bad)]
    wanted = (job.columns.query, job.columns.documents, job.columns.retrieval_scores)
    for name in filter(None, wanted):
        if rows and not any(name in row for row in rows):
            names = ", ".join(dict.fromkeys(each for row in rows for each in row))
            raise ConfigError(
                f"No row of {first.path} (lines {first.first + 1} to {first.first + first.rows}) has a field {name!r}; they have "
                f"{names}. Name the field to read: --query-column, --documents-column, --retrieval-scores-column."
            )


def _check(job: Job) -> None:
    for name in ("rows_per_part", "in_flight"):
        if getattr(job, name) < 1:
            raise ConfigError(f"{name} has to be at least 1, and {getattr(job, name)} is not.")
    try:
        check_top_n(job.top_n)
    except InputError as error:
        raise ConfigError(str(error)) from error


def _claim(folder: Folder, job: Job, parts: list[Part]) -> None:
    """Write down what the folder is for, or make sure that it is for this."""
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
            raise ConfigError(f"{job.output} holds something else already. Name an empty folder, or a new one.")
        folder.write("_job.json", json.dumps(mine).encode())
        return
    theirs = json.loads(text)
    if different := [name for name in mine if mine[name] != theirs.get(name)]:
        edited = " (an input file was edited, added or removed)" if different == ["parts"] else ""
        raise ConfigError(
            f"{job.output} holds the work of another job: {', '.join(different)} differ{edited}. Name another folder, or "
            "give the same command again to go on."
        )

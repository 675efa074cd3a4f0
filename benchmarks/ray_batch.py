"""Compare `rerank-plugins batch` from S3 to S3 in one process and on Ray: same answers, no lost rows, and speed.

    python benchmarks/ray_batch.py [--lexical 2000] [--embedded 200]

The input is rows of 50 candidates as Parquet, on a SeaweedFS server on this machine. Ray has two CPUs and actors of
half a CPU each: one actor, two, and two of which one is killed half-way. Exits with 1 if an order differs, a score
differs by more than 1e-5, a row is lost or doubled, or two actors are less than 1.3 times as fast as one with
`lexical`, which is plain Python.

Time on two cores: about ten minutes.
Install: pip install -e '.[ray,demo-s3]' psutil
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "object_storage"))

from s3_server import KEYS, S3Server

from rerank_plugins.serving.batch import BatchCounts, BatchJob, in_one_process, run

CANDIDATES = 50
WORDS = [
    f"{a}{b}" for a in ("moon", "tide", "sea", "cat", "sun", "wind", "bird", "tree") for b in ("", "s", "ly", "ing")
]


def make_rows(count: int) -> pa.Table:
    generator = random.Random(7)

    def text(words: int) -> str:
        return " ".join(generator.choices(WORDS, k=words))

    rows = [
        {"id": number, "query": text(6), "documents": [text(60) for _ in range(CANDIDATES)]} for number in range(count)
    ]
    return pa.Table.from_pylist(rows)


def run_job(job: BatchJob, way: Any, kill_at: int | None = None) -> tuple[BatchCounts, float, float]:
    """Run a job, and kill a worker when `kill_at` parts are done.

    Returns:
        The result, the seconds, and the rows per second after the first tenth of the parts. The actors of a cluster
        take seconds to start, which does not matter for a long job.
    """
    started, killed = time.perf_counter(), [kill_at is None]
    warm: list[tuple[float, int]] = []

    def on_progress(done: BatchCounts, parts: int) -> None:
        if not warm and done.parts >= parts // 10:
            warm.append((time.perf_counter(), done.reranked))
        if not killed[0] and done.parts >= kill_at:
            killed[0] = True
            kill_a_worker()

    done = run(job, way, on_progress)
    ended = time.perf_counter()
    ((since, before),) = warm
    return done, ended - started, (done.reranked - before) / (ended - since)


def kill_a_worker() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "MapWorker" in " ".join(process.cmdline()):
                process.kill()
                return
    raise SystemExit("No worker process is running that could be killed.")


def outputs_agree(files: pafs.FileSystem, one: str, other: str, count: int) -> bool:
    """Return whether two outputs have the same rows, orders and scores."""
    tables = [pq.read_table(path, filesystem=files).sort_by("id").to_pylist() for path in (one, other)]
    if [[row["id"] for row in table] for table in tables] != [list(range(count))] * 2:
        return False
    return all(
        [result["index"] for result in mine["reranked"]] == [result["index"] for result in theirs["reranked"]]
        and all(
            abs(a["raw_score"] - b["raw_score"]) <= 1e-5
            for a, b in zip(mine["reranked"], theirs["reranked"], strict=True)
        )
        for mine, theirs in zip(*tables, strict=True)
    )


def measure(files: pafs.FileSystem, reranker: str, count: int) -> bool:
    """Run all four variants over `count` rows, print a line for each, and return whether all passed."""
    from rerank_plugins.serving.ray_data import on_ray

    pq.write_table(make_rows(count), f"bench/{reranker}/in.parquet", filesystem=files)
    parts = 40
    good, speed = True, {}
    for name, actors, kill_at in (
        ("one process", 0, None),
        ("one actor", 1, None),
        ("two actors", 2, None),
        ("two actors, one killed", 2, parts // 2),
    ):
        output = f"bench/{reranker}/{name.replace(' ', '-').replace(',', '')}"
        job = BatchJob(f"s3://bench/{reranker}/in.parquet", f"s3://{output}", reranker, rows_per_part=count // parts)
        way = functools.partial(on_ray, actors=actors, num_cpus=0.5) if actors else in_one_process
        done, seconds, speed[name] = run_job(job, way, kill_at)
        agrees = outputs_agree(files, f"bench/{reranker}/one-process", output, count)
        good &= agrees and done.reranked == count
        print(
            f"{reranker:8} {name:22} {seconds:6.1f} s, {speed[name]:7.1f} rows/s once started  "
            f"{'same order and scores' if agrees else 'DIFFERS'}, {done.reranked:,} rows",
            flush=True,
        )
    gain = speed["two actors"] / speed["one actor"]
    print(f"{reranker:8} two actors are {gain:.2f} times as fast as one", flush=True)
    return good and (reranker != "lexical" or gain >= 1.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lexical", type=int, default=2_000, help="rows")
    parser.add_argument("--embedded", type=int, default=200, help="rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = S3Server(Path(folder)).start()
        try:
            os.environ |= KEYS | {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            files = pafs.S3FileSystem(endpoint_override=server.url, region="us-east-1", allow_bucket_creation=True)
            files.create_dir("bench")
            import ray

            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            good = [measure(files, name, count) for name, count in vars(options).items() if count]
            ray.shutdown()
        finally:
            server.kill()
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

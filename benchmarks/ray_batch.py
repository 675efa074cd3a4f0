"""`rerank-plugins batch` from S3 to S3, in one process and on Ray: the same answers, nothing lost when a worker dies, faster.

    python benchmarks/ray_batch.py [--lexical 2000] [--embedded 200]

Rows of 50 candidates as Parquet on a SeaweedFS of this machine. Ray has two CPUs and actors of half a CPU each: one, two, and
two of which one is killed half-way. Exits with 1 if an order differs, a score differs by more than 1e-5, a row is lost or
doubled, or two actors are less than 1.3 times as fast as one with `lexical`, which is plain Python.
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

from rerank_plugins.serving.batch import Done, Job, in_one_process, run

CANDIDATES = 50
WORDS = [
    f"{a}{b}" for a in ("moon", "tide", "sea", "cat", "sun", "wind", "bird", "tree") for b in ("", "s", "ly", "ing")
]


def questions(count: int) -> pa.Table:
    chance = random.Random(7)

    def text(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words))

    rows = [
        {"id": number, "query": text(6), "documents": [text(60) for _ in range(CANDIDATES)]} for number in range(count)
    ]
    return pa.Table.from_pylist(rows)


def timed(job: Job, way: Any, kill_at: int | None = None) -> tuple[Done, float, float]:
    """Run a job; when so many parts are done, kill a worker.

    Returns what came of it, the seconds, and the rows a second once a tenth of the parts were done: a cluster's actors
    take seconds to start, which a long job does not notice.
    """
    started, killed = time.perf_counter(), [kill_at is None]
    warm: list[tuple[float, int]] = []

    def told(done: Done, parts: int) -> None:
        if not warm and done.parts >= parts // 10:
            warm.append((time.perf_counter(), done.reranked))
        if not killed[0] and done.parts >= kill_at:
            killed[0] = True
            kill_a_worker()

    done = run(job, way, told)
    ended = time.perf_counter()
    ((since, before),) = warm
    return done, ended - started, (done.reranked - before) / (ended - since)


def kill_a_worker() -> None:
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "MapWorker" in " ".join(each.cmdline()):
                each.kill()
                return
    raise SystemExit("There was no worker to kill.")


def same(files: pafs.FileSystem, one: str, other: str, count: int) -> bool:
    """Compare two outputs row by row."""
    tables = [pq.read_table(path, filesystem=files).sort_by("id").to_pylist() for path in (one, other)]
    if [[row["id"] for row in table] for table in tables] != [list(range(count))] * 2:
        return False
    return all(
        [each["index"] for each in mine["reranked"]] == [each["index"] for each in theirs["reranked"]]
        and all(
            abs(a["raw_score"] - b["raw_score"]) <= 1e-5
            for a, b in zip(mine["reranked"], theirs["reranked"], strict=True)
        )
        for mine, theirs in zip(*tables, strict=True)
    )


def measure(files: pafs.FileSystem, reranker: str, count: int) -> bool:
    """Run all four ways over `count` rows and print a line for each."""
    from rerank_plugins.serving.ray_data import on_ray

    pq.write_table(questions(count), f"bench/{reranker}/in.parquet", filesystem=files)
    parts = 40
    good, speed = True, {}
    for name, actors, kill_at in (
        ("one process", 0, None),
        ("one actor", 1, None),
        ("two actors", 2, None),
        ("two actors, one killed", 2, parts // 2),
    ):
        output = f"bench/{reranker}/{name.replace(' ', '-').replace(',', '')}"
        job = Job(f"s3://bench/{reranker}/in.parquet", f"s3://{output}", reranker, rows_per_part=count // parts)
        way = functools.partial(on_ray, actors=actors, num_cpus=0.5) if actors else in_one_process
        done, took, speed[name] = timed(job, way, kill_at)
        agrees = same(files, f"bench/{reranker}/one-process", output, count)
        good &= agrees and done.reranked == count
        print(
            f"{reranker:8} {name:22} {took:6.1f} s, {speed[name]:7.1f} rows/s once started  "
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

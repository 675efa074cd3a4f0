"""Batches, datasets and the server on Ray, in one small local cluster; an actor and a replica are killed meanwhile."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

ray = pytest.importorskip("ray")

from rerank_plugins import load_reranker  # noqa: E402
from rerank_plugins.cli import main  # noqa: E402
from rerank_plugins.core import ConfigError  # noqa: E402
from rerank_plugins.serving.ray_data import RerankStage, rerank  # noqa: E402
from rerank_plugins.testing.cohere_like import CohereLike  # noqa: E402
from rerank_plugins.testing.script import Status  # noqa: E402

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = [
    {"id": number, "query": f"cat {number}", "documents": [f"{other} cat" for other in range(20)]}
    for number in range(60)
]


@pytest.fixture(scope="module")
def cluster():
    """A cluster with two CPUs on any machine. Its workers import this checkout, not an installed package."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "env_vars": {
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(Path(__file__).parents[1])])
            }
        },
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def expected(row: dict) -> list[tuple[int, float]]:
    answer = load_reranker("lexical").rerank(row["query"], row["documents"])
    return [(each.index, each.raw_score) for each in answer]


def check(output: list[dict]) -> None:
    assert sorted(row["id"] for row in output) == list(range(60))  # no row is lost or duplicated
    for row in output:
        alone = expected(ROWS[row["id"]])
        assert [each["index"] for each in row["reranked"]] == [index for index, _ in alone]
        assert [each["raw_score"] for each in row["reranked"]] == pytest.approx([x for _, x in alone], abs=1e-5)


def test_dataset_keeps_its_columns_and_invalid_rows(cluster):
    bad = {"id": 60, "query": " ", "documents": ["a"]}
    output = rerank(ray.data.from_items([*ROWS, bad]), "lexical", num_cpus=0.5, top_n=3).take_all()
    (refused,) = [row for row in output if row["rerank_error"] is not None]
    assert (refused["id"], list(refused["reranked"])) == (60, [])
    assert "blank" in refused["rerank_error"]
    good = [row for row in output if row["rerank_error"] is None]
    assert sorted(row["id"] for row in good) == list(range(60))
    for row in good:
        assert [each["index"] for each in row["reranked"]] == [index for index, _ in expected(row)[:3]]
        assert list(row["documents"]) == ROWS[row["id"]]["documents"]


def test_candidates_as_numpy_arrays_are_accepted(cluster):
    dataset = ray.data.from_items(ROWS[:2]).map(lambda row: row | {"documents": np.array(row["documents"])})
    output = rerank(dataset, "lexical", num_cpus=0.5, actors=1).take_all()
    assert [row["rerank_error"] for row in output] == [None, None]
    for row in output:
        assert [each["index"] for each in row["reranked"]] == [index for index, _ in expected(ROWS[row["id"]])]


class Dying(RerankStage):
    """A stage that kills the process of its actor once, at one batch."""

    def __init__(self, mark: str, **options: object) -> None:
        super().__init__("lexical", **options)
        self._mark = Path(mark)

    def __call__(self, batch):
        if 30 in batch["id"].to_pylist() and not self._mark.exists():
            self._mark.touch()
            os._exit(1)
        return super().__call__(batch)


def test_actor_death_loses_and_duplicates_no_row(cluster, tmp_path):
    mark = tmp_path / "died"
    dataset = ray.data.from_items(ROWS, override_num_blocks=12).map_batches(
        Dying,
        fn_constructor_kwargs={"mark": str(mark)},
        batch_format="pyarrow",
        batch_size=5,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
    )
    check(dataset.take_all())
    assert mark.exists()


def test_batch_on_ray_writes_the_same_as_one_process(cluster, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    command = ["batch", "--input", str(tmp_path / "in.jsonl"), "-r", "lexical", "--rows-per-part", "10"]
    assert main([*command, "--output", str(tmp_path / "one"), "--format", "parquet"]) == 0
    ray_way = ["--ray", "--actors", "2", "--cpus-per-actor", "0.5", "--format", "parquet"]
    assert main([*command, "--output", str(tmp_path / "ray"), *ray_way]) == 0
    assert main([*command, "--output", str(tmp_path / "ray"), *ray_way]) == 0  # all parts are done already
    assert capsys.readouterr().out.count("60 rows reranked") == 3
    one, two = (pq.read_table(tmp_path / name).to_pylist() for name in ("one", "ray"))
    assert one == two
    check(two)


def test_batch_on_ray_reports_its_error_and_resumes(cluster, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    command = [
        "batch",
        "--input",
        str(tmp_path / "in.jsonl"),
        "--output",
        str(tmp_path / "out"),
        "--rows-per-part",
        "20",
    ]
    command += ["--ray", "--actors", "1", "--cpus-per-actor", "0.5", "--format", "parquet"]
    with CohereLike() as vendor:
        spec = json.dumps({"use": "http", "base_url": vendor.url, "api_key": vendor.key, "retry": 1})
        vendor.always(Status(503), lambda request: request.body["query"] == ROWS[30]["query"])
        assert main([*command, "-r", spec]) == 1
        assert "503" in (errors := capsys.readouterr().err)
        assert "Traceback" not in errors
        assert not (tmp_path / "out" / "_done" / "00000-00001.json").exists()
        vendor.reset()
        assert main([*command, "-r", spec]) == 0
    assert sorted(row["id"] for row in pq.read_table(tmp_path / "out").to_pylist()) == list(range(60))
    command[command.index(str(tmp_path / "out"))] = str(tmp_path / "other")
    assert main([*command, "-r", f"onnx:{tmp_path / 'nowhere'}"]) == 2
    assert "There is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"modell": "mine"}, "no argument 'modell'. Choose from: api_key"),
        ({"reranker": "{lexical"}, "^reranker starts like JSON but does not parse"),
        ({"replicas": "two"}, "'two'"),
        ({"replicas": "0"}, "^replicas must be at least 1"),
        ({"num_cpus": "-1"}, "num_cpus a finite number of at least 0"),
        ({"max_queue": "0"}, "^max_queue must be above 0"),
    ],
)
def test_invalid_deployment_arguments_are_refused(args, words):
    from rerank_plugins.serving.ray_serve import app

    with pytest.raises(ConfigError, match=words):
        app(args)


def test_deployment_survives_a_killed_replica_with_client_retries(cluster):
    from ray import serve

    from rerank_plugins.serving.ray_serve import app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app({"reranker": "lexical", "replicas": "2", "num_cpus": "0.4"}), route_prefix="/")
    url = f"http://127.0.0.1:{port}"

    def ask(row: dict) -> list[int]:
        body = {"model": "lexical", "query": row["query"], "documents": row["documents"]}
        for _ in range(50):
            try:
                answer = httpx.post(f"{url}/v2/rerank", json=body, trust_env=False, timeout=30)
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                return [each["index"] for each in answer.json()["results"]]
            assert answer.status_code in (429, 500, 502, 503), answer.text
            time.sleep(0.1)
        raise AssertionError("no answer")

    try:
        assert httpx.get(f"{url}/healthz", trust_env=False, timeout=30).json()["model"] == "lexical"
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(ask, row) for row in ROWS * 3]
            _kill_a_replica()
            for row, future in zip(ROWS * 3, futures, strict=True):
                assert future.result() == [index for index, _ in expected(row)]
    finally:
        serve.shutdown()


def _kill_a_replica() -> None:
    ours = psutil.Process().children(recursive=True)
    replica = next(each for each in ours if "ServeReplica:default:rerank" in " ".join(each.cmdline()))
    replica.kill()


def test_input_column_with_an_added_name_is_refused():
    stage = RerankStage("lexical")
    rows = {"query": ["cat"], "documents": [["a cat"]]}
    assert stage(pa.table(rows))["rerank_error"].to_pylist() == [None]
    for name in ("reranked", "rerank_error"):
        with pytest.raises(ConfigError, match=f"has a column '{name}', which is the name of a column"):
            stage(pa.table(rows | {name: ["mine"]}))

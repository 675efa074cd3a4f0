"""Long files: texts stay on disk, a stopped comparison goes on, and Ray gives the same figures."""

from __future__ import annotations

import gc
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import BackendError, InputError
from rerank_plugins.cli import main
from rerank_plugins.evaluation import Candidate, compare, read, results
from rerank_plugins.evaluation.abstention import relevant_positions
from rerank_plugins.evaluation.significance import SAMPLES, _batches, interval
from rerank_plugins.testing.cohere_like import CohereLike

WORDS = [f"{one}{end}" for one in ("moon", "tide", "sea", "cat", "sun", "wind") for end in ("", "s", "ly", "ing")]


def write_lists(file: Path, queries: int, candidates: int, words: int) -> Path:
    generator = random.Random(5)
    with file.open("w", encoding="utf-8") as lines:
        for at in range(queries):
            texts = [" ".join(generator.choices(WORDS, k=words)) for _ in range(candidates)]
            labels = [int(generator.random() < 0.1) for _ in texts]
            labels[at % candidates] = 1
            query = " ".join(texts[at % candidates].split()[:4])
            lines.write(json.dumps({"query": query, "candidates": texts, "labels": labels}) + "\n")
    return file


def without_times(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures without what a clock measured, and without the advice, which quotes it."""
    for row in figures["rerankers"]:
        for name in ("p50_ms", "p95_ms", "documents_per_second"):
            row.pop(name)
    return {name: value for name, value in figures.items() if name != "advice"}


def test_texts_of_a_long_file_are_not_in_memory_at_once(tmp_path, monkeypatch):
    """While questions are reranked, the candidates of one are alive; while they are measured, those of a slice."""
    monkeypatch.setattr(results, "SLICE", 20)
    dataset = read(write_lists(tmp_path / "lists.jsonl", 120, 10, 5))
    alive = []
    measured = itertools.count()

    def count() -> None:
        alive.append(sum(isinstance(item, Candidate) for item in gc.get_objects()))

    def count_sometimes(*arguments: Any) -> list[int]:
        if next(measured) % 50 == 0:
            count()
        return relevant_positions(*arguments)

    monkeypatch.setattr(results, "relevant_positions", count_sometimes)
    gc.collect()
    row = compare(dataset, ["passthrough"], depths=(), progress=lambda _, done, __: done % 60 or count()).rows[0]
    assert len(row.values["nDCG@10"]) == 120
    assert len(row.rankings["120"]) == 10
    assert len(alive) == 2 + 3
    assert max(alive[:2]) <= 3 * 10
    assert max(alive) <= 2 * 20 * 10 + 20


def test_file_that_changes_while_it_is_used_is_an_error(tmp_path):
    data = write_lists(tmp_path / "lists.jsonl", 3, 2, 4)
    dataset = read(data)
    data.write_text("{", "utf-8")
    with pytest.raises(InputError, match="line 1 has changed while the file was in use"):
        dataset.questions[0]


def test_statistics_of_many_queries_draw_few_values_at_a_time():
    for count in (1, 999, 1_000, 1_001, 10_000, 3_000_000):
        batches = _batches(count)
        assert sum(batches) == SAMPLES
        assert max(batches) * count <= max(1_000_000, count)
    mean, low, high = interval([0.1, -0.05] * 1000)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 0.075 / 2000**0.5, rel=0.1)  # the normal approximation


class Stopped(Exception):
    """Stops a comparison from its own progress report."""


def test_stopped_comparison_gives_the_figures_of_one_that_ran_through(tmp_path):
    dataset = read(write_lists(tmp_path / "lists.jsonl", 80, 12, 12))
    whole = compare(dataset, ["lexical"], depths=(5,))
    seen = []

    def stop(label: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 150:
            raise Stopped

    with pytest.raises(Stopped):
        compare(dataset, ["lexical"], depths=(5,), answer_cache=tmp_path / "answers.sqlite3", progress=stop)
    assert len(seen) == 150
    resumed = compare(dataset, ["lexical"], depths=(5,), answer_cache=tmp_path / "answers.sqlite3")
    assert without_times(resumed.to_dict()) == without_times(whole.to_dict())


@pytest.mark.slow  # starts Ray
def test_comparison_on_ray_gives_the_same_figures_also_when_it_is_resumed(tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    from rerank_plugins.evaluation import RayPool

    data = write_lists(tmp_path / "lists.jsonl", 100, 12, 12)
    alone = json.loads(json.dumps(compare(read(data), ["lexical"]).to_dict()))
    with pytest.raises(BackendError, match="cluster of Ray does not answer"):
        RayPool(address="nowhere")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:

        def stop(label: str, done: int, total: int) -> None:
            if done == 100:
                raise Stopped

        cache = tmp_path / "answers.sqlite3"
        with pytest.raises(Stopped):
            compare(read(data), ["lexical"], answer_cache=cache, ray=RayPool(actors=1, num_cpus=0.5), progress=stop)
        line = ["compare", str(data), "-r", "lexical", "--keep", str(cache), "--json", str(tmp_path / "figures.json")]
        assert main([*line, "--ray", "--actors", "2", "--cpus-per-actor", "0.5"]) == 0
        resumed = json.loads((tmp_path / "figures.json").read_text("utf-8"))
        assert without_times(resumed) == without_times(alone)
        with pytest.raises(InputError, match="has 2 CPUs on 1 nodes and places for 2"):
            RayPool(actors=3)  # Ray would wait for ever
        few = compare(read(data, limit=3), ["lexical"], ray=RayPool(actors=4, num_cpus=0.5))
        assert len(few.rows[0].values["nDCG@10"]) == 3  # one call, so one actor
        pool = RayPool(actors=1, num_cpus=0.5)
        with CohereLike() as server, pytest.raises(BackendError, match="keys of the spec in their own environment"):
            # A key in the spec stays in this process.
            compare(read(data, limit=3), [{"use": "cohere", "api_key": "k", "base_url": server.url}], ray=pool)
        assert server.requests == []
    finally:
        ray.shutdown()

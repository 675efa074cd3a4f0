"""The regression check: a worse model fails, the same passes, and a few queries cannot tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import InputError
from rerank_plugins.cli import main
from rerank_plugins.evaluation import (
    Candidate,
    Comparison,
    Dataset,
    Question,
    compare,
    compare_to_baseline,
    read,
    read_baseline,
)
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status


def make_rows(count: int) -> list[dict[str, object]]:
    """Return labelled lists whose relevant document is third and holds the words of the query."""
    texts = [f"text {at} about nothing" for at in range(6)]
    return [
        {
            "query": f"honey {at}",
            "candidates": [*texts[:2], f"bees and honey {at}", *texts[2:5]],
            "labels": [0, 0, 1, 0, 0, 0],
        }
        for at in range(count)
    ]


def write_rows(file: Path, count: int) -> Path:
    file.write_text("\n".join(map(json.dumps, make_rows(count))), "utf-8")
    return file


def regression_of(old: Sequence[float], new: Sequence[float], margin: float):
    """Return the verdict about one reranker with these values of MRR@10 (1 / rank of the relevant document)."""
    questions = [
        Question(str(at), f"q{at}", tuple(Candidate(f"{at}-{place}", f"{at} {place}") for place in range(10)))
        for at in range(len(old))
    ]

    def measured(values: Sequence[float]):
        grades = {str(at): {f"{at}-{round(1 / value) - 1}": 1} for at, value in enumerate(values)}
        return compare(Dataset.of("made", questions, grades), ["passthrough"], k=10, depths=())

    # The judgements differ here instead of the answers, which the baseline would notice by the hashes.
    comparison = measured(new)
    baseline = {**measured(old).to_dict(), "hashes": comparison.to_dict()["hashes"]}
    return compare_to_baseline(comparison, baseline, margin)[0]


def test_same_figures_pass_and_clearly_worse_ones_fail():
    same = regression_of([1, 0.5] * 20, [1, 0.5] * 20, 0.0)
    assert (same.verdict, same.mean, same.low, same.high) == ("passed", 0.0, 0.0, 0.0)
    worse = regression_of([1] * 40, [0.5] * 40, 0.01)
    assert worse.verdict == "failed"
    assert worse.mean == pytest.approx(0.6309297535714575 - 1)  # the relevant document fell from first to second
    assert str(worse).startswith("passthrough is worse than the baseline: -0.369 [-0.369, -0.369] nDCG@10 over 40")
    assert regression_of([0.5] * 40, [1] * 40, 0.01).verdict == "passed"
    assert regression_of([1] * 40, [0.5] * 40, 0.5).verdict == "passed"  # the loss that is allowed is larger


def test_wide_interval_is_unclear_and_says_how_many_queries_would_tell():
    """Of eight queries five lost and three gained as much: the mean is below the margin, the interval covers zero."""
    unclear = regression_of([1, 1, 1, 1, 1, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5, 0.5, 1, 1, 1], 0.01)
    assert unclear.mean < -0.01
    assert unclear.high > 0
    assert unclear.verdict == "unclear"
    assert "cannot tell" in str(unclear)
    half, gap = (unclear.high - unclear.low) / 2, -unclear.mean  # it can only fail, with an interval below zero
    assert f"About {-int(-8 * (half / gap) ** 2 // 1)} queries would tell." in str(unclear)


def test_command_exits_with_1_for_a_worse_model_and_0_for_the_same(tmp_path, capsys):
    data, kept_figures = write_rows(tmp_path / "lists.jsonl", 40), tmp_path / "kept.json"
    line = ["compare", str(data), "--keep", str(tmp_path / "answers.sqlite3"), "-r"]
    assert main([*line, "lexical", "--json", str(kept_figures)]) == 0
    capsys.readouterr()
    assert main([*line, "lexical", "--baseline", str(kept_figures), "--fail-below", "0.01"]) == 0
    assert "PASSED: lexical is no worse than the baseline by more than 0.01: +0.000" in capsys.readouterr().out
    # One reranker in each run: they are compared whatever their names.
    assert main([*line, "passthrough", "--baseline", str(kept_figures), "--fail-below", "0.01"]) == 1
    assert "FAILED: passthrough is worse than the baseline: -0.500" in capsys.readouterr().out


def test_command_says_when_it_cannot_tell_and_fails_only_if_asked(tmp_path, capsys):
    """The second model turns three of eight lists round, and five of them the other way."""
    data, kept_figures = write_rows(tmp_path / "lists.jsonl", 8), tmp_path / "kept.json"
    line = ["compare", str(data), "--keep", str(tmp_path / "answers.sqlite3"), "-r"]

    def spec(server: CohereLike, name: str) -> str:
        return json.dumps({"use": f"http:{name}", "base_url": server.url, "api_key": server.key})

    def score(better: set[int]):
        return lambda query, text: float((int(query.split()[1]) in better) == ("honey" in text))

    with CohereLike(score=score({0, 1, 2, 3, 4})) as old, CohereLike(score=score({5, 6, 7})) as new:
        assert main([*line, spec(old, "acme"), "--json", str(kept_figures)]) == 0
        check = [*line, spec(new, "acme"), "--fresh", "--baseline", str(kept_figures)]
        assert main(check) == 0
        assert "UNCLEAR: http:acme: these queries cannot tell whether it lost more than 0.01" in capsys.readouterr().out
        assert main([*check, "--fail-unclear"]) == 1


def test_only_queries_of_both_runs_count(tmp_path):
    questions = [
        Question(str(at), f"honey {at}", tuple(Candidate(f"{at}-{place}", f"{place} {at}") for place in range(3)))
        for at in range(4)
    ]
    grades = {question.id: {f"{question.id}-0": 1} for question in questions}
    old = compare(Dataset.of("made", questions[:3], grades), ["passthrough"], depths=())
    new = compare(Dataset.of("made", questions[1:], grades), ["passthrough"], depths=())
    (regression,) = compare_to_baseline(new, old.to_dict(), 0.01)
    assert regression.queries == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main": "nDCG@5"}, "another main metric, nDCG@5"),
        ({"protocol": "sentence-transformers"}, "another protocol"),
        ({"dataset": "wasps"}, "another data set, wasps"),
        ({"first_stage": "BM25"}, "another first stage, BM25"),
        ({"hashes": ["0"]}, "queries: 1 of them have another text, other candidates or judgements now"),
        ({"rerankers": []}, "none of the rerankers lexical: it has none"),
        ({"queries": ["other"]}, "no figures for any of these queries: keep"),
    ],
)
def test_baseline_of_another_run_is_an_error(change, message):
    question = Question("q", "bees", (Candidate("d1", "Bees."), Candidate("d2", "A bank.")))
    comparison = compare(Dataset.of("bees", [question], {"q": {"d1": 1}}), ["lexical"])
    with pytest.raises(InputError, match=message):
        compare_to_baseline(comparison, {**comparison.to_dict(), **change}, 0.01)
    with pytest.raises(InputError, match="at least 0"):
        compare_to_baseline(comparison, comparison.to_dict(), -0.1)


def bees(rerankers: Sequence[str], texts: Sequence[str] = ("Bees.", "A bank."), **options: Any) -> Comparison:
    candidates = tuple(Candidate(f"d{at}", text) for at, text in enumerate(texts))
    questions = [Question(name, "bees", candidates) for name in ("q1", "q2")]
    return compare(Dataset.of("bees", questions, {"q1": {"d0": 1}, "q2": {"d0": 1}}), rerankers, **options)


def test_baseline_without_hashes_must_have_as_many_candidates():
    kept_figures = bees(["lexical"]).to_dict()
    del kept_figures["hashes"]
    (regression,) = compare_to_baseline(bees(["lexical"]), kept_figures, 0.01)
    assert regression.verdict == "passed"
    assert "has no hashes: texts and judgements that changed since are not noticed" in str(regression)
    with pytest.raises(InputError, match="another number of candidates, 2, and this run 3"):
        compare_to_baseline(bees(["lexical"], ["Bees.", "A bank.", "The moon."]), kept_figures, 0.01)


def test_queries_that_changed_are_left_out_and_counted():
    kept_figures = bees(["lexical"]).to_dict()
    kept_figures["hashes"][0] = "0"
    (regression,) = compare_to_baseline(bees(["lexical"]), kept_figures, 0.01)
    assert regression.queries == 1
    assert "1 queries were left out: their text, candidates or judgements" in str(regression)


def test_weights_of_the_compared_queries_average_one():
    """Two groups count alike: one query of `a`, and three of `b`, of which two changed since. Each value fell by 1."""
    candidates = tuple(Candidate(f"d{at}", text) for at, text in enumerate(("Bees.", "A bank.")))
    questions = [Question(name, "bees", candidates) for name in ("q1", "q2", "q3", "q4")]
    grades = {question.id: {"d0": 1} for question in questions}
    dataset = replace(Dataset.of("bees", questions, grades), groups={"a": [0], "b": [1, 2, 3]})
    comparison = compare(dataset, ["passthrough"], k=10, depths=())
    assert comparison.rows[0].weights == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    old = comparison.to_dict()
    old["hashes"][2:] = ["0", "0"]
    old["rerankers"][0]["per_query"][comparison.main] = [value + 1 for value in comparison.rows[0].values["nDCG@10"]]
    (regression,) = compare_to_baseline(comparison, old, 0.01)
    assert (regression.queries, regression.mean) == (2, pytest.approx(-1.0))


def test_reranker_that_the_baseline_lacks_or_that_failed_then_fails():
    kept_figures = bees(["lexical", "passthrough"]).to_dict()
    kept_figures["rerankers"][1].update(error="It was down.", per_query={})
    passed, failed, missing = compare_to_baseline(bees(["lexical", "passthrough", "embedded"]), kept_figures, 0.01)
    assert (passed.verdict, failed.verdict, missing.verdict) == ("passed", "failed", "failed")
    assert str(failed).startswith("passthrough failed in the run of the baseline")
    assert str(missing).startswith("embedded is not in the baseline, which has lexical, passthrough: name one")


def test_verdict_names_degraded_answers():
    kept_figures = bees(["lexical"]).to_dict()
    kept_figures["rerankers"][0].update(degraded=0.5, failed=1)
    (regression,) = compare_to_baseline(bees(["lexical"]), kept_figures, 0.01)
    assert "50% of the baseline's answers were degraded, and 1 of these failed." in str(regression)
    with CohereLike() as server:
        server.always(Status(500))
        spec = {"use": "cohere", "base_url": server.url, "api_key": server.key, "retry": 1, "on_error": "degrade"}
        (regression,) = compare_to_baseline(bees([spec]), bees(["lexical"]).to_dict(), 0.01)
    assert "100% of its answers were degraded, and 0 of these failed." in str(regression)


def test_command_refuses_changed_texts_before_it_asks(tmp_path, capsys):
    """An earlier version joined title and text of a BEIR folder with a newline."""
    folder, kept_figures = tmp_path / "data", tmp_path / "kept.json"
    folder.mkdir()
    rows = [{"_id": "d1", "title": "Bees", "text": "make honey"}, {"_id": "d2", "title": "Banks", "text": "lend"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (folder / "queries.tsv").write_text("q1\thoney of bees\nq2\tbanks\n", "utf-8")
    (folder / "qrels.txt").write_text("q1 0 d1 1\nq2 0 d2 1\n", "utf-8")
    dataset = read(folder)
    assert dataset.questions[0].candidates[0].text == "Bees make honey"
    titles = {f"{row['title']} {row['text']}": f"{row['title']}\n{row['text']}" for row in rows}
    earlier = [
        replace(question, candidates=tuple(replace(each, text=titles[each.text]) for each in question.candidates))
        for question in dataset.questions
    ]
    figures = compare(replace(dataset, questions=earlier), ["lexical"]).to_dict()
    kept_figures.write_text(json.dumps(figures), "utf-8")
    with CohereLike() as server:
        spec = json.dumps({"use": "http", "base_url": server.url, "api_key": server.key})
        line = ["compare", str(folder), "--keep", str(tmp_path / "answers.sqlite3"), "-r", spec]
        line += ["--baseline", str(kept_figures)]
        assert main(line) == 2
        error = capsys.readouterr().err
        assert "no figures for any of these queries: 2 of them have another text" in error
        assert "keep a new baseline" in error
        assert server.requests == []
        # One query that is the same is compared, and the other one is counted.
        figures["hashes"][0] = compare(dataset, ["lexical"]).to_dict()["hashes"][0]
        kept_figures.write_text(json.dumps(figures), "utf-8")
        main(line)
        assert "1 queries were left out: their text, candidates or judgements" in capsys.readouterr().out


def test_command_refuses_other_options_before_it_asks(tmp_path, capsys):
    data, kept_figures = write_rows(tmp_path / "lists.jsonl", 2), tmp_path / "kept.json"
    kept_figures.write_text(json.dumps(compare(read(data), ["lexical"]).to_dict()), "utf-8")
    with CohereLike() as server:
        spec = json.dumps({"use": "cohere", "base_url": server.url, "api_key": server.key})
        line = ["compare", str(data), "--keep", str(tmp_path / "answers.sqlite3"), "-r", spec]
        line += ["--baseline", str(kept_figures)]
        assert main([*line, "--k", "5"]) != 0
        assert "another main metric, nDCG@10, and this run nDCG@5" in capsys.readouterr().err
        assert main([*line, "--json", str(tmp_path / "." / "kept.json")]) != 0
        assert "--baseline and --json name the same file" in capsys.readouterr().err
        assert server.requests == []


def test_command_refuses_a_baseline_of_other_rerankers_before_it_asks(tmp_path, capsys):
    data, kept_figures = write_rows(tmp_path / "lists.jsonl", 2), tmp_path / "kept.json"
    kept_figures.write_text(json.dumps(compare(read(data), ["lexical", "passthrough"]).to_dict()), "utf-8")
    with CohereLike() as server:
        spec = json.dumps({"use": "http", "base_url": server.url, "api_key": server.key})
        line = ["compare", str(data), "--keep", str(tmp_path / "answers.sqlite3"), "-r", spec]
        line += ["--baseline", str(kept_figures)]
        assert main(line) == 2
        assert "none of the rerankers http: it has lexical, passthrough" in capsys.readouterr().err
        assert server.requests == []
        assert main([*line, "-r", "lexical"]) == 1  # one of them is measured, and the other one fails
        assert "http is not in the baseline" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"rerankers": 7}',
        '{"rerankers": [{}], "main": "MAP", "queries": []}',
        '{"rerankers": [{"per_query": {}}], "main": "MAP", "queries": []}',
        '{"rerankers": [{"reranker": "a", "per_query": {"MAP": null}}], "main": "MAP", "queries": []}',
        '{"rerankers": [{"reranker": "a", "per_query": {}, "degraded": "x"}], "main": "MAP", "queries": []}',
        '{"rerankers": [{"reranker": "a", "per_query": {}, "failed": [1]}], "main": "MAP", "queries": []}',
    ],
)
def test_file_that_is_no_baseline_is_an_error(text, tmp_path):
    file = tmp_path / "kept.json"
    file.write_text(text, "utf-8")
    with pytest.raises(InputError, match="what compare --json wrote"):
        read_baseline(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_baseline(tmp_path / "none.json")

"""Judgements by a model: marked, priced, compared with people, and with a sample to check by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import AuthenticationFailed, ConfigError, InputError, TransientError
from rerank_plugins.cli import main
from rerank_plugins.evaluation import Candidate, Dataset, Question, compare, read
from rerank_plugins.evaluation.data import LazyQuestions
from rerank_plugins.evaluation.judging import kappa
from rerank_plugins.testing.script import Status
from rerank_plugins.testing.vendors import VENDORS, ChatServer

PRICE = {"per_million_tokens": 1.0}


def write_lists(file: Path) -> Path:
    """Write four lists with labels, two with none, and one without candidates. One label is wrong."""
    texts = ["a bank", "bees and honey", "the moon"]
    rows = [{"query": f"honey {at}", "candidates": texts, "labels": [0, 1, 0]} for at in range(3)]
    rows.append({"query": "honey 3", "candidates": texts, "labels": [1, 0, 0]})
    rows += [{"query": "honey 4", "candidates": texts}, {"query": "honey 5", "candidates": texts, "labels": None}]
    rows.append({"query": "nothing", "candidates": []})
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return file


def has_honey(_: str, document: str) -> float:
    return 0.9 if "honey" in document else 0.1


def test_kappa_equals_values_computed_by_hand():
    """Of four labels three agree: po = 3/4, pe = 1/2 · 1/4 + 1/2 · 3/4 = 1/2, so kappa is 1/2."""
    assert kappa([1, 1, 0, 0], [1, 0, 0, 0]) == pytest.approx(0.5)
    assert kappa([1, 0], [1, 0]) == 1.0
    assert kappa([1, 1], [1, 1]) is None
    assert kappa([1], [0]) is None


@pytest.mark.parametrize("judge", ["openai", "decisions", "chat"])
def test_judge_labels_the_unlabelled_queries_and_is_marked(judge, tmp_path):
    server_class = {"openai": VENDORS["openai"], "decisions": VENDORS["typesafe"], "chat": ChatServer}[judge]
    name = {"openai": "openai", "decisions": "decisions:jev", "chat": "chat:m"}[judge]
    with server_class(score=has_honey) as server:
        spec = {"use": name, "base_url": server.url, "api_key": server.key, "price": PRICE}
        dataset = read(write_lists(tmp_path / "lists.jsonl"), unlabelled=True)
        assert (len(dataset.questions), len(dataset.unlabelled), dataset.unjudged) == (4, 3, 0)
        cache = tmp_path / "answers.sqlite3"
        comparison = compare(dataset, ["lexical"], judge=spec, judge_check=4, answer_cache=cache)
        sent = len(server.requests)
        again = compare(dataset, ["lexical"], judge=spec, judge_check=4, answer_cache=cache)
        assert len(server.requests) == sent  # no judgement is paid for twice
    judgements = comparison.judgements
    assert again.judgements == judgements
    assert (judgements.queries, judgements.documents, judgements.relevant) == (2, 6, 2)
    # Of twelve documents that people judged, ten labels agree: po = 10/12, pe = 1/3 · 1/3 + 2/3 · 2/3.
    assert judgements.kappa == pytest.approx((10 / 12 - 5 / 9) / (1 - 5 / 9))
    assert (judgements.compared, judgements.assumed) == (12, False)
    assert judgements.cost_usd > 0
    assert [question.id for question in comparison.dataset.questions] == ["1", "2", "3", "4", "5", "6"]
    assert comparison.rows[0].values["MRR@10"][4:] == (1.0, 1.0)
    assert comparison.to_dict()["judgements"]["queries"] == 2
    advice = str(comparison.advice)
    assert f"The model {judgements.judge} judged 2 queries (6 documents), not people: cost $0.0" in advice
    assert "with kappa 0.62 on 12 documents" in advice
    assert f"2 judged by {judgements.judge}, not by people" in comparison._repr_html_()


def test_sample_is_written_then_read_with_labels_by_hand(tmp_path, capsys):
    data, sample = write_lists(tmp_path / "lists.jsonl"), tmp_path / "check.jsonl"
    with VENDORS["openai"](score=has_honey) as server:
        judge = json.dumps({"use": "openai", "base_url": server.url, "api_key": server.key})
        line = ["compare", str(data), "-r", "lexical", "--keep", str(tmp_path / "answers.sqlite3")]
        line += ["--judge", judge, "--judge-check", "0", "--judge-sample", str(sample)]
        assert main(line) == 0
        assert "check a sample by hand" in capsys.readouterr().out
        rows = [json.loads(text) for text in sample.read_text("utf-8").splitlines()]
        assert len(rows) == 6
        assert {row["judge"] for row in rows if "honey" in row["document"]} == {1}
        assert {row["human"] for row in rows} == {None}
        for row in rows:
            row["human"] = row["judge"]
        first = next(row for row in rows if row["judge"] == 0)
        first["human"] = 1
        rows[-1 if first is not rows[-1] else 0]["human"] = None
        sample.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        assert main(line) == 0
    out = capsys.readouterr().out
    assert "with the sample checked by hand with kappa" in out
    assert "on 5 documents" in out
    assert json.loads(sample.read_text("utf-8").splitlines()[0]) == rows[0]  # it is not written again


def test_labels_with_relevant_documents_only_count_the_others_as_not_relevant(tmp_path):
    file = tmp_path / "lists.jsonl"
    texts = [{"id": name, "text": text} for name, text in (("a", "a bank"), ("b", "bees and honey"))]
    rows = [{"query": f"honey {at}", "candidates": texts, "labels": {"b": 1}} for at in range(2)]
    file.write_text("\n".join(map(json.dumps, [*rows, {"query": "honey 3", "candidates": texts}])), "utf-8")
    with VENDORS["openai"](score=has_honey) as server:
        spec = {"use": "openai", "base_url": server.url, "api_key": server.key}
        comparison = compare(read(file, unlabelled=True), ["lexical"], judge=spec)
    judgements = comparison.judgements
    assert (judgements.kappa, judgements.compared, judgements.assumed) == (1.0, 4, True)
    assert "where documents without a grade count as not relevant" in str(comparison.advice)


def test_collection_without_any_judgement_is_judged(tmp_path):
    (tmp_path / "corpus.tsv").write_text("d1\tbees and honey\nd2\ta bank\n", "utf-8")
    (tmp_path / "queries.tsv").write_text("q1\thoney\nq2\tbank of honey\n", "utf-8")
    with pytest.raises(InputError, match="qrels"):
        read(tmp_path)
    with VENDORS["openai"](score=has_honey) as server:
        spec = {"use": "openai", "base_url": server.url, "api_key": server.key}
        comparison = compare(read(tmp_path, unlabelled=True), [spec, "lexical"], judge=spec)
        with pytest.raises(InputError, match="name a judge"):
            compare(read(tmp_path, unlabelled=True), ["lexical"])
    assert comparison.judgements.queries == 2
    assert "is compared by its own judgements, which favour it" in str(comparison.advice)


def test_judge_that_fails_or_only_orders_is_an_error(tmp_path):
    dataset = read(write_lists(tmp_path / "lists.jsonl"), unlabelled=True)
    with pytest.raises(ConfigError, match="only orders documents"):
        compare(dataset, ["lexical"], judge="passthrough")
    judged = compare(dataset, ["lexical"], judge="lexical").dataset
    with pytest.raises(InputError, match="no query without a judgement"):
        compare(judged, ["lexical"], judge="lexical")
    with pytest.raises(InputError, match="judge_sample has no effect without judge"):
        compare(judged, ["lexical"], judge_sample=tmp_path / "sample.jsonl")
    with VENDORS["openai"](score=has_honey) as server:
        spec = {"use": "openai", "base_url": server.url, "retry": 1}
        with pytest.raises(AuthenticationFailed):
            compare(dataset, ["lexical"], judge={**spec, "api_key": "wrong"})
        server.always(Status(500))
        with pytest.raises(TransientError):
            compare(dataset, ["lexical"], judge={**spec, "api_key": server.key})


def test_queries_that_the_judge_did_not_answer_are_counted_and_no_empty_sample_is_written(tmp_path):
    texts = [{"id": "a", "text": "a bank"}, {"id": "b", "text": "bees and honey"}]
    rows = [{"query": "honey 0", "candidates": texts, "labels": [0, 1]}]
    rows += [{"query": f"honey {at}", "candidates": texts} for at in (1, 2)]
    file, sample = tmp_path / "lists.jsonl", tmp_path / "check.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with VENDORS["openai"](score=has_honey) as server:
        spec = {"use": "openai", "base_url": server.url, "api_key": server.key, "retry": 1}
        options = {"judge_check": 0, "judge_sample": sample, "answer_cache": tmp_path / "answers.sqlite3"}
        server.always(Status(400))
        none = compare(read(file, unlabelled=True), ["lexical"], judge=spec, **options)
        assert (none.judgements.queries, none.judgements.failed) == (0, 2)
        assert not sample.exists()
        server.reset()
        server.play(Status(400))
        one = compare(read(file, unlabelled=True), ["lexical"], judge=spec, **options)
    assert (one.judgements.queries, one.judgements.failed) == (1, 1)
    assert "It did not answer for 1 queries, which are left out" in str(one.advice)
    assert len(sample.read_text("utf-8").splitlines()) == 2


def test_limit_bounds_the_queries_that_are_sent_to_the_judge(tmp_path, capsys):
    texts = ["a bank", "bees and honey"]
    rows = [{"query": f"honey {at}", "candidates": texts, "labels": [0, 1]} for at in range(6)]
    rows += [{"query": f"moon {at}", "candidates": texts} for at in range(10)]
    data = tmp_path / "lists.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "corpus.tsv").write_text("d1\tbees and honey\nd2\ta bank\n", "utf-8")
    (tmp_path / "queries.tsv").write_text("".join(f"q{at}\thoney {at}\n" for at in range(10)), "utf-8")
    for source in (data, tmp_path):
        assert len(read(source, limit=2, unlabelled=True).unlabelled) == 2
    with VENDORS["openai"](score=has_honey) as server:
        judge = json.dumps({"use": "openai", "base_url": server.url, "api_key": server.key})
        line = ["compare", str(data), "-r", "lexical", "--keep", str(tmp_path / "answers.sqlite3"), "--limit", "2"]
        assert main([*line, "--judge", judge]) == 0
        assert len(server.requests) == 4
    assert (
        "candidates of 2 queries without judgements and, to compare it with people, 2 with" in capsys.readouterr().err
    )


class CountedQuestions(LazyQuestions):
    """Counts how often a question is read."""

    reads = 0

    def __getitem__(self, at: Any) -> Any:
        CountedQuestions.reads += 1
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Question]:
        return (self[at] for at in range(len(self)))


def test_judging_reads_each_question_a_few_times_and_holds_none():
    """The depth of the data set was computed for each list, from all of them."""

    def question(at: int) -> Question:
        return Question(f"q{at}", f"honey {at}", (Candidate("a", "a bank"), Candidate("b", "bees and honey")))

    dataset = Dataset("made", (), {}, unlabelled=CountedQuestions(100, question))
    judged = compare(dataset, ["passthrough"], judge="lexical", depths=()).dataset
    assert isinstance(judged.questions, LazyQuestions)
    assert len(judged.questions) == 100
    assert CountedQuestions.reads <= 100 * 12

"""`rerank-plugins calibrate`: from judged data to a calibration file, a plot and a threshold."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support.pages import TEXTS, documented

from rerank_plugins import load_reranker
from rerank_plugins.cli import main


def rows(count: int = 30):
    for at in range(count):
        query = f"fruit{at} colour{at}"
        yield {
            "query": query,
            "candidates": [
                f"fruit{at} is colour{at}",
                f"fruit{at} grows on a tree",
                f"a stone of colour{at}",
                "a car",
                " ",
            ],
            "labels": [2, at % 3 == 0, 0, 0, 0],
        }


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "judged.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    return str(file)


def test_calibrate_writes_a_file_and_plots_that_a_threshold_can_use(data, tmp_path, capsys):
    out, picture, page = (str(tmp_path / name) for name in ("cal.json", "plot.svg", "plot.html"))
    assert main(["calibrate", "lexical", "--data", data, "--out", out, "--plot", picture]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "120 scores of 30 queries, 40 relevant; held out in 5 folds by query (seed 0)" in output
    assert "Only 40 documents are relevant" in output
    calibration = json.loads((tmp_path / "cal.json").read_text("utf-8"))
    assert (calibration["of"]["backend"], calibration["held_out"]["bins"]) == ("lexical", 15)
    assert calibration["held_out"]["after"]["ece"] < calibration["held_out"]["before"]["ece"]
    for name in ("before", "after"):
        assert f"{name:8}{calibration['held_out'][name]['ece']:8.4f}" in output
    drawn = ET.parse(picture).getroot()
    assert drawn.tag.endswith("svg")
    assert main(["calibrate", "lexical", "--data", data, "--out", out, "--plot", page, "--method", "platt"]) == 0
    assert "<svg" in (tmp_path / "plot.html").read_text("utf-8")
    reranker = load_reranker({"use": "lexical", "calibration": out, "score_threshold": 0.5})
    assert [result.index for result in reranker.rerank("fruit1 colour1", next(rows())["candidates"])] == []
    assert [result.index for result in reranker.rerank("fruit0 colour0", next(rows())["candidates"])][:1] == [0]


def test_calibrate_prints_arguments_that_work_in_a_shell(data, tmp_path, capsys):
    out = str(tmp_path / "it's mine.json")
    spec = json.dumps({"use": "lexical", "long_documents": "head_tail", "top_n": 3})
    assert main(["calibrate", spec, "--data", data, "--out", out]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(last.removeprefix("use it: "))
    assert words[0] == "-r"
    assert json.loads(words[1]) == {"use": "lexical", "long_documents": "head_tail", "calibration": out}
    (tmp_path / "cats.txt").write_text("a cat\na dog\n", "utf-8")
    assert main(["rerank", "cat", str(tmp_path / "cats.txt"), *words]) == 0


def test_documented_command_and_spec_run(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(documented("calibrate")) == 0
    assert Path("embedded.svg").exists()
    (spec,) = re.findall(r"`(\{[^`]*calibration = [^`]*\})`", TEXTS["docs/guides/thresholds.md"])
    load_reranker(tomllib.loads(f"spec = {spec}")["spec"]).rerank("fruit1 colour1", next(rows())["candidates"])


@pytest.mark.thorough  # loads the model, and imports scikit-learn
def test_documents_that_were_not_read_are_left_out_of_the_fit(tmp_path, capsys):
    """`embedded:balanced` reads some of the candidates, and the others have no score."""
    lists = list(rows(12))
    for at, row in enumerate(lists):
        row["candidates"] = [*row["candidates"][:4], *(f"tree {number} has leaves {at}" for number in range(16))]
        row["labels"] = [*row["labels"][:4], *[0] * 16]
    file, out = tmp_path / "judged.jsonl", tmp_path / "cal.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in lists), "utf-8")
    spec = {"use": "embedded:balanced", "embedded": {"balanced": {"for_top": 3}}}
    with load_reranker(spec) as reranker:
        answers = [reranker.rerank(row["query"], row["candidates"]) for row in lists]
    scores = sum(result.raw_score is not None for answer in answers for result in answer)
    assert scores < 12 * 20
    assert main(["calibrate", json.dumps(spec), "--data", str(file), "--out", str(out), "--method", "platt"]) == 0
    assert f"{scores} scores of 12 queries" in capsys.readouterr().out
    assert json.loads(out.read_text("utf-8"))["of"]["model"] == "balanced"
    with load_reranker({**spec, "calibration": str(out)}) as reranker:
        answer = reranker.rerank(lists[0]["query"], lists[0]["candidates"])
    assert [each.raw_score for each in answer] == [each.raw_score for each in answers[0]]
    assert answer[-1].relevance_score is None
    assert answer[0].relevance_score != answers[0][0].relevance_score


def test_calibrate_twice_writes_identical_files(data, tmp_path):
    for name in ("one", "two"):
        assert main(["calibrate", "lexical", "--data", data, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_calibrate_reads_a_beir_folder(tmp_path, capsys):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for at, row in enumerate(rows(12)):
        queries.append(json.dumps({"_id": f"q{at}", "text": row["query"]}))
        for number, (text, label) in enumerate(zip(row["candidates"][:3], row["labels"], strict=False)):
            corpus.append(json.dumps({"_id": f"d{at}-{number}", "title": "", "text": text}))
            qrels.append(f"q{at}\td{at}-{number}\t{int(label)}")
    (folder / "corpus.jsonl").write_text("\n".join(corpus), "utf-8")
    (folder / "queries.jsonl").write_text("\n".join(queries), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels), "utf-8")
    out = str(tmp_path / "cal.json")
    assert main(["calibrate", "lexical", "--data", str(folder), "--out", out, "--candidates", "4"]) == 0
    assert "48 scores of 12 queries, 16 relevant" in capsys.readouterr().out
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0-0\n", "utf-8")
    assert main(["calibrate", "lexical", "--data", str(folder), "--out", out]) == 2
    assert "line 2: judgements are" in capsys.readouterr().err


def test_calibrate_reads_object_candidates_and_unicode_line_ends(tmp_path):
    """Candidates may be strings or objects with a text, and U+2028 and U+0085 do not end a line."""

    def calibrate(name: str, form) -> bytes:
        file = tmp_path / f"{name}.jsonl"
        changed = [{**row, "candidates": [form(f"{text}\u2028\x85") for text in row["candidates"]]} for row in rows()]
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in changed), "utf-8-sig")
        assert main(["calibrate", "lexical", "--data", str(file), "--out", str(tmp_path / name)]) == 0
        return (tmp_path / name).read_bytes()

    assert calibrate("texts", str) == calibrate("objects", lambda text: {"id": "a", "text": text, "score": 1.0})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ('{"cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}', "the scores of one backend"),
        ('{"use": "lexical", "fuse": {"with": "retrieval"}}', "the scores of one backend"),
        ("passthrough", "only orders"),
    ],
)
def test_calibrate_refuses_specs_without_scores_of_one_backend(data, tmp_path, capsys, spec, message):
    assert main(["calibrate", spec, "--data", data, "--out", str(tmp_path / "cal.json")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cal.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "line 1 is not JSON"),
        ("[]", "line 1 is not a JSON object"),
        ('{"query": "a", "candidates": ["b"], "labels": []}', "one label for each candidate"),
        ("", "Give more judged data"),
        ('{"query": "a", "candidates": [7], "labels": [1]}', "line 1: a line must be"),
        ('{"query": "a", "candidates": ["b"], "labels": [NaN]}', "line 1: a line must be"),
        ('{"query": "a", "candidates": ["b"], "labels": [1e999]}', "line 1: a line must be"),
    ],
)
def test_calibrate_names_the_fault_of_broken_data(tmp_path, capsys, text, message):
    (tmp_path / "data.jsonl").write_text(text, "utf-8")
    arguments = ["--data", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "cal.json")]
    assert main(["calibrate", "lexical", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_calibrate_refuses_missing_data_and_unwritable_output(data, tmp_path, capsys):
    out = str(tmp_path / "cal.json")
    assert main(["calibrate", "lexical", "--data", str(tmp_path / "none"), "--out", out]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["calibrate", "lexical", "--data", data, "--out", out, "--plot", "plot.pdf"]) == 2
    assert ".svg or .html" in capsys.readouterr().err
    for option in ("--out", "--plot"):  # before any score is requested
        files = {"--out": out, "--plot": str(tmp_path / "plot.svg"), option: str(tmp_path / "none" / "it.svg")}
        line = [word for option_and_file in files.items() for word in option_and_file]
        assert main(["calibrate", "lexical", "--data", str(tmp_path / "no data"), *line]) == 2
        assert f"{option} {files[option]} is in a folder that does not exist" in capsys.readouterr().err
    assert not (tmp_path / "cal.json").exists()

"""`rerank-plugins calibrate`, from judged data to a threshold."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

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


def test_from_data_to_a_threshold(data, tmp_path, capsys):
    out, picture, page = (str(tmp_path / name) for name in ("cal.json", "plot.svg", "plot.html"))
    assert main(["calibrate", "lexical", "--data", data, "--out", out, "--plot", picture]) == 0
    told, err = capsys.readouterr()
    assert err == ""
    assert "120 scores of 30 queries, 40 relevant; held out in 5 folds by query (seed 0)" in told
    assert "Only 40 documents are relevant" in told
    kept = json.loads((tmp_path / "cal.json").read_text("utf-8"))
    assert (kept["of"]["backend"], kept["held_out"]["bins"]) == ("lexical", 15)
    assert kept["held_out"]["after"]["ece"] < kept["held_out"]["before"]["ece"]
    for name in ("before", "after"):
        assert f"{name:8}{kept['held_out'][name]['ece']:8.4f}" in told
    drawn = ET.parse(picture).getroot()
    assert drawn.tag.endswith("svg")
    assert main(["calibrate", "lexical", "--data", data, "--out", out, "--plot", page, "--method", "platt"]) == 0
    assert "<svg" in (tmp_path / "plot.html").read_text("utf-8")
    reranker = load_reranker({"use": "lexical", "calibration": out, "score_threshold": 0.5})
    assert [each.index for each in reranker.rerank("fruit1 colour1", next(rows())["candidates"])] == []
    assert [each.index for each in reranker.rerank("fruit0 colour0", next(rows())["candidates"])][:1] == [0]


def test_what_is_printed_to_use_it_works_in_a_shell(data, tmp_path, capsys):
    out = str(tmp_path / "it's mine.json")
    spec = json.dumps({"use": "lexical", "long_documents": "head_tail", "top_n": 3})
    assert main(["calibrate", spec, "--data", data, "--out", out]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(last.removeprefix("use it: "))
    assert words[0] == "-r"
    assert json.loads(words[1]) == {"use": "lexical", "long_documents": "head_tail", "calibration": out}
    (tmp_path / "cats.txt").write_text("a cat\na dog\n", "utf-8")
    assert main(["rerank", "cat", str(tmp_path / "cats.txt"), *words]) == 0


def test_readmes_command_and_spec(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")

    def documented(command):
        return shlex.split(re.search(rf"^rerank-plugins ({command} .*)$", readme, re.MULTILINE)[1])

    assert main(documented("calibrate")) == 0
    assert Path("embedded.svg").exists()
    (spec,) = re.findall(r"`(\{[^`]*calibration = [^`]*\})`", readme)
    load_reranker(tomllib.loads(f"spec = {spec}")["spec"]).rerank("fruit1 colour1", next(rows())["candidates"])


def test_the_same_again(data, tmp_path):
    for name in ("one", "two"):
        assert main(["calibrate", "lexical", "--data", data, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_of_a_beir_folder(tmp_path, capsys):
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


def test_candidates_as_compare_takes_them_and_texts_with_other_ends_of_lines(tmp_path):
    """The same scores, whether a candidate is a text or an object around one; U+2028 and U+0085 end no line."""

    def fitted(name: str, form) -> bytes:
        file = tmp_path / f"{name}.jsonl"
        told = [{**row, "candidates": [form(f"{each}\u2028\x85") for each in row["candidates"]]} for row in rows()]
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in told), "utf-8-sig")
        assert main(["calibrate", "lexical", "--data", str(file), "--out", str(tmp_path / name)]) == 0
        return (tmp_path / name).read_bytes()

    assert fitted("texts", str) == fitted("objects", lambda text: {"id": "a", "text": text, "score": 1.0})


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ('{"cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}', "one backend's scores"),
        ('{"use": "lexical", "fuse": {"with": "retrieval"}}', "one backend's scores"),
        ("passthrough", "only orders"),
    ],
)
def test_what_has_no_scores_of_one_backend(data, tmp_path, capsys, spec, why):
    assert main(["calibrate", spec, "--data", data, "--out", str(tmp_path / "cal.json")]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "cal.json").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no json", "line 1 is no JSON"),
        ("[]", "line 1 is no JSON object"),
        ('{"query": "a", "candidates": ["b"], "labels": []}', "one label for each candidate"),
        ("", "Give more judged data"),
        ('{"query": "a", "candidates": [7], "labels": [1]}', "line 1: it needs"),
        ('{"query": "a", "candidates": ["b"], "labels": [NaN]}', "line 1: it needs"),
        ('{"query": "a", "candidates": ["b"], "labels": [1e999]}', "line 1: it needs"),
    ],
)
def test_broken_data(tmp_path, capsys, text, why):
    (tmp_path / "data.jsonl").write_text(text, "utf-8")
    arguments = ["--data", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "cal.json")]
    assert main(["calibrate", "lexical", *arguments]) == 2
    assert why in capsys.readouterr().err


def test_no_data_and_a_plot_of_another_kind(data, tmp_path, capsys):
    out = str(tmp_path / "cal.json")
    assert main(["calibrate", "lexical", "--data", str(tmp_path / "none"), "--out", out]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["calibrate", "lexical", "--data", data, "--out", out, "--plot", "plot.pdf"]) == 2
    assert ".svg or .html" in capsys.readouterr().err
    for option in ("--out", "--plot"):  # before anything is asked
        files = {"--out": out, "--plot": str(tmp_path / "plot.svg"), option: str(tmp_path / "none" / "it.svg")}
        line = [each for pair in files.items() for each in pair]
        assert main(["calibrate", "lexical", "--data", str(tmp_path / "no data"), *line]) == 2
        assert f"{option} {files[option]} is in a folder that is not there" in capsys.readouterr().err
    assert not (tmp_path / "cal.json").exists()

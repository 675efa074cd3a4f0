"""`rerank-plugins batch` with real files and a local S3 server: no row is lost, duplicated or reranked twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.cli import main
from rerank_plugins.serving.batch import BatchCounts, BatchJob, in_one_process, run
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "object_storage"))

from s3_server import KEYS, S3Server

QUERIES = [f"cat number {number}" for number in range(7)]
DOCUMENTS = [f"{other} is a number" for other in range(10)] + ["a cat", ""]


def rows(count: int = 7) -> list[dict]:
    return [{"id": number, "query": f"cat number {number}", "documents": DOCUMENTS} for number in range(count)]


def batch(source, target, *more, spec="lexical", parts=2) -> int:
    command = ["batch", "--input", str(source), "--output", str(target), "-r", spec, "--rows-per-part", str(parts)]
    return main([*command, *more])


def written(folder: Path, kind="parquet") -> list[dict]:
    files = sorted(folder.glob(f"part-*.{kind}"))
    if kind == "parquet":
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def set_aside(folder: Path) -> list[dict]:
    files = sorted(folder.glob("_set_aside/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def check(reranked_rows: list[dict], top_n=None) -> None:
    """Assert that every row has the answer that the reranker gives for it alone."""
    reranker = load_reranker("lexical", top_n=top_n)
    for row in reranked_rows:
        alone = reranker.rerank(row["query"], DOCUMENTS)
        assert [each["index"] for each in row["reranked"]] == [each.index for each in alone]
        assert [each["document"] for each in row["reranked"]] == [each.document for each in alone]
        assert [each["raw_score"] for each in row["reranked"]] == pytest.approx(
            [each.raw_score for each in alone], abs=1e-5, nan_ok=True
        )
        assert (row["rerank_model"], row["rerank_degraded"], row["rerank_reason"]) == ("lexical", False, None)
        assert "documents" not in row


@pytest.fixture
def parquet(tmp_path):
    """The file has types that JSON lacks, and row groups that are not aligned with the parts."""
    table = pa.Table.from_pylist(rows()).append_column("when", pa.array([0] * 7, pa.timestamp("us", "UTC")))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    return tmp_path / "in.parquet"


def test_parquet(parquet, tmp_path, capsys):
    assert batch(parquet, tmp_path / "out", "--top-n", "4") == 0
    output = written(tmp_path / "out")
    assert [row["id"] for row in output] == list(range(7))
    check(output, top_n=4)
    assert pq.read_schema(tmp_path / "out" / "part-00000-00000.parquet").field("when").type == pa.timestamp("us", "UTC")
    assert capsys.readouterr().out.startswith("7 rows reranked into")


def test_progress_is_shown_only_on_a_terminal(parquet, tmp_path, monkeypatch, capsys):
    assert batch(parquet, tmp_path / "out") == 0
    assert capsys.readouterr().err == ""
    (tmp_path / "out" / "_done" / "00000-00003.json").unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert batch(parquet, tmp_path / "out") == 0
    shown = capsys.readouterr().err.split("\r")
    first, last = shown[1], shown[-1]
    assert "3/4" in first
    assert "4/4" in last
    assert "7 rows, 0 set aside, " in last
    assert last.rstrip(" \n").endswith(" rows/s]")  # tqdm fills up with spaces when the line before was longer
    assert last.endswith("\n")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_folder_of_jsonl_is_reranked(tmp_path, kind):
    (tmp_path / "in").mkdir()
    for name, part in (("b.jsonl", rows()[4:]), ("a.ndjson", rows()[:4]), ("c.jsonl", [])):
        lines = [json.dumps(row, ensure_ascii=False) for row in part]
        (tmp_path / "in" / name).write_text(
            "\n\n".join(lines), "utf-8"
        )  # blank lines are not rows; there is no newline at the end
    assert batch(tmp_path / "in", tmp_path / "out", "--format", kind) == 0
    output = written(tmp_path / "out", kind)
    assert [row["id"] for row in output] == list(range(7))
    check(output)


def test_other_fields_of_jsonl_rows_are_kept_in_parquet(tmp_path):
    """Fields that the first row lacks or that have several types are kept, and all parts have the same columns."""
    besides = [
        {"id": 1, "number": 1, "meta": {}, "deep": {"a": [1]}},
        {"id": "two", "number": 0.5, "note": "a half emoji: \ud83d", "large": 2**70},
        {"id": None, "number": None, "meta": {"a": 1}, "deep": {"b": "x"}},
    ]
    lines = [json.dumps({"query": "cat", "documents": ["a \ud83d cat"]} | each) for each in besides]
    lines.insert(1, json.dumps({"query": None, "documents": [], "number": "at fault"}))  # changes no type
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "out", "--format", "parquet", parts=1) == 1
    assert len({pq.read_schema(file) for file in (tmp_path / "out").glob("part-*.parquet")}) == 1
    output = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in output] == ["1", '"two"', None]  # as JSON, because the types differ
    assert [row["number"] for row in output] == [1.0, 0.5, None]
    assert [row["note"] for row in output] == [None, "a half emoji: �", None]
    assert [row["large"] for row in output] == [None, str(2**70), None]
    assert [row["meta"] for row in output] == [{"a": None}, None, {"a": 1}]
    assert [row["deep"] for row in output] == [{"a": [1], "b": None}, None, {"a": None, "b": "x"}]
    assert output[0]["reranked"][0]["document"] == "a � cat"
    assert len(set_aside(tmp_path / "out")) == 1


def test_empty_object_and_inexact_integer_are_kept(tmp_path, capsys):
    rows_of = [{"query": "cat", "documents": [], "meta": {}}] * 2
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows_of)), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "out", "--format", "parquet", parts=1) == 0
    assert pq.read_table(tmp_path / "out")["meta"].to_pylist() == ["{}", "{}"]
    rows_of = [{"query": "cat", "documents": [], "n": n} for n in (2**60 + 1, 0.5)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows_of)), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "other", "--format", "parquet", parts=1) == 0
    assert pq.read_table(tmp_path / "other")["n"].to_pylist() == [str(2**60 + 1), "0.5"]
    assert "written as text, each value as JSON" in capsys.readouterr().err


def test_nan_and_infinity_from_parquet_are_null_in_jsonl(tmp_path):
    row = {"query": "cat", "documents": ["a"], "numbers": [1.0, float("nan"), float("inf")]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "in.parquet")
    assert batch(tmp_path / "in.parquet", tmp_path / "out", "--format", "jsonl") == 0
    assert written(tmp_path / "out", "jsonl")[0]["numbers"] == [1.0, None, None]


def test_nan_and_infinity_of_jsonl_stay_in_jsonl(tmp_path, capsys):
    row = {"query": "cat", "documents": ["a"], "numbers": [1.0, float("nan"), float("inf")]}
    lines = [row, {"query": None, "documents": [], "x": float("nan")}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    for kind in ("jsonl", "parquet"):
        assert batch(tmp_path / "in.jsonl", tmp_path / kind, "--format", kind) == 1
        assert repr(written(tmp_path / kind, kind)[0]["numbers"]) == "[1.0, nan, inf]"
    assert repr(set_aside(tmp_path / "jsonl")[0]["value"]["x"]) == "nan"
    assert "null" not in capsys.readouterr().err


def nested(levels: int, kind: type) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize(("kind", "levels"), [(list, 50), (dict, 100), (list, 150), (dict, 190)])
def test_field_that_parquet_cannot_hold_is_kept_as_json(tmp_path, capsys, kind, levels):
    rows_of = [{"query": "cat", "documents": ["a cat"], "deep": nested(n, kind), "flat": [[1]]} for n in (levels,)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, [rows_of[0], {**rows_of[0], "deep": None}])), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "out", "--format", "parquet", parts=1) == 0
    assert "each value as JSON, since Parquet has no one type for their values: deep\n" in capsys.readouterr().err
    first, second = written(tmp_path / "out")
    assert json.loads(first["deep"]) == nested(levels, kind)
    assert second["deep"] is None
    assert first["flat"] == [[1]]


def test_row_nested_too_deep_is_set_aside(tmp_path):
    deep = f'{{"query": "cat", "documents": ["a"], "deep": {"[" * 400}{"]" * 400}}}'
    wide = {"query": "cat", "documents": ["a"], "wide": [[]] * 400}
    (tmp_path / "in.jsonl").write_text(f"{deep}\n{json.dumps(wide)}\n", "utf-8")
    for kind in ("jsonl", "parquet"):
        assert batch(tmp_path / "in.jsonl", tmp_path / kind, "--format", kind) == 1
        assert [row["wide"] for row in written(tmp_path / kind, kind)] == [[[]] * 400]
        (bad,) = set_aside(tmp_path / kind)
        assert bad["reason"] == "nested deeper than 200 levels"
        assert bad["value"] == deep


def test_ambiguous_names_and_values_are_kept_in_parquet(tmp_path):
    besides = [
        {"a.b": 1, "a": {"b": 2}, "": "x", "mixed": [1, "two", None], "large": 10**30, "empty": [{}], "näme": True},
        {"a.b": 2.5, "a": {"b": None}, "": None, "mixed": {"x": 1}, "large": -1, "empty": [], "näme": None},
    ]
    lines = [json.dumps({"query": "cat", "documents": ["a cat"]} | each) for each in besides]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "out", "--format", "parquet", parts=1) == 0
    first, second = written(tmp_path / "out")
    assert (first["a.b"], second["a.b"], first["a"], second["a"]) == (1.0, 2.5, {"b": 2}, {"b": None})
    assert (first[""], first["näme"], second["näme"]) == ("x", True, None)
    for name in ("mixed", "large", "empty"):
        assert [json.loads(first[name]), json.loads(second[name])] == [each[name] for each in besides]


@pytest.mark.parametrize("name", ["reranked", "rerank_model", "rerank_degraded", "rerank_reason"])
def test_input_column_with_an_added_name_is_refused(tmp_path, capsys, name):
    table = pa.Table.from_pylist([row | {name: "mine"} for row in rows()])
    pq.write_table(table, tmp_path / "in.parquet")
    assert batch(tmp_path / "in.parquet", tmp_path / "out") == 2
    assert (
        f"has a column {name!r}, which is the name of a column that the output adds. Rename it."
        in capsys.readouterr().err
    )
    lines = [json.dumps(row | ({name: "mine"} if row["id"] == 3 else {})) for row in rows()]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "other") == 1
    (bad,) = set_aside(tmp_path / "other")
    assert (bad["row"], bad["value"][name]) == (4, "mine")
    assert bad["reason"].startswith(f"has a field {name!r}")
    assert len(written(tmp_path / "other", "jsonl")) == 6


def test_a_column_twice_is_refused(tmp_path, capsys):
    table = pa.Table.from_arrays(
        [pa.array(["q"]), pa.array([["d"]]), pa.array([1]), pa.array([2])], names=["query", "documents", "x", "x"]
    )
    pq.write_table(table, tmp_path / "in.parquet")
    assert batch(tmp_path / "in.parquet", tmp_path / "out") == 2
    assert "more than one column 'x'" in capsys.readouterr().err


def test_wrong_column_names_stop_the_command(tmp_path, capsys):
    lines = [json.dumps({"question": row["query"], "documents": DOCUMENTS}) for row in rows()]
    (tmp_path / "in.jsonl").write_text("\n".join([lines[0], "no JSON", *lines[1:]]), "utf-8")
    assert batch(tmp_path / "in.jsonl", tmp_path / "out") == 2
    assert (
        "has a field 'query'; they have question, documents. Name the field to read: --query-column"
        in capsys.readouterr().err
    )
    assert (
        batch(tmp_path / "in.jsonl", tmp_path / "out", "--query-column", "question", "--retrieval-scores-column", "s")
        == 2
    )
    assert "has a field 's'" in capsys.readouterr().err
    assert batch(tmp_path / "in.jsonl", tmp_path / "out", "--query-column", "question") == 1
    assert len(written(tmp_path / "out", "jsonl")) == 7


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_input_edited_to_same_size_and_time_is_another_job(tmp_path, capsys, kind):
    source = tmp_path / f"in.{kind}"

    def write(changed: str) -> None:
        edited = [row | {"query": row["query"].replace("cat", changed)} for row in rows()]
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(edited), source, compression="none", use_dictionary=False)
        else:
            source.write_text("\n".join(map(json.dumps, edited)), "utf-8")
        os.utime(source, ns=(1, 1))

    write("cat")
    size = source.stat().st_size
    assert batch(source, tmp_path / "out") == 0
    assert batch(source, tmp_path / "out") == 0
    write("dog")
    assert source.stat().st_size == size
    assert batch(source, tmp_path / "out") == 2
    assert "parts differ (an input file was edited, added or removed)" in capsys.readouterr().err
    assert batch(source, tmp_path / "new") == 0


def test_an_input_that_changes_while_the_batch_runs_stops_it(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, rows())), "utf-8")
    job = BatchJob(str(source), str(tmp_path / "out"), spec="lexical", kind="jsonl", rows_per_part=3)
    finished_parts: list[int] = []

    def edit(done: BatchCounts, parts: int) -> None:
        finished_parts.append(done.parts)
        source.write_text(source.read_text("utf-8").replace("cat", "dog"), "utf-8")

    with pytest.raises(ConfigError, match="was changed while the batch runs"):
        run(job, in_one_process, edit)
    assert finished_parts == [0]


def test_ignored_files_are_reported(parquet, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    for name in ("one.jsonl.gz", "_SUCCESS", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    assert batch(tmp_path, tmp_path / "more" / "out") == 0
    assert "2 passed over, not ending in .parquet, .jsonl, .ndjson: more, one.jsonl.gz" in capsys.readouterr().err


def test_invalid_rows_are_set_aside_with_the_reason(tmp_path, capsys):
    good = rows(3)
    lines = [
        json.dumps(good[0]).encode(),
        b"{",
        b'["no", "object"]',
        b"\xff\xfe",
        json.dumps({"id": 9, "query": "cat"}).encode(),
        json.dumps({"id": 10, "query": 5, "documents": ["a"]}).encode(),
        json.dumps({"id": 11, "query": " ", "documents": ["a"]}).encode(),
        json.dumps({"id": 12, "query": "cat", "documents": ["a", None]}).encode(),
        json.dumps({"id": 13, "query": "cat", "documents": "a"}).encode(),
        json.dumps(good[1]).encode(),
        b"",
        json.dumps(good[2]).encode(),
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    assert batch(tmp_path / "in.jsonl", tmp_path / "out") == 1
    assert [row["id"] for row in written(tmp_path / "out", "jsonl")] == [0, 1, 2]
    bad = set_aside(tmp_path / "out")
    assert [row["row"] for row in bad] == [2, 3, 4, 5, 6, 7, 8, 9]
    words = [
        "JSON",
        "object",
        "UTF-8",
        "documents",
        "query",
        "blank",
        "Document 1",
        "must be a list of strings or mappings, got one str",
    ]
    assert [word for word, row in zip(words, bad, strict=True) if word not in row["reason"]] == []
    assert bad[4]["value"] == {"id": 10, "query": 5, "documents": ["a"]}
    assert "3 rows reranked" in (out := capsys.readouterr().out)
    assert "8 set aside" in out


def test_documents_may_be_objects(tmp_path):
    row = {"query": "cat", "documents": [{"title": "bananas"}, {"title": "a cat", "body": "soft"}]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "in.parquet")
    assert batch(tmp_path / "in.parquet", tmp_path / "out") == 0
    (reranked_row,) = written(tmp_path / "out")
    assert [json.loads(each["document"]) for each in reranked_row["reranked"]] == [
        row["documents"][1],
        row["documents"][0],
    ]


def test_batch_after_an_outage_repeats_no_finished_part(parquet, tmp_path, capsys):
    with CohereLike() as vendor:
        spec = json.dumps({"use": "http", "base_url": vendor.url, "api_key": vendor.key, "retry": 1})
        vendor.always(Status(503), lambda request: request.body["query"] == QUERIES[5])
        assert batch(parquet, tmp_path / "out", "--in-flight", "1", spec=spec) == 1
        assert "503" in capsys.readouterr().err
        assert len(written(tmp_path / "out")) == 4
        with CohereLike(key=vendor.key) as better:
            spec = json.dumps({"use": "http", "base_url": better.url, "api_key": vendor.key, "retry": 1})
            assert batch(parquet, tmp_path / "out", "--in-flight", "1", spec=spec) == 2  # another address: another job
            assert "another job: reranker" in capsys.readouterr().err
        vendor.reset()
        spec = json.dumps({"use": "http", "base_url": vendor.url, "api_key": vendor.key, "retry": 1})
        assert batch(parquet, tmp_path / "out", "--in-flight", "1", spec=spec) == 0
        assert [request.body["query"] for request in vendor.requests] == QUERIES[4:]
    assert [row["id"] for row in written(tmp_path / "out")] == list(range(7))
    assert "7 rows reranked" in capsys.readouterr().out
    assert list((tmp_path / "out").rglob("*.unfinished")) == []


def test_killed_batch_resumes(parquet, tmp_path):
    with CohereLike() as vendor:
        vendor.delay = 0.2
        spec = json.dumps({"use": "http", "base_url": vendor.url, "api_key": vendor.key})
        command = [sys.executable, "-m", "rerank_plugins", "batch", "--input", str(parquet), "-r", spec]
        command += ["--output", str(tmp_path / "out"), "--rows-per-part", "2", "--in-flight", "1"]
        with subprocess.Popen(command) as killed:
            while not list((tmp_path / "out" / "_done").glob("*.json")):
                assert killed.poll() is None
            killed.kill()
        vendor.reset()
        assert batch(parquet, tmp_path / "out", "--in-flight", "1", spec=spec) == 0
        whole = [
            request.body for request in vendor.requests if request.body is not None
        ]  # the kill may cut a request off
        assert QUERIES[0] not in [body["query"] for body in whole]
    assert [row["id"] for row in written(tmp_path / "out")] == list(range(7))


@pytest.mark.parametrize("order", [[200, 422], [422, 200]])
def test_files_left_by_a_killed_batch_are_replaced(parquet, tmp_path, order):
    """A batch is killed after it writes a part and before it marks it as done; then the vendor's answer changes."""
    with CohereLike() as vendor:
        spec = json.dumps({"use": "http", "base_url": vendor.url, "api_key": vendor.key})
        for status in order:
            vendor.reset()
            if status != 200:
                vendor.always(Status(status), lambda request: request.body["query"] == QUERIES[0])
            batch(parquet, tmp_path / "out", spec=spec, parts=1)
            if status == order[0]:
                (tmp_path / "out" / "_done" / "00000-00000.json").unlink()
    refused = order[-1] != 200
    assert [row["id"] for row in written(tmp_path / "out")] == list(range(refused, 7))
    assert len(set_aside(tmp_path / "out")) == refused


def test_other_input_with_the_same_name_is_another_job(parquet, tmp_path, capsys):
    assert batch(parquet, tmp_path / "out") == 0
    pq.write_table(pa.Table.from_pylist([row | {"query": "a longer query"} for row in rows()]), parquet)
    assert batch(parquet, tmp_path / "out") == 2
    assert "parts differ" in capsys.readouterr().err


def test_refused_row_is_set_aside_but_wrong_key_stops_the_batch(parquet, tmp_path, capsys):
    with CohereLike() as vendor:
        vendor.always(Status(422), lambda request: request.body["query"] == QUERIES[1])
        spec = {"use": "http", "base_url": vendor.url, "api_key": vendor.key}
        assert batch(parquet, tmp_path / "out", spec=json.dumps(spec)) == 1
        assert [row["value"]["id"] for row in set_aside(tmp_path / "out")] == [1]
        assert [row["id"] for row in written(tmp_path / "out")] == [0, 2, 3, 4, 5, 6]
        assert batch(parquet, tmp_path / "other", spec=json.dumps(spec | {"api_key": "wrong-key-0123456"})) == 1
        assert "401" in capsys.readouterr().err
        assert vendor.key not in (tmp_path / "out" / "_job.json").read_text("utf-8")
    assert written(tmp_path / "other") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "nowhere"}, "does not exist"),
        ({"source": "notes.txt"}, "no file that ends in"),
        ({"more": ["--query-column", "question"]}, "no column 'question'; it has id, query"),
        ({"more": ["--top-n", "0"]}, "top_n"),
        ({"more": ["--in-flight", "0"]}, "in_flight"),
        ({"parts": 0}, "rows_per_part"),
        ({"target": "."}, "is not empty and holds no batch"),
        ({"source": "gs://bucket/in.parquet"}, "neither a path nor an s3:// address"),
        ({"target": "gs://bucket/out"}, "neither a path nor an s3:// address"),
        ({"spec": "lexikal"}, "lexical"),
    ],
)
def test_invalid_arguments_are_refused(parquet, tmp_path, monkeypatch, capsys, change, words):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("a", "utf-8")
    arguments = {"source": parquet, "target": "out", "more": [], "parts": 2, "spec": "lexical"} | change
    more = arguments.pop("more")
    assert batch(arguments.pop("source"), arguments.pop("target"), *more, **arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(
    sys.platform == "darwin" and not shutil.which("weed"), reason="no wheel for macOS: brew install seaweedfs"
)
def test_batch_from_s3_to_s3_writes_every_row(tmp_path, monkeypatch):
    server = S3Server(tmp_path).start()
    try:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}).items():
            monkeypatch.setenv(name, value)
        files = pa.fs.S3FileSystem(endpoint_override=server.url, region="us-east-1", allow_bucket_creation=True)
        files.create_dir("mine")
        pq.write_table(pa.Table.from_pylist(rows()), "mine/in/questions.parquet", filesystem=files)
        assert batch("s3://mine/in", "s3://mine/out") == 0
        assert batch("s3://mine/in", "s3://mine/out") == 0  # all is done
        output = pq.read_table("mine/out", filesystem=files)  # readers of a folder do not see rejected rows
        assert sorted(output["id"].to_pylist()) == list(range(7))
        check(output.to_pylist())
    finally:
        server.kill()
    assert os.environ["AWS_ENDPOINT_URL"] == server.url

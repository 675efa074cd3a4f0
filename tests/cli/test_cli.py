"""The command line: most tests call `main`, a few run the program as a process."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rerank_plugins import __version__
from rerank_plugins.cli import main
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status

COMMAND = [sys.executable, "-m", "rerank_plugins"]


@pytest.fixture
def closed_url():
    """Yield the URL of a port without a server. It stays bound, so that no other program opens it during the test."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def cats(tmp_path) -> str:
    file = tmp_path / "cats.txt"
    file.write_text("bananas\n\nthe cat sat on the cat\n  \na cat and a dog and a horse\n", "utf-8")
    return str(file)


def read_jsonl(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- rerank: output ---


def test_rerank_prints_a_table(cats, capsys):
    assert main(["rerank", "cat", cats, "--reranker", "lexical"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["rank", "score", "where", "document"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert lines[1].endswith(f"{cats}:3  the cat sat on the cat")  # blank lines are no documents, but count as lines
    assert lines[3].split()[1] == "0.0000"
    assert err == ""


def test_json_prints_one_object_per_result(cats, capsys):
    assert main(["rerank", "cat", cats, "-r", "lexical", "--json", "--top-n", "2"]) == 0
    rows = read_jsonl(capsys)
    assert [(row["rank"], row["index"], row["line"]) for row in rows] == [(1, 1, 3), (2, 2, 5)]
    assert list(rows[0]) == [
        "rank",
        "index",
        "relevance_score",
        "raw_score",
        "truncated",
        "reason",
        "file",
        "line",
        "document",
    ]
    assert rows[0]["document"] == "the cat sat on the cat"
    assert rows[0]["file"] == cats
    assert 0 < rows[1]["relevance_score"] < rows[0]["relevance_score"] < 1


def test_format_jsonl_equals_json(cats, capsys):
    main(["rerank", "cat", cats, "-r", "lexical", "--json"])
    one = capsys.readouterr().out
    main(["rerank", "cat", cats, "-r", "lexical", "--format", "jsonl"])
    assert capsys.readouterr().out == one


def test_passthrough_prints_no_scores(cats, capsys):
    assert main(["rerank", "cat", cats, "-r", "passthrough"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["-", "-", "-"]


def test_documents_are_printed_without_control_characters(tmp_path, capsys):
    file = tmp_path / "evil.jsonl"
    file.write_text('"cat \\u001b[2J\\u0007 on\\ntwo lines \\u202e"\n', "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "lexical"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_score_threshold_removes_documents(cats, capsys):
    assert main(["rerank", "cat", cats, "-r", "lexical", "--json", "--score-threshold", "0.01"]) == 0
    assert [row["index"] for row in read_jsonl(capsys)] == [1, 2]


# --- rerank: input ---


def test_jsonl_objects_are_read_whole(tmp_path, capsys):
    file = tmp_path / "hits.jsonl"
    rows = ["no animal", {"id": 7, "text": "a cat"}, {"title": "dog", "body": "cat"}]
    file.write_text("\n\n".join(map(json.dumps, rows)), "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--json"]) == 0
    output = read_jsonl(capsys)
    assert [row["line"] for row in output] == [5, 3, 1]  # all fields of an object are read
    assert [row["document"] for row in output] == [rows[2], rows[1], rows[0]]  # as they were read, with the id


def test_field_and_fields_select_the_text(tmp_path, capsys):
    file = tmp_path / "hits.ndjson"
    file.write_text('{"text": "cat", "body": "dog"}\n{"text": "dog", "body": "cat"}\n', "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--json"]) == 0
    first, second = read_jsonl(capsys)
    assert first["raw_score"] == second["raw_score"] > 0  # all fields are read, as from Python
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--json", "--fields", "body"]) == 0
    assert [row["index"] for row in read_jsonl(capsys)] == [1, 0]
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--json", "--field", "body"]) == 0
    assert [row["index"] for row in read_jsonl(capsys)] == [1, 0]


def test_jsonl_is_read_by_file_name_or_with_the_option(tmp_path, capsys):
    file = tmp_path / "hits"
    file.write_text('{"text": "cat"}\n', "utf-8")
    main(["rerank", "cat", str(file), "-r", "lexical", "--json"])
    assert read_jsonl(capsys)[0]["document"] == '{"text": "cat"}'
    main(["rerank", "cat", str(file), "-r", "lexical", "--json", "--jsonl"])
    assert read_jsonl(capsys)[0]["document"] == {"text": "cat"}


def test_files_and_stdin_are_read_in_the_order_of_arguments(cats, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"cat from a pipe\n")))
    assert main(["rerank", "cat", "-", cats, "-r", "passthrough", "--json"]) == 0
    assert [(row["file"], row["index"]) for row in read_jsonl(capsys)] == [("-", 0), (cats, 1), (cats, 2), (cats, 3)]


@pytest.mark.parametrize(
    "order",
    [
        ["rerank", "cat", "--top-n", "1", "FILE", "-r", "lexical"],
        ["rerank", "--top-n", "1", "-r", "lexical", "cat", "FILE"],
        ["rerank", "-r", "lexical", "--top-n", "1", "--", "cat", "FILE"],
        ["rerank", "cat", "-r", "lexical", "--top-n", "1", "--", "FILE"],
    ],
)
def test_options_may_come_before_and_after_files(order, cats, capsys):
    assert main([cats if word == "FILE" else word for word in order]) == 0
    assert "the cat sat" in capsys.readouterr().out


def test_windows_line_ends_and_byte_order_mark_are_removed(tmp_path, capsys):
    file = tmp_path / "windows.txt"
    file.write_bytes(b"\xef\xbb\xbfcat\r\n\r\ndog\r\n")
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--json"]) == 0
    assert [(row["line"], row["document"]) for row in read_jsonl(capsys)] == [(1, "cat"), (3, "dog")]


def test_jsonl_keeps_all_characters(tmp_path, capsys):
    file = tmp_path / "odd.jsonl"
    file.write_text('"cat \\ud800 x"\n"שלום cat"\n"cat\\u0000 nul"\n"" \n', "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "passthrough", "--json"]) == 0
    rows = read_jsonl(capsys)
    assert [row["document"] for row in rows] == ["cat � x", "שלום cat", "cat\0 nul", ""]
    assert rows[3]["reason"].startswith("blank")


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n"])
def test_no_documents_print_no_output(content, tmp_path, capsys):
    file = tmp_path / "empty.txt"
    file.write_bytes(content)
    assert main(["rerank", "cat", str(file), "-r", "lexical"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"rerank-plugins: no documents in {file}: nothing to rank.\n"


# --- errors ---


def read_error(capsys) -> str:
    """Return stderr, which must be one error of at most two lines, with an empty stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rerank-plugins: ")
    assert "Traceback" not in err
    assert 1 <= len(err.splitlines()) <= 2
    return err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["rernak"], "rernak"),
        (["rerank"], "QUERY"),
        (["rerank", "q", "FILE", "--top", "x"], "invalid int value"),
        (["rerank", "q", "FILE", "--bogus"], "--bogus"),
        (["list", "FILE"], "unrecognized"),
        (["rerank", "q", "FILE", "--top-n", "0"], "top_n"),
        (["rerank", "q", "FILE", "--top-n", "-1"], "top_n"),
        (["rerank", " ", "FILE"], "query is blank"),
        (["rerank", "q", "FILE", "-r", "lexicall"], "Did you mean 'lexical'"),
        (["rerank", "q", "FILE", "-r", '{"use": "lexical"'], "starts like JSON"),
        (["rerank", "q", "FILE", "-r", '{"use": "lexical", "topn": 3}'], "Did you mean 'top_n'"),
        (["rerank", "q", "FILE", "--config", "/nowhere.toml"], "/nowhere.toml cannot be read"),
        (["rerank", "q", "FILE", "--instruction", "be brief"], "cannot follow an instruction"),
        (["rerank", "q", "FILE", "--score-threshold", "2"], "from 0 to 1"),
        (["rerank", "q", "FILE", "-r", "passthrough", "--score-threshold", "0.5"], "only order"),
        (["rerank", "q", "/nowhere.txt"], "/nowhere.txt cannot be read: No such file"),
        (["rerank", "q", "/"], "directory"),
        (["check", "lexicall"], "Did you mean 'lexical'"),
        (
            ["check", "rerank.toml"],
            "'rerank.toml' is the name of a file, not of a reranker: write --config rerank.toml",
        ),
        (["list", "--config", "/nowhere.toml"], "cannot be read"),
    ],
)
def test_wrong_use_exits_with_two(argv, message, cats, monkeypatch, capsys):
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
    assert main([cats if word == "FILE" else word for word in argv]) == 2
    assert message in read_error(capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'"ok"\n{"text": "cut\n', "line 2 is not JSON"),
        (b'"ok"\n\n[1, 2]\n', "line 3 must be"),
        (b'"ok"\nnull\n', "line 2 must be"),
        (b'"ok"\n"\xff\xfe"\n', "line 2 is not UTF-8 (byte 0xff)"),
        (b"[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_invalid_lines_are_named_by_file_and_number(content, message, tmp_path, capsys):
    file = tmp_path / "hits.jsonl"
    file.write_bytes(content)
    assert main(["rerank", "cat", str(file), "-r", "lexical"]) == 2
    error = read_error(capsys)
    assert f"{file}, {message}" in error
    assert "cut" not in error  # what a document says is never shown


def test_field_that_holds_no_text_is_named(tmp_path, capsys):
    file = tmp_path / "hits.jsonl"
    file.write_text('{"text": 5}\n', "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--field", "text"]) == 2
    assert f"{file}, line 1: the field 'text' must be a string" in read_error(capsys)


def test_fields_that_are_not_read_are_printed_as_reason(tmp_path, capsys):
    file = tmp_path / "hits.jsonl"
    file.write_text(json.dumps({"text": "cat", "vector": [0.5] * 20}) + "\n", "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "lexical"]) == 0
    assert "(fields not read: vector (20 numbers))" in capsys.readouterr().out


def test_missing_field_names_the_existing_ones(tmp_path, capsys):
    file = tmp_path / "hits.jsonl"
    file.write_text('{"title": "a", "body": "b"}\n', "utf-8")
    assert main(["rerank", "cat", str(file), "-r", "lexical", "--field", "txt"]) == 2
    assert "no field 'txt': its fields are 'title', 'body'" in read_error(capsys)


def test_failing_backend_exits_with_one(cats, closed_url, capsys):
    spec = json.dumps({"use": "http", "base_url": closed_url, "retry": 1})
    assert main(["rerank", "cat", cats, "-r", spec]) == 1
    assert "No answer from" in read_error(capsys)


def test_fallback_is_reported_on_stderr(cats, closed_url, capsys):
    spec = json.dumps({"use": "http", "base_url": closed_url, "retry": 1, "fallback": ["lexical"]})
    assert main(["rerank", "cat", cats, "-r", spec, "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.startswith("rerank-plugins: ")
    assert "lexical answered in place of http" in err
    assert len(err.splitlines()) == 1


# --- list, check, version, help ---


def test_list_groups_backends_by_kind(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("embedded", "lexical", "passthrough", "onnx", "http"):
        assert f"  {name} " in out
    assert out.index("local:") < out.index("embedded") < out.index("server:") < out.index("http")


def test_list_prints_the_pip_command_of_a_missing_package(monkeypatch, capsys):
    from rerank_plugins.config import registry

    entry = registry.BackendEntry(
        "nowhere:Acme", "a vendor", kind="hosted", extra="acme", packages=("json", "acme_sdk_x")
    )
    monkeypatch.setitem(registry.BUILTIN, "acme", entry)
    assert main(["list"]) == 0
    assert "a vendor (missing acme_sdk_x: pip install 'rerank-plugins[acme]')" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["acme"] == {
        "name": "acme",
        "kind": "hosted",
        "summary": "a vendor",
        "confirmed": None,
        "notice": None,
        "installed": False,
        "missing": "acme_sdk_x",
        "install": "pip install 'rerank-plugins[acme]'",
    }
    assert rows["lexical"]["installed"] is True
    assert rows["lexical"]["install"] is None


def test_list_prints_the_rerankers_of_the_file(tmp_path, capsys):
    file = tmp_path / "rerank.toml"
    file.write_text('[rerankers.production]\nuse = "lexical"\n', "utf-8")
    assert main(["list", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[-2:]] == [["named:"], ["production", "lexical"]]


def test_list_marks_broken_rerankers_of_the_file(tmp_path, monkeypatch, capsys):
    from rerank_plugins.config import registry

    entry = registry.BackendEntry("nowhere:Acme", "a vendor", kind="hosted", extra="acme", packages=("acme_sdk_x",))
    monkeypatch.setitem(registry.BUILTIN, "acme", entry)
    monkeypatch.delenv("VOYAGE_API_KEY", raising=False)
    file = tmp_path / "rerank.toml"
    file.write_text(
        """
        [rerankers.fine]
        use = "lexical"
        fallback = ["staged"]
        [rerankers.staged]
        cascade = { stages = ["lexical", "embedded"], keep = 10 }
        [rerankers.typo]
        use = "lexical"
        topn = 5
        [rerankers.keyless]
        use = "jina-api"
        [rerankers.uninstalled]
        use = "acme"
        [rerankers.empty]
        """,
        "utf-8",
    )
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    assert main(["list", "--config", str(file)]) == 2
    printed = capsys.readouterr().out.split("named:\n")[1].splitlines()
    assert {line.split()[0] for line in printed if "broken" in line} == {"typo", "keyless", "empty"}
    line_of = {line.split()[0]: line for line in printed}
    assert re.search(
        r"\(broken: .*rerank\.toml \[rerankers\.typo\]: There is no option 'topn'\. Did you mean 'top_n'\?",
        line_of["typo"],
    )
    assert "needs a key" in line_of["keyless"]
    assert "(missing acme_sdk_x: pip install 'rerank-plugins[acme]')" in line_of["uninstalled"]
    assert line_of["staged"].endswith("cascade of 2 stages")
    assert main(["list", "--json", "--config", str(file)]) == 2
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["fine"]["error"] is None
    assert "topn" in rows["typo"]["error"]
    assert (rows["uninstalled"]["installed"], rows["uninstalled"]["missing"]) == (False, "acme_sdk_x")


def test_check_prints_one_line(tmp_path, capsys):
    file = tmp_path / "rerank.toml"
    file.write_text('[rerankers.production]\nuse = "lexical"\ntop_n = 1\nscore_threshold = 0.9\n', "utf-8")
    assert main(["check", "production", "--config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ok: lexical put the right document first; loaded in ")
    assert len(out.splitlines()) == 1
    assert err == ""


def test_check_warns_if_the_right_document_is_not_first(capsys):
    # The right document gets the lowest score.
    with CohereLike(score=lambda _, text: 0.0 if "reranker" in text else 0.5) as server:
        spec = {"use": "http", "base_url": server.url, "api_key": server.key}
        assert main(["check", json.dumps(spec)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("warning: http did NOT put the right document first; loaded in ")
    assert "check --golden" in out
    assert not out.startswith("ok")
    assert err == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compare", "d", "-r", "lexical", "--k", "0"], "argument --k: it must be an integer of at least 1, got 0"),
        (["compare", "d", "-r", "lexical", "--top-k", "-1"], "argument --top-k"),
        (["compare", "d", "-r", "lexical", "--limit", "0"], "argument --limit"),
        (["compare", "d", "-r", "lexical", "--at-once", "two"], "argument --at-once: it must be an integer"),
        (["compare", "d", "-r", "lexical", "--budget-ms", "nan"], "argument --budget-ms: it must be a finite number"),
        (["compare", "d", "-r", "lexical", "--budget-usd", "inf"], "argument --budget-usd"),
        (["calibrate", "--data", "d", "--out", "o", "--relevant-from", "nan"], "argument --relevant-from"),
        (["calibrate", "--data", "d", "--out", "o", "--candidates", "0"], "argument --candidates"),
        (["calibrate", "--data", "d", "--out", "o", "--seed", "-1"], "argument --seed"),
        (["batch", "--input", "i", "--output", "o", "--actors", "0"], "argument --actors"),
        (["batch", "--input", "i", "--output", "o", "--cpus-per-actor", "inf"], "argument --cpus-per-actor"),
        (["batch", "--input", "i", "--output", "o", "--cpus-per-actor", "nan"], "argument --cpus-per-actor"),
        (["serve", "lexical", "--max-body-mb", "inf"], "max_body_mb"),
        (["serve", "lexical", "--body-timeout", "nan"], "body_timeout"),
        (["rerank", "q", "FILE", "-r", "lexical", "--score-threshold", "nan"], "score_threshold"),
        (["compare", "d", "-r", "lexical", "--json", "x" * 4000], "--json must be a path that can be written"),
        (["rerank", "q", "FILE", "-r", '{"use":' * 20_000], "starts like JSON"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_arguments_out_of_range_are_refused(argv, message, cats, capsys):
    assert main([cats if word == "FILE" else word for word in argv]) == 2
    assert message in read_error(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compare", "d", "-r", "lexical", "--judge-check", "9"], "--judge-check has no effect without --judge: add"),
        (["compare", "d", "-r", "lexical", "--judge-check", "0"], "--judge-check has no effect without --judge: add"),
        (["compare", "d", "-r", "lexical", "--judge-sample", "s"], "--judge-sample has no effect without --judge"),
        (["compare", "d", "-r", "lexical", "--fail-below", "0.01"], "--fail-below has no effect without --baseline"),
        (["compare", "d", "-r", "lexical", "--fail-unclear"], "--fail-unclear has no effect without --baseline"),
        (
            ["compare", "d", "-r", "lexical", "--actors", "2"],
            "--actors has no effect without --ray: add --ray, or leave",
        ),
        (["compare", "d", "-r", "lexical", "--cpus-per-actor", "1"], "--cpus-per-actor has no effect without --ray"),
        (["compare", "l.jsonl", "-r", "lexical", "--run", "r"], "candidates and labels: leave out --run, or name a"),
        (["compare", "l.jsonl", "-r", "lexical", "--qrels", "q", "--corpus", "c"], "leave out --corpus, --qrels"),
        (["batch", "--input", "i", "--output", "o", "--actors", "8"], "--actors has no effect without --ray"),
        (["batch", "--input", "i", "--output", "o", "--cpus-per-actor", "1"], "--cpus-per-actor has no effect without"),
        (
            ["calibrate", "lexical", "--data", "l.jsonl", "--out", "o", "--candidates", "9"],
            "--candidates has no effect on",
        ),
        (["rerank", "cat", "cats.txt", "--field", "text"], "--field has no effect on plain text"),
        (["rerank", "cat", "cats.txt", "--fields", "text"], "--fields has no effect on plain text"),
        (["rerank", "cat", "l.jsonl", "--field", "text", "--fields", "text"], "not allowed with argument"),
        (["export", "./cats", "out", "--revision", "abc"], "--revision has no effect on the folder"),
    ],
)
def test_option_without_the_one_that_it_belongs_to_is_refused(argv, message, tmp_path, monkeypatch, capsys):
    """Before any request; an option that does nothing would look as if it did."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l.jsonl").write_text('{"query": "cat", "candidates": ["a cat"], "labels": [1]}', "utf-8")
    (tmp_path / "cats.txt").write_text("a cat\n", "utf-8")
    assert main(argv) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert {path.name for path in tmp_path.iterdir()} == {"l.jsonl", "cats.txt"}


def test_help_of_required_option_has_no_default(capsys):
    assert main(["compare", "--help"]) == 0
    help_text = " ".join(capsys.readouterr().out.split()).partition("--reranker SPEC")[2].partition("--top-k")[0]
    assert "required, and repeatable" in help_text
    assert "default" not in help_text


def test_check_without_spec_uses_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "passthrough")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("ok: passthrough keeps the order given;")


def test_check_exits_with_one_after_an_error_or_a_fallback(closed_url, capsys):
    spec = {"use": "http", "base_url": closed_url, "retry": 1}
    assert main(["check", json.dumps(spec)]) == 1
    assert "No answer from" in read_error(capsys)
    assert main(["check", json.dumps({**spec, "fallback": ["lexical"], "cache": True})]) == 1
    out, err = capsys.readouterr()
    first, reason, second = out.splitlines()
    assert first == "failed: http raised TransientError"
    assert "No answer from" in reason
    assert second.startswith("ok: lexical put the right document first; loaded in ")
    assert err == ""


def test_version_and_help_are_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rerank-plugins {__version__}\n"
    for argv in (["--help"], ["rerank", "--help"], ["list", "--help"], ["check", "--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert "exit codes:" in out
        assert argv == ["--help"] or f"rerank-plugins {argv[0]}" in out.split("examples:")[1]


# --- as processes ---


def run_process(*argv: str, stdin: bytes = b"", **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *argv], input=stdin, capture_output=True, timeout=60, check=False, **options)


def test_process_reads_and_writes_pipes():
    done = run_process("rerank", "cat", "-r", "lexical", "--json", stdin="dog\ncät cat\n".encode())
    assert done.returncode == 0
    assert done.stderr == b""
    assert json.loads(done.stdout.splitlines()[0])["document"] == "cät cat"


def test_installed_script_runs():
    done = subprocess.run(
        [Path(sys.executable).with_name("rerank-plugins"), "--version"], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == f"rerank-plugins {__version__}"


def test_closed_pipe_is_no_error():
    """A reader such as `head` closes the pipe; without handling, the interpreter prints a BrokenPipeError at exit."""
    process = subprocess.Popen(
        [*COMMAND, "rerank", "cat", "-r", "passthrough"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(b"".join(b"line %d\n" % number for number in range(50_000)))
    process.stdin.close()
    assert b"document" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_character_outside_the_encoding_is_replaced():
    done = run_process(
        "rerank",
        "cat",
        "-r",
        "lexical",
        stdin="cat ☃\n".encode(),
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0
    assert b"cat ?" in done.stdout


def test_control_c_exits_with_130_and_prints_nothing(cats):
    """The server accepts the request and never answers; the interrupt is sent when the request has arrived."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        arrived = threading.Event()

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                arrived.set()
                while connection.recv(65536):
                    pass

        waiting = threading.Thread(target=accept, daemon=True)
        waiting.start()
        spec = json.dumps({"use": "http", "base_url": f"http://127.0.0.1:{server.getsockname()[1]}"})
        process = subprocess.Popen(
            [*COMMAND, "rerank", "cat", cats, "-r", spec], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert arrived.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        waiting.join(10)
    assert process.returncode == 130
    assert out == b""
    assert err == b""


# --- untrusted text ---

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def test_no_escape_sequence_reaches_the_terminal(tmp_path, capsys):
    """Escape sequences in a vendor's message, a document, the name of a file and the name of a reranker."""
    file = tmp_path / f"a{ESCAPES}b.txt"
    file.write_text(f"the moon {ESCAPES}\nbananas\n")
    config = tmp_path / "rerank.toml"
    name = json.dumps(f"evil{ESCAPES}", ensure_ascii=True).replace("\\u202e", "\\u202E")
    config.write_text(f'[rerankers.{name}]\nuse = "lexical"\n')
    lines = [
        ["rerank", "moon", str(file), "-r", "lexical"],
        ["rerank", "moon", str(file), "-r", "lexical", "--json"],
        ["rerank", "moon", str(file), "-r", f"no{ESCAPES}"],
        ["rerank", "moon", str(tmp_path / f"missing{ESCAPES}")],
        ["list", "--config", str(config)],
        ["list", "--config", str(config), "--json"],
        ["check", f"no{ESCAPES}"],
        ["check", f"--{ESCAPES}"],
        [f"no{ESCAPES}"],
    ]
    with CohereLike() as server:
        server.always(Status(400, message=f"bad {ESCAPES} words"))
        spec = {"use": f"http:{ESCAPES}", "base_url": server.url, "api_key": server.key, "retry": 1}
        lines += [
            ["check", json.dumps(spec)],
            ["check", json.dumps({**spec, "fallback": {"specs": ["lexical"], "on": ["rejected"]}})],
        ]
        for line in lines:
            main(line)
            shown = "".join(capsys.readouterr())
            assert shown, line
            assert all(char.isprintable() or char == "\n" for char in shown), (line, shown)


def test_check_exits_with_one_for_scores_outside_the_scale(capsys):
    with CohereLike(score=lambda query, text: 7.7 if "reranker" in text else -2.3) as server:
        spec = {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1}
        for options in ([], ["--golden"]):
            assert main(["check", json.dumps(spec), *options]) == 1
            assert "outside 0…1" in "".join(capsys.readouterr())

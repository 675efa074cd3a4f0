"""Collections in the layouts of the hub: which tables are read, what becomes a candidate, and what is an error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support.hub import Hub, run_with
from support.layouts import nanobeir_folder, write_jsonl

from rerank_plugins import InputError
from rerank_plugins.cli import main
from rerank_plugins.evaluation import compare, read
from rerank_plugins.evaluation.collection import read_corpus

TABLES = {
    "corpus": [
        {"_id": "d1", "title": "Bees", "text": "make honey"},
        {"_id": "d2", "title": "", "text": "A bank."},
        {"_id": "d3", "title": None, "text": "Honey is sweet."},
    ],
    "queries": [{"_id": "q1", "text": "who makes honey?"}, {"_id": "q2", "text": "is honey sweet?"}],
}


def mteb_folder(folder: Path) -> Path:
    """Write MTEB's layout for reranking: corpus, queries, qrels with a score, and top_ranked."""
    for name, rows in TABLES.items():
        write_jsonl(folder / name / "test.jsonl", rows)
    judged = [("q1", "d1", 2), ("q1", "d2", 0), ("q2", "d3", 1)]
    rows = [{"query-id": query, "corpus-id": document, "score": score} for query, document, score in judged]
    write_jsonl(folder / "qrels" / "test.jsonl", rows)
    ranked = [{"query-id": "q1", "corpus-ids": ["d2", "d1"]}, {"query-id": "q2", "corpus-ids": ["d1", "d2", "d3"]}]
    write_jsonl(folder / "top_ranked" / "test.jsonl", ranked)
    return folder


def nano_tables(folder: Path, qrels: list[tuple[str, str]], listed: list[str]) -> Path:
    """Write a data set NanoBees of NanoBEIR, whose only query is q1."""
    documents = {"d1": "Bees make honey.", "d2": "A bank.", "d3": "Bees make honey."}
    write_jsonl(folder / "corpus" / "NanoBees.jsonl", [{"_id": name, "text": text} for name, text in documents.items()])
    write_jsonl(folder / "queries" / "NanoBees.jsonl", [{"_id": "q1", "text": "who makes honey?"}])
    rows = [{"query-id": query, "corpus-id": document} for query, document in qrels]
    write_jsonl(folder / "qrels" / "NanoBees.jsonl", rows)
    write_jsonl(folder / "bm25" / "NanoBees.jsonl", [{"query-id": "q1", "corpus-ids": listed}])
    return folder


def test_mteb_folder_gives_its_own_candidates_and_grades(tmp_path):
    dataset = read(mteb_folder(tmp_path))
    assert [question.id for question in dataset.questions] == ["q1", "q2"]
    assert [candidate.id for candidate in dataset.questions[1].candidates] == ["d1", "d2", "d3"]
    assert dataset.questions[0].candidates[1].text == "Bees make honey"  # MTEB joins title and text with a space
    assert dataset.grades == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}
    assert (dataset.first_stage, dataset.protocol) == ("the order of top_ranked", "trec_eval")
    assert read(tmp_path, top_k=1).depth == 1


def test_title_is_joined_as_in_a_beir_folder_and_must_be_text(tmp_path):
    tables, folder = mteb_folder(tmp_path / "tables"), tmp_path / "folder"
    rows = [{"_id": "d1", "title": 1984, "text": "a novel"}, {"_id": "d2", "title": " ", "text": "A bank."}]
    write_jsonl(tables / "corpus" / "test.jsonl", [*rows, TABLES["corpus"][2]])
    write_jsonl(folder / "corpus.jsonl", [*rows, TABLES["corpus"][2]])
    (question,) = read(tables, limit=1).questions
    texts = {candidate.id: candidate.text for candidate in question.candidates}
    assert texts == {"d1": "1984 a novel", "d2": "A bank."}
    assert texts.items() <= read_corpus(folder / "corpus.jsonl").items()
    write_jsonl(tables / "corpus" / "test.jsonl", [{"_id": "d1", "title": ["Bees"], "text": "make honey"}])
    with pytest.raises(InputError, match=r"test.jsonl, line 1: the field 'title' must be a string, got a list"):
        read(tables)


def test_tables_of_a_language_are_read_by_its_name(tmp_path):
    folder = mteb_folder(tmp_path / "plain")
    for table in ("corpus", "queries", "qrels", "top_ranked"):
        (folder / table).rename(folder / f"en-{table}")
    dataset = read(folder, subsets=["en"])
    assert [candidate.id for candidate in dataset.questions[0].candidates] == ["d2", "d1"]
    with pytest.raises(InputError, match="en-corpus"):
        read(folder)


def test_collection_without_candidates_is_searched_by_bm25(tmp_path):
    folder = mteb_folder(tmp_path)
    (folder / "top_ranked" / "test.jsonl").unlink()
    dataset = read(folder)
    assert dataset.first_stage == "BM25"
    assert {candidate.id for candidate in dataset.questions[0].candidates} == {"d1", "d2", "d3"}


def test_compressed_files_and_tsv_are_read(tmp_path):
    """BEIR's own repositories hold compressed JSONL, and judgements as TSV."""
    for name, rows in TABLES.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", "utf-8")
    dataset = read(tmp_path)
    assert [question.id for question in dataset.questions] == ["q1"]
    assert dataset.unjudged == 1
    assert {candidate.id for candidate in dataset.questions[0].candidates} == {"d1", "d2", "d3"}


def test_judgements_of_a_beir_folder_may_be_jsonl(tmp_path):
    for name, rows in TABLES.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    write_jsonl(tmp_path / "qrels" / "test.jsonl", [{"query-id": "q1", "corpus-id": "d1", "score": 2}])
    assert read(tmp_path).grades == {"q1": {"d1": 2}}
    write_jsonl(tmp_path / "qrels" / "test.jsonl", [{"query-id": "q1", "corpus-id": "d1", "score": 0.5}])
    with pytest.raises(InputError, match=r"line 1: the score must be an integer"):
        read(tmp_path)


def test_parquet_with_a_readme_is_read_as_jsonl_is(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra batch")
    sizes = {"NanoNQ": 2, "NanoArguAna": 1}
    one = read(nanobeir_folder(tmp_path / "one", sizes, depth=4))
    other = read(nanobeir_folder(tmp_path / "other", sizes, depth=4, parquet=True))
    assert one.questions == other.questions
    assert one.grades == other.grades
    assert {question.id.split("/")[0] for question in one.questions} == {"NanoNQ"}  # ArguAna only by name
    named = read(tmp_path / "one", subsets=["arguana", "NanoNQ"])
    assert {name: list(positions) for name, positions in named.groups.items()} == {"NanoArguAna": [0], "NanoNQ": [1, 2]}


def test_part_of_a_copy_is_not_measured_as_the_whole(tmp_path):
    """README.md declares data sets whose files are not here: they are left out by name, or by default, only."""
    folder = nanobeir_folder(tmp_path, {"NanoNQ": 2, "NanoMSMARCO": 1, "NanoArguAna": 1}, depth=4)
    for file in folder.glob("*/NanoArguAna.jsonl"):
        file.unlink()
    assert set(read(folder).groups) == {"NanoNQ", "NanoMSMARCO"}
    (folder / "corpus" / "NanoMSMARCO.jsonl").unlink()
    (folder / "corpus" / "NanoArguAna.jsonl").write_text("", "utf-8")
    with pytest.raises(InputError, match="'NanoMSMARCO' of 'corpus', which its README"):
        read(folder)
    for file in folder.glob("*/NanoMSMARCO.jsonl"):
        file.unlink()
    with pytest.raises(InputError, match=r"'NanoMSMARCO' of 'corpus'.*with --subset. Here are the files of: NanoNQ"):
        read(folder)
    with pytest.raises(InputError, match="'NanoMSMARCO' of 'corpus'"):
        read(folder, subsets=["msmarco"])
    assert len(read(folder, subsets=["nq"]).questions) == 2


def test_declared_candidates_without_files_are_not_replaced_by_bm25(tmp_path):
    folder = mteb_folder(tmp_path)
    (folder / "top_ranked" / "test.jsonl").unlink()
    entries = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test.parquet\n"
        for name in ("corpus", "top_ranked")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n", "utf-8")
    # The files of `corpus` have another suffix than README.md says, and are found by their names.
    with pytest.raises(InputError, match="of the split 'test' of 'top_ranked'"):
        read(folder)
    write_jsonl(folder / "top_ranked" / "test.jsonl", [{"query-id": "q1", "corpus-ids": ["d1"]}])
    assert read(folder).first_stage == "the order of top_ranked"


def test_corpus_without_a_word_and_blank_query_are_errors(tmp_path):
    folder = mteb_folder(tmp_path / "mteb")
    (folder / "top_ranked" / "test.jsonl").unlink()
    write_jsonl(folder / "corpus" / "test.jsonl", [{"_id": "d1", "text": "the"}])
    with pytest.raises(InputError, match="The corpus of mteb has no word that BM25 can find"):
        read(folder)
    write_jsonl(tmp_path / "rows" / "test.jsonl", [{"query": " ", "positive": ["a"], "negative": ["b"]}])
    with pytest.raises(InputError, match=r"test.jsonl, line 1: the query is blank"):
        read(tmp_path / "rows")


def test_missing_relevant_document_is_added_and_marked(tmp_path):
    folder = nano_tables(tmp_path, [("q1", "d1"), ("q1", "d2")], ["d1"])
    (question,) = read(folder).questions
    assert [candidate.id for candidate in question.candidates] == ["d1", "d2"]
    assert question.added == 1
    assert read(folder).depth == 1
    (question,) = read(folder, add_relevant=False).questions
    assert [candidate.id for candidate in question.candidates] == ["d1"]


def test_copy_of_a_relevant_document_is_no_second_candidate(tmp_path):
    """The evaluators compare texts, so they count a copy under another id as the relevant document itself."""
    (question,) = read(nano_tables(tmp_path, [("q1", "d1")], ["d3", "d2"])).questions
    assert [candidate.id for candidate in question.candidates] == ["d2", "d1"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bm25/NanoBees.jsonl", '{"query-id": "q1"}\n', "has a row without 'corpus-ids'"),
        (
            "bm25/NanoBees.jsonl",
            '{"query-id": "q1", "corpus-ids": ["d9"]}\n',
            "names 'd9', which the data set does not",
        ),
        ("corpus/NanoBees.jsonl", '{"_id": "d1"}\n', "has a row without 'text'"),
        ("corpus/NanoBees.jsonl", "{\n", "line 1 is not JSON"),
        ("qrels/NanoBees.jsonl", "", "None of the 1 queries"),
        (
            "bm25/NanoBees.jsonl",
            '{"query-id": "q1", "corpus-ids": 7}\n',
            "line 1: 'corpus-ids' must be a list of document",
        ),
        ("bm25/NanoBees.jsonl", '{"query-id": "q1", "corpus-ids": "d1"}\n', "of document ids, got a string"),
        ("bm25/NanoBees.jsonl", '{"query-id": "q1", "corpus-ids": [null]}\n', "must be a list of document ids"),
        ("README.md", "---\nconfigs: [\n---\n", "front matter"),
        ("queries/NanoBees.jsonl", '{"_id": "q1", "text": " "}\n', "query 'NanoBees/q1': the query is blank"),
    ],
)
def test_broken_layout_error_names_the_fault(tmp_path, file, text, message):
    folder = nano_tables(tmp_path, [("q1", "d1")], ["d1", "d2"])
    (folder / file).write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        read(folder)


@pytest.mark.parametrize(
    "data_files",
    [
        "[corpus/a.jsonl, corpus/b.jsonl]",
        '"corpus/*.jsonl"',
        "[{split: test, path: corpus/a.jsonl}, {split: test, path: [corpus/b.jsonl, corpus/a.jsonl]}]",
    ],
)
def test_all_declared_files_of_a_split_are_read_once(tmp_path, data_files):
    folder = mteb_folder(tmp_path)
    (folder / "corpus" / "test.jsonl").unlink()
    write_jsonl(folder / "corpus" / "a.jsonl", TABLES["corpus"][:1])
    write_jsonl(folder / "corpus" / "b.jsonl", TABLES["corpus"][1:])
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: corpus\n  data_files: {data_files}\n---\n", "utf-8"
    )
    dataset = read(folder)
    assert [len(question.candidates) for question in dataset.questions] == [2, 3]


@pytest.mark.parametrize("data_files", ["5", "[5]", "{split: test, path: 5}", "[[corpus/a.jsonl]]"])
def test_declared_files_of_another_type_are_an_error(tmp_path, data_files):
    folder = mteb_folder(tmp_path)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: corpus\n  data_files: {data_files}\n---\n", "utf-8"
    )
    with pytest.raises(InputError, match=r"README.md: data_files must be a path, a list of paths"):
        read(folder)


def test_several_splits_are_refused_and_a_language_may_have_one(tmp_path):
    folder = mteb_folder(tmp_path / "plain")
    with pytest.raises(InputError, match="is read from one split, and 'test', 'dev' are several"):
        read(folder, subsets=["test", "dev"])
    for table in ("corpus", "queries", "qrels", "top_ranked"):
        (folder / table).rename(folder / f"en-{table}")
    assert len(read(folder, subsets=["en", "test"]).questions) == 2
    with pytest.raises(InputError, match="split 'dev'"):
        read(folder, subsets=["en", "dev"])


@pytest.mark.parametrize("score", ["null", '"high"', "0.5", "[1]", "1e999"])
def test_score_that_is_no_integer_is_an_error(tmp_path, score):
    folder = mteb_folder(tmp_path)
    (folder / "qrels" / "test.jsonl").write_text(
        f'{{"query-id": "q1", "corpus-id": "d1", "score": {score}}}\n', "utf-8"
    )
    with pytest.raises(InputError, match=r"test.jsonl, line 1: 'score' must be an integer, got"):
        read(folder)


def test_long_field_of_tsv_is_read_and_a_damaged_archive_is_an_error(tmp_path):
    folder = mteb_folder(tmp_path)
    for name in ("corpus", "qrels"):
        (folder / name / "test.jsonl").unlink()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", "utf-8")
    (folder / "corpus" / "test.tsv").write_text(f"_id\ttext\nd1\t{'honey ' * 30_000}\nd2\ta bank\n", "utf-8")
    assert len(read(folder).questions[0].candidates[1].text) > 131_072
    (folder / "corpus" / "test.tsv").unlink()
    content = bytearray(gzip.compress(json.dumps({"_id": "d1", "text": "honey"}).encode()))
    content[12] ^= 0xFF
    (folder / "corpus" / "test.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"test.jsonl.gz cannot be read after row 0"):
        read(folder)


def test_options_that_do_not_apply_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="leave out --run, --corpus"):
        read("nanobeir", run="run.txt", corpus="corpus.jsonl")
    with pytest.raises(InputError, match="leave out --as-retrieved, which is for NanoBEIR"):
        read(mteb_folder(tmp_path), add_relevant=False)
    with pytest.raises(InputError, match="its judged queries only, so there is nothing for a judge"):
        read(tmp_path, unlabelled=True)
    file = tmp_path / "lists.jsonl"
    file.write_text('{"query": "honey", "candidates": ["bees"], "labels": [1]}', "utf-8")
    with pytest.raises(InputError, match="leave out --as-retrieved"):
        read(file, add_relevant=False)
    with pytest.raises(InputError, match=r"leave out at_once \(--at-once\) with ray"):
        compare(read(file), ["lexical"], at_once=2, ray=object())


def test_relevant_documents_are_not_cut_from_an_order_by_hash(tmp_path):
    """Which of the first documents by hash are relevant is chance, so the others alone are left out."""
    rows = [{"query": "honey", "positive": ["a", "b"], "negative": [f"text {at}" for at in range(40)]}]
    write_jsonl(tmp_path / "test.jsonl", rows)
    (question,) = read(tmp_path, top_k=5).questions
    assert len(question.candidates) == 5
    assert {"a", "b"} <= {candidate.text for candidate in question.candidates}


def test_unknown_subset_and_layout_are_errors(tmp_path):
    folder = nano_tables(tmp_path / "nano", [("q1", "d1")], ["d1"])
    with pytest.raises(InputError, match="has no data set 'bananas': it has bees"):
        read(folder, subsets=["bananas"])
    with pytest.raises(InputError, match="no judgements"):
        read(mteb_folder(tmp_path / "mteb"), subsets=["dev"])
    write_jsonl(tmp_path / "odd" / "things" / "test.jsonl", [{"a": 1}])
    with pytest.raises(InputError, match=r"in none of the known layouts.*it has things"):
        read(tmp_path / "odd")
    with pytest.raises(InputError, match="names no data set of the hub"):
        read("hub:no-owner")


def test_means_over_several_data_sets_count_each_the_same(tmp_path):
    """Three queries in one data set, one in the other: the mean is that of the two means, and so is the lift."""
    dataset = read(nanobeir_folder(tmp_path, {"NanoNQ": 3, "NanoMSMARCO": 1}, depth=6))
    row = compare(dataset, ["lexical"], depths=()).rows[0]
    values = row.values["nDCG@10"]
    assert row.means["nDCG@10"] == pytest.approx((sum(values[:3]) / 3 + values[3]) / 2)
    first = compare(dataset, ["passthrough"], depths=()).first
    assert row.lift.mean == pytest.approx(row.means["nDCG@10"] - first.means["nDCG@10"])
    assert dataset.weights() == pytest.approx((2 / 3, 2 / 3, 2 / 3, 2.0))


def test_compare_command_reads_a_local_copy_named_nanobeir(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(nanobeir_folder(tmp_path / "nanobeir", {"NanoNQ": 2, "NanoMSMARCO": 1}, depth=4).parent)
    line = ["compare", "nanobeir", "-r", "lexical", "--keep", str(tmp_path / "answers.sqlite3")]
    assert main([*line, "--json", str(tmp_path / "figures.json")]) == 0
    out = capsys.readouterr().out
    assert "nDCG@10 by data set, of which the mean counts each the same:\ndata set" in out
    assert "NanoMSMARCO" in out
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert figures["protocol"] == "sentence-transformers"
    assert set(figures["rerankers"][0]["groups"]) == {"NanoNQ", "NanoMSMARCO"}
    assert main([*line, "--subset", "msmarco", "--as-retrieved"]) == 0
    assert "1 queries, up to 4 candidates each" in capsys.readouterr().out


COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
import sys
from rerank_plugins import RerankError
from rerank_plugins.evaluation import read
try:
    dataset = read(sys.argv[1], top_k=4, subsets=sys.argv[2:] or None)
    print(dataset.name, len(dataset.questions), len(dataset.questions[0].candidates))
except RerankError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow  # four processes, seconds each
def test_nanobeir_is_downloaded_once_and_works_offline(tmp_path):
    """The hub serves it as a repository of data. Only the tables of the named data set are downloaded."""
    hub = Hub()
    try:
        folder = nanobeir_folder(tmp_path / "repository", {"NanoNQ": 2, "NanoMSMARCO": 1}, depth=4)
        hub.put("datasets/sentence-transformers/NanoBEIR-en", folder, COMMIT)
        done = run_with(hub, tmp_path, "-c", CODE, "nanobeir", "msmarco")
        assert done.stdout.split()[:2] == ["NanoBEIR-en@0123456", "1"], done.stderr
        assert not any("NanoNQ" in request for request in hub.requests)
        assert any(request.endswith("corpus/NanoMSMARCO.jsonl") for request in hub.requests)
        seen = len(hub.requests)
        offline = run_with(hub, tmp_path, "-c", CODE, "nanobeir", "msmarco", HF_HUB_OFFLINE="1")
        assert offline.stdout == done.stdout
        assert len(hub.requests) == seen
        whole = run_with(hub, tmp_path, "-c", CODE, "nanobeir", HF_HUB_OFFLINE="1")
        assert whole.stdout.startswith("InputError NanoBEIR-en@0123456 has no file"), whole.stderr
        assert "'NanoNQ'" in whole.stdout
        missing = run_with(hub, tmp_path, "-c", CODE, "hub:acme/none")
        assert missing.stdout.startswith("ConfigError The hub has no acme/none")
        away = run_with(hub, tmp_path, "-c", CODE, "hub:acme/none", HF_HUB_OFFLINE="1")
        assert "hf download acme/none --repo-type dataset" in away.stdout
    finally:
        hub.close()

"""Loaders of data sets: BEIR folders, TREC files, labelled lists, and retrievers of both frameworks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from llama_index.core.base.base_retriever import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import InputError
from rerank_plugins.evaluation import Collection, compare, from_retriever, read
from rerank_plugins.evaluation.collection import read_corpus
from rerank_plugins.evaluation.data import sample_evenly

TEXTS = {"d1": "Bees make honey.", "d2": "A bank raised its rates.", "d3": "Honey badgers dig."}
QUERIES = {"1": "who makes honey", "2": "what did the bank do", "3": "nobody judged this"}
QRELS = {"1": {"d1": 2, "d3": 1}, "2": {"d2": 1}}


def write_beir_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"_id": name, "title": "A title", "text": text} for name, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), "utf-8")
    (folder / "qrels").mkdir()
    judged = [f"{query}\t{name}\t{grade}" for query, grades in QRELS.items() for name, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), "utf-8")
    return folder


RUN = "1 Q0 d2 1 3.5 bm25\n1 Q0 d3 3 1.5 bm25\n1 Q0 d1 2 1.5 bm25\n2 Q0 d2 1 9 bm25\n3 Q0 d1 1 1 bm25\n"


def test_beir_folder_without_run_is_searched_by_bm25(tmp_path):
    dataset = read(write_beir_folder(tmp_path / "mine"))
    assert (dataset.name, dataset.first_stage, dataset.unjudged) == ("mine", "BM25", 1)
    assert [item.id for item in dataset.questions] == ["1", "2"]
    first = dataset.questions[0].candidates[0]
    assert first.id in ("d1", "d3")
    assert first.text == f"A title {TEXTS[first.id]}"  # as in the layouts of the hub
    assert dataset.grades["1"] == {"d1": 2, "d3": 1}


def test_run_orders_candidates_by_score_then_by_rank(tmp_path):
    folder = write_beir_folder(tmp_path / "mine")
    (folder / "run.txt").write_text(RUN, "utf-8")
    dataset = read(folder)
    assert dataset.first_stage == "the run run.txt"
    assert [item.id for item in dataset.questions[0].candidates] == ["d2", "d1", "d3"]
    assert dataset.questions[0].scores() == [3.5, 1.5, 1.5]
    assert dataset.cut(2).depth == 2


@pytest.mark.parametrize(
    "corpus",
    [
        "\n".join(f"{name}\t{text}" for name, text in TEXTS.items()),
        "\n".join(f"<DOC>\n<DOCNO> {n} </DOCNO>\n<TEXT>\n{text}\n</TEXT>\n</DOC>" for n, text in TEXTS.items()),
    ],
    ids=["tsv", "sgml"],
)
def test_trec_files_are_read_by_path(tmp_path, corpus):
    files = {
        "corpus": corpus,
        "run": RUN,
        "queries": "\n".join(f"{name}\t{text}" for name, text in QUERIES.items()),
        "qrels": "1 0 d1 2\n1 0 d3 1\n2 0 d2 1\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    dataset = read(None, **{name: tmp_path / f"{name}.txt" for name in files})
    assert [item.text for item in dataset.questions[0].candidates] == [TEXTS[name] for name in ("d2", "d1", "d3")]
    assert dataset.grades == QRELS


def test_text_may_contain_unicode_line_ends(tmp_path):
    folder = write_beir_folder(tmp_path / "mine")
    (folder / "queries.jsonl").unlink()
    (folder / "queries.tsv").write_bytes("".join(f"{n}\t{t}\u2028\x85\x0c?\r\n" for n, t in QUERIES.items()).encode())
    (folder / "qrels" / "test.tsv").write_bytes(b"query-id\tcorpus-id\tscore\r\n1\td1\t2\r\n")
    dataset = read(folder)
    assert [item.text for item in dataset.questions] == [f"{QUERIES['1']}\u2028\x85\x0c?"]
    assert dataset.grades["1"] == {"d1": 2}


@pytest.mark.parametrize("first", [{"id": "q", "labels": [1, 0]}, {"id": "q"}, {"id": "2"}])
def test_two_lines_with_one_id_are_an_error(tmp_path, first):
    second = {"id": "q"} if first["id"] == "q" else {}  # the default is the number of the line
    rows = [{"query": "bees", "candidates": ["a", "b"]} | more for more in (first, second)]
    rows.append({"query": "wax", "candidates": ["a"], "labels": [1]})
    file = tmp_path / "lists.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(InputError, match=rf"lists.jsonl: lines 1 and 2 have the same id '{first['id']}'"):
        read(file, unlabelled=True)


def test_labelled_lists_give_questions_and_grades(tmp_path):
    file = tmp_path / "lists.jsonl"
    rows = [
        {"query": QUERIES["1"], "candidates": list(TEXTS.values()), "labels": [2, 0, 1]},
        {
            "id": "x",
            "query": "honey",
            "candidates": [{"id": "d1", "text": "Bees"}, "Wax"],
            "labels": {"d1": 1, "d9": 1},
        },
        {"query": "unjudged", "candidates": ["Wax"], "labels": {}},
    ]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    dataset = read(file)
    assert [item.id for item in dataset.questions] == ["1", "x"]
    assert dataset.grades == {"1": {"1.1": 2, "1.2": 0, "1.3": 1}, "x": {"d1": 1, "d9": 1}, "3": {}}
    assert dataset.unjudged == 1
    assert compare(dataset, ["passthrough"]).first.values["recall@10"] == (1.0, 0.5)


class FixedRetriever(LangChainRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(text, id=name, metadata={"source": f"file-{name}"}) for name, text in TEXTS.items()]


class FixedNodeRetriever(LlamaIndexRetriever):
    def _retrieve(self, query_bundle):
        return [
            NodeWithScore(node=TextNode(text=text, id_=name), score=1.0 / place)
            for place, (name, text) in enumerate(TEXTS.items(), 1)
        ]


@pytest.mark.parametrize("retriever", [FixedRetriever(), FixedNodeRetriever()], ids=["langchain", "llama-index"])
def test_retriever_results_become_candidates(retriever):
    dataset = from_retriever(retriever, QUERIES, QRELS)
    assert dataset.first_stage == type(retriever).__name__
    assert [item.id for item in dataset.questions[0].candidates] == list(TEXTS)
    (row,) = compare(dataset, ["lexical"]).rows
    assert row.rankings["2"][0] == "d2"


def test_id_of_maps_documents_to_judged_ids():
    qrels = {"1": {"file-d1": 1}}
    dataset = from_retriever(FixedRetriever(), QUERIES, qrels, id_of=lambda document: document.metadata["source"])
    assert compare(dataset, ["passthrough"]).first.values["MRR@10"] == (1.0,)


def test_numeric_ids_match_judgements():
    class RetrieverWithoutIds(LangChainRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return [Document(text, metadata={"row": number}) for number, text in enumerate(TEXTS.values())]

    dataset = from_retriever(
        RetrieverWithoutIds(), {1: "honey"}, {1: {0: 1.0}}, id_of=lambda document: document.metadata["row"]
    )
    assert compare(dataset, ["passthrough"]).first.values["MRR@10"] == (1.0,)


def test_limit_samples_queries_at_even_distances(tmp_path):
    folder = write_beir_folder(tmp_path / "mine")
    (folder / "queries.jsonl").unlink()
    (folder / "queries.tsv").write_text("".join(f"{n}\tquery {n}\n" for n in range(20)), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("".join(f"{n} 0 d1 1\n" for n in range(20)), "utf-8")
    assert [item.id for item in read(folder, limit=4).questions] == ["0", "5", "10", "15"]


def test_collection_has_the_titles_of_documents_with_one(tmp_path):
    folder = write_beir_folder(tmp_path / "mine")
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"_id": "d4", "title": null, "text": "The moon."}')
    collection = Collection(folder)
    assert collection.titles == dict.fromkeys(TEXTS, "A title")
    assert collection.documents["d4"] == "The moon."


def test_null_field_is_not_a_text(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text(
        '{"_id": 1, "title": null, "text": null, "body": "a"}\n{"_id": 2, "title": "b", "text": null}\n', "utf-8"
    )
    assert read_corpus(file) == {"1": "a", "2": "b"}


def write_broken_folder(folder: Path, file: str, text: str) -> Path:
    (write_beir_folder(folder) / file).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td1\tgood\n", "line 2"),
        ("qrels/test.tsv", "7 0 d1 1\n", "None of the 3 queries"),
        ("run.txt", "1 Q0 d1\n", "query Q0 document rank score tag"),
        ("run.txt", "1 Q0 d7 1 1.0 x\n", "'d7'"),
        ("run.txt", "9 Q0 d1 1 1.0 x\n", "no document for any judged query"),
        ("corpus.jsonl", '"only a text"\n', "line 1"),
        ("corpus.jsonl", '{"text": "no id"}\n', "line 1 has none of the fields _id"),
        ("corpus.jsonl", '{"_id": null, "text": "no id"}\n', "line 1 has none of the fields _id"),
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": ["a", "b"]}\n',
            "line 1: the field 'text' must be a string, got a list",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d1", "title": {}, "text": "a"}\n',
            "line 1: the field 'title' must be a string, got a mapping",
        ),
        ("queries.jsonl", '{"_id": "1", "text": null}\n', "line 1 has none of the fields text"),
        ("queries.jsonl", '\n{"_id": "1", "text": true}\n', "line 2: the field 'text' must be a string, got True"),
        ("run.txt", "1 Q0 d1 1 nan x\n", "query Q0 document rank score tag"),
        ("corpus.jsonl", "", r"corpus.jsonl has no word that BM25 can find among its 0 documents"),
        ("corpus.jsonl", '{"_id": "d1", "text": "the of a"}\n', r"corpus.jsonl has no word that BM25 can find"),
        ("queries.jsonl", '{"_id": "1", "text": " \\u200b"}\n', "queries.jsonl, query '1': the query is blank"),
    ],
)
def test_broken_file_error_names_the_fault(tmp_path, file, text, message):
    with pytest.raises(InputError, match=message):
        read(write_broken_folder(tmp_path / "mine", file, text))


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "candidates": ["a"], "labels": [1, 0]},
        {"query": " ", "candidates": ["a"], "labels": [1]},
        {"query": "q", "candidates": ["a"]},
        {"query": "q", "candidates": [7], "labels": [1]},
        {"query": "q", "candidates": ["a"], "labels": ["yes"]},
        {"query": "q", "candidates": [{"text": "a", "score": "high"}], "labels": [1]},
        {"query": "q", "candidates": [{"text": "a", "score": [1]}], "labels": [1]},
        {"query": "q", "candidates": [{"text": "a", "score": float("nan")}], "labels": [1]},
        {"query": "q", "candidates": [{"text": "a", "score": 10**400}], "labels": [1]},
    ],
)
def test_broken_labelled_list_error_names_the_line(tmp_path, row):
    file = tmp_path / "lists.jsonl"
    file.write_text(f"\n{json.dumps(row)}\n", "utf-8")
    with pytest.raises(InputError, match="line 2"):
        read(file)


def test_missing_data_and_wrong_retriever_are_errors(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor a file"):
        read(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"corpus\.jsonl"):
        read(tmp_path)
    with pytest.raises(InputError, match="top_k"):
        read(tmp_path, top_k=0)
    with pytest.raises(InputError, match="mine, query '1': the query is blank"):
        from_retriever(FixedRetriever(), {"1": " "}, QRELS, name="mine")
    with pytest.raises(InputError, match="must be a LangChain retriever"):
        from_retriever(object(), QUERIES, QRELS)


def test_trec_documents_are_read_in_linear_time(tmp_path):
    """A search for end tags from every start tag would take quadratic time."""
    path = tmp_path / "corpus.trec"
    path.write_text("<DOC><DOCNO> 1 </DOCNO>the <b>moon</b></DOC>" + "<DOC>" * 40_000 + "<" * 40_000)
    assert read_corpus(path) == {"1": "the moon"}


def test_sample_reaches_the_end_of_the_list():
    assert sample_evenly(range(10), 6) == [0, 1, 3, 5, 6, 8]
    assert sample_evenly([0] * 10 + [1] * 9, 10) == [0] * 6 + [1] * 4

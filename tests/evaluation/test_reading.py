"""Data sets as people have them: BEIR folders, TREC files, labelled lists, and retrievers of both frameworks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from llama_index.core.base.base_retriever import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import InputError
from rerank_plugins.evaluation import compare, from_retriever, read
from rerank_plugins.evaluation.collection import read_corpus

TEXTS = {"d1": "Bees make honey.", "d2": "A bank raised its rates.", "d3": "Honey badgers dig."}
QUERIES = {"1": "who makes honey", "2": "what did the bank do", "3": "nobody judged this"}
QRELS = {"1": {"d1": 2, "d3": 1}, "2": {"d2": 1}}


def beir(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"_id": name, "title": "A title", "text": text} for name, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), "utf-8")
    (folder / "qrels").mkdir()
    judged = [f"{query}\t{name}\t{grade}" for query, each in QRELS.items() for name, grade in each.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), "utf-8")
    return folder


RUN = "1 Q0 d2 1 3.5 bm25\n1 Q0 d3 3 1.5 bm25\n1 Q0 d1 2 1.5 bm25\n2 Q0 d2 1 9 bm25\n3 Q0 d1 1 1 bm25\n"


def test_a_beir_folder_is_searched_by_bm25(tmp_path):
    dataset = read(beir(tmp_path / "mine"))
    assert (dataset.name, dataset.first_stage, dataset.unjudged) == ("mine", "BM25", 1)
    assert [each.id for each in dataset.questions] == ["1", "2"]
    first = dataset.questions[0].candidates[0]
    assert first.id in ("d1", "d3")
    assert first.text.startswith("A title\n")
    assert dataset.grades["1"] == {"d1": 2, "d3": 1}


def test_a_run_is_the_first_stage_by_score_then_by_rank(tmp_path):
    folder = beir(tmp_path / "mine")
    (folder / "run.txt").write_text(RUN, "utf-8")
    dataset = read(folder)
    assert dataset.first_stage == "the run run.txt"
    assert [each.id for each in dataset.questions[0].candidates] == ["d2", "d1", "d3"]
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
def test_trec_files_by_name(tmp_path, corpus):
    files = {
        "corpus": corpus,
        "run": RUN,
        "queries": "\n".join(f"{name}\t{text}" for name, text in QUERIES.items()),
        "qrels": "1 0 d1 2\n1 0 d3 1\n2 0 d2 1\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    dataset = read(None, **{name: tmp_path / f"{name}.txt" for name in files})
    assert [each.text for each in dataset.questions[0].candidates] == [TEXTS[each] for each in ("d2", "d1", "d3")]
    assert dataset.grades == QRELS


def test_a_text_may_hold_other_ends_of_lines(tmp_path):
    folder = beir(tmp_path / "mine")
    (folder / "queries.jsonl").unlink()
    (folder / "queries.tsv").write_bytes("".join(f"{n}\t{t}\u2028\x85\x0c?\r\n" for n, t in QUERIES.items()).encode())
    (folder / "qrels" / "test.tsv").write_bytes(b"query-id\tcorpus-id\tscore\r\n1\td1\t2\r\n")
    dataset = read(folder)
    assert [each.text for each in dataset.questions] == [f"{QUERIES['1']}\u2028\x85\x0c?"]
    assert dataset.grades["1"] == {"d1": 2}


def test_labelled_lists(tmp_path):
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
    assert [each.id for each in dataset.questions] == ["1", "x"]
    assert dataset.grades == {"1": {"1.1": 2, "1.2": 0, "1.3": 1}, "x": {"d1": 1, "d9": 1}, "3": {}}
    assert dataset.unjudged == 1
    assert compare(dataset, ["passthrough"]).first.values["recall@10"] == (1.0, 0.5)


class Found(LangChainRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(text, id=name, metadata={"source": f"file-{name}"}) for name, text in TEXTS.items()]


class FoundNodes(LlamaIndexRetriever):
    def _retrieve(self, query_bundle):
        return [
            NodeWithScore(node=TextNode(text=text, id_=name), score=1.0 / place)
            for place, (name, text) in enumerate(TEXTS.items(), 1)
        ]


@pytest.mark.parametrize("retriever", [Found(), FoundNodes()], ids=["langchain", "llama-index"])
def test_a_retriever(retriever):
    dataset = from_retriever(retriever, QUERIES, QRELS)
    assert dataset.first_stage == type(retriever).__name__
    assert [each.id for each in dataset.questions[0].candidates] == list(TEXTS)
    (row,) = compare(dataset, ["lexical"]).rows
    assert row.rankings["2"][0] == "d2"


def test_a_retrievers_documents_by_another_name():
    qrels = {"1": {"file-d1": 1}}
    dataset = from_retriever(Found(), QUERIES, qrels, id_of=lambda document: document.metadata["source"])
    assert compare(dataset, ["passthrough"]).first.values["MRR@10"] == (1.0,)


def test_ids_that_are_numbers():
    class Numbered(LangChainRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return [Document(text, metadata={"row": number}) for number, text in enumerate(TEXTS.values())]

    dataset = from_retriever(Numbered(), {1: "honey"}, {1: {0: 1.0}}, id_of=lambda document: document.metadata["row"])
    assert compare(dataset, ["passthrough"]).first.values["MRR@10"] == (1.0,)


def test_a_sample_is_spread_over_the_queries(tmp_path):
    folder = beir(tmp_path / "mine")
    (folder / "queries.jsonl").unlink()
    (folder / "queries.tsv").write_text("".join(f"{n}\tquery {n}\n" for n in range(20)), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("".join(f"{n} 0 d1 1\n" for n in range(20)), "utf-8")
    assert [each.id for each in read(folder, limit=4).questions] == ["0", "5", "10", "15"]


def test_a_field_without_a_value_is_no_text(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text(
        '{"_id": 1, "title": null, "text": null, "body": "a"}\n{"_id": 2, "title": "b", "text": null}\n', "utf-8"
    )
    assert read_corpus(file) == {"1": "a", "2": "b"}


def broken(folder: Path, file: str, text: str) -> Path:
    (beir(folder) / file).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("file", "text", "told"),
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
    ],
)
def test_what_is_wrong_is_named(tmp_path, file, text, told):
    with pytest.raises(InputError, match=told):
        read(broken(tmp_path / "mine", file, text))


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "candidates": ["a"], "labels": [1, 0]},
        {"query": "q", "candidates": ["a"]},
        {"query": "q", "candidates": [7], "labels": [1]},
        {"query": "q", "candidates": ["a"], "labels": ["yes"]},
        {"query": "q", "candidates": [{"text": "a", "score": "high"}], "labels": [1]},
        {"query": "q", "candidates": [{"text": "a", "score": [1]}], "labels": [1]},
        {"query": "q", "candidates": [{"text": "a", "score": float("nan")}], "labels": [1]},
        {"query": "q", "candidates": [{"text": "a", "score": 10**400}], "labels": [1]},
    ],
)
def test_a_wrong_list_is_named(tmp_path, row):
    file = tmp_path / "lists.jsonl"
    file.write_text(f"\n{json.dumps(row)}\n", "utf-8")
    with pytest.raises(InputError, match="line 2"):
        read(file)


def test_no_data_there(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor a file"):
        read(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"corpus\.jsonl"):
        read(tmp_path)
    with pytest.raises(InputError, match="top_k"):
        read(tmp_path, top_k=0)
    with pytest.raises(InputError, match="no retriever"):
        from_retriever(object(), QUERIES, QRELS)


def test_trec_documents_are_read_in_linear_time(tmp_path):
    """Ends and numbers that never come must not be looked for again from every beginning."""
    path = tmp_path / "corpus.trec"
    path.write_text("<DOC><DOCNO> 1 </DOCNO>the <b>moon</b></DOC>" + "<DOC>" * 40_000 + "<" * 40_000)
    assert read_corpus(path) == {"1": "the moon"}

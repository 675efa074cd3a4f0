"""Data sets from files: a BEIR folder, TREC's files, or JSONL of query, candidates and labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.types import is_score
from ..rows import Row
from ..rows import read as rows
from .bm25 import BM25
from .collection import Collection, read_run
from .data import Candidate, Dataset, Question, spread

__all__ = ["TOP_K", "read"]

TOP_K = 100
"""Candidates of a query, unless said otherwise."""
RUNS = ("run.txt", "run.trec", "run.tsv")
LABELLED = (
    'a line is {"query": "…", "candidates": ["…", {"id": "…", "text": "…", "score": 1.0}, …], "labels": [1, 0, …]}, the '
    "candidates in the retriever's order, a label (a whole number, above 0 is relevant) for each"
)


def read(
    data: str | os.PathLike[str] | None,
    *,
    run: str | os.PathLike[str] | None = None,
    qrels: str | os.PathLike[str] | None = None,
    queries: str | os.PathLike[str] | None = None,
    corpus: str | os.PathLike[str] | None = None,
    top_k: int = TOP_K,
    limit: int | None = None,
) -> Dataset:
    """Read a data set.

    Args:
        data: A folder in BEIR's form, with TREC files of the same names or with both; or a JSONL file of labelled lists;
            `None` where all four files are named.
        run: A TREC run: the candidates, as your retriever ordered them. Without one `run.txt` of the folder, and without
            that BM25 finds them.
        qrels: Judgements, TREC or BEIR, instead of the folder's.
        queries: JSONL or TSV, instead of the folder's.
        corpus: JSONL, TSV or TREC's `<DOC>` file, instead of the folder's.
        top_k: Candidates of a query, at least 1.
        limit: At most so many queries, evenly from all.

    Raises:
        InputError: A file is missing or unreadable, or the run names a document that the corpus has not.
        MissingExtra: BM25 is wanted and bm25s is not installed.
    """
    if top_k < 1:
        raise InputError(f"top_k has to be a number of candidates of at least 1, and {top_k} is not.")
    folder = Path(data) if data is not None else Path()
    if folder.is_file():
        return _labelled(folder, top_k, limit)
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a folder nor a file: name a BEIR folder, or a JSONL file.")
    named = {"corpus": corpus, "queries": queries, "qrels": qrels}
    found = Collection(folder, **{name: Path(path) if path is not None else None for name, path in named.items()})
    judged = [name for name in found.queries if found.grades.get(name)]
    kept = spread(judged, limit)
    run = run or next((folder / name for name in RUNS if (folder / name).is_file()), None)
    lists = _searched(found, kept, top_k) if run is None else _listed(found, Path(run), kept, top_k)
    questions = [Question(name, found.queries[name], lists[name]) for name in kept]
    unjudged = [Question(name, text, ()) for name, text in found.queries.items() if not found.grades.get(name)]
    name = folder.resolve().name if data is not None else Path(qrels or "").stem
    return Dataset.of(
        name, [*questions, *unjudged], found.grades, "BM25" if run is None else f"the run {Path(run).name}"
    )


def _searched(found: Collection, names: list[str], top_k: int) -> dict[str, tuple[Candidate, ...]]:
    ids, texts = list(found.documents), list(found.documents.values())
    index = BM25(texts)
    return {
        name: tuple(Candidate(ids[at], texts[at], score) for at, score in index.search(found.queries[name], top_k))
        for name in names
    }


def _listed(found: Collection, run: Path, names: list[str], top_k: int) -> dict[str, tuple[Candidate, ...]]:
    lists = read_run(run)
    if not any(name in lists for name in names):
        raise InputError(
            f"{run} lists no document for any judged query: check that its query ids are those of the queries."
        )

    def candidate(document: str, score: float) -> Candidate:
        if document not in found.documents:
            raise InputError(
                f"{run} lists the document {document!r}, which the corpus does not hold: name the corpus it is of."
            )
        return Candidate(document, found.documents[document], score)

    return {name: tuple(candidate(*each) for each in lists.get(name, ())[:top_k]) for name in names}


def _labelled(file: Path, top_k: int, limit: int | None) -> Dataset:
    questions, grades = [], {}
    for row in rows(str(file), jsonl=True):
        question, labels = _list(row)
        questions.append(question)
        grades[question.id] = labels
    kept = set(spread([each.id for each in questions if grades[each.id]], limit))
    chosen = [each for each in questions if each.id in kept or not grades[each.id]]
    return Dataset.of(file.stem, chosen, grades).cut(top_k)


def _list(row: Row) -> tuple[Question, dict[str, int]]:
    where = f"{row.file}, line {row.line}"
    value = row.value if isinstance(row.value, dict) else {}
    query, listed, labels = value.get("query"), value.get("candidates"), value.get("labels")
    if not isinstance(query, str) or not isinstance(listed, list) or not isinstance(labels, list | dict):
        raise InputError(f"{where}: {LABELLED}.")
    name = str(value.get("id", row.line))
    candidates = tuple(_candidate(each, f"{name}.{number}", where) for number, each in enumerate(listed, start=1))
    if isinstance(labels, list) and len(labels) != len(candidates):
        raise InputError(f"{where} has {len(labels)} labels for {len(candidates)} candidates: {LABELLED}.")
    told = labels if isinstance(labels, dict) else dict(zip((each.id for each in candidates), labels, strict=True))
    if not all(isinstance(grade, bool | int) for grade in told.values()):
        raise InputError(f"{where} has a label that is no whole number: {LABELLED}.")
    return Question(name, query, candidates), {str(document): int(grade) for document, grade in told.items()}


def _candidate(value: Any, name: str, where: str) -> Candidate:
    if isinstance(value, str):
        return Candidate(name, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise InputError(f"{where} has a candidate that is neither a text nor an object with one: {LABELLED}.")
    score = value.get("score")
    if score is not None and not is_score(score):
        raise InputError(f"{where} has a candidate whose score is no finite number: {LABELLED}.")
    return Candidate(str(value.get("id", name)), value["text"], None if score is None else float(score))

"""Loaders of data sets: a BEIR folder, TREC files, JSONL of query, candidates and labels, or a data set of the hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import InputError
from .bm25 import BM25
from .collection import CORPUS_FILES, Collection, read_run
from .data import Candidate, Dataset, Question, refuse_blank, sample_evenly
from .hub_data import LocalFiles, hub_files
from .labelled_lists import read_labelled_lists
from .layout_tables import find_tables
from .layouts import NOT_ADDED, read_layout

__all__ = ["TOP_K", "read"]

TOP_K = 100
"""Default number of candidates per query."""
RUN_FILES = ("run.txt", "run.trec", "run.tsv")


def read(
    data: str | os.PathLike[str] | None,
    *,
    run: str | os.PathLike[str] | None = None,
    qrels: str | os.PathLike[str] | None = None,
    queries: str | os.PathLike[str] | None = None,
    corpus: str | os.PathLike[str] | None = None,
    top_k: int = TOP_K,
    limit: int | None = None,
    subsets: Sequence[str] | None = None,
    add_relevant: bool = True,
    unlabelled: bool = False,
) -> Dataset:
    """Read a data set from files, or from the hub.

    Args:
        data: A folder in BEIR's form, or with TREC files of the same names; or a JSONL file of labelled lists; or
            `None` where all four files below are named. Also `nanobeir`, which is downloaded, `hub:org/name` for
            another data set of the hub, or a local copy: NanoBEIR's layout, or MTEB's or BEIR's.
        run: A TREC run with the candidates in your retriever's order. The default is `run.txt` of the folder. Without
            one, BM25 retrieves the candidates.
        qrels: Judgements, TREC or BEIR, instead of the folder's.
        queries: JSONL or TSV, instead of the folder's.
        corpus: JSONL, TSV or TREC's `<DOC>` file, instead of the folder's.
        top_k: Candidates per query, at least 1.
        limit: At most this many queries with judgements, at even distances among all. With `unlabelled`, also at most
            this many without.
        subsets: For NanoBEIR the data sets, such as `["msmarco"]`; `None` for all but ArguAna and Touché, as in
            sentence-transformers. For MTEB and BEIR the split or language; `None` for `test`.
        add_relevant: For NanoBEIR: whether relevant documents that BM25 did not find are added to the candidates, as
            sentence-transformers' evaluators do by default.
        unlabelled: Whether to keep the queries without judgements, for `compare(judge=…)`. Judgements may then be
            missing altogether.

    Returns:
        The judged queries with their candidates.

    Raises:
        InputError: A file is missing or unreadable, or the run names a document that the corpus does not hold.
        MissingExtra: BM25 is needed and bm25s is not installed, or a file is Parquet and pyarrow is not installed.
        ConfigError: The hub has no such data set.
        TransientError: The hub cannot be reached now.

    >>> from rerank_plugins.evaluation import read
    >>> import json, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "labelled.jsonl"
    >>> line = {"query": "who makes honey?", "candidates": ["A bank.", "Bees do."], "labels": [0, 1]}
    >>> _ = file.write_text(json.dumps(line), "utf-8")
    >>> read(file).depth
    2
    """
    if top_k < 1:
        raise InputError(f"top_k must be a number of candidates of at least 1, got {top_k}.")
    files = {"corpus": corpus, "queries": queries, "qrels": qrels}
    named = [f"--{name}" for name, path in {"run": run, **files}.items() if path is not None]
    repository = hub_files(data)
    folder = Path(data) if data is not None else Path()
    if repository is not None or (data is not None and not any((run, *files.values())) and _has_layout(folder)):
        if named:
            raise InputError(
                f"{data} is a data set with its own files: leave out {', '.join(named)}, or download it and name a "
                "folder and these files."
            )
        if unlabelled:
            raise InputError(
                f"{data} is read with its judged queries only, so there is nothing for a judge: leave out --judge, or "
                "name --corpus and --queries of your own."
            )
        options = {"top_k": top_k, "limit": limit, "subsets": subsets, "add_relevant": add_relevant}
        return read_layout(repository or LocalFiles(folder), **options)  # type: ignore[arg-type]
    if not add_relevant:
        raise InputError(NOT_ADDED.format(name=data if data is not None else "this data set"))
    if subsets is not None:
        raise InputError(f"{folder} holds one data set: leave out the names of subsets.")
    if folder.is_file():
        if named:
            raise InputError(
                f"{folder} holds queries with their candidates and labels: leave out {', '.join(named)}, or name a "
                "folder in its place."
            )
        return read_labelled_lists(folder, top_k, limit, unlabelled=unlabelled)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is neither a folder nor a file: name a BEIR folder, a JSONL file, nanobeir, or hub:org/name."
        )
    collection = Collection(
        folder,
        **{name: Path(path) if path is not None else None for name, path in files.items()},
        judged=not unlabelled,
    )
    judged = [name for name in collection.queries if collection.grades.get(name)]
    others = [name for name in collection.queries if not collection.grades.get(name)]
    sample = sample_evenly(judged, limit)
    if unlabelled:
        others = sample_evenly(others, limit)
    wanted = [*sample, *(others if unlabelled else ())]
    for name in wanted:
        refuse_blank(collection.queries[name], f"{collection.queries_file}, query {name!r}")
    run = run or next((folder / name for name in RUN_FILES if (folder / name).is_file()), None)
    if run is None:
        candidates = _search_bm25(collection, wanted, top_k)
    else:
        candidates = _read_run_candidates(collection, Path(run), wanted, top_k)
    questions = [Question(name, collection.queries[name], candidates.get(name, ())) for name in [*sample, *others]]
    name = folder.resolve().name if data is not None else Path(qrels or queries or "").stem
    first_stage = "BM25" if run is None else f"the run {Path(run).name}"
    if unlabelled:
        judged_questions = tuple(questions[: len(sample)])
        return Dataset(
            name, judged_questions, collection.grades, first_stage, unlabelled=tuple(questions[len(sample) :])
        )
    return Dataset.of(name, questions, collection.grades, first_stage)


def _has_layout(folder: Path) -> bool:
    """Return whether a folder is a copy of a data set of the hub, and not in BEIR's or TREC's own form."""
    if not folder.is_dir() or any((folder / name).is_file() for name in CORPUS_FILES):
        return False
    return bool(find_tables(LocalFiles(folder)))


def _search_bm25(collection: Collection, names: list[str], top_k: int) -> dict[str, tuple[Candidate, ...]]:
    """Return query id → candidates that BM25 retrieves."""
    ids, texts = list(collection.documents), list(collection.documents.values())
    index = BM25(texts, collection.corpus_file)
    return {
        name: tuple(Candidate(ids[at], texts[at], score) for at, score in index.search(collection.queries[name], top_k))
        for name in names
    }


def _read_run_candidates(
    collection: Collection, run: Path, names: list[str], top_k: int
) -> dict[str, tuple[Candidate, ...]]:
    """Return query id → candidates that a TREC run lists."""
    rankings = read_run(run)
    if not any(name in rankings for name in names):
        raise InputError(
            f"{run} lists no document for any judged query: check that its query ids are those of the queries."
        )

    def candidate(document: str, score: float) -> Candidate:
        if document not in collection.documents:
            raise InputError(
                f"{run} lists the document {document!r}, which the corpus does not hold: name the corpus of this run."
            )
        return Candidate(document, collection.documents[document], score)

    return {name: tuple(candidate(*entry) for entry in rankings.get(name, ())[:top_k]) for name in names}

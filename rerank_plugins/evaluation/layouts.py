"""Collections in the layouts of the hub: NanoBEIR's, MTEB's and BEIR's, as Parquet, JSONL or TSV.

- NanoBEIR (https://huggingface.co/datasets/sentence-transformers/NanoBEIR-en, as `CrossEncoderNanoBEIREvaluator` of
  sentence-transformers 6.2 reads it): the subsets `corpus` (`_id`, `text`), `queries` (`_id`, `text`), `qrels`
  (`query-id`, `corpus-id`) and `bm25` (`query-id`, `corpus-ids`), with one split for each data set.
- MTEB and BEIR: `corpus` (`_id`, `title`, `text`), `queries`, `qrels` or `default` (`query-id`, `corpus-id`, `score`)
  and, for reranking, `top_ranked` (`query-id`, `corpus-ids`).
  MTEB's collections of several languages have `en-corpus` and so on (mteb 2.26, `retrieval_dataset_loaders.py`).
- MTEB's older reranking data: rows of `query`, `positive` and `negative`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core.choices import described
from ..core.errors import InputError
from .bm25 import BM25
from .collection import string_field
from .data import Candidate, Dataset, Question, join_title, refuse_blank, sample_evenly, without_judgement
from .hub_data import DataFiles
from .layout_tables import Tables, files_of, find_tables
from .table_files import table_rows

__all__ = ["NOT_ADDED", "NOT_BY_DEFAULT", "read_layout"]

NOT_BY_DEFAULT = ("arguana", "touche2020")
"""Data sets of NanoBEIR that sentence-transformers' evaluators of rerankers leave out by default: what counts as
relevant there is a counterargument."""
NOT_ADDED = (
    "No relevant document is added to the candidates of {name}: leave out --as-retrieved, which is for NanoBEIR."
)


def read_layout(
    files: DataFiles,
    *,
    top_k: int,
    limit: int | None = None,
    subsets: Sequence[str] | None = None,
    add_relevant: bool = True,
) -> Dataset:
    """Read a data set in one of the layouts.

    Args:
        files: The folder or the repository.
        top_k: Candidates per query.
        limit: At most this many queries, at even distances among all.
        subsets: The data sets of NanoBEIR to read, such as `msmarco`; `None` for all but two, as in
            sentence-transformers. For MTEB and BEIR the one split; `None` for `test`. For MTEB first the language, such
            as `en`, where the tables are named `en-corpus`.
        add_relevant: Whether relevant documents that are no candidates are added to the list, as
            sentence-transformers' evaluators do by default.

    Raises:
        InputError: The files have another layout, or a value is missing, or the files of a split.
        MissingExtra: A file is Parquet and pyarrow is not installed.
    """
    tables = find_tables(files)
    if subsets and f"{subsets[0]}-corpus" in tables:  # MTEB's collections of several languages
        prefix = f"{subsets[0]}-"
        tables = {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}
        subsets = subsets[1:] or None
    if "query" in tables and "queries" not in tables:
        tables = {**tables, "queries": tables["query"]}
    if "bm25" in tables and "corpus" in tables:
        return _read_nanobeir(files, tables, top_k, limit, subsets, add_relevant)
    if subsets and len(subsets) > 1:
        raise InputError(
            f"{files.name} is read from one split, and {', '.join(map(repr, subsets))} are several: name one of them."
        )
    if not add_relevant:
        raise InputError(NOT_ADDED.format(name=files.name))
    if "corpus" in tables and "queries" in tables:
        return _read_mteb(files, tables, top_k, limit, subsets)
    split = _choose_split(tables.get("default", {}), subsets)
    if split is not None:
        return _read_positive_negative(files, files_of(files.name, tables, "default", split), top_k, limit)
    raise InputError(
        f"{files.name} is in none of the known layouts: a data set has corpus, queries and qrels (and bm25 or "
        f"top_ranked), or rows of query, positive and negative; it has {', '.join(tables) or 'no data files'}."
    )


def _read_nanobeir(
    files: DataFiles,
    tables: Tables,
    top_k: int,
    limit: int | None,
    subsets: Sequence[str] | None,
    add_relevant: bool,
) -> Dataset:
    questions: list[Question] = []
    grades: dict[str, dict[str, int]] = {}
    groups: dict[str, list[str]] = {}
    unjudged = 0
    for split in _choose_nanobeir(tables["bm25"], subsets, files.name):
        read = _reader(files, tables, split)
        corpus = {_id(row, where): _text(row, "text", where) for row, where in read("corpus")}
        queries = {_id(row, where): _text(row, "text", where) for row, where in read("queries")}
        relevant = {query: dict.fromkeys(ids, 1) for query, ids in _relevant(read("qrels")).items()}
        for row, where in read("bm25"):
            query = str(_value(row, "query-id", where))
            listed = _ids(row, "corpus-ids", where)[:top_k]
            if not relevant.get(query):
                unjudged += 1
                continue
            name = f"{split}/{query}"
            added = [document for document in relevant[query] if document not in set(listed)] if add_relevant else []
            text_of = _lookup(corpus, where)
            # The evaluators compare texts: a copy of a relevant document under another id is the relevant one.
            texts = {text_of(document) for document in relevant[query]}
            listed = [each for each in listed if each in relevant[query] or text_of(each) not in texts]
            candidates = tuple(Candidate(document, text_of(document)) for document in (*listed, *added))
            text = _lookup(queries, where)(query)
            refuse_blank(text, f"{files.name}, query {name!r}")
            questions.append(Question(name, text, candidates, len(added)))
            grades[name] = relevant[query]
            groups.setdefault(split, []).append(name)
    if not questions:
        raise without_judgement(unjudged, files.name)
    sample = set(sample_evenly([question.id for question in questions], limit))
    chosen = tuple(question for question in questions if question.id in sample)
    return Dataset(
        files.name,
        chosen,
        grades,
        "BM25 of the data set",
        unjudged,
        protocol="sentence-transformers",
        groups=_ranges(groups, sample) if len(groups) > 1 else {},
    )


def _ranges(groups: Mapping[str, Sequence[str]], sample: set[str]) -> dict[str, range]:
    ranges: dict[str, range] = {}
    start = 0
    for name, ids in groups.items():
        if count := sum(query in sample for query in ids):
            ranges[name] = range(start, start + count)
            start += count
    return ranges


def _read_mteb(
    files: DataFiles, tables: Tables, top_k: int, limit: int | None, subsets: Sequence[str] | None
) -> Dataset:
    judged = "qrels" if "qrels" in tables else "default"
    split = _choose_split(tables.get(judged, {}), subsets)
    if split is None:
        raise InputError(
            f"{files.name} has no judgements (qrels) of the split {(subsets or ['test'])[0]!r}: name another split, or "
            "download the judgements and name the files with --corpus, --queries and --qrels."
        )
    read = _reader(files, tables, split)
    corpus = {_id(row, where): _with_title(row, where) for row, where in read("corpus")}
    queries = {_id(row, where): _text(row, "text", where) for row, where in read("queries")}
    grades: dict[str, dict[str, int]] = {}
    for row, where in read(judged):
        query, document = str(_value(row, "query-id", where)), str(_value(row, "corpus-id", where))
        grades.setdefault(query, {})[document] = _grade(row, where)
    names = sample_evenly([query for query in queries if grades.get(query)], limit)
    if "top_ranked" in tables:
        first_stage = "the order of top_ranked"
        ranked = {str(_value(row, "query-id", where)): (row, where) for row, where in read("top_ranked")}
        questions = [
            Question(name, queries[name], _ranked_candidates(ranked.get(name), corpus, top_k)) for name in names
        ]
    else:
        first_stage = "BM25"
        ids, texts = list(corpus), list(corpus.values())
        index = BM25(texts, f"The corpus of {files.name}")
        questions = [
            Question(
                name,
                queries[name],
                tuple(Candidate(ids[at], texts[at], score) for at, score in index.search(queries[name], top_k)),
            )
            for name in names
        ]
    unjudged = [Question(name, text, ()) for name, text in queries.items() if not grades.get(name)]
    return Dataset.of(files.name, [*questions, *unjudged], grades, first_stage)


def _ranked_candidates(
    entry: tuple[Mapping[str, Any], str] | None, corpus: Mapping[str, str], top_k: int
) -> tuple[Candidate, ...]:
    if entry is None:
        return ()
    row, where = entry
    text_of = _lookup(corpus, where)
    return tuple(Candidate(document, text_of(document)) for document in _ids(row, "corpus-ids", where)[:top_k])


def _read_positive_negative(files: DataFiles, names: Sequence[str], top_k: int, limit: int | None) -> Dataset:
    questions: list[Question] = []
    grades: dict[str, dict[str, int]] = {}
    skipped = 0
    for number, (row, where) in enumerate(table_rows(files, names), start=1):
        positive, negative = _strings(row, "positive", where), _strings(row, "negative", where)
        if not positive or not negative:
            skipped += 1
            continue
        labelled = [(f"{number}.{at}", text) for at, text in enumerate((*positive, *negative), start=1)]
        grades[str(number)] = {name: 1 for name, _ in labelled[: len(positive)]}
        # The rows have no order of a retriever, and the relevant documents come first: an order by hash helps nobody.
        labelled.sort(key=lambda item: hashlib.sha256(item[1].encode()).digest())
        # To cut the list is to leave out documents at random: the relevant ones stay, as in the evaluators.
        others = [name for name, _ in labelled if name not in grades[str(number)]]
        left_out = set(others[max(top_k - len(positive), 0) :])
        candidates = tuple(Candidate(name, text) for name, text in labelled if name not in left_out)
        query = _text(row, "query", where)
        refuse_blank(query, where)
        questions.append(Question(str(number), query, candidates))
    if not questions:
        raise without_judgement(skipped, files.name)
    sample = set(sample_evenly([question.id for question in questions], limit))
    return Dataset(
        files.name,
        tuple(question for question in questions if question.id in sample),
        grades,
        "no order (by hash of the text)",
        skipped,
        protocol="sentence-transformers",
    )


def _choose_nanobeir(splits: Iterable[str], subsets: Sequence[str] | None, name: str) -> list[str]:
    short = {split.lower().removeprefix("nano"): split for split in splits}
    if subsets is None:
        return [split for key, split in short.items() if key not in NOT_BY_DEFAULT] or list(short.values())
    wanted = [subset.lower().removeprefix("nano") for subset in subsets]
    for subset, key in zip(subsets, wanted, strict=True):
        if key not in short:
            raise InputError(f"{name} has no data set {subset!r}: it has {', '.join(short)}.")
    return [short[key] for key in dict.fromkeys(wanted)]


def _choose_split(splits: Mapping[str, Any], subsets: Sequence[str] | None) -> str | None:
    """Return the split that is wanted: `test` by default, or the only one."""
    if subsets:
        return subsets[0] if subsets[0] in splits else None
    return "test" if "test" in splits else next(iter(splits)) if len(splits) == 1 else None


def _reader(files: DataFiles, tables: Tables, split: str) -> Callable[[str], Iterator[tuple[Mapping[str, Any], str]]]:
    """Return a function from a subset to its rows in `split`, or in its only split."""

    def read(subset: str) -> Iterator[tuple[Mapping[str, Any], str]]:
        splits = tables.get(subset, {})
        name = split if split in splits else next(iter(splits)) if len(splits) == 1 else None
        if name is None:
            raise InputError(
                f"{files.name} has no table {subset!r} for the split {split!r}: it has {', '.join(splits) or 'none'}."
            )
        return table_rows(files, files_of(files.name, tables, subset, name))

    return read


def _relevant(rows: Iterable[tuple[Mapping[str, Any], str]]) -> dict[str, list[str]]:
    """Return query id → ids of relevant documents. A row has one document, or a list."""
    relevant: dict[str, list[str]] = {}
    for row, where in rows:
        value = _value(row, "corpus-id", where)
        listed = _ids(row, "corpus-id", where) if isinstance(value, list) else [str(value)]
        relevant.setdefault(str(_value(row, "query-id", where)), []).extend(listed)
    return relevant


def _ids(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = _value(row, name, where)
    if not isinstance(value, list) or not all(isinstance(item, str | int) for item in value):
        raise InputError(f"{where}: {name!r} must be a list of document ids, got {described(value)}.")
    return [str(item) for item in value]


def _grade(row: Mapping[str, Any], where: str) -> int:
    """Return the grade of a judgement; 1 where the table has no such column."""
    value = row.get("score", 1)
    try:
        grade = float(value)
        if grade == int(grade):
            return int(grade)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{where}: 'score' must be an integer, got {described(value)}. Correct the judgements.")


def _value(row: Mapping[str, Any], name: str, where: str) -> Any:
    if row.get(name) is None:
        raise InputError(f"{where} has a row without {name!r}: it has {', '.join(map(str, row)) or 'nothing'}.")
    return row[name]


def _id(row: Mapping[str, Any], where: str) -> str:
    return str(row["id"]) if row.get("_id") is None and row.get("id") is not None else str(_value(row, "_id", where))


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = _value(row, name, where)
    if not isinstance(value, str):
        raise InputError(f"{where}: {name!r} must be a string, got a {type(value).__name__}.")
    return value


def _with_title(row: Mapping[str, Any], where: str) -> str:
    title = row.get("title")
    return join_title("" if title is None else string_field(title, "title", where), _text(row, "text", where))


def _strings(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = row.get(name)
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise InputError(f"{where}: {name!r} must be a list of strings. Rows need query, positive and negative.")
    return listed


def _lookup(texts: Mapping[str, str], where: str) -> Callable[[str], str]:
    def text_of(name: str) -> str:
        if name not in texts:
            raise InputError(f"{where} names {name!r}, which the data set does not hold. Download its files again.")
        return texts[name]

    return text_of

"""JSONL files with one query, its candidates and their labels per line."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.types import is_score
from ..jsonl import read_row, read_rows
from .data import Candidate, Dataset, LazyQuestions, Question, refuse_blank, sample_evenly, without_judgement

__all__ = ["read_labelled_lists"]

FORM = (
    'a line is {"query": "…", "candidates": ["…", {"id": "…", "text": "…", "score": 1.0}, …], "labels": [1, 0, …]}, '
    "with the candidates in the retriever's order and one label (an integer, above 0 is relevant) for each"
)


def read_labelled_lists(file: Path, top_k: int, limit: int | None, *, unlabelled: bool = False) -> Dataset:
    """Return the data set of a file. Texts stay in the file: each line is read again when its question is used.

    Args:
        file: The JSONL file.
        top_k: Candidates per query.
        limit: At most this many judged queries, and at most this many without labels.
        unlabelled: Whether to keep the queries without labels, for a judge.

    Raises:
        InputError: The file or a line cannot be read.
    """
    lines, offsets, counts = array("Q"), array("Q"), array("Q")
    names: list[str] = []
    grades: dict[str, dict[str, int]] = {}
    line_of: dict[str, int] = {}
    for row in read_rows(str(file), jsonl=True):
        question, labels = _parse(row.value, f"{row.file}, line {row.line}", row.line, unlabelled)
        if question.id in line_of:
            raise InputError(
                f"{row.file}: lines {line_of[question.id]} and {row.line} have the same id {question.id!r} (by default "
                "it is the number of the line): give each query an id of its own."
            )
        line_of[question.id] = row.line
        grades[question.id] = labels
        names.append(question.id)
        lines.append(row.line)
        offsets.append(row.offset)
        counts.append(len(question.candidates))

    def questions(positions: list[int]) -> LazyQuestions:
        def make(at: int) -> Question:
            line = lines[positions[at]]
            value = read_row(str(file), line, offsets[positions[at]])
            return _parse(value, f"{file}, line {line}", line, unlabelled)[0].cut(top_k)

        return LazyQuestions(len(positions), make)

    judged = [at for at, name in enumerate(names) if grades[name]]
    others = [at for at, name in enumerate(names) if not grades[name]]
    if not judged and not (unlabelled and others):
        raise without_judgement(len(names), file.stem)
    chosen = sample_evenly(judged, limit)
    if unlabelled:
        others = sample_evenly(others, limit)
    return Dataset(
        file.stem,
        questions(chosen),
        grades,
        unjudged=0 if unlabelled else len(others),
        unlabelled=questions(others) if unlabelled else (),
        longest=min(top_k, max((counts[at] for at in [*chosen, *(others if unlabelled else [])]), default=0)),
    )


def _parse(value: Any, where: str, line: int, unlabelled: bool) -> tuple[Question, dict[str, int]]:
    """Return the question of one line, and document id → label; no labels are an error unless `unlabelled`."""
    value = value if isinstance(value, dict) else {}
    query, listed, labels = value.get("query"), value.get("candidates"), value.get("labels")
    if labels is None and unlabelled:
        labels = {}
    if not isinstance(query, str) or not isinstance(listed, list) or not isinstance(labels, list | dict):
        raise InputError(f"{where}: {FORM}.")
    refuse_blank(query, where)
    name = str(value.get("id", line))
    candidates = tuple(
        _parse_candidate(entry, f"{name}.{number}", where) for number, entry in enumerate(listed, start=1)
    )
    if isinstance(labels, list) and len(labels) != len(candidates):
        raise InputError(f"{where} has {len(labels)} labels for {len(candidates)} candidates: {FORM}.")
    ids = [candidate.id for candidate in candidates]
    grades = labels if isinstance(labels, dict) else dict(zip(ids, labels, strict=True))
    if not all(isinstance(grade, bool | int) for grade in grades.values()):
        raise InputError(f"{where} has a label that is not an integer: {FORM}.")
    return Question(name, query, candidates), {str(document): int(grade) for document, grade in grades.items()}


def _parse_candidate(value: Any, default_id: str, where: str) -> Candidate:
    if isinstance(value, str):
        return Candidate(default_id, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise InputError(f"{where} has a candidate that is neither a string nor an object with a `text`: {FORM}.")
    score = value.get("score")
    if score is not None and not is_score(score):
        raise InputError(f"{where} has a candidate whose score is not a finite number: {FORM}.")
    return Candidate(str(value.get("id", default_id)), value["text"], None if score is None else float(score))

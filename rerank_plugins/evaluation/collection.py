"""Collections as files: documents, queries and judgements, in the forms of BEIR and TREC."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.choices import described
from ..core.errors import InputError
from ..rows import read as rows
from .data import Grades

__all__ = ["Collection", "read_corpus", "read_qrels", "read_queries", "read_run"]

IDS = ("_id", "id", "docno", "doc_id", "docid")
TEXTS = ("text", "contents", "body")
_DOCUMENT_END = re.compile(r"</DOC>", re.IGNORECASE)
_NUMBER = re.compile(r"<DOCNO>([^<]*)</DOCNO>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]+>")


class Collection:
    """A folder in BEIR's form: corpus.jsonl, queries.jsonl or queries.tsv, and qrels/test.tsv or qrels.txt.

    (https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset, read in November 2026.)
    """

    def __init__(
        self, folder: Path, *, corpus: Path | None = None, queries: Path | None = None, qrels: Path | None = None
    ) -> None:
        """Read a folder, or the files named instead of the folder's own.

        Raises:
            InputError: A file is not there, or a line of it cannot be read.
        """
        self.documents = read_corpus(corpus or first_of(folder, "corpus.jsonl", "docs.jsonl", "corpus.tsv", "docs.tsv"))
        """Id → title and text, the title on a line of its own."""
        self.queries = read_queries(queries or first_of(folder, "queries.jsonl", "queries.tsv", "topics.tsv"))
        self.grades: Grades = read_qrels(qrels or first_of(folder, "qrels/test.tsv", "qrels.tsv", "qrels.txt"))


def first_of(folder: Path, *names: str) -> Path:
    """Return the first of `names` that the folder has.

    Raises:
        InputError: It has none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has no {' or '.join(names)}: a data set needs one of these. Name the file, or add it.")


def read_corpus(path: Path) -> dict[str, str]:
    """Return id → text of a JSONL file (`_id`, `title`, `text`), a TSV file (id, text) or TREC's `<DOC>` files."""
    if path.suffix in (".jsonl", ".ndjson"):
        return {name: _titled(value, where) for name, value, where in _objects(path)}
    content = _text(path)
    if "<DOCNO>" in content[:10_000].upper():
        return dict(_trec_documents(content))
    return dict(_pairs(path, content))


def _trec_documents(content: str) -> Iterator[tuple[str, str]]:
    # Split at the ends first: one expression over the whole file would look from each `<DOC>` to the end of the file.
    for part in _DOCUMENT_END.split(content)[:-1]:
        if (number := _NUMBER.search(part)) is not None:
            yield number[1].strip(), " ".join(_TAG.sub(" ", part[number.end() :]).split())


def read_queries(path: Path) -> dict[str, str]:
    """Return id → text of a JSONL file (`_id`, `text`) or a TSV file (id, text)."""
    if path.suffix in (".jsonl", ".ndjson"):
        return {name: _field(value, TEXTS, where) for name, value, where in _objects(path)}
    return dict(_pairs(path, _text(path)))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return query → document → grade of a TREC file (query, 0, document, grade) or BEIR's (query, document, grade, a header).

    Raises:
        InputError: A line has another number of columns, or a grade that is no whole number.
    """
    grades: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(_text(path)), start=1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not cells or (number == 1 and not _whole(cells[-1])):
            continue  # BEIR's header
        if len(cells) not in (3, 4) or not _whole(cells[-1]):
            raise InputError(
                f"{path}, line {number}: judgements are 'query 0 document grade' (TREC) or 'query document grade' (BEIR), "
                "with a whole number as the grade. Mend that line."
            )
        grades.setdefault(cells[0], {})[cells[-2]] = int(cells[-1])
    return grades


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Return query → documents and scores, best first, of a TREC run (query, Q0, document, rank, score, tag).

    The score orders, as in trec_eval; where scores tie the rank column does (trec_eval would take the document's name).

    Raises:
        InputError: A line has fewer columns, or no finite numbers where they belong.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for number, line in enumerate(_lines(_text(path)), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            query, _, document, rank, score = cells[:5]
            numbers = -float(score), float(rank)
            if not all(map(math.isfinite, numbers)):
                raise ValueError(line)
            found.setdefault(query, []).append((*numbers, document))
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: a run's lines are 'query Q0 document rank score tag'. Mend that line."
            ) from error
    return {
        query: [(document, -score) for score, _, document in sorted(each, key=lambda row: row[:2])]
        for query, each in found.items()
    }


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the id of each line, its object, and where it stands, for errors."""
    for row in rows(str(path), jsonl=True):
        where = f"{path}, line {row.line}"
        if not isinstance(row.value, dict):
            raise InputError(f"{where} is no JSON object with an id and a text. Mend that line.")
        yield _field(row.value, IDS, where), row.value, where


def _field(value: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """Return the first of the fields `names` that has a value: a string, or a number as one."""
    name = next((each for each in names if value.get(each) is not None), None)
    if name is None:
        raise InputError(f"{where} has none of the fields {', '.join(names)}: it has {', '.join(value) or 'none'}.")
    return _string(value[name], name, where)


def _string(value: Any, name: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: the field {name!r} must be a string, got {described(value)}. Mend that line.")
    return str(value)


def _titled(value: dict[str, Any], where: str) -> str:
    text = next((_string(value[name], name, where) for name in TEXTS if value.get(name) is not None), "")
    title = value.get("title")
    return f"{'' if title is None else _string(title, 'title', where)}\n{text}".strip()


def _pairs(path: Path, content: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(content), start=1):
        name, tab, text = line.partition("\t")
        if tab:
            yield name, text
        elif line.strip():
            raise InputError(f"{path}, line {number} has no tab: lines are an id, a tab and a text. Mend that line.")


def _lines(content: str) -> list[str]:
    """Return the lines, parted at line feeds alone: a text may hold what Unicode calls a line's end besides."""
    return content.replace("\r\n", "\n").split("\n")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: convert it first, iconv -f latin1 -t utf-8.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _whole(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdigit()

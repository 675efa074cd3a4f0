"""Collections in files: documents, queries and judgements, in the formats of BEIR and TREC."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.choices import described
from ..core.errors import InputError
from ..jsonl import read_rows
from .data import Grades, join_title

__all__ = ["CORPUS_FILES", "Collection", "read_corpus", "read_qrels", "read_queries", "read_run", "string_field"]

CORPUS_FILES = ("corpus.jsonl", "docs.jsonl", "corpus.tsv", "docs.tsv")
QRELS_FILES = ("qrels/test.tsv", "qrels.tsv", "qrels.txt", "qrels/test.jsonl", "qrels.jsonl")
ID_FIELDS = ("_id", "id", "docno", "doc_id", "docid")
TEXT_FIELDS = ("text", "contents", "body")
_DOCUMENT_END = re.compile(r"</DOC>", re.IGNORECASE)
_DOCUMENT_ID = re.compile(r"<DOCNO>([^<]*)</DOCNO>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]+>")


class Collection:
    r"""A folder in BEIR's format: corpus.jsonl, queries.jsonl or queries.tsv, and qrels/test.tsv or qrels.txt.

    See https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset (read in November 2026).

    Args:
        folder: The folder.
        corpus: A file of documents, instead of the folder's.
        queries: A file of queries, instead of the folder's.
        qrels: A file of judgements, instead of the folder's.
        judged: Whether judgements must exist.

    Raises:
        InputError: A file does not exist, or one of its lines cannot be read.

    >>> from rerank_plugins.evaluation import Collection
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "corpus.tsv").write_text("d1\tBees make honey.\n", "utf-8")
    >>> _ = (folder / "queries.tsv").write_text("q1\twho makes honey?\n", "utf-8")
    >>> _ = (folder / "qrels.txt").write_text("q1 0 d1 1\n", "utf-8")
    >>> Collection(folder).documents
    {'d1': 'Bees make honey.'}
    """

    def __init__(
        self,
        folder: Path,
        *,
        corpus: Path | None = None,
        queries: Path | None = None,
        qrels: Path | None = None,
        judged: bool = True,
    ) -> None:
        """Read the files. See the class."""
        self.corpus_file = corpus or find_file(folder, *CORPUS_FILES)
        self.queries_file = queries or find_file(folder, "queries.jsonl", "queries.tsv", "topics.tsv")
        self.documents: dict[str, str] = {}
        """Document id → title and text, with a space between."""
        self.titles: dict[str, str] = {}
        """Document id → title, of the documents that have one."""
        for name, title, text in _read_documents(self.corpus_file):
            self.documents[name] = text
            if title.strip():
                self.titles[name] = title
        self.queries = read_queries(self.queries_file)
        without = not judged and qrels is None and not any((folder / name).is_file() for name in QRELS_FILES)
        self.grades: Grades = {} if without else read_qrels(qrels or find_file(folder, *QRELS_FILES))


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of `names` that exists in `folder`.

    Raises:
        InputError: None of them exists.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has no {' or '.join(names)}: a data set needs one of these. Name the file, or add it.")


def read_corpus(path: Path) -> dict[str, str]:
    """Return document id → text of a JSONL (`_id`, `title`, `text`), TSV (id, text) or TREC (`<DOC>`) file."""
    return {name: text for name, _, text in _read_documents(path)}


def _read_documents(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (id, title, title and text) of each document. Only documents of JSONL have a title of their own."""
    if path.suffix in (".jsonl", ".ndjson"):
        for name, value, where in _read_objects(path):
            yield name, *_title_and_text(value, where)
        return
    content = _read_text(path)
    rows = _trec_documents(content) if "<DOCNO>" in content[:10_000].upper() else _read_tsv(path, content)
    for name, text in rows:
        yield name, "", text


def _trec_documents(content: str) -> Iterator[tuple[str, str]]:
    # Split at the end tags first. One expression over the whole file would take quadratic time: from each `<DOC>` it
    # would search to the end of the file.
    for part in _DOCUMENT_END.split(content)[:-1]:
        if (number := _DOCUMENT_ID.search(part)) is not None:
            yield number[1].strip(), " ".join(_TAG.sub(" ", part[number.end() :]).split())


def read_queries(path: Path) -> dict[str, str]:
    """Return query id → text of a JSONL file (`_id`, `text`) or a TSV file (id, text)."""
    if path.suffix in (".jsonl", ".ndjson"):
        return {name: _field(value, TEXT_FIELDS, where) for name, value, where in _read_objects(path)}
    return dict(_read_tsv(path, _read_text(path)))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return query id → document id → grade.

    A TREC file has the columns query, 0, document, grade. A BEIR file has query, document, grade, and a header. MTEB
    also has JSONL with `query-id`, `corpus-id` and `score`.

    Raises:
        InputError: A line has another number of columns, or a grade that is not an integer.
    """
    grades: dict[str, dict[str, int]] = {}
    if path.suffix in (".jsonl", ".ndjson"):
        for row in read_rows(str(path), jsonl=True):
            where, value = f"{path}, line {row.line}", row.value if isinstance(row.value, dict) else {}
            grade = _field(value, ("score",), where)
            if not _is_integer(grade.removesuffix(".0")):
                raise InputError(f"{where}: the score must be an integer, got {grade!r}. Correct that line.")
            document = _field(value, ("corpus-id",), where)
            grades.setdefault(_field(value, ("query-id",), where), {})[document] = int(float(grade))
        return grades
    for number, line in enumerate(_lines(_read_text(path)), start=1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not cells or (number == 1 and not _is_integer(cells[-1])):
            continue  # BEIR's header
        if len(cells) not in (3, 4) or not _is_integer(cells[-1]):
            raise InputError(
                f"{path}, line {number}: judgements are 'query 0 document grade' (TREC) or 'query document grade' "
                f"(BEIR), with an integer as the grade; got {line[:80]!r}. Correct that line."
            )
        grades.setdefault(cells[0], {})[cells[-2]] = int(cells[-1])
    return grades


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Return query id → (document id, score), best first, of a TREC run (query, Q0, document, rank, score, tag).

    Documents are sorted by score, as in trec_eval, and equal scores by the rank column (trec_eval takes the document
    id).

    Raises:
        InputError: A line has fewer columns, or a rank or score that is not a finite number.
    """
    entries: dict[str, list[tuple[float, float, str]]] = {}
    for number, line in enumerate(_lines(_read_text(path)), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            query, _, document, rank, score = cells[:5]
            numbers = -float(score), float(rank)
            if not all(map(math.isfinite, numbers)):
                raise ValueError(line)
            entries.setdefault(query, []).append((*numbers, document))
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: a run's lines are 'query Q0 document rank score tag', got {line[:80]!r}. "
                "Correct that line."
            ) from error
    return {
        query: [(document, -score) for score, _, document in sorted(ranking, key=lambda entry: entry[:2])]
        for query, ranking in entries.items()
    }


def _read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield (id, object, file and line for error messages) of each line."""
    for row in read_rows(str(path), jsonl=True):
        where = f"{path}, line {row.line}"
        if not isinstance(row.value, dict):
            raise InputError(f"{where} is not a JSON object with an id and a text. Correct that line.")
        yield _field(row.value, ID_FIELDS, where), row.value, where


def _field(value: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """Return the value of the first of the fields `names` that has one, as a string. Numbers are converted."""
    name = next((field for field in names if value.get(field) is not None), None)
    if name is None:
        raise InputError(f"{where} has none of the fields {', '.join(names)}: it has {', '.join(value) or 'none'}.")
    return string_field(value[name], name, where)


def string_field(value: Any, name: str, where: str) -> str:
    """Return the value of a field as a string. Numbers are converted.

    Raises:
        InputError: The value is neither a string nor a number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: the field {name!r} must be a string, got {described(value)}. Correct that line.")
    return str(value)


def _title_and_text(value: dict[str, Any], where: str) -> tuple[str, str]:
    """Return the title, and title and text together."""
    text = next((string_field(value[name], name, where) for name in TEXT_FIELDS if value.get(name) is not None), "")
    title = value.get("title")
    title = "" if title is None else string_field(title, "title", where)
    return title, join_title(title, text)


def _read_tsv(path: Path, content: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(content), start=1):
        name, tab, text = line.partition("\t")
        if tab:
            yield name, text
        elif line.strip():
            raise InputError(f"{path}, line {number} has no tab: lines are an id, a tab and a text. Correct that line.")


def _lines(content: str) -> list[str]:
    """Split at line feeds only. `str.splitlines` also splits at other Unicode line ends, which a text may contain."""
    return content.replace("\r\n", "\n").split("\n")


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: convert it first, iconv -f latin1 -t utf-8.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _is_integer(cell: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", cell.strip()) is not None

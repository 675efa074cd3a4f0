"""The training sources: their passages, and their queries in a training and a development split.

A hash of the source and of a query's first relevant passage decides the split; one query in ten is for development. So
no passage that answers a development query is a training positive.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from rerank_plugins.evaluation.data import join_title

EXCLUDED = {"xquad"}
"""xquad: its paragraphs are the distractors of a test collection."""
QUESTIONS = {"squad", "squad_du", "selqa", "medquad", "covidqa", "pubmedqa", "scitldr"}
"""Sources whose queries were written by people. The queries of the others are headings, terms and definitions."""


@dataclass(frozen=True)
class Query:
    """A query of a source: its text, and positions of relevant, possibly relevant and irrelevant passages."""

    name: str
    text: str
    positives: tuple[int, ...]
    unsure: frozenset[int]
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Passages as the reranker reads them (title, space, text), and the queries of both splits in a fixed order."""

    name: str
    passages: list[str]
    train: list[Query]
    dev: list[Query]


def source_names(folder: Path) -> list[str]:
    """Return the names of the sources in a folder that may be trained on."""
    sources = sorted(path.name.split(".")[0] for path in folder.glob("*.queries.jsonl.gz"))
    return [name for name in sources if name not in EXCLUDED]


def read_source(folder: Path, name: str) -> Source:
    """Read a source. Its queries are shuffled with its name as the seed, so that the first n are a sample."""
    with gzip.open(folder / f"{name}.passages.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    place = {row["pid"]: position for position, row in enumerate(rows)}
    splits: dict[bool, list[Query]] = {False: [], True: []}
    with gzip.open(folder / f"{name}.queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            positives = tuple(place[pid] for pid in row["pos"] if pid in place)
            # Identifiers and version numbers ("R-12259-19638-…") are not queries.
            if not positives or not re.search(r"[A-Za-z]{3}", row["query"]):
                continue
            query = Query(
                name=f"{name}/{row['qid']}",
                text=row["query"],
                positives=positives,
                unsure=frozenset(place[pid] for pid in row["ignore"] if pid in place),
                negatives=tuple(place[pid] for pid in row["neg"] if pid in place),
            )
            splits[hashlib.sha256(f"{name}/{positives[0]}".encode()).digest()[0] % 10 == 0].append(query)
    for queries in splits.values():
        random.Random(name).shuffle(queries)
    texts = [join_title(row.get("title") or "", row["text"]) for row in rows]
    return Source(name, texts, splits[False], splits[True])

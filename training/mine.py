"""Choose queries of every source and find their candidates: BM25's best passages of the same source.

    python training/mine.py shared/train WORK [--share 1.0]

Writes to WORK: `texts.jsonl` (a passage a line, each once), `fit.jsonl`, `dev.jsonl` (queries with 30 and 50 candidates, to
fit weights on and to choose by) and `lists.jsonl` (queries with one positive and eight hard negatives, to
train on) and `held.jsonl` (the same of development queries). A line holds `query`, `name`, `candidates` (lines of texts.jsonl) and `labels` (1, 0, or -1: unsure).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import bm25s
from sources import QUESTIONS, Query, Source, names, read

FIT, DEV, LISTS, LISTS_OF_HEADINGS = 20, 15, 1500, 200
"""Queries of each source: to fit weights on, to choose by, and to train on."""
DEPTH = {"fit": 30, "dev": 50, "held": 30, "lists": 30}
HARD, HELD = 8, 3


class Texts:
    """Every passage that is used, once, by line."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}

    def line(self, text: str) -> int:
        """Return the line of a text."""
        return self.lines.setdefault(text, len(self.lines))


def searched(source: Source, queries: list[Query], depth: int) -> list[list[int]]:
    """Return BM25's best passages for each query."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(source.passages, stopwords="en", show_progress=False), show_progress=False)
    asked = bm25s.tokenize([query.text for query in queries], stopwords="en", show_progress=False)
    found, scores = index.retrieve(asked, k=min(depth, len(source.passages)), show_progress=False)
    return [
        [int(each) for each, score in zip(row, line, strict=True) if score > 0]
        for row, line in zip(found, scores, strict=True)
    ]


def judged(query: Query, candidates: list[int], source: Source, texts: Texts) -> dict[str, object]:
    """Return the line of a query; a candidate whose text is a positive's counts as one."""
    relevant = {source.passages[each] for each in query.positives}
    lines: dict[int, int] = {}
    for each in candidates:
        if source.passages[each].strip():
            label = 1 if source.passages[each] in relevant else -1 if each in query.unsure else 0
            lines[texts.line(source.passages[each])] = label
    return {"name": query.name, "query": query.text, "candidates": list(lines), "labels": list(lines.values())}


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the queries (the smoke run takes few)")
    given = parser.parse_args()
    texts, rows = Texts(), {"fit": [], "dev": [], "held": [], "lists": []}
    for name in names(given.train):
        source = read(given.train, name)
        wanted = LISTS if name in QUESTIONS else LISTS_OF_HEADINGS
        fit, dev, most = (max(1, round(count * given.share)) for count in (FIT, DEV, wanted))
        chosen = {"fit": source.train[:fit], "dev": source.dev[:dev], "lists": source.train[fit : fit + most]}
        chosen["held"] = chosen["dev"][:HELD]
        for kind, queries in chosen.items():
            for query, best in zip(queries, searched(source, queries, DEPTH[kind]), strict=True):
                found = best
                if kind in ("lists", "held"):
                    sure = set(query.positives) | query.unsure
                    hard = [each for each in (*query.negatives, *best) if each not in sure]
                    found = [query.positives[0], *dict.fromkeys(hard)][: HARD + 1]
                row = judged(query, found, source, texts)
                if kind in ("fit", "dev") or (row["labels"][0] == 1 and len(row["labels"]) > HARD // 2):
                    rows[kind].append(row)
        print(f"{name}: {len(source.passages)} passages, {len(source.train)} + {len(source.dev)} queries", flush=True)
    random.Random(0).shuffle(rows["lists"])
    given.work.mkdir(parents=True, exist_ok=True)
    for kind, lines in rows.items():
        (given.work / f"{kind}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        print(f"{kind}: {len(lines)} queries")
    (given.work / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts.lines), "utf-8")
    print(f"texts: {len(texts.lines)} passages")


if __name__ == "__main__":
    main()

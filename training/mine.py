"""Choose queries of every source, and retrieve their candidates: BM25's best passages of the same source.

    python training/mine.py shared/train WORK [--share 1.0]

Writes to WORK:

- `texts.jsonl`: one passage per line, without repetitions.
- `fit.jsonl` and `dev.jsonl`: queries with 30 and 50 candidates, to fit weights and to choose models.
- `lists.jsonl`: queries with one positive and eight hard negatives, to train on.
- `held.jsonl`: the same for development queries.

A line holds `query`, `name`, `candidates` (line numbers of texts.jsonl) and `labels` (1, 0, or -1 for unsure).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import bm25s
from sources import QUESTIONS, Query, Source, read_source, source_names

FIT, DEV, LISTS, LISTS_OF_HEADINGS = 20, 15, 1500, 200
"""Numbers of queries per source: to fit weights, to choose models, and to train on."""
DEPTH = {"fit": 30, "dev": 50, "held": 30, "lists": 30}
HARD, HELD = 8, 3


class Texts:
    """The passages in use, each with a line number."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}

    def line(self, text: str) -> int:
        """Return the line number of a text."""
        return self.lines.setdefault(text, len(self.lines))


def search(source: Source, queries: list[Query], depth: int) -> list[list[int]]:
    """Return the positions of BM25's best passages for each query."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(source.passages, stopwords="en", show_progress=False), show_progress=False)
    query_tokens = bm25s.tokenize([query.text for query in queries], stopwords="en", show_progress=False)
    positions, scores = index.retrieve(query_tokens, k=min(depth, len(source.passages)), show_progress=False)
    return [
        [int(position) for position, score in zip(row, line, strict=True) if score > 0]
        for row, line in zip(positions, scores, strict=True)
    ]


def make_row(query: Query, candidates: list[int], source: Source, texts: Texts) -> dict[str, object]:
    """Return the line of a query. A candidate with the text of a positive counts as a positive."""
    relevant = {source.passages[position] for position in query.positives}
    lines: dict[int, int] = {}
    for position in candidates:
        text = source.passages[position]
        if text.strip():
            lines[texts.line(text)] = 1 if text in relevant else -1 if position in query.unsure else 0
    return {"name": query.name, "query": query.text, "candidates": list(lines), "labels": list(lines.values())}


def main() -> None:
    """Write the five files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="share of the queries, 0 to 1")
    options = parser.parse_args()
    texts, rows = Texts(), {"fit": [], "dev": [], "held": [], "lists": []}
    for name in source_names(options.train):
        source = read_source(options.train, name)
        list_count = LISTS if name in QUESTIONS else LISTS_OF_HEADINGS
        fit, dev, train = (max(1, round(count * options.share)) for count in (FIT, DEV, list_count))
        chosen = {"fit": source.train[:fit], "dev": source.dev[:dev], "lists": source.train[fit : fit + train]}
        chosen["held"] = chosen["dev"][:HELD]
        for kind, queries in chosen.items():
            for query, best in zip(queries, search(source, queries, DEPTH[kind]), strict=True):
                candidates = best
                if kind in ("lists", "held"):
                    sure = set(query.positives) | query.unsure
                    hard = [position for position in (*query.negatives, *best) if position not in sure]
                    candidates = [query.positives[0], *dict.fromkeys(hard)][: HARD + 1]
                row = make_row(query, candidates, source, texts)
                if kind in ("fit", "dev") or (row["labels"][0] == 1 and len(row["labels"]) > HARD // 2):
                    rows[kind].append(row)
        print(f"{name}: {len(source.passages)} passages, {len(source.train)} + {len(source.dev)} queries", flush=True)
    random.Random(0).shuffle(rows["lists"])
    options.work.mkdir(parents=True, exist_ok=True)
    for kind, lines in rows.items():
        (options.work / f"{kind}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        print(f"{kind}: {len(lines)} queries")
    (options.work / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts.lines), "utf-8")
    print(f"texts: {len(texts.lines)} passages")


if __name__ == "__main__":
    main()

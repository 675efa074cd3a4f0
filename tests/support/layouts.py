"""Makes small collections in the layouts of the hub, out of real questions and passages in `examples/data`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_plugins.evaluation import BM25, Collection

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq_qed"
WORDS = 12
"""Words of a document, so that no model truncates one."""


def write_jsonl(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def write_parquet(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def nanobeir_folder(folder: Path, sizes: Mapping[str, int], *, depth: int = 12, parquet: bool = False) -> Path:
    """Write data sets in NanoBEIR's layout: split → number of queries. Some relevant documents are no candidates."""
    collection = Collection(NQ)
    names = [name for name in collection.queries if collection.grades.get(name)]
    write, suffix = (write_parquet, "-00000-of-00001.parquet") if parquet else (write_jsonl, ".jsonl")
    start = 0
    for split, size in sizes.items():
        chosen = names[start : start + size]
        start += size
        documents = {name: " ".join(text.split()[:WORDS]) for name, text in list(collection.documents.items())[:300]}
        for query in chosen:
            for document in collection.grades[query]:
                documents[document] = " ".join(collection.documents[document].split()[:WORDS])
        ids = list(documents)
        index = BM25(list(documents.values()))
        tables = {
            "corpus": [{"_id": name, "text": text} for name, text in documents.items()],
            "queries": [{"_id": name, "text": collection.queries[name]} for name in chosen],
            "qrels": [
                {"query-id": query, "corpus-id": document}
                for query in chosen
                for document, grade in collection.grades[query].items()
                if grade > 0
            ],
            "bm25": [
                {
                    "query-id": query,
                    "corpus-ids": [ids[at] for at, _ in index.search(collection.queries[query], depth)],
                }
                for query in chosen
            ],
        }
        for table, rows in tables.items():
            write(folder / table / f"{split}{suffix}", rows)
    (folder / "README.md").write_text(readme(sizes, suffix), "utf-8")
    return folder


def readme(splits: Mapping[str, int], suffix: str) -> str:
    """Return a README.md whose front matter names the tables, as a repository of the hub has it."""
    lines = ["---", "configs:"]
    for table in ("corpus", "queries", "qrels", "bm25"):
        lines += [f"- config_name: {table}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {table}/{split}{'-*' if suffix.startswith('-') else suffix}"]
    return "\n".join([*lines, "---", "# A small NanoBEIR", ""])


def positive_negative_rows(count: int) -> list[dict[str, Any]]:
    """Return rows of MTEB's older reranking layout: query, positive and negative."""
    collection = Collection(NQ)
    index = BM25(list(collection.documents.values()))
    ids = list(collection.documents)
    rows = []
    for query in [name for name in collection.queries if collection.grades.get(name)][:count]:
        relevant = [name for name, grade in collection.grades[query].items() if grade > 0]
        others = [ids[at] for at, _ in index.search(collection.queries[query], 9) if ids[at] not in relevant]

        def shortened(names: Sequence[str]) -> list[str]:
            return [" ".join(collection.documents[name].split()[:WORDS]) for name in names]

        rows.append(
            {"query": collection.queries[query], "positive": shortened(relevant), "negative": shortened(others)}
        )
    return rows

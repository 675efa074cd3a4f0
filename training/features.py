"""Encode queries and candidates with a model, and keep what a pointwise score can be made of.

    python training/features.py WORK KIND… --model FILE --name NAME [--dtype float32]
    python training/features.py WORK COLLECTION… --model FILE --name NAME

KIND is a file of `mine.py` (`fit`, `dev`) and COLLECTION a folder with corpus.jsonl, queries.tsv and qrels.txt (BM25's top 100).
Writes WORK/NAME.KIND.npz; see `Features`. An ONNX file gives `token_vectors` for `input_ids` and `attention_mask`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from rerank_plugins.engine.onnx.runtimes import open_session  # noqa: E402
from rerank_plugins.engine.scheduling import plan  # noqa: E402
from rerank_plugins.engine.tokenizer import PairTokenizer  # noqa: E402

FOLDER = ROOT / "rerank_plugins" / "backends" / "embedded_model"
QUERY_TOKENS, DOCUMENT_TOKENS, BATCH_TOKENS = 128, 256, 1024


@dataclass
class Asked:
    """A query with its candidates: texts, labels (a grade; -1 unsure), and the grades of all that is relevant."""

    name: str
    query: str
    documents: list[str]
    labels: list[int]
    ideal: list[int]
    bm25: list[float] = field(default_factory=list)


def mined(work: Path, kind: str) -> list[Asked]:
    """Read a file of `mine.py`."""
    texts = [json.loads(line) for line in (work / "texts.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in (work / f"{kind}.jsonl").read_text("utf-8").splitlines()]
    return [
        Asked(row["name"], row["query"], [texts[line] for line in row["candidates"]], row["labels"], [1])
        for row in rows
    ]


def collection(folder: Path, depth: int = 100) -> list[Asked]:
    """Read a test collection, and find BM25's best passages."""
    from collection import Collection

    held = Collection(folder)
    asked = []
    for name, query in held.queries.items():
        found = [(place, score) for place, score in held.search(query, depth) if held.texts[place].strip()]
        grades = held.grades.get(name, {})
        labels = [max(0, grades.get(held.ids[place], 0)) for place, _ in found]
        ideal = [grade for grade in grades.values() if grade > 0]
        texts = [held.texts[place] for place, _ in found]
        asked.append(Asked(f"{folder.name}/{name}", query, texts, labels, ideal, [score for _, score in found]))
    return asked


class TokenVectors:
    """An ONNX file with its tokenizer: texts to token ids and vectors."""

    def __init__(self, file: Path, dtype: str, threads: int) -> None:
        self.tokenizer = PairTokenizer(FOLDER / "tokenizer.json")
        self._threads = threads
        self._session = open_session("openvino" if dtype == "bfloat16" else "onnxruntime", dtype, file, threads)

    def each(self, texts: list[str], most: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (position, ids, vectors) of every text, longest first."""
        rows = self.tokenizer.singles(texts, most)

        def run(positions: list[int]) -> np.ndarray:
            longest = len(rows[positions[0]].ids)
            ids = np.zeros((len(positions), longest), dtype=np.int64)
            mask = np.zeros_like(ids)
            for line, position in enumerate(positions):
                ids[line, : len(rows[position].ids)] = rows[position].ids
                mask[line, : len(rows[position].ids)] = 1
            return self._session.run({"input_ids": ids, "attention_mask": mask})

        batches = plan([len(row.ids) for row in rows], BATCH_TOKENS)
        with ThreadPoolExecutor(self._threads) as workers:
            for first in range(0, len(batches), 64):  # bounded: vectors of a few thousand texts at a time
                block = batches[first : first + 64]
                for positions, output in zip(block, workers.map(run, block), strict=True):
                    for line, position in enumerate(positions):
                        yield position, np.array(rows[position].ids), output[line, : len(rows[position].ids)]


def compute(asked: list[Asked], model: TokenVectors, means: list[np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Return, per pair in order: `best` (of every query token, joined), `cosine` (of mean vectors), `length`.

    And per query: `tokens` (joined), `sizes` (tokens, candidates). `means`: a place to add up vectors by token.
    """
    queries: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0))] * len(asked)
    for position, ids, vectors in model.each([each.query for each in asked], QUERY_TOKENS):
        queries[position] = (ids, vectors.copy())
    wanted: dict[str, list[tuple[int, int]]] = {}
    for number, each in enumerate(asked):
        for place, text in enumerate(each.documents):
            wanted.setdefault(text, []).append((number, place))
    best = [np.zeros((len(each.documents), len(queries[number][0])), np.float16) for number, each in enumerate(asked)]
    cosine = [np.zeros(len(each.documents), np.float32) for each in asked]
    length = [np.zeros(len(each.documents), np.int32) for each in asked]
    middles = [unit(vectors.mean(axis=0)) for _, vectors in queries]
    texts, started = list(wanted), time.time()
    for done, (position, ids, vectors) in enumerate(model.each(texts, DOCUMENT_TOKENS), start=1):
        if means is not None:
            np.add.at(means[0], ids, vectors)
            np.add.at(means[1], ids, 1)
        middle = unit(vectors.mean(axis=0))
        for number, place in wanted[texts[position]]:
            best[number][place] = (vectors @ queries[number][1].T).max(axis=0)
            cosine[number][place] = middle @ middles[number]
            length[number][place] = len(ids)
        if done % 5000 == 0:
            print(f"  {done} of {len(texts)}, {time.time() - started:.0f} s", flush=True)
    return {
        "best": np.concatenate([each.ravel() for each in best]),
        "cosine": np.concatenate(cosine),
        "length": np.concatenate(length),
        "tokens": np.concatenate([ids for ids, _ in queries]).astype(np.int32),
        "sizes": np.array([(len(ids), len(each.documents)) for (ids, _), each in zip(queries, asked, strict=True)]),
    }


def unit(vector: np.ndarray) -> np.ndarray:
    """Return a vector of length one."""
    return vector / np.linalg.norm(vector)


def main() -> None:
    """Write a file for every kind and collection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("kinds", nargs="+", help="fit, dev, or a folder")
    parser.add_argument("--model", type=Path, default=FOLDER / "model.onnx")
    parser.add_argument("--name", default="untrained")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    model = TokenVectors(given.model, given.dtype, given.threads)
    for kind in given.kinds:
        asked = collection(Path(kind)) if Path(kind).is_dir() else mined(given.work, kind)
        means = [np.zeros((30522, 384), np.float32), np.zeros(30522, np.float32)] if kind == "fit" else None
        np.savez(given.work / f"{given.name}.{Path(kind).name}.npz", **compute(asked, model, means))
        if means:
            np.savez(given.work / f"{given.name}.means.npz", sums=means[0], counts=means[1])
        print(kind, flush=True)


if __name__ == "__main__":
    main()

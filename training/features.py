"""Encode queries and candidates with a model, and store the parts that a pointwise score is computed from.

    python training/features.py WORK KIND… --model FILE --name NAME [--dtype float32]
    python training/features.py WORK COLLECTION… --model FILE --name NAME

KIND is a file of `mine.py` (`fit`, `dev`) and COLLECTION a folder with corpus.jsonl, queries.tsv and qrels.txt (BM25's
top 100). Writes WORK/NAME.KIND.npz with the arrays that `compute_features` returns. The ONNX file FILE computes
`token_vectors` from `input_ids` and `attention_mask`.
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

from rerank_plugins.engine.onnx.cross_encoder import open_session  # noqa: E402
from rerank_plugins.engine.shared_model import length_batches  # noqa: E402
from rerank_plugins.engine.tokenizer import PairTokenizer  # noqa: E402

FOLDER = ROOT / "rerank_plugins" / "backends" / "embedded_model"
QUERY_TOKENS, DOCUMENT_TOKENS, BATCH_TOKENS = 128, 256, 1024


@dataclass
class JudgedQuery:
    """A query with its candidates: texts, labels (a grade, or -1: unsure), and the grades of all relevant documents."""

    name: str
    query: str
    documents: list[str]
    labels: list[int]
    ideal: list[int]
    bm25: list[float] = field(default_factory=list)


def read_mined(work: Path, kind: str) -> list[JudgedQuery]:
    """Read a file of `mine.py`."""
    texts = [json.loads(line) for line in (work / "texts.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in (work / f"{kind}.jsonl").read_text("utf-8").splitlines()]
    return [
        JudgedQuery(row["name"], row["query"], [texts[line] for line in row["candidates"]], row["labels"], [1])
        for row in rows
    ]


def read_collection(folder: Path, depth: int = 100) -> list[JudgedQuery]:
    """Read a test collection, with BM25's best passages for every query."""
    from collection import Collection

    files = Collection(folder)
    queries = []
    for name, query in files.queries.items():
        hits = [(place, score) for place, score in files.search(query, depth) if files.texts[place].strip()]
        grades = files.grades.get(name, {})
        labels = [max(0, grades.get(files.ids[place], 0)) for place, _ in hits]
        ideal = [grade for grade in grades.values() if grade > 0]
        texts = [files.texts[place] for place, _ in hits]
        scores = [score for _, score in hits]
        queries.append(JudgedQuery(f"{folder.name}/{name}", query, texts, labels, ideal, scores))
    return queries


class TokenEncoder:
    """An ONNX file with its tokenizer: encodes texts as token ids and token vectors."""

    def __init__(self, file: Path, dtype: str, threads: int) -> None:
        self.tokenizer = PairTokenizer(FOLDER / "tokenizer.json")
        self._threads = threads
        self._session = open_session("openvino" if dtype == "bfloat16" else "onnxruntime", dtype, file, threads)

    def encode(self, texts: list[str], max_tokens: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (position in `texts`, token ids, token vectors) of every text, longest first."""
        rows = self.tokenizer.singles(texts, max_tokens)

        def run(positions: list[int]) -> np.ndarray:
            longest = len(rows[positions[0]].ids)
            ids = np.zeros((len(positions), longest), dtype=np.int64)
            mask = np.zeros_like(ids)
            for line, position in enumerate(positions):
                ids[line, : len(rows[position].ids)] = rows[position].ids
                mask[line, : len(rows[position].ids)] = 1
            return self._session.run({"input_ids": ids, "attention_mask": mask})

        batches = length_batches([len(row.ids) for row in rows], BATCH_TOKENS)
        with ThreadPoolExecutor(self._threads) as workers:
            for first in range(0, len(batches), 64):  # holds the vectors of a few thousand texts at a time
                block = batches[first : first + 64]
                for positions, output in zip(block, workers.map(run, block), strict=True):
                    for line, position in enumerate(positions):
                        yield position, np.array(rows[position].ids), output[line, : len(rows[position].ids)]


def compute_features(
    judged: list[JudgedQuery],
    model: TokenEncoder,
    means: list[np.ndarray] | None = None,
    query_model: TokenEncoder | None = None,
) -> dict[str, np.ndarray]:
    """Return the features of all pairs, concatenated in the order of queries and candidates.

    Args:
        judged: The queries with their candidates.
        model: The encoder.
        means: Two arrays that the vectors and the counts of every document token are added to, or `None`.
        query_model: The encoder of the queries; default: `model`.

    Returns:
        Per pair: `best`, the similarity of the best document token for every query token; `cosine`, of the mean
        vectors; `length`, the tokens of the document. Per query: `tokens`, its token ids; `sizes`, the numbers of its
        tokens and of its candidates.
    """
    queries: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0))] * len(judged)
    for position, ids, vectors in (query_model or model).encode([item.query for item in judged], QUERY_TOKENS):
        queries[position] = (ids, vectors.copy())
    pairs_by_text: dict[str, list[tuple[int, int]]] = {}
    for number, item in enumerate(judged):
        for place, text in enumerate(item.documents):
            pairs_by_text.setdefault(text, []).append((number, place))
    best = [np.zeros((len(item.documents), len(queries[number][0])), np.float16) for number, item in enumerate(judged)]
    cosine = [np.zeros(len(item.documents), np.float32) for item in judged]
    length = [np.zeros(len(item.documents), np.int32) for item in judged]
    query_means = [normalize(vectors.mean(axis=0)) for _, vectors in queries]
    texts, started = list(pairs_by_text), time.time()
    for done, (position, ids, vectors) in enumerate(model.encode(texts, DOCUMENT_TOKENS), start=1):
        if means is not None:
            np.add.at(means[0], ids, vectors)
            np.add.at(means[1], ids, 1)
        document_mean = normalize(vectors.mean(axis=0))
        for number, place in pairs_by_text[texts[position]]:
            best[number][place] = (vectors @ queries[number][1].T).max(axis=0)
            cosine[number][place] = document_mean @ query_means[number]
            length[number][place] = len(ids)
        if done % 5000 == 0:
            print(f"  {done} of {len(texts)}, {time.time() - started:.0f} s", flush=True)
    return {
        "best": np.concatenate([similarities.ravel() for similarities in best]),
        "cosine": np.concatenate(cosine),
        "length": np.concatenate(length),
        "tokens": np.concatenate([ids for ids, _ in queries]).astype(np.int32),
        "sizes": np.array([(len(ids), len(item.documents)) for (ids, _), item in zip(queries, judged, strict=True)]),
    }


def normalize(vector: np.ndarray) -> np.ndarray:
    """Return a vector of length one."""
    return vector / np.linalg.norm(vector)


def main() -> None:
    """Write a file for every kind and collection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("kinds", nargs="+", help="fit, dev, or a folder")
    parser.add_argument("--model", type=Path, default=FOLDER / "model.onnx")
    parser.add_argument("--query-model", type=Path, help="another file for the queries")
    parser.add_argument("--name", default="untrained")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    model = TokenEncoder(options.model, options.dtype, options.threads)
    query_model = options.query_model and TokenEncoder(options.query_model, options.dtype, options.threads)
    for kind in options.kinds:
        judged = read_collection(Path(kind)) if Path(kind).is_dir() else read_mined(options.work, kind)
        means = [np.zeros((30522, 384), np.float32), np.zeros(30522, np.float32)] if kind == "fit" else None
        np.savez(
            options.work / f"{options.name}.{Path(kind).name}.npz",
            **compute_features(judged, model, means, query_model),
        )
        if means:
            np.savez(options.work / f"{options.name}.means.npz", sums=means[0], counts=means[1])
        print(kind, flush=True)


if __name__ == "__main__":
    main()

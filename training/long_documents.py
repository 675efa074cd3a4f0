"""Try ways to read long documents: the head alone, as `embedded` does, or all windows of 256 tokens.

    python training/long_documents.py shared/train [--queries 8] [--encoder]

A long document is seven consecutive passages of a source, about 600 words. The queries are those of the development
split, a few of each source; their candidates are BM25's best 20 documents. Prints nDCG@10 of BM25 and of each way, and
the 95 % interval of the difference from BM25 (paired bootstrap over queries). The scores are those of `embedded:fast`,
which takes a minute; with --encoder those of `embedded`, which takes hours.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import bm25s
import numpy as np
from features import FOLDER, ROOT
from sources import Query, Source, read_source, source_names

from rerank_plugins.engine.late_interaction.passage_cache import TokenVectors
from rerank_plugins.engine.late_interaction.scoring import Passage, PreparedQuery, ScoreWeights, TermIDF
from rerank_plugins.engine.onnx.cross_encoder import open_session
from rerank_plugins.engine.tokenizer import PairTokenizer

sys.path.insert(0, str(ROOT / "examples"))

from collection import interval

PASSAGES, CANDIDATES, WINDOW = 7, 20, 254
WHOLE_LENGTH = 800.0
"""The tokens of a long document of average length."""
START, END = 101, 102
"""BERT's special tokens around a text."""


class Reader:
    """Scores the windows of documents."""

    def __init__(self, *, encoder: bool) -> None:
        self.tokenizer, self.term_idf = PairTokenizer(FOLDER / "tokenizer.json"), TermIDF.read(FOLDER)
        self.weights = ScoreWeights.read(FOLDER, "embedded" if encoder else "fast")
        self._table = TokenVectors.read(FOLDER / "fast.npy")
        self._session = open_session("onnxruntime", "float32", FOLDER / "model.onnx", 1) if encoder else None

    def vectors(self, ids: list[int]) -> np.ndarray:
        """Return token vectors."""
        if self._session is None:
            return self._table.vectors(ids)
        return self._session.run({"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)})[0]

    def scores(self, query: str, document: str) -> dict[str, float]:
        """Return the score of a document in each way."""
        (row,) = self.tokenizer.singles([query], 128)
        (ids,) = self.tokenizer.ids([document], 100_000)
        vectors = self.vectors(row.ids)
        prepared = PreparedQuery(row.ids, vectors, self.term_idf, self.weights)
        windows = [[START, *ids[at : at + WINDOW], END] for at in range(0, max(1, len(ids)), WINDOW)]
        whole = np.array([prepared.score(Passage.of(part, self.vectors(part), self.term_idf)) for part in windows])
        alone = whole - self.weights.lexical * np.array([self._lexical(row.ids, part) for part in windows])
        lexical = self.weights.lexical * self._lexical(row.ids, ids, WHOLE_LENGTH)
        return {
            "head": whole[0],
            "best window": whole.max(),
            "head, lexical share of all": alone[0] + lexical,
            "best window, lexical share of all": alone.max() + lexical,
            "0.7 x best window + 0.3 x mean": 0.7 * whole.max() + 0.3 * whole.mean(),
        }

    def _lexical(self, query_ids: list[int], ids: list[int], length: float | None = None) -> float:
        """Return the lexical share of the score; `length` is that of an average document."""
        terms, weights = self.term_idf.terms, self.weights
        shares = np.maximum(self.term_idf.values[query_ids] - weights.floor, 0.0)
        counts = (terms[np.array(ids, dtype=np.int64)][:, None] == terms[query_ids]).sum(axis=0)
        full = weights.saturation * (1 - weights.by_length + weights.by_length * len(ids) / (length or weights.length))
        return float((counts / (counts + full)) @ shares / max(shares.sum(), 1e-9))


def ndcg(scores: list[float], relevant: list[bool], ideal: int) -> float:
    """Return nDCG@10, where `ideal` documents are relevant."""
    gains = np.array(relevant)[np.argsort(-np.array(scores), kind="stable")[:10]]
    discounts = 1 / np.log2(np.arange(2, 12))
    return float((gains * discounts[: len(gains)]).sum() / discounts[: min(10, ideal)].sum())


def judge(source: Source, queries: list[Query], reader: Reader) -> dict[str, list[float]]:
    """Return nDCG@10 of each query, by BM25 and in each way."""
    documents = ["\n".join(source.passages[at : at + PASSAGES]) for at in range(0, len(source.passages), PASSAGES)]
    values: dict[str, list[float]] = {}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(documents, stopwords="en", show_progress=False), show_progress=False)
    for query in queries:
        relevant = {position // PASSAGES for position in query.positives}
        unsure = {position // PASSAGES for position in query.unsure} - relevant
        tokens = bm25s.tokenize([query.text], stopwords="en", show_progress=False)
        (places,), (scores,) = index.retrieve(tokens, k=min(CANDIDATES, len(documents)), show_progress=False)
        candidates = [
            (int(place), float(score))
            for place, score in zip(places, scores, strict=True)
            if score > 0 and int(place) not in unsure
        ]
        if not candidates:
            continue
        columns: dict[str, list[float]] = {"BM25": [score for _, score in candidates]}
        for place, _ in candidates:
            for name, score in reader.scores(query.text, documents[place]).items():
                columns.setdefault(name, []).append(score)
        for name, column in columns.items():
            labels = [place in relevant for place, _ in candidates]
            values.setdefault(name, []).append(ndcg(column, labels, len(relevant)))
    return values


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("--queries", type=int, default=8, help="queries of each source")
    parser.add_argument("--encoder", action="store_true", help="embedded, not embedded:fast")
    options = parser.parse_args()
    reader, values = Reader(encoder=options.encoder), dict[str, list[float]]()
    for name in source_names(options.train):
        source = read_source(options.train, name)
        for way, column in judge(source, source.dev[: options.queries], reader).items():
            values.setdefault(way, []).extend(column)
        print(name, len(values.get("BM25", [])), flush=True)
    for way, column in values.items():
        differences = [mine - theirs for mine, theirs in zip(column, values["BM25"], strict=True)]
        mean, low, high = interval(differences)
        print(f"{way:36}{np.mean(column):.3f}  over BM25 {mean:+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()

"""Compare a model with `embedded`: the loss of nDCG@10 for each query, with the weights of `embedded`'s score.

    python training/compare.py WORK NAME dev shared/eval/*/ [--reference embedded]

Needs the files that `features.py` writes for both names and for every kind or collection. The last two lines are all
queries together, and the mean of the sets, where every set counts the same. Intervals: 95 %, bootstrap over the
queries of each set, paired. All losses are in percent of the reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from features import FOLDER, read_collection, read_mined
from fit import make_cases, ndcg

from rerank_plugins.engine.late_interaction.scoring import ScoreWeights

RESAMPLES, SEED = 10_000, 5


def describe(name: str, pairs: list[np.ndarray]) -> str:
    """Return a line of the table.

    Args:
        name: The name of the row.
        pairs: Values of each set, [2, queries]: the model's, and the reference's.
    """
    generator = np.random.default_rng(SEED)
    sampled = np.zeros((2, RESAMPLES))
    for pair in pairs:
        rows = generator.integers(pair.shape[1], size=(RESAMPLES, pair.shape[1]))
        sampled += pair[:, rows].mean(axis=-1)
    mine, theirs = sum(pair.mean(axis=1) for pair in pairs) / len(pairs)
    low, high = np.percentile(100 * (sampled[0] / sampled[1] - 1), [2.5, 97.5])
    queries, change = sum(pair.shape[1] for pair in pairs), 100 * (mine / theirs - 1)
    return f"| {name} | {queries} | {theirs:.4f} | {mine:.4f} | {change:+.2f} | [{low:+.2f}, {high:+.2f}] |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("kinds", nargs="+", help="dev, or a folder")
    parser.add_argument("--reference", default="embedded")
    options = parser.parse_args()
    background, weights = np.load(FOLDER / "background.npy"), ScoreWeights.read(FOLDER, "embedded")
    print(f"| | queries | {options.reference} | {options.name} | change, % | 95 % |\n|---|---|---|---|---|---|")
    pairs = []
    for kind in options.kinds:
        queries = read_collection(Path(kind)) if Path(kind).is_dir() else read_mined(options.work, kind)
        values = []
        for name in (options.name, options.reference):
            features = dict(np.load(options.work / f"{name}.{Path(kind).name}.npz"))
            cases = make_cases(queries, features, None, background)
            values.append(
                [ndcg(case.scores(weights.power, weights.cosine, weights.lexical), case.judged) for case in cases]
            )
        pairs.append(np.array(values))
        print(describe(Path(kind).name, pairs[-1:]), flush=True)
    print(describe("all queries", [np.concatenate(pairs, axis=1)]))
    print(describe("mean of the sets", pairs))


if __name__ == "__main__":
    main()

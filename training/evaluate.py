"""Make the table of the model card: nDCG@10 on the development split and on test collections, all queries.

    python training/evaluate.py WORK shared/eval/*/ [--shipped shipped] [--card CARD.md]

Needs the files that `features.py` writes for the names `untrained` and --shipped, of `dev` and of every collection.
With --card, the table between the card's markers is replaced. Intervals: 95 %, bootstrap over queries.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from features import FOLDER, read_collection, read_mined
from fit import Case, make_cases, ndcg

from rerank_plugins.engine.late_interaction.passage_cache import TokenVectors
from rerank_plugins.engine.late_interaction.scoring import ScoreWeights

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import interval

BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"


def standard(values: np.ndarray) -> np.ndarray:
    """Return z-scores."""
    return (values - values.mean()) / (values.std() + 1e-9)


def first_stage(case: Case) -> np.ndarray:
    """Return BM25's scores, or its order if only that is known."""
    return np.array(case.judged.bm25) if case.judged.bm25 else -np.arange(len(case.judged.documents), dtype=float)


def maxsim(case: Case) -> np.ndarray:
    """Return the scores of plain late interaction."""
    return case.best.mean(axis=1)


def z_sum(case: Case) -> np.ndarray:
    """Return the scores of an ensemble of z-scores, which depend on the other candidates."""
    return standard(maxsim(case)) + standard(case.cosine) + standard(first_stage(case))


def weighted(mix: ScoreWeights) -> Callable[[Case], np.ndarray]:
    """Return the scoring function of one of our models."""
    return lambda case: case.scores(mix.power, mix.cosine, mix.lexical)


def main() -> None:
    """Print the table, and write it into the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--shipped", default="shipped")
    parser.add_argument("--card", type=Path)
    options = parser.parse_args()
    background, table = np.load(FOLDER / "background.npy"), TokenVectors.read(FOLDER / "fast.npy")
    best, fast = ScoreWeights.read(FOLDER, "embedded"), ScoreWeights.read(FOLDER, "fast")
    columns: dict[str, tuple[str, Callable[[Case], np.ndarray]]] = {
        "BM25": ("untrained", first_stage),
        "cosine": ("untrained", lambda case: case.cosine),
        "late interaction": ("untrained", maxsim),
        "z-sum of the three": ("untrained", z_sum),
        "untrained, joined with these weights": ("untrained", weighted(best)),
        "**embedded**": (options.shipped, weighted(best)),
        "**embedded:fast**": ("table", weighted(fast)),
    }
    compared = ["BM25", "late interaction"]
    more = [f"embedded over {name} [95 %]" for name in compared] + ["fast over BM25 [95 %]"]
    lines = ["| | queries | " + " | ".join([*columns, *more]) + " |", "|---" * (2 + len(columns) + len(more)) + "|"]
    means: dict[str, list[float]] = {name: [] for name in columns}
    for kind in (Path("dev"), *options.collections):
        queries = read_mined(options.work, "dev") if kind == Path("dev") else read_collection(kind)
        cases_by_model = {
            name: list(
                make_cases(
                    queries,
                    None if name == "table" else dict(np.load(options.work / f"{name}.{kind.name}.npz")),
                    table,
                    background,
                )
            )
            for name in {model for model, _ in columns.values()}
        }
        values_by_column = {
            name: np.array([ndcg(score(case), case.judged) for case in cases_by_model[model]])
            for name, (model, score) in columns.items()
        }
        for name, values in values_by_column.items():
            means[name].append(float(values.mean()))
        pairs = [("**embedded**", name) for name in compared] + [("**embedded:fast**", "BM25")]
        changes = [interval((values_by_column[mine] - values_by_column[theirs]).tolist()) for mine, theirs in pairs]
        lifts = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in changes]
        name = "development" if kind == Path("dev") else kind.name
        row = [name, str(len(values_by_column["BM25"]))]
        row += [*(f"{values.mean():.3f}" for values in values_by_column.values()), *lifts]
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    row = ["mean", "", *(f"{np.mean(values):.3f}" for values in means.values()), "", "", ""]
    lines.append("| " + " | ".join(row) + " |")
    table_text = "\n".join(lines) + "\n"
    print(table_text)
    if options.card:
        card = options.card.read_text("utf-8")
        pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
        options.card.write_text(re.sub(pattern, lambda _: BEGIN + table_text + END, card, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()

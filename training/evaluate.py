"""Make the card's table: nDCG@10 of everything, on the development split and on test collections, all queries.

    python training/evaluate.py WORK shared/eval/*/ [--shipped shipped] [--card rerank_plugins/backends/embedded_model/CARD.md]

Wants `features.py`'s files for the names `untrained` and --shipped of `dev` and of every collection. With --card the table between the
card's markers is made anew. Intervals: 95 %, bootstrap over queries.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from features import FOLDER, collection, mined
from fit import Case, cases, ndcg

from rerank_plugins.engine.late_interaction.passage_cache import TokenVectors
from rerank_plugins.engine.late_interaction.scoring import ScoreWeights

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import interval

BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"


def standard(values: np.ndarray) -> np.ndarray:
    """Return z-scores."""
    return (values - values.mean()) / (values.std() + 1e-9)


def first_stage(case: Case) -> np.ndarray:
    """Return BM25's scores, or its order where only that is known."""
    return np.array(case.asked.bm25) if case.asked.bm25 else -np.arange(len(case.asked.documents), dtype=float)


def maxsim(case: Case) -> np.ndarray:
    """Return plain late interaction."""
    return case.best.mean(axis=1)


def z_sum(case: Case) -> np.ndarray:
    """Return the ensemble whose scores depend on the candidates."""
    return standard(maxsim(case)) + standard(case.cosine) + standard(first_stage(case))


def joined(mix: ScoreWeights) -> Callable[[Case], np.ndarray]:
    """Return the score of a model of ours."""
    return lambda case: case.scores(mix.power, mix.cosine, mix.lexical)


def main() -> None:
    """Print the table, and put it into the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--shipped", default="shipped")
    parser.add_argument("--card", type=Path)
    given = parser.parse_args()
    background, table = np.load(FOLDER / "background.npy"), TokenVectors.read(FOLDER / "fast.npy")
    best, fast = ScoreWeights.read(FOLDER, "embedded"), ScoreWeights.read(FOLDER, "fast")
    columns: dict[str, tuple[str, Callable[[Case], np.ndarray]]] = {
        "BM25": ("untrained", first_stage),
        "cosine": ("untrained", lambda case: case.cosine),
        "late interaction": ("untrained", maxsim),
        "z-sum of the three": ("untrained", z_sum),
        "untrained, joined with these weights": ("untrained", joined(best)),
        "**embedded**": (given.shipped, joined(best)),
        "**embedded:fast**": ("table", joined(fast)),
    }
    compared = ["BM25", "late interaction"]
    more = [f"embedded over {name} [95 %]" for name in compared] + ["fast over BM25 [95 %]"]
    lines = ["| | queries | " + " | ".join([*columns, *more]) + " |", "|---" * (2 + len(columns) + len(more)) + "|"]
    means: dict[str, list[float]] = {name: [] for name in columns}
    for kind in (Path("dev"), *given.collections):
        asked = mined(given.work, "dev") if kind == Path("dev") else collection(kind)
        held = {
            name: list(
                cases(
                    asked,
                    None if name == "table" else dict(np.load(given.work / f"{name}.{kind.name}.npz")),
                    table,
                    background,
                )
            )
            for name in {where for where, _ in columns.values()}
        }
        found = {
            name: np.array([ndcg(score(case), case.asked) for case in held[where]])
            for name, (where, score) in columns.items()
        }
        for name, values in found.items():
            means[name].append(float(values.mean()))
        pairs = [("**embedded**", name) for name in compared] + [("**embedded:fast**", "BM25")]
        changes = [interval((found[mine] - found[theirs]).tolist()) for mine, theirs in pairs]
        told = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in changes]
        name = "development" if kind == Path("dev") else kind.name
        row = [name, str(len(found["BM25"])), *(f"{values.mean():.3f}" for values in found.values()), *told]
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    row = ["mean", "", *(f"{np.mean(values):.3f}" for values in means.values()), "", "", ""]
    lines.append("| " + " | ".join(row) + " |")
    made = "\n".join(lines) + "\n"
    print(made)
    if given.card:
        card = given.card.read_text("utf-8")
        pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
        given.card.write_text(re.sub(pattern, lambda _: BEGIN + made + END, card, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()

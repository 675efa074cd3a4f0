"""Train the table of `embedded:fast`: one vector per token, for late interaction combined with lexical evidence.

    python training/train_fast.py WORK [--steps 3000]

The initial vector of a token is the mean of the encoder's vectors for it in real passages (WORK/untrained.means.npz,
written by `features.py fit`). For a rare token it is a linear map of its row in the word table. The table is projected
onto its 128 principal directions. A step takes 8 queries of one source and all their candidates. Writes WORK/fast.npy
(int8) and WORK/fast-curve.json. Training takes minutes and does not resume.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from make_embedded import package_folder
from safetensors.numpy import load_file
from train import Lists

WIDTH, RATE, EMA, SEED = 128, 1e-3, 0.998, 11
DOCUMENT_TOKENS = 256


def initial_table(means: dict[str, np.ndarray]) -> np.ndarray:
    """Return the table before training, [vocabulary, WIDTH]."""
    words = load_file(package_folder() / "model.safetensors")["embeddings.word_embeddings.weight"]
    counts, inputs = means["counts"], np.c_[words, np.ones(len(words), np.float32)]
    mean = means["sums"] / np.maximum(counts, 1)[:, None]
    frequent = counts >= 20
    weight = np.sqrt(np.minimum(counts[frequent], 500))[:, None]
    guess = inputs @ np.linalg.lstsq(inputs[frequent] * weight, mean[frequent] * weight, rcond=None)[0]
    full = (means["sums"] + 10 * guess) / (counts + 10)[:, None]
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    _, _, directions = np.linalg.svd(full[frequent] if frequent.sum() > WIDTH else full, full_matrices=False)
    return (full @ directions[:WIDTH].T).astype(np.float32)


class FastScorer(torch.nn.Module):
    """The table and the weights of the combined score."""

    def __init__(self, table: np.ndarray, background: np.ndarray) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(table.copy()))
        self.mix = torch.nn.Parameter(torch.tensor([15.0, 6.0]))
        self.terms = torch.from_numpy(background[0].astype(np.int64))
        self.rarity = torch.from_numpy(background[1].astype(np.float32) / 16)

    def forward(self, queries: list[torch.Tensor], documents: list[torch.Tensor]) -> torch.Tensor:
        """Return scores [queries, documents] of token ids."""
        unique_ids = [torch.unique(document) for document in documents]
        ids = torch.cat(unique_ids)
        place = torch.repeat_interleave(torch.tensor([len(tokens) for tokens in unique_ids]))
        query_ids = torch.cat(queries)
        unit = torch.nn.functional.normalize
        sims = unit(self.table[query_ids], dim=-1) @ unit(self.table[ids], dim=-1).T
        best = torch.full((len(query_ids), len(unique_ids)), -1.0).scatter_reduce(
            1, place.expand(len(query_ids), -1), sims, "amax", include_self=False
        )
        rarity = self.rarity[query_ids]
        counts = torch.stack(
            [(self.terms[query_ids][:, None] == self.terms[document]).sum(-1) for document in documents], 1
        )
        sizes = torch.tensor([float(len(document)) for document in documents])
        lexical = counts / (counts + 1.2 * (0.25 + 0.75 * sizes / 110))
        owner = torch.repeat_interleave(torch.tensor([len(query) for query in queries]))
        late, evidence = rarity**1.5, (rarity - 1.0).clamp(min=0.0)

        def mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(len(queries)).index_add(0, owner, weights).clamp(min=1e-6)
            return (
                torch.zeros(len(queries), values.shape[1]).index_add(0, owner, values * weights[:, None])
                / total[:, None]
            )

        return self.mix[0] * mean(best, late) + self.mix[1] * mean(lexical, evidence)


def make_batch(lists: Lists, numbers: list[int]) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Return the token ids of queries and documents, and the position of each query's positive."""
    lines = list(dict.fromkeys(line for number in numbers for line in lists.rows[number]["candidates"]))
    own = [lists.rows[number]["candidates"][0] for number in numbers]
    place = torch.tensor([lines.index(line) for line in own])
    queries = [torch.tensor(lists.queries[number]) for number in numbers]
    return queries, [torch.tensor(lists.documents[line]) for line in lines], place


@torch.no_grad()
def first_of_nine(model: FastScorer, lists: Lists) -> tuple[float, float]:
    """Return the share of queries whose positive is the first of its candidates, and the mean reciprocal rank."""
    ranks = []
    for number in range(len(lists.rows)):
        queries, documents, place = make_batch(lists, [number])
        scores = model(queries, documents)[0]
        ranks.append(int((scores >= scores[place[0]]).sum()))
    return float(np.mean([rank == 1 for rank in ranks])), float(np.mean([1 / rank for rank in ranks]))


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--look-every", type=int, default=500)
    parser.add_argument(
        "--keep", type=float, default=0.5, help="share of the initial table in the table that is written"
    )
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    lists, dev = (
        Lists(
            options.work,
            [json.loads(line) for line in (options.work / name).read_text("utf-8").splitlines()],
            DOCUMENT_TOKENS,
        )
        for name in ("lists.jsonl", "held.jsonl")
    )
    table = initial_table(dict(np.load(options.work / "untrained.means.npz")))
    model = FastScorer(table, np.load(options.work / "background.npy"))
    optimizer = torch.optim.Adam([{"params": [model.table], "lr": RATE}, {"params": [model.mix], "lr": RATE * 10}])
    average, curve, losses, batches = model.table.detach().clone(), [], [], []
    for step in range(options.steps + 1):
        if step % options.look_every == 0:
            current = model.table.data
            model.table.data = average
            first, rank = first_of_nine(model, dev)
            model.table.data = current
            loss = float(np.mean(losses)) if losses else None
            losses.clear()
            curve.append({"step": step, "loss": loss, "dev_first": first, "dev_mrr": rank, "mix": model.mix.tolist()})
            print(curve[-1], flush=True)
        if step == options.steps:
            break
        if not batches:
            batches = lists.batches(step)
        queries, documents, place = make_batch(lists, batches.pop())
        loss = torch.nn.functional.cross_entropy(model(queries, documents), place)
        optimizer.param_groups[0]["lr"] = RATE * max(0.05, 1 - step / options.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            average.lerp_(model.table, 1 - min(EMA, (step + 1) / (step + 10)))
    (options.work / "fast-curve.json").write_text(json.dumps(curve, indent=1) + "\n", "utf-8")
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (table, average.numpy())]
    mixed = options.keep * unit[0] + (1 - options.keep) * unit[1]
    np.save(options.work / "fast.npy", np.rint(127 * mixed / np.abs(mixed).max(axis=1, keepdims=True)).astype(np.int8))


if __name__ == "__main__":
    main()

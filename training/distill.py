"""Distil `embedded` into an encoder of half its depth, on the lists of `mine.py`.

    python training/distill.py WORK [--steps 1800] [--out WORK/half]

The student begins as every second layer of the teacher. The teacher is the file in the wheel. A step takes 8 queries of
one source, each with its positive and 3 hard negatives. The loss has three parts:

- the distance (1 - cosine) of each token vector from the teacher's;
- the divergence of the scores of all 32 passages from the teacher's scores, for each query;
- the same from an ensemble: the sum of the z-scores of the teacher's late interaction, cosine and lexical share.

The tables of words, positions and types are frozen. Weights are averaged over steps (EMA). The script resumes from
OUT/checkpoint.pt, which it replaces every few minutes, and when it is stopped by SIGTERM or SIGINT; the steps are the
same as without the stop. OUT/curve.json holds the losses, and every 100 steps how often the positive of a development
query is the first of nine. OUT/step-N.safetensors, and OUT/latest.safetensors beside every checkpoint, hold the
averaged weights.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from make_embedded import package_folder, restore
from safetensors.torch import save_file
from torch.nn.functional import kl_div, normalize
from torch.nn.utils.rnn import pad_sequence
from train import SPECIAL, WARMUP, Lists, first_of_nine, lexical_share, pad, sample_passages, vector_scores
from transformers import BertConfig, BertModel

from rerank_plugins.engine.late_interaction.scoring import ScoreWeights
from rerank_plugins.engine.onnx.cross_encoder import Session, open_session
from rerank_plugins.engine.shared_model import length_batches

FOLDER = Path(__file__).parent.parent / "rerank_plugins" / "backends" / "embedded_model"
DOCUMENT_TOKENS, BATCH_TOKENS = 256, 2048
RATE, EMA, SEED = 3e-4, 0.99, 13
SHARPNESS = 20.0
"""Scores are differences of about 0.1. They are multiplied by this before the softmax."""
TOKENS, SCORES, ENSEMBLE = 10.0, 1.0, 0.5
"""Weights of the parts of the loss."""


def every_second_layer(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the teacher's tables, and its layers 2, 4, 6 and so on as layers 1, 2, 3."""
    chosen = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[0] == "encoder":
            layer = int(parts[2])
            if layer % 2 == 0:
                continue
            parts[2] = str(layer // 2)
        chosen[".".join(parts)] = torch.from_numpy(value.copy())
    return chosen


class Formula:
    """The score of `embedded`, from token vectors. `PreparedQuery` (rerank_plugins.engine.late_interaction) has it."""

    def __init__(self, background: np.ndarray) -> None:
        self._terms = torch.from_numpy(background[0].astype(np.int64))
        self._rarity = torch.from_numpy(background[1].astype(np.float32) / 16)
        self._weights = ScoreWeights.read(FOLDER, "embedded")

    def parts(
        self, queries: list[list[int]], documents: list[list[int]], vectors: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return late interaction, cosine and lexical share, each [queries, documents].

        Args:
            queries: Token ids.
            documents: Token ids.
            vectors: The token vectors of all queries, then of all documents.
        """
        (query_ids, query_mask), (document_ids, document_mask) = pad(queries), pad(documents)
        query_vectors, document_vectors = (
            pad_sequence(list(part), batch_first=True) for part in (vectors[: len(queries)], vectors[len(queries) :])
        )
        rarity = self._rarity[query_ids]
        counted = query_mask.float() * (query_ids >= SPECIAL)
        weight = counted * rarity.clamp(min=1e-3) ** self._weights.power
        late, cosine = vector_scores(weight, query_vectors, query_mask, document_vectors, document_mask)
        evidence = counted * (rarity - self._weights.floor).clamp(min=0.0)
        return late, cosine, lexical_share(query_ids, document_ids, document_mask, self._terms, evidence)

    def combine(self, late: torch.Tensor, cosine: torch.Tensor, lexical: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return late + self._weights.cosine * cosine + self._weights.lexical * lexical


class Student(torch.nn.Module):
    """An encoder of half the teacher's depth."""

    def __init__(self, weights: dict[str, torch.Tensor], formula: Formula) -> None:
        super().__init__()
        config = BertConfig.from_pretrained(str(package_folder()))
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        config.num_hidden_layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder"))
        self.bert = BertModel(config, add_pooling_layer=False)
        report = self.bert.load_state_dict(weights, strict=False)
        assert not report.unexpected_keys, report.unexpected_keys
        self.bert.embeddings.requires_grad_(False)
        self.formula = formula
        self.mix = torch.zeros(0)

    def encode(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return token vectors of length one, [rows, tokens, width]."""
        mask_bias = (1.0 - mask[:, None, None, :].float()) * -1e9
        hidden = self.bert.embeddings(input_ids=ids)
        for layer in self.bert.encoder.layer:
            hidden = layer(hidden, mask_bias)
        return normalize(hidden, dim=-1)

    def forward(
        self, queries: tuple[torch.Tensor, torch.Tensor], documents: tuple[torch.Tensor, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return a list of the scores [queries, documents], the shape that `first_of_nine` takes."""
        rows, vectors = [], []
        for ids, mask in (queries, documents):
            rows.append([row[: int(size)].tolist() for row, size in zip(ids, mask.sum(-1), strict=True)])
            vectors += [row[:size] for row, size in zip(self.encode(ids, mask), mask.sum(-1), strict=True)]
        return [self.formula.combine(*self.formula.parts(rows[0], rows[1], vectors))]

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters that are trained, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def standard(values: torch.Tensor) -> torch.Tensor:
    """Return z-scores over the documents."""
    return (values - values.mean(-1, keepdim=True)) / (values.std(-1, keepdim=True) + 1e-6)


def losses(
    student: Student,
    teacher: Session,
    workers: ThreadPoolExecutor,
    queries: list[list[int]],
    documents: list[list[int]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the three parts of the loss of a batch of token ids."""
    rows = queries + documents
    batches = length_batches([len(row) for row in rows], BATCH_TOKENS)
    inputs = [pad([rows[position] for position in batch]) for batch in batches]
    outputs = workers.map(
        lambda pair: teacher.run({"input_ids": pair[0].numpy(), "attention_mask": pair[1].numpy()}), inputs
    )
    vectors: tuple[list[torch.Tensor], list[torch.Tensor]] = (
        [torch.empty(0)] * len(rows),
        [torch.empty(0)] * len(rows),
    )
    # The teacher runs in its own threads first, so that its threads and torch's do not compete.
    for batch, (ids, mask), output in zip(batches, inputs, list(outputs), strict=True):
        for kind, values in enumerate((student.encode(ids, mask), torch.from_numpy(output))):
            for line, position in enumerate(batch):
                vectors[kind][position] = values[line, : len(rows[position])]
    token_loss = 1 - (torch.cat(vectors[0]) * torch.cat(vectors[1])).sum(-1).mean()
    formula = student.formula
    scores = formula.combine(*formula.parts(queries, documents, vectors[0]))
    taught = formula.parts(queries, documents, vectors[1])
    log_shares = (SHARPNESS * scores).log_softmax(-1)
    targets = (SHARPNESS * formula.combine(*taught)).softmax(-1), sum(map(standard, taught), torch.zeros(1)).softmax(-1)
    score_loss, ensemble_loss = (kl_div(log_shares, target, reduction="batchmean") for target in targets)
    return token_loss, score_loss, ensemble_loss


class Stop:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True


def save_atomically(state: object, file: Path) -> None:
    """Write a file that is never half written."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    if file.suffix == ".pt":
        torch.save(state, unfinished)
    elif file.suffix == ".safetensors":
        save_file(state, unfinished)
    else:
        unfinished.write_text(json.dumps(state, indent=1) + "\n", "utf-8")
    unfinished.replace(file)


def main() -> None:
    """Distil, or resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--until", type=int, help="stop at this step; the schedule is that of --steps")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="minutes between two checkpoints")
    parser.add_argument("--save-every", type=int, default=300, help="steps between two files of weights that stay")
    parser.add_argument("--look-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or options.work / "half"
    out.mkdir(parents=True, exist_ok=True)
    stop = Stop()
    torch.set_num_threads(options.threads)
    lists, dev = (
        Lists(
            options.work,
            [json.loads(line) for line in (options.work / name).read_text("utf-8").splitlines()],
            DOCUMENT_TOKENS,
        )
        for name in ("lists.jsonl", "held.jsonl")
    )
    tables = every_second_layer(restore(FOLDER / "model.onnx"))
    student = Student(tables, Formula(np.load(options.work / "background.npy")))
    teacher = open_session("onnxruntime", "float32", FOLDER / "model.onnx", options.threads)
    workers = ThreadPoolExecutor(options.threads)
    trained = student.trained()
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * max(0.05, 1 - step / options.steps)
    )
    average = {name: value.detach().clone() for name, value in trained.items()}
    curve: list[dict] = []
    recent: list[list[float]] = []
    step, seconds, checkpoint = 0, 0.0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["steps"] != options.steps:
            raise SystemExit(f"{checkpoint} has a schedule of {state['steps']} steps: pass --steps {state['steps']}.")
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(state["model"][name])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, curve, recent = state["average"], state["curve"], state["recent"]
        step, seconds = state["step"], state["seconds"]
        print(f"resuming at step {step}", flush=True)
    last_step = options.until or options.steps

    def averaged_weights() -> dict[str, torch.Tensor]:
        return tables | {name.removeprefix("bert."): value.contiguous() for name, value in average.items()}

    def save() -> None:
        state = {
            "model": {name: value.detach() for name, value in trained.items()},
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average,
            "curve": curve,
            "recent": recent,
            "step": step,
            "steps": options.steps,
            "seconds": seconds + time.process_time(),
        }
        save_atomically(state, checkpoint)
        save_atomically(averaged_weights(), out / "latest.safetensors")

    def evaluate() -> None:
        current = {name: value.detach().clone() for name, value in trained.items()}
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(average[name])
            first, rank = first_of_nine(student, dev)
            for name, value in trained.items():
                value.copy_(current[name])
        means = np.mean(recent, axis=0).tolist() if recent else [None] * 3
        recent.clear()
        curve.append(
            {
                "step": step,
                **dict(zip(("tokens", "scores", "ensemble"), means, strict=True)),
                "dev_first": first,
                "dev_mrr": rank,
                "processor_seconds": round(seconds + time.process_time()),
            }
        )
        save_atomically(curve, out / "curve.json")
        save()
        print(curve[-1], flush=True)

    saved, batches = time.monotonic(), list[list[int]]()
    batches_per_epoch = len(lists.batches(0))
    if not step:
        evaluate()
    while step < last_step and not stop.requested:
        if step % batches_per_epoch == 0 or not batches:
            batches = lists.batches(step // batches_per_epoch)
        numbers = batches[step % batches_per_epoch]
        generator = random.Random(SEED * 1_000_003 + step)
        lines = dict.fromkeys(sample_passages(lists, numbers, generator))
        parts = losses(
            student,
            teacher,
            workers,
            [lists.queries[number] for number in numbers],
            [lists.documents[line] for line in lines],
        )
        optimizer.zero_grad()
        (TOKENS * parts[0] + SCORES * parts[1] + ENSEMBLE * parts[2]).backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        recent.append([part.item() for part in parts])
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in trained.items():
                average[name].lerp_(value, 1 - decay)
        if step % options.look_every == 0 or step == last_step:
            evaluate()
            saved = time.monotonic()
        elif time.monotonic() - saved > options.save_minutes * 60:
            save()
            saved = time.monotonic()
        if step % options.save_every == 0 or step == last_step:
            save_atomically(averaged_weights(), out / f"step-{step}.safetensors")
    if stop.requested:
        save()
        print(f"stopped at step {step}", flush=True)


if __name__ == "__main__":
    main()

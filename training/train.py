"""Train the encoder for late interaction combined with lexical evidence, on the lists of `mine.py`.

    python training/train.py WORK [--steps 600] [--out WORK/trained]

A step takes 8 queries of one source, each with its positive and 3 hard negatives. Every query is scored against all 32
passages (softmax cross-entropy over them). The word, position and type tables and the first two layers are frozen. With
--taught, half of the loss is the cross-entropy to the untrained model's combined scores. Weights are averaged over
steps (EMA). The script resumes from OUT/checkpoint.pt. OUT/curve.json holds the loss and, every 150 steps, how often
the positive of a development query is the first of nine. OUT/step-N.safetensors, every 150 steps, holds the averaged
weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from make_embedded import package_folder
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

QUERIES, NEGATIVES = 8, 3
QUERY_TOKENS, DOCUMENT_TOKENS = 64, 128
FROZEN = 2
"""Number of layers that are not trained."""
RATE, WARMUP, EMA = 5e-5, 40, 0.99
SEED = 7
SPECIAL = 999
TAUGHT = [20.0, 10.0, 8.0]
"""Weights of late interaction, lexical evidence and cosine in the teacher's score.

They are those that `fit.py` chooses for the untrained model, times 20.
"""


class Scorer(torch.nn.Module):
    """The encoder, and the weights of the combined score. `fit.py` fits these again after training."""

    def __init__(self, background: np.ndarray, begin: Path | None, *, taught: bool) -> None:
        super().__init__()
        folder = package_folder()
        config = BertConfig.from_pretrained(str(folder))
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self.bert = BertModel.from_pretrained(str(folder), config=config, add_pooling_layer=False)
        self.bert.embeddings.requires_grad_(False)
        for layer in self.bert.encoder.layer[:FROZEN]:
            layer.requires_grad_(False)
        # The teacher is the untrained model. Below the trained layers, both are the same.
        self.teacher_layers = copy.deepcopy(self.bert.encoder.layer[FROZEN:]).requires_grad_(False) if taught else None
        if begin:
            self.bert.load_state_dict(load_file(begin), strict=False)
        self.mix = torch.nn.Parameter(torch.tensor(TAUGHT if taught else [24.0, 3.0, 0.0]))
        self.register_buffer("terms", torch.from_numpy(background[0].astype(np.int64)), persistent=False)
        rarity = torch.from_numpy(background[1].astype(np.float32) / 16)
        self.register_buffer("rarity", rarity, persistent=False)

    def vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Return normalized token vectors: the student's, and the teacher's if there is one."""
        mask_bias = (1.0 - mask[:, None, None, :].float()) * -1e9
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.bert.embeddings(input_ids=ids)
            for layer in self.bert.encoder.layer[:FROZEN]:
                hidden = layer(hidden, mask_bias)
            states = [hidden, hidden]
            for layer in self.bert.encoder.layer[FROZEN:]:
                states[0] = layer(states[0], mask_bias)
            with torch.no_grad():
                for layer in self.teacher_layers or ():
                    states[1] = layer(states[1], mask_bias)
        states = states if self.teacher_layers is not None else states[:1]
        return [torch.nn.functional.normalize(state.float(), dim=-1) for state in states]

    def forward(
        self, queries: tuple[torch.Tensor, torch.Tensor], documents: tuple[torch.Tensor, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return scores [queries, documents]: the student's, and the teacher's if there is one."""
        (query_ids, query_mask), (document_ids, document_mask) = queries, documents
        rarity = self.rarity[query_ids]
        weight = query_mask.float() * torch.where(
            query_ids < SPECIAL, 0.0 if self.teacher_layers is not None else 0.5, 1.0
        )
        if self.teacher_layers is not None:
            weight = weight * rarity.clamp(min=1e-3).sqrt()
        evidence = (rarity - (1.0 if self.teacher_layers is not None else 0.0)).clamp(min=0.0) * (query_ids >= SPECIAL)
        lexical = lexical_share(query_ids, document_ids, document_mask, self.terms, evidence)
        lexical = lexical if self.teacher_layers is not None else 2.2 * lexical
        scores = []
        for query_vectors, document_vectors in zip(
            self.vectors(query_ids, query_mask), self.vectors(document_ids, document_mask), strict=True
        ):
            late, cosine = vector_scores(weight, query_vectors, query_mask, document_vectors, document_mask)
            mix = self.mix if not scores else torch.tensor(TAUGHT)
            scores.append(mix[0] * late + mix[1] * lexical + mix[2] * cosine)
        return scores


def lexical_share(
    query_ids: torch.Tensor,
    document_ids: torch.Tensor,
    document_mask: torch.Tensor,
    terms: torch.Tensor,
    evidence: torch.Tensor,
) -> torch.Tensor:
    """Return BM25's saturated counts of the query's terms, weighted by `evidence` [queries, tokens]."""
    query_terms = terms[query_ids]
    counts = torch.stack([(query_terms[:, :, None] == terms[ids][None, None, :]).sum(-1) for ids in document_ids], 1)
    sizes = document_mask.sum(-1).float()
    full = counts / (counts + 1.2 * (0.25 + 0.75 * sizes / 110)[None, :, None])
    return (full * evidence[:, None]).sum(-1) / evidence.sum(-1).clamp(min=1e-6)[:, None]


def vector_scores(
    weight: torch.Tensor,
    query_vectors: torch.Tensor,
    query_mask: torch.Tensor,
    document_vectors: torch.Tensor,
    document_mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return late interaction and the cosine of the mean vectors, both [queries, documents].

    Args:
        weight: The weight of each query token, [queries, tokens].
        query_vectors: Vectors of length one, [queries, tokens, width].
        query_mask: 1 for each token that is no padding.
        document_vectors: As `query_vectors`.
        document_mask: As `query_mask`.
    """
    sims = torch.einsum("qik,djk->qdij", query_vectors, document_vectors)
    best = sims.masked_fill(document_mask[None, :, None, :] == 0, -1.0).amax(-1)
    late = (best * weight[:, None]).sum(-1) / weight.sum(-1)[:, None].clamp(min=1e-6)
    mean_vectors = [
        torch.nn.functional.normalize((vectors * mask[:, :, None]).sum(1), dim=-1)
        for vectors, mask in ((query_vectors, query_mask), (document_vectors, document_mask))
    ]
    return late, mean_vectors[0] @ mean_vectors[1].T


class Lists:
    """The lists of `mine.py`, tokenized once, in batches of one source each."""

    def __init__(self, work: Path, rows: list[dict], max_tokens: int = DOCUMENT_TOKENS) -> None:
        texts = [json.loads(line) for line in (work / "texts.jsonl").read_text("utf-8").splitlines()]
        tokenizer = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
        tokenizer.no_padding()
        self.rows = rows
        used = sorted({line for row in rows for line in row["candidates"]})
        tokenizer.enable_truncation(max_tokens)
        self.documents = dict(
            zip(
                used, [encoding.ids for encoding in tokenizer.encode_batch([texts[line] for line in used])], strict=True
            )
        )
        tokenizer.enable_truncation(QUERY_TOKENS)
        self.queries = [encoding.ids for encoding in tokenizer.encode_batch([row["query"] for row in rows])]

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch: numbers of lists, in an order that the epoch determines."""
        generator = random.Random(SEED + epoch)
        sources: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            sources.setdefault(row["name"].split("/")[0], []).append(number)
        batches = []
        for numbers in sources.values():
            generator.shuffle(numbers)
            batches += [numbers[at : at + QUERIES] for at in range(0, len(numbers) - QUERIES + 1, QUERIES)]
        generator.shuffle(batches)
        return batches


def pad(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids padded with 0, and the attention mask."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row)
        mask[line, : len(row)] = 1
    return ids, mask


def sample_passages(lists: Lists, numbers: list[int], generator: random.Random) -> list[int]:
    """Return the passages of a batch: the positive and hard negatives of every list."""
    lines = []
    for number in numbers:
        positive, *negatives = lists.rows[number]["candidates"]
        lines += [positive, *generator.sample(negatives, min(NEGATIVES, len(negatives)))]
    return lines


def batch_loss(model: Scorer, lists: Lists, numbers: list[int], generator: random.Random) -> torch.Tensor:
    """Return the mean cross-entropy of a batch. With a teacher, half of it is to the teacher's distribution."""
    lines = sample_passages(lists, numbers, generator)
    # A passage may be the positive of two queries of a source. Mask the second copy, which would be a false negative.
    own = torch.tensor([[lists.rows[number]["candidates"][0]] for number in numbers])
    place = torch.tensor([lines.index(lists.rows[number]["candidates"][0]) for number in numbers])
    is_copy = own == torch.tensor([lines])
    is_copy[torch.arange(len(numbers)), place] = False
    queries = pad([lists.queries[number] for number in numbers])
    scores = [
        values.masked_fill(is_copy, -1e4) for values in model(queries, pad([lists.documents[line] for line in lines]))
    ]
    loss = torch.nn.functional.cross_entropy(scores[0], place)
    if len(scores) > 1:
        loss = (loss + torch.nn.functional.cross_entropy(scores[0], scores[1].softmax(-1))) / 2
    return loss


@torch.no_grad()
def first_of_nine(model: Scorer, lists: Lists) -> tuple[float, float]:
    """Return the share of queries whose positive is the first of its candidates, and the mean reciprocal rank."""
    ranks = []
    for number, row in enumerate(lists.rows):
        scores = model(pad([lists.queries[number]]), pad([lists.documents[line] for line in row["candidates"]]))[0][0]
        ranks.append(1 + int((scores[1:] >= scores[0]).sum()))
    return float(np.mean([rank == 1 for rank in ranks])), float(np.mean([1 / rank for rank in ranks]))


def main() -> None:
    """Train, or resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--save-every", type=int, default=150)
    parser.add_argument("--look-every", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--until", type=int, help="stop at this step; the learning rate follows the schedule of --steps"
    )
    parser.add_argument("--begin", type=Path, help="initial weights; default: the package's")
    parser.add_argument("--taught", action="store_true", help="use the untrained model's combined score as a teacher")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or options.work / "trained"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    rows = [json.loads(line) for line in (options.work / "lists.jsonl").read_text("utf-8").splitlines()]
    held_rows = [json.loads(line) for line in (options.work / "held.jsonl").read_text("utf-8").splitlines()]
    lists, dev = Lists(options.work, rows), Lists(options.work, held_rows)
    model = Scorer(np.load(options.work / "background.npy"), options.begin, taught=options.taught)
    trained = [weights for weights in model.parameters() if weights.requires_grad and weights is not model.mix]
    optimizer = torch.optim.AdamW(
        [{"params": trained, "lr": RATE}, {"params": [model.mix], "lr": RATE * 100}], weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * max(0.05, 1 - step / options.steps)
    )
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    curve: list[dict] = []
    step, checkpoint = 0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, curve, step = state["average"], state["curve"], state["step"]
        print(f"resuming at step {step}", flush=True)
    losses: list[float] = []

    def evaluate() -> None:
        current = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(average)
        first, rank = first_of_nine(model, dev)
        model.load_state_dict(current)
        loss = float(np.mean(losses)) if losses else None
        losses.clear()
        curve.append({"step": step, "loss": loss, "dev_first": first, "dev_mrr": rank, "mix": model.mix.tolist()})
        (out / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", "utf-8")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**state, "average": average, "curve": curve, "step": step}, checkpoint)
        print(curve[-1], f"{time.time() - started:.0f} s", flush=True)

    started, batches = time.time(), list[list[int]]()
    batches_per_epoch = len(lists.batches(0))
    if not step:
        evaluate()
    while step < (options.until or options.steps):
        if step % batches_per_epoch == 0 or not batches:
            batches = lists.batches(step // batches_per_epoch)
        numbers = batches[step % batches_per_epoch]
        loss = batch_loss(model, lists, numbers, random.Random(SEED * 1_000_003 + step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        losses.append(loss.item())
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.dtype.is_floating_point:
                    average[name].lerp_(value, 1 - decay)
        if step % options.look_every == 0 or step == (options.until or options.steps):
            evaluate()
        if step % options.save_every == 0 or step == (options.until or options.steps):
            encoder = {name.removeprefix("bert."): value for name, value in average.items() if name.startswith("bert.")}
            save_file({name: value.contiguous() for name, value in encoder.items()}, out / f"step-{step}.safetensors")


if __name__ == "__main__":
    main()

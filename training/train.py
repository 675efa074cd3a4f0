"""Train the encoder for late interaction joined with lexical evidence, on the lists of `mine.py`.

    python training/train.py WORK [--steps 600] [--out WORK/trained]

A step is 8 queries of one source, each with its positive and 3 hard negatives; every query is scored against all 32 passages
(softmax cross-entropy over them). The word, position and type tables and
the first two layers are frozen. With --taught half of the loss is the cross-entropy to the untrained model's joined scores. Weights are averaged over steps (EMA). Resumes from
OUT/checkpoint.pt; OUT/curve.json holds the loss and, every 150 steps, how often a development query's positive is the
first of nine. Writes OUT/step-N.safetensors (the average) every 150 steps.
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
from make_embedded import source
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

QUERIES, NEGATIVES = 8, 3
QUERY_TOKENS, DOCUMENT_TOKENS = 64, 128
FROZEN = 2
"""Layers that stay as they were."""
RATE, WARMUP, EMA = 5e-5, 40, 0.99
SEED = 7
SPECIAL = 999
TAUGHT = [20.0, 10.0, 8.0]
"""Late interaction, lexical evidence and cosine in the teacher's score: what `fit.py` finds best untrained, times 20."""


class Scorer(torch.nn.Module):
    """The encoder, and the weights of the joined score (learnt along, fitted anew afterwards)."""

    def __init__(self, background: np.ndarray, begin: Path | None, *, taught: bool) -> None:
        super().__init__()
        folder = source()
        config = BertConfig.from_pretrained(str(folder))
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self.bert = BertModel.from_pretrained(str(folder), config=config, add_pooling_layer=False)
        self.bert.embeddings.requires_grad_(False)
        for layer in self.bert.encoder.layer[:FROZEN]:
            layer.requires_grad_(False)
        # The teacher is the untrained model: below the layers that learn, they are the same.
        self.old = copy.deepcopy(self.bert.encoder.layer[FROZEN:]).requires_grad_(False) if taught else None
        if begin:
            self.bert.load_state_dict(load_file(begin), strict=False)
        self.mix = torch.nn.Parameter(torch.tensor(TAUGHT if taught else [24.0, 3.0, 0.0]))
        self.register_buffer("terms", torch.from_numpy(background[0].astype(np.int64)), persistent=False)
        rarity = torch.from_numpy(background[1].astype(np.float32) / 16)
        self.register_buffer("rarity", rarity, persistent=False)

    def vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Return token vectors of length one: the student's, and with a teacher its."""
        away = (1.0 - mask[:, None, None, :].float()) * -1e9
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.bert.embeddings(input_ids=ids)
            for layer in self.bert.encoder.layer[:FROZEN]:
                hidden = layer(hidden, away)
            found = [hidden, hidden]
            for layer in self.bert.encoder.layer[FROZEN:]:
                found[0] = layer(found[0], away)
            with torch.no_grad():
                for layer in self.old or ():
                    found[1] = layer(found[1], away)
        kept = found if self.old is not None else found[:1]
        return [torch.nn.functional.normalize(each.float(), dim=-1) for each in kept]

    def forward(
        self, queries: tuple[torch.Tensor, torch.Tensor], documents: tuple[torch.Tensor, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return scores [queries, documents], the student's and then the teacher's where there is one."""
        (asked, asked_mask), (given, given_mask) = queries, documents
        rarity = self.rarity[asked]
        weight = asked_mask.float() * torch.where(asked < SPECIAL, 0.0 if self.old is not None else 0.5, 1.0)
        if self.old is not None:
            weight = weight * rarity.clamp(min=1e-3).sqrt()
        evidence = (rarity - (1.0 if self.old is not None else 0.0)).clamp(min=0.0) * (asked >= SPECIAL)
        mine = self.terms[asked]
        counts = torch.stack([(mine[:, :, None] == self.terms[each][None, None, :]).sum(-1) for each in given], 1)
        sizes = given_mask.sum(-1).float()
        full = counts / (counts + 1.2 * (0.25 + 0.75 * sizes / 110)[None, :, None])
        lexical = (full * evidence[:, None]).sum(-1) / evidence.sum(-1).clamp(min=1e-6)[:, None]
        lexical = lexical if self.old is not None else 2.2 * lexical
        scores = []
        for asks, gives in zip(self.vectors(asked, asked_mask), self.vectors(given, given_mask), strict=True):
            sims = torch.einsum("qik,djk->qdij", asks, gives)
            best = sims.masked_fill(given_mask[None, :, None, :] == 0, -1.0).amax(-1)
            late = (best * weight[:, None]).sum(-1) / weight.sum(-1)[:, None].clamp(min=1e-6)
            middles = [
                torch.nn.functional.normalize((each * mask[:, :, None]).sum(1), dim=-1)
                for each, mask in ((asks, asked_mask), (gives, given_mask))
            ]
            mix = self.mix if not scores else torch.tensor(TAUGHT)
            scores.append(mix[0] * late + mix[1] * lexical + mix[2] * (middles[0] @ middles[1].T))
        return scores


class Lists:
    """The lists in a fixed order of batches, each of one source; tokenised once."""

    def __init__(self, work: Path, rows: list[dict], most: int = DOCUMENT_TOKENS) -> None:
        texts = [json.loads(line) for line in (work / "texts.jsonl").read_text("utf-8").splitlines()]
        tokenizer = Tokenizer.from_file(str(source() / "tokenizer.json"))
        tokenizer.no_padding()
        self.rows = rows
        used = sorted({line for row in rows for line in row["candidates"]})
        tokenizer.enable_truncation(most)
        self.documents = dict(
            zip(used, [each.ids for each in tokenizer.encode_batch([texts[line] for line in used])], strict=True)
        )
        tokenizer.enable_truncation(QUERY_TOKENS)
        self.queries = [each.ids for each in tokenizer.encode_batch([row["query"] for row in rows])]

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch."""
        chance = random.Random(SEED + epoch)
        sources: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            sources.setdefault(row["name"].split("/")[0], []).append(number)
        made = []
        for numbers in sources.values():
            chance.shuffle(numbers)
            made += [numbers[at : at + QUERIES] for at in range(0, len(numbers) - QUERIES + 1, QUERIES)]
        chance.shuffle(made)
        return made


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row)
        mask[line, : len(row)] = 1
    return ids, mask


def loss_of(model: Scorer, lists: Lists, numbers: list[int], chance: random.Random) -> torch.Tensor:
    """Return the mean cross-entropy of a batch, half of it to the teacher's distribution where there is a teacher."""
    lines = []
    for number in numbers:
        first, *others = lists.rows[number]["candidates"]
        lines += [first, *chance.sample(others, min(NEGATIVES, len(others)))]
    # The same passage may answer two queries of a source: as a negative it would stand against itself.
    own = torch.tensor([[lists.rows[number]["candidates"][0]] for number in numbers])
    place = torch.tensor([lines.index(lists.rows[number]["candidates"][0]) for number in numbers])
    again = own == torch.tensor([lines])
    again[torch.arange(len(numbers)), place] = False
    queries = padded([lists.queries[number] for number in numbers])
    scores = [
        each.masked_fill(again, -1e4) for each in model(queries, padded([lists.documents[line] for line in lines]))
    ]
    loss = torch.nn.functional.cross_entropy(scores[0], place)
    if len(scores) > 1:
        loss = (loss + torch.nn.functional.cross_entropy(scores[0], scores[1].softmax(-1))) / 2
    return loss


@torch.no_grad()
def first_of_nine(model: Scorer, lists: Lists) -> tuple[float, float]:
    """Return how often the positive is first among its own candidates, and the mean reciprocal rank."""
    ranks = []
    for number, row in enumerate(lists.rows):
        scores = model(padded([lists.queries[number]]), padded([lists.documents[line] for line in row["candidates"]]))[
            0
        ][0]
        ranks.append(1 + int((scores[1:] >= scores[0]).sum()))
    return float(np.mean([rank == 1 for rank in ranks])), float(np.mean([1 / rank for rank in ranks]))


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--save-every", type=int, default=150)
    parser.add_argument("--look-every", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--until", type=int, help="stop there, with the learning rate's schedule of --steps")
    parser.add_argument("--begin", type=Path, help="weights to begin with; the package's unless given")
    parser.add_argument("--taught", action="store_true", help="with the untrained model's joined score as a teacher")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or given.work / "trained"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(given.threads)
    rows = [json.loads(line) for line in (given.work / "lists.jsonl").read_text("utf-8").splitlines()]
    held = [json.loads(line) for line in (given.work / "held.jsonl").read_text("utf-8").splitlines()]
    lists, dev = Lists(given.work, rows), Lists(given.work, held)
    model = Scorer(np.load(given.work / "background.npy"), given.begin, taught=given.taught)
    trained = [each for each in model.parameters() if each.requires_grad and each is not model.mix]
    optimizer = torch.optim.AdamW(
        [{"params": trained, "lr": RATE}, {"params": [model.mix], "lr": RATE * 100}], weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * max(0.05, 1 - step / given.steps)
    )
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    curve: list[dict] = []
    step, saved = 0, out / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, curve, step = state["average"], state["curve"], state["step"]
        print(f"going on at step {step}", flush=True)
    losses: list[float] = []

    def look() -> None:
        now = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(average)
        first, rank = first_of_nine(model, dev)
        model.load_state_dict(now)
        loss = float(np.mean(losses)) if losses else None
        losses.clear()
        curve.append({"step": step, "loss": loss, "dev_first": first, "dev_mrr": rank, "mix": model.mix.tolist()})
        (out / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", "utf-8")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**state, "average": average, "curve": curve, "step": step}, saved)
        print(curve[-1], f"{time.time() - started:.0f} s", flush=True)

    started, batches = time.time(), list[list[int]]()
    a_round = len(lists.batches(0))
    if not step:
        look()
    while step < (given.until or given.steps):
        if step % a_round == 0 or not batches:
            batches = lists.batches(step // a_round)
        numbers = batches[step % a_round]
        loss = loss_of(model, lists, numbers, random.Random(SEED * 1_000_003 + step))
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
        if step % given.look_every == 0 or step == (given.until or given.steps):
            look()
        if step % given.save_every == 0 or step == (given.until or given.steps):
            kept = {name.removeprefix("bert."): value for name, value in average.items() if name.startswith("bert.")}
            save_file({name: value.contiguous() for name, value in kept.items()}, out / f"step-{step}.safetensors")


if __name__ == "__main__":
    main()

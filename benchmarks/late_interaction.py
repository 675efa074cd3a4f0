"""Late interaction side by side with fastembed: time and memory, on one ONNX file, in one run.

    python benchmarks/late_interaction.py [--rounds 7] [--documents 100] [--words 110]

The model has random weights and the shape of mxbai-edge-colbert-v0-17m (ModernBERT of 7 layers, 256 wide, 17 million
parameters, vectors of 48 numbers) in Stanford's layout, which fastembed reads as answerai-colbert-small-v1. Each side
runs in a process of its own, so that its memory is its own; they take turns, round by round, on documents that are new
in each round. Then the documents of the last round are asked for again, as a later query does.

It takes about two minutes on two cores, and needs fastembed, torch and transformers (the extra `test`).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 50_368
WORDS = 50_000
ENDINGS = 0.45
"""The share of words that are two tokens: 110 words are about 160 tokens, as in English prose."""
WIDTH, HIDDEN, LAYERS = 48, 256, 7
QUERY = "word7 word77 word777 word7777 word17777 word27777 word1 word2"
SIDES = ("rerank-plugins", "fastembed")
MAKE = "make"
"""The process that writes the model: torch stays out of the others."""


def make_model(folder: Path) -> None:
    """Write the model: `vespa_colbert.onnx`, the tokenizer, and Stanford's settings."""
    import torch
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *".,;:!?", "##s", *(f"word{number}" for number in range(WORDS))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    transformers.BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=384,
        pad_token_id=0,
        cls_token_id=4,
        sep_token_id=5,
        bos_token_id=4,
        eos_token_id=5,
        attn_implementation="eager",
    )
    encoder, linear = transformers.ModernBertModel(config).eval(), torch.nn.Linear(HIDDEN, WIDTH, bias=False)
    config.architectures = ["HF_ColBERT"]
    config.save_pretrained(folder)
    settings = {"query_maxlen": 32, "doc_maxlen": 512, "attend_to_mask_tokens": False, "mask_punctuation": True}
    (folder / "artifact.metadata").write_text(json.dumps(settings))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.linear = encoder, linear

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.linear(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)

    names = ("input_ids", "attention_mask")
    example = torch.ones((2, 8), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every branch in the model's code
        torch.onnx.export(
            Model().eval(),
            (example, example),
            str(folder / "vespa_colbert.onnx"),
            input_names=list(names),
            output_names=["contextual"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*names, "contextual")},
            dynamo=False,
        )


def texts(seed: int, count: int, words: int) -> list[str]:
    """Return documents of that many words, which differ in length by a fifth."""
    choose = random.Random(seed)
    lengths = [choose.randint(int(words * 0.9), int(words * 1.1)) for _ in range(count)]

    def word() -> str:
        return f"word{choose.randrange(WORDS)}{'s' * (choose.random() < ENDINGS)}"

    return [" ".join(word() for _ in range(length)) + "." for length in lengths]


def ours(folder: Path) -> Callable[[Sequence[str]], list[float]]:
    """Return a function that scores documents with this package."""
    from rerank_plugins import load_reranker

    reranker = load_reranker(f"colbert:{folder}", device="cpu", runtime="onnxruntime")
    reranker.warmup()

    def score(documents: Sequence[str]) -> list[float]:
        scores = {each.index: float(each.raw_score or 0.0) for each in reranker.rerank(QUERY, documents)}
        return [scores[index] for index in range(len(documents))]

    return score


def theirs(folder: Path) -> Callable[[Sequence[str]], list[float]]:
    """Return a function that scores documents with fastembed, and MaxSim as its documentation computes it."""
    import numpy as np
    from fastembed import LateInteractionTextEmbedding

    model = LateInteractionTextEmbedding("answerdotai/answerai-colbert-small-v1", specific_model_path=str(folder))

    def score(documents: Sequence[str]) -> list[float]:
        query = next(iter(model.query_embed(QUERY)))
        query = query / np.linalg.norm(query, axis=1, keepdims=True)  # its queries are not of length one
        return [float((query @ vectors.T).max(axis=1).mean()) for vectors in model.embed(documents)]

    return score


def memory() -> float:
    """Return the largest memory of this process until now, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def serve(side: str, folder: Path) -> None:
    """Score the documents that each line of the input describes, and print time, scores and memory."""
    score = (ours if side == SIDES[0] else theirs)(folder)
    loaded = memory()
    for line in sys.stdin:
        documents = texts(**json.loads(line))
        start = time.perf_counter()
        scores = score(documents)
        milliseconds = 1000 * (time.perf_counter() - start)
        print(json.dumps({"ms": milliseconds, "scores": scores, "loaded": loaded, "peak": memory()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--words", type=int, default=110)
    parser.add_argument("--side", choices=(*SIDES, MAKE), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side == MAKE:
        make_model(arguments.folder)
        return
    if arguments.side:
        serve(arguments.side, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--folder", name, "--side", MAKE], check=True)
        compare(folder, arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Run both sides in turn and print the table."""
    command = [sys.executable, __file__, "--folder", str(folder), "--side"]
    children = {
        side: subprocess.Popen([*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for side in SIDES
    }

    def ask(side: str, seed: int) -> dict[str, Any]:
        child = children[side]
        assert child.stdin is not None
        assert child.stdout is not None
        request = {"seed": seed, "count": arguments.documents, "words": arguments.words}
        child.stdin.write(json.dumps(request) + "\n")
        child.stdin.flush()
        answer: dict[str, Any] = json.loads(child.stdout.readline())
        return answer

    fresh: dict[str, list[float]] = {side: [] for side in SIDES}
    seen: dict[str, list[float]] = {side: [] for side in SIDES}
    last: dict[str, dict[str, Any]] = {}
    for number in range(arguments.rounds + 1):
        for side in SIDES if number % 2 else reversed(SIDES):
            last[side] = ask(side, number)
            if number:  # the first round warms up
                fresh[side].append(last[side]["ms"])
    for _ in range(arguments.rounds):
        for side in SIDES:
            last[side] = ask(side, arguments.rounds)
            seen[side].append(last[side]["ms"])
    for child in children.values():
        child.communicate()
    largest = max(abs(a - b) for a, b in zip(*(last[side]["scores"] for side in SIDES), strict=True))
    print(f"{arguments.documents} documents of {arguments.words} words; median of {arguments.rounds} rounds")
    print(f"{'':16}{'new ms':>10}{'seen ms':>10}{'loaded MB':>12}{'peak MB':>10}")
    for side in SIDES:
        times = statistics.median(fresh[side]), statistics.median(seen[side])
        print(f"{side:16}{times[0]:10.0f}{times[1]:10.1f}{last[side]['loaded']:12.0f}{last[side]['peak']:10.0f}")
    print(f"largest difference of scores: {largest:.1e}")


if __name__ == "__main__":
    main()

"""A reranking language model side by side with sentence-transformers on the same weights, prompts and documents, in turn.

A Qwen3 of 0.53 billion parameters (24 layers, 1,024 wide, the vocabulary of Qwen3; random weights: no hub is needed) is
made in a temporary folder. 8 documents of lognormal length (median 110 words, sigma 0.7, clipped to 20-380) out of
Python's own manual, drawn anew for every round, since what padding costs depends on the draw; the prompt is
Qwen3-Reranker's. sentence-transformers runs them as one left-padded batch. Each contender has a process of its own, so
that its peak memory is its own; they answer in turn. `python benchmarks/causal_lm.py [float32 | bfloat16 [LAYERS]]`; prints each
round, the sums, their ratio, peak memory and the largest difference of scores.
"""

import json
import pydoc_data.topics
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS, COUNT = 5, 8
QUERY = "how does the import system find and load a module"
CHAT = (
    "{{ '<|im_start|>system\\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\\n<|im_start|>user\\n<Instruct>: Given a web '
    "search query, retrieve relevant passages that answer the query\\n<Query>: ' + messages[0].content + '\\n<Document>: ' "
    "+ messages[1].content + '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
)
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def topics() -> str:
    return " ".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def texts(count: int, seed: int) -> list[str]:
    words = topics().split()
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        size = int(min(380, max(20, chance.lognormvariate(4.7, 0.7))))  # e ** 4.7 is 110
        first = chance.randrange(len(words) - size)
        made.append(" ".join(words[first : first + size]))
    return made


def model(folder: Path, dtype: str, layers: str) -> None:
    """Write weights and a byte-level tokenizer with Qwen's pattern and marks."""
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [topics(), "yes\nno\n" * 50], BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(each, special=False, normalized=False) for each in ("<think>", "</think>")])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=8192,
        pad_token="<|endoftext|>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        num_hidden_layers=int(layers),
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    made = Qwen3ForCausalLM(config)
    print(f"{sum(each.numel() for each in made.parameters()) / 1e6:.0f} million parameters", flush=True)
    made.to(getattr(torch, dtype)).save_pretrained(folder)


def theirs(folder: str, dtype: str) -> Callable[[list[str]], list[float]]:
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    transformer = Transformer(
        folder,
        transformer_task="text-generation",
        model_kwargs={"dtype": getattr(torch, dtype)},
        processor_kwargs={"chat_template": CHAT},
    )
    yes, no = (transformer.tokenizer.convert_tokens_to_ids(each) for each in ("yes", "no"))
    peer = CrossEncoder(modules=[transformer, LogitScore(yes, no)], device="cpu", activation_fn=torch.nn.Identity())

    def predict(documents: list[str]) -> list[float]:
        return peer.predict([(QUERY, each) for each in documents], show_progress_bar=False).tolist()

    return predict


def ours(folder: str, dtype: str) -> Callable[[list[str]], list[float]]:
    from rerank_plugins import load_reranker

    reranker = load_reranker(f"qwen3:{folder}", device="cpu", dtype=dtype)

    def rerank(documents: list[str]) -> list[float]:
        found = sorted(reranker.rerank(QUERY, documents), key=lambda result: result.index)
        return [float(each.raw_score) for each in found]

    return rerank


def contender(name: str, folder: str, dtype: str) -> None:
    """Answer each line on stdin: documents as JSON, then seconds, scores and the peak of memory as JSON."""
    score = {"theirs": theirs, "ours": ours}[name](folder, dtype)
    for line in sys.stdin:
        documents = json.loads(line)
        started = time.perf_counter()
        values = score(documents)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: in KiB
        print(json.dumps({"seconds": seconds, "values": values, "peak": peak}), flush=True)


def main(dtype: str = "bfloat16", layers: str = "24") -> None:
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child begins with the peak of its parent.
        subprocess.run([sys.executable, __file__, "model", folder, dtype, layers], check=True)
        workers = {
            name: subprocess.Popen(
                [sys.executable, __file__, name, folder, dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for name in ("theirs", "ours")
        }

        def asked(name: str, documents: list[str]) -> dict:
            worker = workers[name]
            worker.stdin.write(json.dumps(documents) + "\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        told: dict[str, list[dict]] = {name: [] for name in workers}
        for name in workers:
            asked(name, texts(COUNT, seed=0)[:2])
        for seed in range(1, ROUNDS + 1):
            documents = texts(COUNT, seed)
            for name in workers:
                told[name].append(asked(name, documents))
            pair = [told[name][-1]["seconds"] * 1000 for name in workers]
            words = sorted(len(each.split()) for each in documents)
            print(f"{pair[0]:8.0f} ms {pair[1]:8.0f} ms   x{pair[0] / pair[1]:.2f}   {words} words", flush=True)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    sums = {name: sum(each["seconds"] for each in told[name]) for name in workers}
    print(f"{ROUNDS} times {COUNT} documents, {dtype}")
    titles = {"theirs": "sentence-transformers, one left-padded batch", "ours": "qwen3, shared prefix, no padding"}
    for name, title in titles.items():
        speed, peak = sums["theirs"] / sums[name], max(each["peak"] for each in told[name])
        print(f"{title:46}{sums[name] * 1000 / ROUNDS:8.0f} ms a call   x{speed:.2f}   peak {peak:.0f} MB")
    theirs, ours = (np.array([each["values"] for each in told[name]]) for name in workers)
    print(f"largest difference of scores {np.abs(theirs - ours).max():.5f}, standard deviation {theirs.std():.3f}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["model"]:
        model(Path(arguments[1]), *arguments[2:])
    elif arguments[:1] in (["theirs"], ["ours"]):
        contender(*arguments)
    else:
        main(*arguments)

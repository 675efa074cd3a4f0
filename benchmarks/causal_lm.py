"""Compare a reranking language model with sentence-transformers on the same weights, prompts and documents.

    python benchmarks/causal_lm.py [float32 | bfloat16 [LAYERS]]

The model is a Qwen3 of 0.53 billion parameters (24 layers, 1,024 wide, the vocabulary of Qwen3) with random weights,
made in a temporary folder, so no hub is needed. The 8 documents have a lognormal length (median 110 words, sigma 0.7,
clipped to 20-380) and come from Python's own manual. They are drawn again for every round, because the cost of padding
depends on the draw. The prompt is Qwen3-Reranker's. sentence-transformers runs the documents as one left-padded batch.
Each contender has its own process, so that its peak memory is its own; the two take turns. Prints each round, the sums,
their ratio, peak memory and the largest difference of scores.

Time on two cores: minutes in bfloat16 with AVX-512; several times as long without.
Install: pip install -e '.[sentence-transformers]'
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
    "search query, retrieve relevant passages that answer the query\\n<Query>: ' + messages[0].content "
    "+ '\\n<Document>: ' + messages[1].content + '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
)
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def manual_text() -> str:
    return " ".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def texts(count: int, seed: int) -> list[str]:
    words = manual_text().split()
    generator = random.Random(seed)
    documents = []
    for _ in range(count):
        size = int(min(380, max(20, generator.lognormvariate(4.7, 0.7))))  # e ** 4.7 is 110
        first = generator.randrange(len(words) - size)
        documents.append(" ".join(words[first : first + size]))
    return documents


def write_model(folder: Path, dtype: str, layers: str) -> None:
    """Write random weights, and a byte-level tokenizer with Qwen's pattern and special tokens."""
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
        [manual_text(), "yes\nno\n" * 50], BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
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
    model = Qwen3ForCausalLM(config)
    print(f"{sum(weights.numel() for weights in model.parameters()) / 1e6:.0f} million parameters", flush=True)
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def load_sentence_transformers(folder: str, dtype: str) -> Callable[[list[str]], list[float]]:
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
    yes, no = (transformer.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    peer = CrossEncoder(modules=[transformer, LogitScore(yes, no)], device="cpu", activation_fn=torch.nn.Identity())

    def predict(documents: list[str]) -> list[float]:
        return peer.predict([(QUERY, document) for document in documents], show_progress_bar=False).tolist()

    return predict


def load_rerank_plugins(folder: str, dtype: str) -> Callable[[list[str]], list[float]]:
    from rerank_plugins import load_reranker

    reranker = load_reranker(f"qwen3:{folder}", device="cpu", dtype=dtype)

    def rerank(documents: list[str]) -> list[float]:
        results = sorted(reranker.rerank(QUERY, documents), key=lambda result: result.index)
        return [float(result.raw_score) for result in results]

    return rerank


def run_contender(name: str, folder: str, dtype: str) -> None:
    """Read a line of JSON with documents; write one with seconds, scores and peak memory. Repeat until stdin ends."""
    score = {"theirs": load_sentence_transformers, "ours": load_rerank_plugins}[name](folder, dtype)
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
        # In its own process, because a child process inherits the peak memory of its parent.
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

        def measure(name: str, documents: list[str]) -> dict:
            worker = workers[name]
            worker.stdin.write(json.dumps(documents) + "\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        replies: dict[str, list[dict]] = {name: [] for name in workers}
        for name in workers:
            measure(name, texts(COUNT, seed=0)[:2])
        for seed in range(1, ROUNDS + 1):
            documents = texts(COUNT, seed)
            for name in workers:
                replies[name].append(measure(name, documents))
            pair = [replies[name][-1]["seconds"] * 1000 for name in workers]
            words = sorted(len(document.split()) for document in documents)
            print(f"{pair[0]:8.0f} ms {pair[1]:8.0f} ms   x{pair[0] / pair[1]:.2f}   {words} words", flush=True)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    sums = {name: sum(reply["seconds"] for reply in replies[name]) for name in workers}
    print(f"{ROUNDS} times {COUNT} documents, {dtype}")
    titles = {"theirs": "sentence-transformers, one left-padded batch", "ours": "qwen3, shared prefix, no padding"}
    for name, title in titles.items():
        speed, peak = sums["theirs"] / sums[name], max(reply["peak"] for reply in replies[name])
        print(f"{title:46}{sums[name] * 1000 / ROUNDS:8.0f} ms a call   x{speed:.2f}   peak {peak:.0f} MB")
    theirs, ours = (np.array([reply["values"] for reply in replies[name]]) for name in workers)
    print(f"largest difference of scores {np.abs(theirs - ours).max():.5f}, standard deviation {theirs.std():.3f}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["model"]:
        write_model(Path(arguments[1]), *arguments[2:])
    elif arguments[:1] in (["theirs"], ["ours"]):
        run_contender(*arguments)
    else:
        main(*arguments)

"""Local engines side by side with sentence-transformers on the same weights and documents, in turn.

A MiniLM-L6-shaped cross-encoder (six layers, 384 wide, random weights: no hub is needed) is made in a temporary folder,
for torch, and as ONNX by `rerank-plugins export`. 100 documents of lognormal length (median 110 words, sigma 0.7, clipped to 20-380) out of Python's
own manual. Prints medians, the spread, ratios of medians, and Kendall's tau to sentence-transformers' scores.
"""

import pydoc_data.topics
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import kendalltau
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import rerank_plugins.backends.embedded as embedded
from rerank_plugins import Reranker, load_reranker
from rerank_plugins.engine.export import export

ROUNDS, COUNT = 5, 100
QUERY = "how does the import system find and load a module"


def texts(count: int, seed: int) -> list[str]:
    words = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        size = int(min(380, max(20, chance.lognormvariate(4.7, 0.7))))  # e ** 4.7 is 110
        first = chance.randrange(len(words) - size)
        made.append(" ".join(words[first : first + size]))
    return made


def cross_encoder(folder: Path) -> None:
    """Write the model, for torch and, as a user would, as ONNX."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():  # a head of ones' size, so that scores differ by more than rounding
        model.classifier.weight.mul_(50)
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(embedded.FOLDER / "tokenizer.json"),
        model_max_length=512,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(folder)
    export(folder, folder)


def main() -> None:
    documents = texts(COUNT, seed=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cross_encoder(folder)
        peer = CrossEncoder(name, local_files_only=True, device="cpu", model_kwargs={"dtype": torch.float32})
        onnx, model = load_reranker(f"onnx:{name}"), load_reranker("embedded")
        small = load_reranker("embedded:fast")
        auto = load_reranker({"use": f"onnx:{name}", "dtype": "auto"})
        fresh = iter(range(10**6))

        def predict() -> list[float]:
            pairs = [(QUERY, document) for document in documents]
            return peer.predict(pairs, show_progress_bar=False, activation_fn=torch.nn.Identity()).tolist()

        def ours(reranker: Reranker = onnx) -> list[float]:
            found = reranker.rerank(QUERY, documents)
            return [result.raw_score for result in sorted(found, key=lambda result: result.index)]

        def unseen(reranker: Reranker = model) -> None:
            reranker.rerank(QUERY, [f"{next(fresh)} {document}" for document in documents])

        contenders: dict[str, Callable[[], object]] = {
            "sentence-transformers predict, float32": predict,
            "onnx, float32": ours,
            'onnx, dtype "auto"': lambda: ours(auto),
            "embedded, documents not seen before": unseen,
            "embedded, documents seen before": lambda: model.rerank(QUERY, documents),
            "embedded:fast, documents not seen before": lambda: unseen(small),
        }
        for each in contenders.values():
            each()
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name_of, each in contenders.items():
                started = time.perf_counter()
                each()
                times[name_of].append((time.perf_counter() - started) * 1000)
        base = statistics.median(times["sentence-transformers predict, float32"])
        print(f"{COUNT} documents, {torch.get_num_threads()} threads, {ROUNDS} rounds in turn")
        for name_of, each in times.items():
            middle = statistics.median(each)
            print(f"{name_of:40}{middle:9.1f} ms [{min(each):.1f}-{max(each):.1f}]   x{base / middle:.2f}")
        theirs = predict()
        for each in (onnx, auto):
            tau = kendalltau(theirs, ours(each)).statistic
            print(f"{each.scorer.label} against sentence-transformers: Kendall tau {tau:.5f}")


if __name__ == "__main__":
    main()

"""One reranker in a process of its own, which answers one line of JSON with another: see local.py.

python benchmarks/contenders.py NAME FOLDER. In: {"query", "documents"}. Out, first: {"load_s"}; then each time {"ms", "scores",
"peak_mb"}: milliseconds from texts to scores, raw scores in the order given, the process's largest resident memory so far.
"""

import contextlib
import json
import math
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

LONGEST = 512
Rank = Callable[[str, list[str]], list[float]]


def ours(spec: object) -> Rank:
    from rerank_plugins import load_reranker

    reranker = load_reranker(spec)
    reranker.warmup()

    def rank(query: str, documents: list[str]) -> list[float]:
        found = reranker.rerank(query, documents)
        return [result.raw_score for result in sorted(found, key=lambda result: result.index)]

    return rank


def unseen(spec: str) -> Rank:
    rank, count = ours(spec), iter(range(10**9))
    return lambda query, documents: rank(query, [f"{next(count)} {document}" for document in documents])


def predict(folder: str, **more: object) -> Rank:
    import torch
    from sentence_transformers import CrossEncoder

    more = more or {"model_kwargs": {"dtype": torch.float32}}
    model = CrossEncoder(folder, local_files_only=True, device="cpu", **more)
    identity = torch.nn.Identity()

    def rank(query: str, documents: list[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        return model.predict(pairs, show_progress_bar=False, activation_fn=identity).tolist()

    return rank


def flashrank(folder: str) -> Rank:
    from flashrank import Ranker, RerankRequest

    # Its layout: a folder in its cache with a name that it knows, and the ONNX file under the name of that model.
    cache, name = Path(tempfile.mkdtemp()), "ms-marco-TinyBERT-L-2-v2"
    (cache / name).mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (cache / name / file).symlink_to(Path(folder, file).resolve())
    (cache / name / "flashrank-TinyBERT-L-2-v2.onnx").symlink_to(Path(folder, "model.onnx").resolve())
    ranker = Ranker(model_name=name, cache_dir=str(cache), max_length=LONGEST)

    def rank(query: str, documents: list[str]) -> list[float]:
        passages = [{"id": index, "text": document} for index, document in enumerate(documents)]
        found = {each["id"]: float(each["score"]) for each in ranker.rerank(RerankRequest(query, passages))}
        return [math.log(found[index] / (1 - found[index])) for index in range(len(documents))]

    return rank


def fastembed(folder: str) -> Rank:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(
        "benchmark/model", sources=ModelSource(hf="benchmark/model"), model_file="model.onnx"
    )
    model = TextCrossEncoder("benchmark/model", specific_model_path=folder)
    return lambda query, documents: list(model.rerank(query, documents))


def rerankers(folder: str) -> Rank:
    from rerankers import Reranker

    model = Reranker(folder, model_type="cross-encoder", device="cpu", dtype="float32", verbose=0)

    def rank(query: str, documents: list[str]) -> list[float]:
        found = {each.doc_id: float(each.score) for each in model.rank(query, documents).results}
        return [found[index] for index in range(len(documents))]

    return rank


def flag_embedding(folder: str) -> Rank:
    from flag_embedding import FlagReranker

    model = FlagReranker(folder, use_fp16=False, devices="cpu", max_length=LONGEST)
    return lambda query, documents: model.compute_score([(query, document) for document in documents])


CONTENDERS: dict[str, Callable[[str], Rank]] = {
    "sentence-transformers predict": predict,
    "sentence-transformers OpenVINO": lambda folder: predict(folder, backend="openvino"),
    "FlagEmbedding": flag_embedding,
    "rerankers": rerankers,
    "FlashRank": flashrank,
    "fastembed": fastembed,
    "ours, sentence-transformers (torch)": lambda folder: ours(
        {"use": f"sentence-transformers:{folder}", "device": "cpu"}
    ),
    "ours, onnx float32": lambda folder: ours(f"onnx:{folder}"),
    "ours, onnx dtype auto": lambda folder: ours({"use": f"onnx:{folder}", "dtype": "auto"}),
    "ours, onnx dtype int8": lambda folder: ours({"use": f"onnx:{folder}", "dtype": "int8"}),
    "ours, embedded, documents not seen": lambda _: unseen("embedded"),
    "ours, embedded, documents seen": lambda _: ours("embedded"),
    "ours, embedded:fast, not seen": lambda _: unseen("embedded:fast"),
}


def peak_mb() -> float:
    """Return the largest resident memory of this process; `ru_maxrss` starts at what its parent had."""
    with contextlib.suppress(OSError):
        told = Path("/proc/self/status").read_text("utf-8")
        return int(told.split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on a Mac


def main() -> None:
    _, name, folder = sys.argv
    warnings.simplefilter("ignore")
    # What the packages print is not for the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    rank = CONTENDERS[name](folder)
    rank("warm", ["up"])

    def answer(**told: object) -> None:
        print(json.dumps(told), file=answers, flush=True)

    answer(load_s=time.perf_counter() - started)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        scores = rank(asked["query"], asked["documents"])
        took = (time.perf_counter() - started) * 1000
        answer(ms=took, scores=scores, peak_mb=peak_mb())


if __name__ == "__main__":
    main()

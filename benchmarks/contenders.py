"""One reranker in its own process, which answers each line of JSON with another. `local.py` starts these processes.

    python benchmarks/contenders.py NAME FOLDER

NAME is one of CONTENDERS, or "spec SPEC" for a reranker of this package.

Input: {"query", "documents"}. Output: first {"load_s"}, then {"ms", "scores", "peak_mb"} for every input: milliseconds
from texts to scores, raw scores in the order of the documents, and the largest resident memory of the process so far.

Time: as long as its input lasts; `local.py` says how long a whole run takes.
Install: pip install -e '.[test]', or the package of the contender NAME.
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
"""Function from a query and documents to raw scores, in the order of the documents."""


def load_ours(spec: object) -> Rank:
    from rerank_plugins import load_reranker

    reranker = load_reranker(spec)
    reranker.warmup()

    def rank(query: str, documents: list[str]) -> list[float]:
        response = reranker.rerank(query, documents)
        scores = [0.0] * len(documents)
        for position, result in enumerate(response):
            # A document without a score stands after all others, in the order of the answer.
            scores[result.index] = -1e6 - position if result.raw_score is None else result.raw_score
        return scores

    return rank


def load_ours_without_cache(spec: str) -> Rank:
    """Number the documents of all calls, so that no cached passage vector is ever used."""
    rank, count = load_ours(spec), iter(range(10**9))
    return lambda query, documents: rank(query, [f"{next(count)} {document}" for document in documents])


def load_sentence_transformers(folder: str, **options: object) -> Rank:
    import torch
    from sentence_transformers import CrossEncoder

    options = options or {"model_kwargs": {"dtype": torch.float32}}
    model = CrossEncoder(folder, local_files_only=True, device="cpu", **options)
    identity = torch.nn.Identity()

    def rank(query: str, documents: list[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        return model.predict(pairs, show_progress_bar=False, activation_fn=identity).tolist()

    return rank


def load_flashrank(folder: str) -> Rank:
    from flashrank import Ranker, RerankRequest

    # FlashRank reads a folder of its cache with the name of a model that it supports, and that model's ONNX file.
    cache, name = Path(tempfile.mkdtemp()), "ms-marco-TinyBERT-L-2-v2"
    (cache / name).mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (cache / name / file).symlink_to(Path(folder, file).resolve())
    (cache / name / "flashrank-TinyBERT-L-2-v2.onnx").symlink_to(Path(folder, "model.onnx").resolve())
    ranker = Ranker(model_name=name, cache_dir=str(cache), max_length=LONGEST)

    def rank(query: str, documents: list[str]) -> list[float]:
        passages = [{"id": index, "text": document} for index, document in enumerate(documents)]
        chances = {row["id"]: float(row["score"]) for row in ranker.rerank(RerankRequest(query, passages))}
        return [math.log(chances[index] / (1 - chances[index])) for index in range(len(documents))]

    return rank


def load_fastembed(folder: str) -> Rank:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(
        "benchmark/model", sources=ModelSource(hf="benchmark/model"), model_file="model.onnx"
    )
    model = TextCrossEncoder("benchmark/model", specific_model_path=folder)
    return lambda query, documents: list(model.rerank(query, documents))


def load_rerankers(folder: str) -> Rank:
    from rerankers import Reranker

    model = Reranker(folder, model_type="cross-encoder", device="cpu", dtype="float32", verbose=0)

    def rank(query: str, documents: list[str]) -> list[float]:
        scores = {result.doc_id: float(result.score) for result in model.rank(query, documents).results}
        return [scores[index] for index in range(len(documents))]

    return rank


def load_flag_embedding(folder: str) -> Rank:
    from flag_embedding import FlagReranker

    model = FlagReranker(folder, use_fp16=False, devices="cpu", max_length=LONGEST)
    return lambda query, documents: model.compute_score([(query, document) for document in documents])


CONTENDERS: dict[str, Callable[[str], Rank]] = {
    "sentence-transformers predict": load_sentence_transformers,
    "sentence-transformers OpenVINO": lambda folder: load_sentence_transformers(folder, backend="openvino"),
    "FlagEmbedding": load_flag_embedding,
    "rerankers": load_rerankers,
    "FlashRank": load_flashrank,
    "fastembed": load_fastembed,
    "ours, sentence-transformers (torch)": lambda folder: load_ours(
        {"use": f"sentence-transformers:{folder}", "device": "cpu"}
    ),
    "ours, onnx float32": lambda folder: load_ours(f"onnx:{folder}"),
    "ours, onnx float32 on OpenVINO": lambda folder: load_ours({"use": f"onnx:{folder}", "runtime": "openvino"}),
    "ours, onnx dtype auto": lambda folder: load_ours({"use": f"onnx:{folder}", "dtype": "auto"}),
    "ours, onnx dtype int8": lambda folder: load_ours({"use": f"onnx:{folder}", "dtype": "int8"}),
    "ours, embedded, documents not seen": lambda _: load_ours_without_cache("embedded"),
    "ours, embedded, documents seen": lambda _: load_ours("embedded"),
    "ours, embedded:fast, not seen": lambda _: load_ours_without_cache("embedded:fast"),
}


def peak_mb() -> float:
    """Return the largest resident memory of this process, in MiB.

    Linux has it in /proc. There `ru_maxrss` would start at the value of the parent process.
    """
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes


def main() -> None:
    _, name, folder = sys.argv
    warnings.simplefilter("ignore")
    # The packages print to stdout. Send that to stderr, and keep the pipe for the replies.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    rank = load_ours(name.removeprefix("spec ")) if name.startswith("spec ") else CONTENDERS[name](folder)
    rank("warm", ["up"])

    def reply(**values: object) -> None:
        print(json.dumps(values), file=pipe, flush=True)

    reply(load_s=time.perf_counter() - started)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        scores = rank(request["query"], request["documents"])
        milliseconds = (time.perf_counter() - started) * 1000
        reply(ms=milliseconds, scores=scores, peak_mb=peak_mb())


if __name__ == "__main__":
    main()

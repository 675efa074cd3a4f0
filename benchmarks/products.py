"""Say where the time of `embedded` goes: matrix products against the total, and the operators of the network.

    python benchmarks/products.py [--rounds 5] [--documents 50] [--words 100]

The first part compares in turn: a whole call on documents not seen before, its network alone (the same batches on the
same threads), and a call on documents seen before (tokens, MaxSim and the rest). Beside them stands the time that the
products of the layers would take at this machine's measured rate, without anything else. The network also runs with
smaller and larger batches. The second part is onnxruntime's own profile of one thread: milliseconds by operator.

Time on two cores: under a minute. `local.py --part embedded` prints the same.
Install: pip install -e '.[training]'
"""

import argparse
import collections
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from matrices import describe_machine, float32_gflops
from prose import QUERIES, texts

from rerank_plugins import load_reranker
from rerank_plugins.backends.embedded import DOCUMENT_TOKENS, FOLDER
from rerank_plugins.engine.onnx.cross_encoder import BATCH_TOKENS, open_session, usable_cores
from rerank_plugins.engine.shared_model import length_batches, padded_batch
from rerank_plugins.engine.tokenizer import PairTokenizer

LAYERS, WIDTH, INNER = 6, 384, 1536
SEEN = "a call, documents seen before"


def linear_flops(tokens: int) -> float:
    """Return the operations of all linear layers for so many tokens."""
    return 2.0 * tokens * LAYERS * (3 * WIDTH * WIDTH + WIDTH * WIDTH + 2 * WIDTH * INNER)


def attention_flops(lengths: Sequence[int]) -> float:
    """Return the operations of attention's two products, for rows of these lengths."""
    return sum(4.0 * length * length * WIDTH * LAYERS for length in lengths)


def print_products(documents: Sequence[str], rounds: int) -> None:
    """Print the table, and the profile by operator."""
    cores, rate = usable_cores(), float32_gflops()
    rows = PairTokenizer(FOLDER / "tokenizer.json").singles(documents, DOCUMENT_TOKENS)
    lengths = [len(row.ids) for row in rows]
    batches = length_batches(lengths, BATCH_TOKENS)
    padded = sum(max(lengths[at] for at in batch) * len(batch) for batch in batches)

    def feeds_of(batch_tokens: int) -> list[dict[str, object]]:
        arrays = [padded_batch([rows[at] for at in batch], 0) for batch in length_batches(lengths, batch_tokens)]
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask, _ in arrays]

    feeds = feeds_of(BATCH_TOKENS)
    session = open_session("onnxruntime", "float32", FOLDER / "model.onnx", cores)
    unseen = load_reranker({"use": "embedded", "embedded": {"cache_mb": 0}})
    seen = load_reranker("embedded")

    def network(threads: int, batches_of_rows: Sequence[dict[str, object]]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(session.run, batches_of_rows))

    parts = {
        "a call, documents not seen before": lambda: unseen.rerank(QUERIES[0], documents),
        f"its network alone, {cores} threads": lambda: network(cores, feeds),
        "its network alone, 1 thread": lambda: network(1, feeds),
        **{
            f"its network alone, batches of {size}": partial(network, cores, feeds_of(size))
            for size in (128, 256, 1024)
        },
        SEEN: lambda: seen.rerank(QUERIES[0], documents),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for round_number in range(rounds + 1):
        for name, run in parts.items():
            started = time.perf_counter()
            run()
            if round_number:  # the first round warms up
                times[name].append((time.perf_counter() - started) * 1000)
    linear, attention = linear_flops(sum(lengths)), attention_flops(lengths)
    print(
        f"\nembedded: {len(documents)} documents, {sum(lengths):,} tokens, {len(batches)} batches, "
        f"{padded / sum(lengths) - 1:.1%} padding"
    )
    for name, flops in (("matrix products of the layers", linear), ("matrix products of attention", attention)):
        print(f"{name:40}{flops / 1e9:9.1f} GFLOP {flops / rate / 1e6:10.0f} ms at {rate:.0f} GFLOP/s")
    for name, values in times.items():
        median = statistics.median(values)
        share = "" if name == SEEN else f"; {linear / rate / 1e6 / median:.0%} products"
        print(f"{name:40}{'':15} {median:10.0f} ms [{min(values):.0f} to {max(values):.0f}]{share}")
    unseen.close()
    seen.close()
    print_profile(feeds)


def print_profile(feeds: Sequence[dict[str, object]]) -> None:
    """Print milliseconds by operator, on one thread."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(FOLDER / "model.onnx"), options, providers=["CPUExecutionProvider"])
        for feed in feeds:
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    by_operator: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            shapes = event["args"].get("input_type_shape", [])
            kind = event["args"]["op_name"]
            if kind.endswith(("MatMul", "Gemm")):  # a layer's weights have two dimensions
                weights = next(iter(shapes[1].values())) if len(shapes) > 1 else []
                kind += " (attention)" if len(weights) > 2 else f" (layers, {'x'.join(map(str, weights))})"
            by_operator[kind] += event["dur"]
            counts[kind] += 1
    total = sum(by_operator.values())
    print(f"\nby operator, 1 thread: {total / 1000:.0f} ms")
    for kind, microseconds in by_operator.most_common(14):
        print(f"{kind:40}{counts[kind]:9} runs {microseconds / 1000:13.1f} ms {microseconds / total:8.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--words", type=int, default=100)
    options = parser.parse_args()
    print(describe_machine())
    print_products(texts(options.documents, seed=1, words=options.words), options.rounds)


if __name__ == "__main__":
    main()

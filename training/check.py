"""Compare the shipped file with the float32 torch model, and with itself in other company.

    python training/check.py shared/eval/cranfield… [--weights WORK/trained/step-600.safetensors] [--queries 20]

Prints, per collection, Kendall's tau between the two models' scores over BM25's top 100 of each query; and how much a token vector
changes with the texts it shares a batch with, in onnxruntime and in openvino.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from features import FOLDER, collection
from make_embedded import source
from safetensors.torch import load_file
from scipy.stats import kendalltau
from transformers import BertConfig, BertModel

from rerank_plugins.backends.embedded import Embedded
from rerank_plugins.core.loop import run_sync
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine.onnx.model import OnnxModel
from rerank_plugins.engine.onnx.runtimes import open_session
from rerank_plugins.engine.tokenizer import PairTokenizer


class Float32:
    """The torch model, in a session's place."""

    inputs = frozenset({"input_ids", "attention_mask"})

    def __init__(self, weights: Path | None) -> None:
        self._bert = BertModel(BertConfig.from_pretrained(str(source())), add_pooling_layer=False).eval()
        state = load_file(weights or source() / "model.safetensors")
        told = self._bert.load_state_dict(state, strict=False)
        assert not told.missing_keys, told

    @torch.no_grad()
    def run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Return token vectors of length one."""
        hidden = self._bert(**{name: torch.from_numpy(value) for name, value in feed.items()}).last_hidden_state
        return torch.nn.functional.normalize(hidden, dim=-1).numpy()


def apart(texts: list[str]) -> dict[str, float]:
    """Return, per runtime, the largest change of a token vector's number between a text alone and one among others."""
    rows = PairTokenizer(FOLDER / "tokenizer.json").singles(texts, 256)
    longest = max(len(row.ids) for row in rows)
    ids = np.array([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    mask = np.array([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    found = {}
    for runtime in ("onnxruntime", "openvino"):
        session = open_session(runtime, "float32", FOLDER / "model.onnx", 1)
        together = session.run({"input_ids": ids, "attention_mask": mask})
        found[runtime] = 0.0
        for row, vectors in zip(rows, together, strict=True):
            one = np.array([row.ids])
            alone = session.run({"input_ids": one, "attention_mask": np.ones_like(one)})[0]
            found[runtime] = max(found[runtime], float(np.abs(alone - vectors[: len(row.ids)]).max()))
    return found


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--queries", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    small, original = Embedded(), Embedded()
    original._held = [OnnxModel(small.folder, small.shared_model.options)]
    original._held[0]._network = Float32(given.weights)
    for folder in given.collections:
        asked, taus = collection(folder), []
        for each in asked[:: max(1, len(asked) // given.queries)][: given.queries]:
            request = RerankRequest(query=each.query, documents=tuple(dict.fromkeys(each.documents)))
            mine, theirs = (run_sync(backend.ascore(request)).values for backend in (small, original))
            taus.append(kendalltau(mine, theirs).statistic)
        print(
            f"{folder.name}: {len(taus)} queries, Kendall tau mean {np.mean(taus):.4f}, least {min(taus):.4f}",
            flush=True,
        )
    for runtime, most in apart([*asked[0].documents[:12], "a", "two words"]).items():
        print(f"{runtime}: a text alone and among others differ by {most:.1e} at most")


if __name__ == "__main__":
    main()

"""Local cross-encoders against their makers' packages, on the same folders (not against sentence-transformers)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.bounds import OTHER_CODE, near
from support.checkpoints import checkpoint
from support.models import SENTENCES, cross_encoder

from rerank_plugins import load_reranker
from rerank_plugins.engine.onnx.export import export

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUERY = "how do the tides work"
LONG = " ".join(SENTENCES * 12)
DOCUMENTS = [*SENTENCES, LONG, "tides", f"{SENTENCES[2]} {SENTENCES[1]}"]


def raw(reranker, query=QUERY):
    scores = {result.index: result.raw_score for result in reranker.rerank(query, DOCUMENTS)}
    return [scores[index] for index in range(len(DOCUMENTS))]


def special_tokens(folder):
    """Write the files that both packages read in addition to the tokenizer."""
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    special_tokens = json.dumps({f"{name}_token": token for name, token in names.items()})
    (folder / "special_tokens_map.json").write_text(special_tokens, "utf-8")


@pytest.mark.slow  # its import takes seconds
@pytest.mark.parametrize("kind", ["xlm-r", "bert"])
@pytest.mark.parametrize("query", [QUERY, " ".join(SENTENCES * 6)], ids=["query", "query longer than its room"])
def test_scores_equal_those_of_flag_reranker(kind, query, tmp_path, monkeypatch):
    """FlagEmbedding's FlagReranker in float32 with one label and its own truncation of queries and documents."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from flag_embedding import FlagReranker

    folder = checkpoint(tmp_path / kind, kind)
    longest = 96
    maker = FlagReranker(str(folder), use_fp16=False, devices="cpu", max_length=longest, normalize=False)
    expected = maker.compute_score([(query, document) for document in DOCUMENTS])
    with load_reranker({"use": f"bge:{folder}", "device": "cpu", "max_tokens": longest}) as reranker:
        assert raw(reranker, query) == near(expected, OTHER_CODE)
    made = tmp_path / "onnx"
    export(folder, made)
    with load_reranker({"use": f"bge:{made}", "max_tokens": longest}) as reranker:
        assert raw(reranker, query) == near(expected, OTHER_CODE)


def test_scores_equal_those_of_fastembed(tmp_path):
    """fastembed's TextCrossEncoder truncates the longest text first, so no text here is long enough to be truncated."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    folder = cross_encoder(tmp_path / "model", longest=512)
    special_tokens(folder)
    (folder / "onnx").mkdir()
    shutil.copyfile(folder / "model.onnx", folder / "onnx" / "model.onnx")
    name = "tests/tiny"
    TextCrossEncoder.add_custom_model(name, sources=ModelSource(hf=name), model_file="onnx/model.onnx")
    maker = TextCrossEncoder(name, specific_model_path=str(folder), threads=1)
    expected = list(maker.rerank(QUERY, DOCUMENTS))
    with load_reranker(f"onnx:{folder}") as reranker:
        assert raw(reranker) == near(expected, OTHER_CODE)

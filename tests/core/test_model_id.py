"""`ModelId` identifies the model of a scorer; labels are made from it and never parsed."""

from __future__ import annotations

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.core.model_id import ModelId


@pytest.mark.parametrize(
    ("model_id", "label", "spec"),
    [
        (ModelId("lexical"), "lexical", "lexical"),
        (ModelId("embedded", "embedded", runtime="onnxruntime", dtype="float32"), None, "embedded"),
        (ModelId("cohere", "rerank-v4.0-fast"), "cohere:rerank-v4.0-fast", "cohere:rerank-v4.0-fast"),
        (ModelId("onnx", "/srv/a [b] → c", runtime="torch"), "onnx:/srv/a [b] → c [torch]", "onnx:/srv/a [b] → c"),
        (ModelId("tiny", "t", revision="0" * 40, dtype="bfloat16"), "tiny:t [bfloat16]", "tiny:t"),
    ],
)
def test_str_of_a_model_id_is_its_label(model_id: ModelId, label: str | None, spec: str) -> None:
    assert str(model_id) == (label or "embedded [onnxruntime float32]")
    assert model_id.spec == spec


@pytest.mark.parametrize(
    ("spec", "spec_name", "model_id"),
    [
        ("lexical", "lexical", ModelId("lexical", "lexical")),
        ("embedded:fast", "embedded:fast", ModelId("embedded", "fast", None, "numpy", "float32")),
        (
            "embedded:balanced",
            "embedded:balanced",
            ModelId("embedded", "balanced", None, "onnxruntime", "float32"),
        ),
        (
            {"use": "lexical", "fallback": ["embedded"], "cache": True, "deadline": 5.0},
            "lexical",
            ModelId("lexical", "lexical"),
        ),
        ({"cascade": {"stages": ["lexical", "embedded:fast"], "keep": [2]}}, "lexical → embedded:fast", None),
        ({"use": "embedded:fast", "fuse": {"with": ["lexical"]}}, "embedded:fast + lexical (rrf)", None),
        ({"use": "embedded:fast", "fuse": {"with": "retrieval"}}, "embedded:fast + retrieval (rrf)", None),
    ],
)
def test_composite_reranker_has_a_spec_name_but_no_model_id(spec: object, spec_name: str, model_id: object) -> None:
    scorer = load_reranker(spec).scorer  # type: ignore[arg-type]
    assert scorer.spec_name == spec_name
    assert scorer.model_id == model_id
    with_runtime = spec_name.replace("embedded:fast", "embedded:fast [numpy float32]")
    assert scorer.label == with_runtime.replace(":balanced", ":balanced [onnxruntime float32]")

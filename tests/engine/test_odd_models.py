"""Unusual models: decoders without a padding token, ONNX files with fixed shapes or several outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.bounds import OTHER_CODE, near
from support.models import SENTENCES, cross_encoder, wordpiece

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.engine.model_backend import logits
from rerank_plugins.engine.onnx.cross_encoder import scoring_output
from rerank_plugins.engine.tokenizer import PairTokenizer

QUERY = "how do the tides work"
DOCUMENTS = [*SENTENCES, "Tides.", "The moon and the sun. " * 8]
EQUAL = ["the moon and the sun", "the sea and the moon"]
"""Documents of the same length, which share a batch."""


def scores(spec, documents, **more):
    with load_reranker({"use": spec, **more}) as reranker:
        response = reranker.rerank(QUERY, documents)
        return [result.raw_score for result in sorted(response, key=lambda result: result.index)]


# --- decoders that classify, on torch ---


def decoder(folder: Path, kind: str, pad: int | None) -> Path:
    """Make a tiny classifier of a decoder's architecture."""
    import torch
    import transformers
    from tokenizers import Tokenizer

    folder.mkdir()
    wordpiece(folder, longest=128)
    common = {
        "vocab_size": Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(),
        "num_labels": 1,
        "initializer_range": 0.5,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    torch.manual_seed(3)
    if kind == "GPT2":
        config = transformers.GPT2Config(**common, n_embd=32, n_layer=2, n_head=2, n_positions=128)
    else:
        config = getattr(transformers, f"{kind}Config")(
            **common,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    model.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text("utf-8")) | {"pad_token_id": pad}
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    return folder


@pytest.mark.parametrize(("kind", "pad"), [("Llama", None), ("Llama", -1), ("GPT2", None), ("Qwen2", None)])
def test_decoder_without_padding_token_scores_rows_as_if_alone(kind, pad, tmp_path):
    import torch
    import transformers

    folder = decoder(tmp_path / "model", kind, pad)
    model = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(folder, pad_token_id=None).eval()
    rows = PairTokenizer(folder / "tokenizer.json").pairs(QUERY, DOCUMENTS, 128)
    with torch.inference_mode():
        expected = [float(model(input_ids=torch.tensor([row.ids])).logits[0, 0]) for row in rows]
    assert max(expected) - min(expected) > 0.05
    values = scores(f"sentence-transformers:{folder}", DOCUMENTS, device="cpu", batch_tokens=4096)
    assert values == near(expected, OTHER_CODE)


def test_rows_that_use_every_token_id_are_run_alone(tmp_path):
    from rerank_plugins.engine.shared_model import LoadOptions
    from rerank_plugins.engine.torch.cross_encoder import load

    network = load(decoder(tmp_path / "model", "Llama", None), LoadOptions(device="cpu"))
    words = network._vocabulary
    rows = [list(range(words)), [5, 4, 3], list(range(words))[::-1]]
    ids, mask = np.zeros((3, words), dtype=np.int64), np.zeros((3, words), dtype=np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row)], mask[line, : len(row)] = row, 1
    alone = [
        network.run(np.array([row]), np.ones((1, len(row)), dtype=np.int64), np.zeros((1, len(row)))) for row in rows
    ]
    assert network.run(ids, mask, np.zeros_like(ids)) == pytest.approx(np.concatenate(alone), abs=1e-4)


# --- ONNX files ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("onnx") / "model")


def changed(folder: Path, to: Path, change) -> Path:
    import onnx

    made = shutil.copytree(folder, to)
    model = onnx.load(made / "model.onnx")
    change(model.graph)
    onnx.save(model, made / "model.onnx")
    return made


def hidden_first(graph) -> None:
    """Make the hidden states of the last layer the first output, as some exports do."""
    import onnx

    state = next(
        node.output[0]
        for node in reversed(graph.node)
        if node.op_type == "LayerNormalization" or "LayerNorm" in node.name
    )
    hidden = onnx.helper.make_tensor_value_info(state, onnx.TensorProto.FLOAT, ["batch", "length", 32])
    scoring = graph.output.pop()
    graph.output.extend([hidden, scoring])


def fixed(rows: int | None, length: int | None):
    def change(graph) -> None:
        for value in (*graph.input, *graph.output):
            sizes = value.type.tensor_type.shape.dim
            if rows:
                sizes[0].dim_value = rows
            if length and value in list(graph.input):
                sizes[1].dim_value = length

    return change


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (hidden_first, "hidden states first"),
        (fixed(1, None), "one row"),
        (fixed(3, None), "three rows"),
        (fixed(None, 128), "128 tokens"),
        (fixed(1, 128), "one row of 128 tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_onnx_files_with_other_outputs_and_shapes_score_alike(change, expected, runtime, folder, tmp_path):
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    expected = scores(f"onnx:{folder}", DOCUMENTS)
    assert max(expected) - min(expected) > 0.05
    odd = changed(folder, tmp_path / "odd", change)
    assert scores(f"onnx:{odd}", DOCUMENTS, runtime=runtime) == near(expected, OTHER_CODE), expected


def test_fixed_length_below_the_settings_truncates_and_warns(folder, tmp_path, caplog):
    odd = changed(folder, tmp_path / "odd", fixed(None, 32))
    expected = scores(f"onnx:{folder}", DOCUMENTS, max_tokens=32)
    with load_reranker(f"onnx:{odd}") as reranker:
        response = reranker.rerank(QUERY, DOCUMENTS)
    results = sorted(response, key=lambda result: result.index)
    assert [result.raw_score for result in results] == near(expected, OTHER_CODE)
    assert results[-1].truncated
    assert "Set max_tokens to 32" in caplog.text


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (fixed(None, 8), "too few for a pair of texts"),
        (
            lambda graph: setattr(graph.input[2], "name", "past_key_values.0.key"),
            r"needs the inputs past_key_values\.0\.key",
        ),
    ],
)
def test_onnx_model_without_the_inputs_of_a_pair_is_refused(change, error, folder, tmp_path):
    def renamed(graph):
        change(graph)
        names = {value.name for value in graph.input}
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == "token_type_ids" and name not in names:
                    node.input[place] = "past_key_values.0.key"

    with pytest.raises(ConfigError, match=error):
        scores(f"onnx:{changed(folder, tmp_path / 'odd', renamed)}", DOCUMENTS)


def computed(operator, axes=None, **attributes):
    """Return a change that replaces the output by an operator on it."""

    def change(graph) -> None:
        import onnx

        inputs = [graph.output.pop().name]
        if axes is not None:
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes), "new axes"))
            inputs.append("new axes")
        graph.node.append(onnx.helper.make_node(operator, inputs, ["new"], **attributes))
        graph.output.append(onnx.helper.make_tensor_value_info("new", onnx.TensorProto.FLOAT, None))

    return change


@pytest.mark.parametrize(
    ("change", "documents", "shape", "runtime"),
    [
        (computed("Squeeze"), DOCUMENTS[:1], r"\(\)", "onnxruntime"),  # OpenVINO does not load it
        (computed("ReduceMean", [0], keepdims=1), EQUAL, r"\(1, 1\)", "onnxruntime"),
        (computed("ReduceMean", [0], keepdims=1), EQUAL, r"\(1, 1\)", "openvino"),
        (computed("ReduceMean", [0, 1], keepdims=0), EQUAL, r"\(\)", "onnxruntime"),
        (computed("ReduceMean", [0, 1], keepdims=0), EQUAL, r"\(\)", "openvino"),
    ],
)
def test_onnx_output_that_lacks_rows_is_refused_with_its_shape(change, documents, shape, runtime, folder, tmp_path):
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    odd = changed(folder, tmp_path / "odd", change)
    message = rf"model\.onnx has the shape {shape} for \d+ rows of \d+ tokens: export it again"
    with pytest.raises(ConfigError, match=message):
        scores(f"onnx:{odd}", documents, runtime=runtime)


def test_logits_of_two_labels_are_subtracted_in_float32():
    rows = np.array([[-8.0, 8.0], [-8.0, 8.01], [-40000, 40000]], dtype=np.float16)
    values = logits(rows, Path("model"))
    assert values == [float(second) - float(first) for first, second in rows]
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("outputs", "place"),
    [
        ([("anything", [None, None, 32])], 0),
        ([("last_hidden_state", [None, None, 32]), ("logits", [None, 1])], 1),
        ([("pooled", [None, 32]), ("dense", [None, 1])], 1),
        ([("probabilities", [None, 2]), ("logits", [None, 2])], 1),
        ([("logits", [None, None, 9]), ("relevance", [None])], 1),
        ([("a", None), ("b", None)], 0),
        ([("a", [None, 32]), ("b", [None, 64])], 0),
    ],
)
def test_output_with_the_scores_is_selected(outputs, place):
    assert scoring_output(outputs) == place

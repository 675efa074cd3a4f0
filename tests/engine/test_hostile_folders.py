"""Hostile model folders: no name in them becomes code, and no file in them blocks a call."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import types

import pytest
from support.bounds import SAME_INPUT, near
from support.checkpoints import checkpoint
from support.models import SENTENCES, cross_encoder

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.engine.onnx.export import export
from rerank_plugins.engine.shared_model import LoadOptions
from rerank_plugins.engine.tokenizer import PairTokenizer
from rerank_plugins.engine.torch.cross_encoder import load

QUERY = "how do the tides work"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("folders")
    return {
        "bert": checkpoint(top / "bert", "bert"),
        "modular": checkpoint(top / "modular", "modular"),
        "onnx": cross_encoder(top / "onnx"),
    }


@pytest.fixture
def marks(monkeypatch):
    """Return the list of calls that importable names in a folder caused, recorded by a fake module `torch.marker`."""
    import torch

    called = []

    class Mark(torch.nn.Module):
        def __init__(self):
            super().__init__()
            called.append("class")

        def forward(self, values):
            return values

    module = types.ModuleType("torch.marker")
    module.mark, module.Mark = (lambda: called.append("function")), Mark
    monkeypatch.setitem(sys.modules, "torch.marker", module)
    return called


def edited(file, **entries):
    settings = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(settings | entries), "utf-8")


def scores(folder):
    with load_reranker(f"sentence-transformers:{folder}", device="cpu") as reranker:
        response = reranker.rerank(QUERY, SENTENCES)
        return [result.raw_score for result in sorted(response, key=lambda result: result.index)]


@pytest.mark.parametrize(
    ("kind", "file", "entries"),
    [
        ("modular", "config_sentence_transformers.json", {"activation_fn": "torch.marker.mark"}),
        ("modular", "config.json", {"sbert_ce_default_activation_function": "torch.marker.mark"}),
        ("modular", "config.json", {"sentence_transformers": {"activation_fn": "torch.marker.mark"}}),
        ("modular", "sentence_bert_config.json", {"model_args": {"attn_implementation": "evil/kernel:run"}}),
        ("modular", "config.json", {"_attn_implementation": "evil/kernel:run"}),
        ("modular", "tokenizer_config.json", {"tokenizer_class": "torch.marker.Mark", "processor_class": "Mark"}),
        ("bert", "config.json", {"sbert_ce_default_activation_function": "torch.marker.mark"}),
        ("bert", "config.json", {"_attn_implementation": "evil/kernel:run"}),
        ("bert", "config.json", {"attn_implementation": "evil/kernel:run"}),
        ("bert", "config.json", {"auto_map": {"AutoModelForSequenceClassification": "evil.Model"}}),
    ],
)
def test_importable_names_without_use_for_scores_are_ignored(kind, file, entries, folders, tmp_path, marks):
    folder = shutil.copytree(folders[kind], tmp_path / "hostile")
    edited(folder / file, **entries)
    (folder / "evil.py").write_text("raise SystemExit('ran')\n", "utf-8")
    assert scores(folder) == near(scores(folders[kind]), SAME_INPUT)
    assert marks == []


@pytest.mark.parametrize(
    ("kind", "file", "entries", "error"),
    [
        ("modular", "2_Dense/config.json", {"activation_function": "torch.marker.Mark"}, "not one of torch.nn"),
        ("modular", "2_Dense/config.json", {"activation_function": "torch.nn.DataParallel"}, "not one of torch.nn"),
        ("modular", "2_Dense/config.json", {"activation_function": "torch.nn.modules.linear.LazyLinear"}, "not one of"),
        (
            "modular",
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "save_pretrained", "method_output_name": None}}},
            "save_pretrained",
        ),
        ("modular", "sentence_bert_config.json", {"transformer_task": "retrieval"}, "retrieval"),
        ("modular", "config.json", {"transformers_weights": "adapter_model.bin"}, "only safetensors are read"),
        ("bert", "config.json", {"transformers_weights": "adapter_model.bin"}, "only safetensors are read"),
        ("bert", "config.json", {"quantization_config": {"quant_method": "eetq"}}, "quantization_config"),
        (
            "bert",
            "config.json",
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            "quantization_config",
        ),
        ("bert", "config.json", {"fusion_config": {"rms_norm": True}}, "fusion_config"),
        ("bert", "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "evil/base"}, "adapter"),
    ],
)
def test_importable_names_that_select_code_are_refused(kind, file, entries, error, folders, tmp_path, marks):
    folder = shutil.copytree(folders[kind], tmp_path / "hostile")
    edited(folder / file, **entries)
    with pytest.raises(ConfigError, match=error):
        scores(folder)
    with pytest.raises(ConfigError, match=error):
        export(folder, tmp_path / "onnx")
    assert marks == []


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"type": "sentence_transformers.util.misc.import_from_string"}, "is not run"),
        ({"type": "sentence_transformers.base.modules.router.Router"}, "is not run"),
        ({"type": "sentence_transformers.sentence_transformer.modules.WordEmbeddings"}, "is not run"),
        ({"path": "../elsewhere"}, "leads out of the folder"),
        ({"path": "/elsewhere"}, "leads out of the folder"),
    ],
)
def test_modules_outside_the_table_or_the_folder_are_refused(entry, error, folders, tmp_path):
    folder = shutil.copytree(folders["modular"], tmp_path / "hostile")
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules[2] |= entry
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    with pytest.raises(ConfigError, match=error):
        load_reranker(f"sentence-transformers:{folder}")


@pytest.mark.parametrize(
    ("file", "entries", "error"),
    [
        ("sentence_bert_config.json", {"modality_config": 5}, "modality_config 5, which is no object"),
        ("config.json", {"model_type": []}, r"model_type \[\], which is no string"),
        ("config_sentence_transformers.json", {"default_prompt_name": []}, r"default_prompt_name \[\], which is no"),
        ("config.json", {"max_position_embeddings": 0}, "no usable max_position_embeddings"),
        ("config.json", {"max_position_embeddings": -1}, "no usable max_position_embeddings"),
        (
            "config.json",
            {"max_position_embeddings": 64, "model_type": "roberta", "pad_token_id": 99},
            "no usable max_position_embeddings",
        ),
    ],
)
def test_settings_of_a_wrong_type_are_refused_with_advice(file, entries, error, folders, tmp_path):
    folder = shutil.copytree(folders["onnx"], tmp_path / "damaged")
    edited(folder / "config_sentence_transformers.json", model_type="CrossEncoder", prompts={"query": "q: "})
    edited(folder / file, **entries)
    with pytest.raises(ConfigError, match=rf"{error}.*: fetch the model again"):
        load_reranker(f"onnx:{folder}")


def test_remote_code_that_exits_does_not_end_the_process(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "exits")
    edited(
        folder / "config.json",
        model_type="exits",
        auto_map={"AutoConfig": "exits.Config", "AutoModelForSequenceClassification": "exits.Model"},
    )
    (folder / "exits.py").write_text("raise SystemExit('the host ends')\n", "utf-8")
    with pytest.raises(ConfigError, match="SystemExit: the host ends") as raised:
        load(folder, LoadOptions(device="cpu", remote_code=True))
    assert isinstance(raised.value.__cause__, SystemExit)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("bert", "config.json"),
        ("bert", "tokenizer.json"),
        ("bert", "tokenizer_config.json"),
        ("bert", "model.safetensors"),
        ("bert", "more.safetensors"),
        ("modular", "modules.json"),
        ("modular", "2_Dense/config.json"),
        ("modular", "2_Dense/model.safetensors"),
        ("onnx", "model.onnx"),
        ("onnx", "config.json"),
        ("onnx", "tokenizer.json"),
        ("onnx", "model.onnx_data"),
        ("onnx", "onnx/model.onnx"),
    ],
)
def test_named_pipe_in_a_folder_is_refused_without_blocking(kind, file, folders, tmp_path):
    folder = shutil.copytree(folders[kind], tmp_path / "pipes")
    if file == "onnx/model.onnx":
        (folder / "model.onnx").unlink()
        (folder / "onnx").mkdir()
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    raised = []

    def call():
        try:
            spec = f"{'onnx' if kind == 'onnx' else 'sentence-transformers'}:{folder}"
            with load_reranker(spec) as reranker:
                reranker.rerank(QUERY, SENTENCES)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "the call blocks until something writes to the pipe"
    assert isinstance(raised[0], ConfigError)


def test_tokenizer_reader_refuses_a_named_pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        PairTokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "entries",
    [
        {"num_hidden_layers": 10**7},
        {"vocab_size": 10**12},
        {"max_position_embeddings": 10**12, "vocab_size": 91},
        {"max_position_embeddings": 10**6},  # times 32 dimensions
        {"num_labels": 10**6},
    ],
)
def test_sizes_in_the_config_beyond_the_weights_are_refused(entries, folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "large")
    edited(folder / "config.json", **entries)
    with pytest.raises(ConfigError, match="which its weights"):
        load(folder, LoadOptions(device="cpu"))

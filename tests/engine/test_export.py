"""`rerank-plugins export`: tiny random checkpoints of the true architectures, against torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.bounds import OTHER_CODE, near
from support.checkpoints import checkpoint as tiny
from support.models import SENTENCES, wordpiece

from rerank_plugins import load_reranker
from rerank_plugins.cli import main
from rerank_plugins.core.errors import ConfigError, MissingExtra
from rerank_plugins.engine.onnx.export import export, merge_weights

pytestmark = pytest.mark.thorough  # each test builds a model

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 132,
    "initializer_range": 0.3,  # so that different texts have clearly different scores
}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
KINDS = {
    "bert": ("Bert", {}),
    "bert of two labels": ("Bert", {"num_labels": 2}),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1}),
    "deberta-v2": ("DebertaV2", DEBERTA),
    "deberta-v2 with convolution": ("DebertaV2", {**DEBERTA, "conv_kernel_size": 3}),
    "modernbert cls": ("ModernBert", {"classifier_pooling": "cls", "local_attention": 16}),
    "modernbert mean": ("ModernBert", {"classifier_pooling": "mean", "local_attention": 16}),
}


def checkpoint(folder: Path, kind: str, more: dict) -> Path:
    import torch
    import transformers
    from tokenizers import Tokenizer

    transformers.utils.logging.disable_progress_bar()
    folder.mkdir()
    wordpiece(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = ids.get_vocab_size()
    torch.manual_seed(3)
    special = {f"{name}_token_id": 0 for name in ("bos", "eos", "cls", "sep")}
    config = getattr(transformers, f"{kind}Config")(
        **{"num_labels": 1, "pad_token_id": 0, **special, **SMALL, **more, "vocab_size": size}
    )
    getattr(transformers, f"{kind}ForSequenceClassification")(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "bert", "Bert", {})


@pytest.mark.parametrize("name", KINDS)
def test_exported_model_agrees_with_torch(name, tmp_path):
    kind, more = KINDS[name]
    made = export(checkpoint(tmp_path / "from", kind, more), tmp_path / "to")
    assert made.max_difference < 1e-4
    assert made.kendall_tau == 1.0
    assert made.first_token_only == (name != "modernbert mean")
    documents = [" ".join(SENTENCES[:count]) * (1 + count % 2) for count in (1, 2, 3, 4, 5)] + SENTENCES
    scores = []
    for tokens in (1, 16, 128, 512, 4096):
        with load_reranker({"use": f"onnx:{tmp_path / 'to'}", "batch_tokens": tokens}) as reranker:
            results = sorted(reranker.rerank("how do the tides work", documents), key=lambda result: result.index)
        scores.append([result.raw_score for result in results])
    assert max(scores[0]) - min(scores[0]) > 1e-2  # otherwise agreement would prove nothing
    for other in scores[1:]:
        assert other == near(scores[0])


def test_modules_of_ettin_are_exported(tmp_path, capfd):
    """The recipe has no ONNX file, and an exported file runs several times as fast as torch on a CPU."""
    source = tiny(tmp_path / "from", "modular")
    capfd.readouterr()
    assert main(["export", str(source), str(tmp_path / "to")]) == 0
    out, err = capfd.readouterr()
    assert "agrees with torch on 11 pairs" in out
    assert err == "", "transformers must not show progress bars without a terminal"
    documents = [*SENTENCES, " ".join(SENTENCES * 9)]
    orders = []
    for spec in (f"ettin:{source}", f"ettin:{tmp_path / 'to'}"):
        with load_reranker(spec, device="cpu") as reranker:
            response = reranker.rerank("how do the tides work", documents)
        orders.append({each.index: each.raw_score for each in response})
    assert response.model.endswith("[onnxruntime float32]")
    assert orders[1] == near(orders[0], OTHER_CODE)
    assert max(orders[0].values()) - min(orders[0].values()) > 0.05


def test_export_refuses_a_tokenizer_without_pairs(bert, tmp_path):
    """As for a language model with a classification head. The exported folder could never be used."""
    settings = json.loads((bert / "tokenizer.json").read_text())
    settings["post_processor"]["pair"] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    (bert / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="no template for a pair of texts"):
        export(bert, tmp_path / "to")
    assert not (tmp_path / "to" / "model.onnx").exists()


def test_exported_folder_is_complete_for_onnx(bert, tmp_path, capsys):
    assert main(["export", str(bert), str(tmp_path / "to")]) == 0
    out = capsys.readouterr().out
    assert "agrees with torch" in out
    assert "Kendall tau 1.0000" in out
    names = {each.name for each in (tmp_path / "to").iterdir()}
    assert names >= {"model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json"}
    assert not any(name.endswith(".safetensors") for name in names)


def test_sharded_weights_are_exported_to_one_external_file(bert, tmp_path):
    """A small model, exported to the files that torch writes for models above two gigabytes (bge-reranker-v2-m3)."""
    import onnx

    export(bert, tmp_path / "to")
    scattered = tmp_path / "scattered"
    scattered.mkdir()
    model = onnx.load(str(tmp_path / "to" / "model.onnx"))
    with load_reranker(f"onnx:{tmp_path / 'to'}") as reranker:
        expected = [each.raw_score for each in reranker.rerank("how do the tides work", SENTENCES)]
    onnx.save_model(
        model,
        str(scattered / "model.onnx"),
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    assert len(list(scattered.iterdir())) > 10
    (tmp_path / "to" / "model.onnx").unlink()
    merge_weights(scattered / "model.onnx", tmp_path / "to" / "model.onnx")
    made = {each.name: each.stat().st_mode for each in (tmp_path / "to").glob("model*")}
    assert made.keys() == {"model.onnx", "model.onnx_data"}
    assert len(set(made.values())) == 1
    with load_reranker(f"onnx:{tmp_path / 'to'}") as reranker:
        values = [each.raw_score for each in reranker.rerank("how do the tides work", SENTENCES)]
    assert values == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"auto_map": {"AutoModel": "theirs.Model"}}, "code of its own"),
        ({"architectures": ["BertModel"]}, "without a classification head"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"num_hidden_layers": 4}, "its weights lack "),
        ({"architectures": [5]}, "is a 5 without a classification head"),
        ({"architectures": 5}, "without a classification head"),
        ({"id2label": 5}, "id2label 5, which is no object: fetch the model again"),
    ],
)
def test_export_refuses_unsupported_checkpoints(bert, tmp_path, change, says):
    file = bert / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=says):
        export(bert, tmp_path / "to")
    assert not (tmp_path / "to" / "model.onnx").exists()


def test_export_refuses_a_config_that_is_no_object(bert, tmp_path):
    (bert / "config.json").write_text("[]")
    with pytest.raises(
        ConfigError, match=r"no readable config\.json \(it holds no object\): name a checkpoint's folder"
    ):
        export(bert, tmp_path / "to")


def test_export_refuses_a_damaged_vocabulary(bert, tmp_path):
    (bert / "tokenizer.json").unlink()
    (bert / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    settings = bert / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": "BertTokenizer"}))
    with pytest.raises(ConfigError, match=r"The tokenizer in .* cannot be read \(.*\): fetch it again"):
        export(bert, tmp_path / "to")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_no_fault_of_the_model(bert, tmp_path, monkeypatch):
    import torch

    def fill(*_, **__):
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"model")

    monkeypatch.setattr(torch.onnx, "export", fill)
    with pytest.raises(ConfigError, match=r"to cannot be written \(.*No space left on device.*free space of the disk"):
        export(bert, tmp_path / "to")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/to cannot be written \("):
        export(bert, tmp_path / "file" / "to")


def test_missing_packages_are_named_with_their_extras(tmp_path, monkeypatch):
    """The extra `export` does not install sentence-transformers, which only Ettin's layout needs."""
    source = tiny(tmp_path / "from", "modular")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"'rerank-plugins\[export,sentence-transformers\]'"):
        export(source, tmp_path / "to")


def test_export_refuses_pickled_weights_and_a_file_as_target(bert, tmp_path):
    (tmp_path / "to").touch()
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        export(bert, tmp_path / "to")
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"no safetensors weights.*save_pretrained"):
        export(bert, tmp_path / "other")


def test_export_refuses_a_checkpoint_without_its_vocabulary(bert, tmp_path):
    (bert / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"neither a tokenizer\.json nor a vocabulary"):
        export(bert, tmp_path / "to")


def test_trace_error_names_the_versions(bert, tmp_path, monkeypatch):
    import torch

    def fails(*_, **__):
        raise IndexError("tuple index out of range")  # as transformers 5.5's masks do

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(
        ConfigError, match=r"with transformers \d.* cannot trace this model \(IndexError: .*pip install"
    ):
        export(bert, tmp_path / "to")
    assert not (tmp_path / "to" / "model.onnx").exists()


def test_export_refuses_a_missing_source_and_an_existing_target(bert, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        export(tmp_path / "nowhere", tmp_path / "to")
    export(bert, bert)
    with pytest.raises(ConfigError, match="already"):
        export(bert, bert)

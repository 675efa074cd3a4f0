"""Models by their hub names, from a small real hub on this machine. Each step runs in a process of its own."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from support.hub import Hub, run_with
from support.pages import documented

from rerank_plugins import load_reranker
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine.hub_files import colbert_files, onnx_files, torch_files

FIRST, SECOND = "a" * 40, "b" * 40
CODE = """
import sys
from rerank_plugins import load_reranker
reranker = load_reranker(sys.argv[1])
response = reranker.rerank("how do the tides work", ["Bananas are yellow.", "The moon raises the tides."])
print([result.index for result in response])
"""


pytestmark = pytest.mark.slow  # nearly all start subprocesses


@pytest.fixture
def hub(cross_encoder_folder, tmp_path):
    running = Hub()
    published = shutil.copytree(cross_encoder_folder, tmp_path / "published")
    (published / "pytorch_model.bin").write_bytes(b"pickled")
    (published / "modeling.py").write_text("raise SystemExit", "utf-8")
    running.put("acme/tiny", published, FIRST)
    yield running
    running.close()


@pytest.fixture
def run(hub, tmp_path):
    return partial(run_with, hub, tmp_path)


def fetch(run, spec, **more):
    return run("-m", "rerank_plugins", "fetch", spec, **more)


def record(tmp_path) -> Path:
    (path,) = (tmp_path / "cache" / "rerank_plugins" / "models").iterdir()
    return path


def test_fetched_model_is_used_without_a_network(run, hub, tmp_path):
    done = fetch(run, "onnx:acme/tiny")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().partition(": ")[2])
    files = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    assert files == {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"}, "no pickles, no code"
    written = json.loads(record(tmp_path).read_text("utf-8"))
    assert written["commit"] == FIRST
    assert set(written["files"]) == files
    hub.requests.clear()
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = run("-c", CODE, "onnx:acme/tiny", **more)
        assert done.returncode == 0, done.stderr
    assert hub.requests == [], "a local model needs no request"


def test_documented_fetch_command_fetches_its_model(run, hub, tmp_path, cross_encoder_folder):
    published = tmp_path / "ms-marco"
    (published / "onnx").mkdir(parents=True)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(cross_encoder_folder / file, published)
    shutil.copy(cross_encoder_folder / "model.onnx", published / "onnx" / "model.onnx")
    hub.put("cross-encoder/ms-marco-MiniLM-L6-v2", published, FIRST)
    done = run("-m", "rerank_plugins", *documented("fetch"))
    assert done.returncode == 0, done.stderr
    assert FIRST in done.stdout


@pytest.mark.slow
def test_first_call_fetches_and_records_the_commit_of_the_branch(run, hub, tmp_path, cross_encoder_folder):
    done = run("-c", CODE, "sentence-transformers:acme/tiny")
    assert done.returncode == 0, done.stderr
    assert any("model.safetensors" in each for each in hub.requests)
    assert not any("pytorch_model.bin" in each or ".py" in each or ".onnx" in each for each in hub.requests)
    hub.put("acme/tiny", cross_encoder_folder, SECOND)
    shutil.rmtree(tmp_path / "hf")
    done = fetch(run, "sentence-transformers:acme/tiny")
    assert done.returncode == 0, done.stderr
    assert FIRST in done.stdout


@pytest.mark.slow
def test_export_of_a_hub_model_makes_an_onnx_folder(run, tmp_path):
    made = tmp_path / "made"
    done = run("-m", "rerank_plugins", "export", "acme/tiny", str(made))
    assert done.returncode == 0, done.stderr
    assert "agrees with torch" in done.stdout
    assert json.loads(record(tmp_path).read_text("utf-8"))["commit"] == FIRST
    assert not list(made.glob("*.safetensors"))
    done = run("-c", CODE, f"bge:{made}")
    assert done.returncode == 0, done.stderr


def test_files_that_differ_from_the_record_are_refused(run, hub, tmp_path):
    done = fetch(run, "onnx:acme/tiny")
    file = Path(done.stdout.strip().partition(": ")[2]) / "model.onnx"
    file.resolve().write_bytes(file.read_bytes() + b"x")
    done = run("-c", CODE, "onnx:acme/tiny")
    assert "model.onnx of acme/tiny is not the file of the first use" in done.stderr
    # The hub itself serves other bytes for the same commit.
    shutil.rmtree(tmp_path / "hf")
    config = hub.repositories["acme/tiny"][FIRST] / "config.json"
    config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    done = fetch(run, "onnx:acme/tiny")
    assert done.returncode == 2
    assert "config.json of acme/tiny is not the file of the first use" in done.stderr
    record(tmp_path).unlink()
    assert fetch(run, "onnx:acme/tiny").returncode == 0


def test_cache_filled_by_huggingface_hub_works_offline(run, tmp_path):
    filled = "from huggingface_hub import hf_hub_download as get\nfor name in sys.argv[1:]: get('acme/tiny', name)"
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx")
    assert run("-c", f"import sys\n{filled}", *names).returncode == 0
    done = run("-c", CODE, "onnx:acme/tiny", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("spec", "more", "message"),
    [
        ("onnx:acme/tiny", {"HF_HUB_OFFLINE": "1"}, "run: rerank-plugins fetch onnx:acme/tiny"),
        ('{"use": "onnx:acme/tiny", "local_files_only": true}', {}, "run: rerank-plugins fetch onnx:acme/tiny"),
        ("onnx:acme/none", {}, "The hub has no acme/none"),
        ('{"use": "onnx:acme/tiny", "revision": "v9"}', {}, "no revision 'v9'"),
        ("onnx:acme/tiny", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be fetched"),
    ],
)
def test_error_about_a_failed_fetch_has_advice(spec, more, message, run):
    done = fetch(run, spec, **more)
    assert done.returncode in (1, 2)
    assert message in done.stderr


def test_spec_with_a_revision_loads_that_commit(run, hub, tmp_path, cross_encoder_folder):
    hub.put("acme/tiny", cross_encoder_folder, SECOND)
    done = fetch(run, json.dumps({"use": "onnx:acme/tiny", "revision": FIRST}))
    assert done.returncode == 0, done.stderr
    assert FIRST in done.stdout


@pytest.mark.parametrize("spec", ["onnx:acme/tiny", "bge", "flashrank"])
def test_revision_of_a_wrong_type_is_refused_without_a_request(spec):
    with pytest.raises(ConfigError, match=r"revision must be a string, got 1234567"):
        load_reranker({"use": spec, "revision": 1234567})


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_unpinned_code_of_another_repository_is_not_run(file, run, hub, tmp_path, cross_encoder_folder):
    """As in jina-reranker-v2, which names code of `jinaai/xlm-roberta-flash-implementation`."""
    folder = shutil.copytree(cross_encoder_folder, tmp_path / "elsewhere")
    settings = json.loads((folder / file).read_text("utf-8"))
    settings["auto_map"] = {
        "AutoConfig": "acme/code--own.OwnConfig",
        "AutoTokenizer": [None, "acme/code--own.OwnTokenizer"],
    }
    (folder / file).write_text(json.dumps(settings), "utf-8")
    hub.put("acme/elsewhere", folder, SECOND)
    trusted = {"revision": SECOND, "sentence-transformers": {"trust_remote_code": True}}
    spec = json.dumps({"use": "sentence-transformers:acme/elsewhere", **trusted})
    done = run("-m", "rerank_plugins", "rerank", "tides", "-", "--reranker", spec)
    assert done.returncode == 2
    assert "takes its code from another repository (acme/code)" in done.stderr
    assert not any("acme/code" in each for each in hub.requests)


@pytest.mark.slow  # three interpreters that import torch
def test_code_of_a_repository_runs_only_with_a_commit(run, hub, tmp_path, cross_encoder_folder):
    folder = shutil.copytree(cross_encoder_folder, tmp_path / "own-code")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnForSequenceClassification"}
    config |= {"model_type": "own", "auto_map": own, "architectures": ["OwnForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertForSequenceClassification\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
        "class OwnForSequenceClassification(BertForSequenceClassification):\n    config_class = OwnConfig\n",
        "utf-8",
    )
    hub.put("acme/own", folder, SECOND)
    spec = {
        "use": "sentence-transformers:acme/own",
        "revision": SECOND,
        "sentence-transformers": {"trust_remote_code": True},
    }
    check = ("-m", "rerank_plugins", "rerank", "tides", "-", "--reranker")
    plain = {key: value for key, value in spec.items() if key != "sentence-transformers"}
    done = run(*check, json.dumps(plain))
    assert done.returncode == 2
    assert "needs code of its own" in done.stderr
    done = run(*check, json.dumps(spec))
    assert done.returncode == 0, done.stderr


def test_a_late_interaction_model_comes_from_its_onnx_file_if_there_is_one():
    small = ["config.json", "tokenizer.json"]
    modules = ["1_Dense/config.json", "1_Dense/model.safetensors", "modules.json"]
    both = [*small, *modules, "model.safetensors", "onnx/model.onnx", "onnx/model.onnx_data", "vespa.onnx", "README.md"]
    assert colbert_files(both) == ["onnx/model.onnx", "onnx/model.onnx_data", *small, *modules]
    assert colbert_files(both, onnx="vespa.onnx") == ["vespa.onnx", *small, *modules]
    assert set(colbert_files(both, runtime="torch")) == {*small, *modules, "model.safetensors"}
    stanford = [*small, "artifact.metadata", "model.safetensors"]
    assert set(colbert_files(stanford)) == {*stanford}
    assert colbert_files([*stanford, "a.onnx"]) == ["a.onnx", *small, "artifact.metadata"]
    with pytest.raises(ConfigError, match=r"no ONNX file called model\.onnx: leave runtime out, or set it to 'torch'"):
        colbert_files(stanford, runtime="onnxruntime")
    assert colbert_files(both, runtime="onnxruntime") == colbert_files(both)
    with pytest.raises(ConfigError, match="no safetensors weights"):
        colbert_files([*small, "pytorch_model.bin"])


def test_only_needed_files_of_a_repository_are_selected():
    small = ["config.json", "tokenizer.json"]
    many = [*small, "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_O4.onnx", "model.safetensors", "x.bin"]
    assert onnx_files(many) == ["onnx/model.onnx", "onnx/model.onnx_data", *small]
    assert set(torch_files(many)) == {*small, "model.safetensors"}
    modules = [*small, "modules.json", "model.safetensors", "2_Dense/config.json", "2_Dense/model.safetensors", "a.py"]
    assert set(torch_files(modules)) == {*modules} - {"a.py"}
    assert "a.py" in torch_files(modules, code=True)
    assert "chat_template.jinja" in torch_files([*small, "model.safetensors", "chat_template.jinja"]), (
        "by which it is refused"
    )
    with pytest.raises(ConfigError, match=r"several ONNX files \(onnx/a.onnx, onnx/b.onnx\)"):
        onnx_files([*small, "onnx/a.onnx", "onnx/b.onnx"])
    with pytest.raises(ConfigError, match="no safetensors"):
        torch_files([*small, "pytorch_model.bin"])
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        onnx_files(["model.onnx"])

"""ONNX files that others than the maker have made, with weights in a file of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bounds import OTHER_CODE, SAME_INPUT, near
from support.checkpoints import checkpoint
from support.models import SENTENCES

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.engine.hub_files import onnx_files
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel
from rerank_plugins.engine.onnx.export import export
from rerank_plugins.engine.onnx.external_weights import external_weights, missing_external_weights

QUERY = "how do the tides work"
COMMIT = "c" * 40
FILE = "onnx/model.onnx"


def with_external_weights(model: Path, file: Path, location: str | None = None) -> None:
    import onnx

    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        onnx.load(str(model)),
        str(file),
        save_as_external_data=True,
        location=location or f"{file.name}_data",
        size_threshold=0,
    )


def scores(spec: str, **options: object) -> tuple[list[float], str]:
    with load_reranker(spec, **options) as reranker:
        response = reranker.rerank(QUERY, SENTENCES)
    return [each.raw_score for each in sorted(response, key=lambda result: result.index)], response.model


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    """An XLM-R checkpoint, and a repository with its ONNX file in the layout of onnx-community's."""
    base = tmp_path_factory.mktemp("converted")
    source, repository = checkpoint(base / "xlm-r", "xlm-r"), base / "repository"
    export(source, base / "exported")
    with_external_weights(base / "exported" / "model.onnx", repository / FILE)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, repository)
    return {"checkpoint": source, "repository": repository}


@pytest.fixture
def cache(published, tmp_path, monkeypatch) -> Path:
    """The hub's cache with the converted file of bge-reranker-v2-m3: links to files that are named by hashes."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "records"))
    repository = tmp_path / "hub" / "models--onnx-community--bge-reranker-v2-m3-ONNX"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    (snapshot / "onnx").mkdir(parents=True)
    blobs.mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, "utf-8")
    for number, file in enumerate(each for each in published["repository"].rglob("*") if each.is_file()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.relative_to(published["repository"])).symlink_to(blobs / str(number))
    return snapshot


def test_converted_file_in_the_hubs_cache_scores_as_the_makers_weights_on_torch(cache, published):
    ours, model = scores("bge", runtime="onnxruntime", local_files_only=True)
    expected, _ = scores(f"sentence-transformers:{published['checkpoint']}", device="cpu")
    assert model == "bge:bge-reranker-v2-m3 [onnxruntime float32]"
    assert ours == near(expected, OTHER_CODE)
    assert max(ours) - min(ours) > 0.05


def test_cache_without_the_weights_names_them_and_the_command(cache):
    (cache / f"{FILE}_data").unlink()
    with pytest.raises(ConfigError, match=r"incomplete on this machine .*has no onnx/model\.onnx_data.*plugins fetch"):
        scores("bge", runtime="onnxruntime", local_files_only=True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_folder_without_the_weights_names_them(published, runtime, tmp_path):
    folder = shutil.copytree(published["repository"], tmp_path / "copy")
    (folder / f"{FILE}_data").unlink()
    assert missing_external_weights(folder / FILE) == ["model.onnx_data"]
    with pytest.raises(ConfigError, match=r"keeps weights in model\.onnx_data, which is not beside it: copy or fetch"):
        scores(f"onnx:{folder}", runtime=runtime)


def test_missing_weights_are_found_in_files_of_any_size_of_name(tmp_path):
    entry = b"\n\x08location\x12"
    long = b"w" * 200
    (tmp_path / "model.onnx").write_bytes(
        b"graph" + entry + b"\x05a.bin" + entry + b"\xc8\x01" + long + b"\n\x06offset"
    )
    assert missing_external_weights(tmp_path / "model.onnx") == ["a.bin", long.decode()]
    (tmp_path / "a.bin").touch()
    assert missing_external_weights(tmp_path / "model.onnx") == [long.decode()]


@pytest.mark.parametrize("location", ["weights.bin", "model.onnx_data"])
def test_other_weights_of_any_name_are_another_model(location, cross_encoder_folder, tmp_path):
    """Two fine-tunes with equal graphs: one's vectors and scores must not be served for the other."""
    prints = []
    for name in ("one", "other"):
        folder = shutil.copytree(cross_encoder_folder, tmp_path / name)
        (folder / "model.onnx").unlink()
        with_external_weights(cross_encoder_folder / "model.onnx", folder / "model.onnx", location)
        if name == "other":
            weights = folder / location
            weights.write_bytes(bytes(reversed(weights.read_bytes())))
        model = OnnxModel.shared(folder)
        assert model.weight_files == [folder / "model.onnx", folder / location]
        prints.append(model.fingerprint)
    assert (tmp_path / "one/model.onnx").read_bytes() == (tmp_path / "other/model.onnx").read_bytes()
    assert prints[0] != prints[1]


def test_names_of_weights_across_the_parts_of_a_read_are_read_whole(tmp_path):
    file, entry = tmp_path / "model.onnx", b"\n\x08location\x12\xac\x02"
    names = [letter * 300 for letter in "abc"]
    text = b"".join(entry + name.encode() for name in names)
    for before in range(2**20 - len(text), 2**20 + 1, 37):
        file.write_bytes(bytes(before) + text + bytes(2**20))
        assert missing_external_weights(file) == names


@pytest.mark.parametrize("name", ["../weights.bin", "/weights.bin", "w" * 300, "no\x00file"])
def test_names_of_weights_that_are_no_file_of_the_folder_are_left_out(name, tmp_path):
    (tmp_path / "weights.bin").touch()
    file = tmp_path / "model" / "model.onnx"
    file.parent.mkdir()
    size = len(name)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    file.write_bytes(b"\n\x08location\x12" + length + name.encode())
    assert external_weights(file) == []


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_linked_weights_of_any_name_are_loaded(runtime, cross_encoder_folder, tmp_path):
    """As in a hub's cache, where all files of a revision are links to blobs."""
    folder, blobs = shutil.copytree(cross_encoder_folder, tmp_path / "links"), tmp_path / "blobs"
    blobs.mkdir()
    with_external_weights(cross_encoder_folder / "model.onnx", folder / "model.onnx", "weights.bin")
    for name in ("model.onnx", "weights.bin"):
        (folder / name).rename(blobs / f"blob of {name}").resolve()
        (folder / name).symlink_to(blobs / f"blob of {name}")
    expected, _ = scores(f"onnx:{cross_encoder_folder}", runtime=runtime)
    assert scores(f"onnx:{folder}", runtime=runtime)[0] == near(expected, SAME_INPUT)


def test_known_parts_must_all_be_in_the_repository():
    small = ["config.json", "tokenizer.json"]
    names = [*small, FILE, f"{FILE}_data", f"{FILE}_data_1", "onnx/model_int8.onnx", "model.onnx"]
    assert onnx_files(names, known=(FILE, f"{FILE}_data")) == [FILE, f"{FILE}_data", f"{FILE}_data_1", *small]
    with pytest.raises(ConfigError, match=r"^it has no onnx/model\.onnx_data$"):
        onnx_files([*small, FILE], known=(FILE, f"{FILE}_data"))


def test_classifier_of_chats_is_refused_as_an_onnx_file_too(published, tmp_path):
    """A conversion of Qwen3's reranker, for example: a plain pair is not what it was trained on."""
    folder = shutil.copytree(published["repository"], tmp_path / "chats")
    (folder / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    with pytest.raises(ConfigError, match="puts query and document into a chat template"):
        load_reranker(f"onnx:{folder}")


@pytest.mark.slow  # three exports
@pytest.mark.parametrize("kind", ["bert", "modernbert-cls", "modernbert-mean"])
def test_encoders_of_other_makers_score_alike_on_both_runtimes(kind, tmp_path):
    """The architectures of the family cross-encoder: BERT (Russian) and ModernBERT (GTE, Granite, mist, Japanese)."""
    source = checkpoint(tmp_path / "source", kind)
    export(source, tmp_path / "onnx")
    expected, on_torch = scores(f"cross-encoder:{source}", device="cpu")
    ours, on_onnx = scores(f"cross-encoder:{tmp_path / 'onnx'}")
    assert (on_torch.partition(" [")[2], on_onnx.partition(" [")[2]) == ("torch float32]", "onnxruntime float32]")
    assert ours == near(expected, OTHER_CODE)
    assert max(ours) - min(ours) > 0.05

"""Late-interaction models: the layouts, MaxSim, what is read of a text, and the cache of vectors."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import sqlite3
import string
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.late_interaction import LAYOUTS, export, late_interaction, write
from support.models import SENTENCES

from rerank_plugins import BadResponse, ConfigError, load_reranker
from rerank_plugins.backends.embedded import FOLDER
from rerank_plugins.config import backends
from rerank_plugins.core import sqlite_file
from rerank_plugins.engine.files import stat_signature
from rerank_plugins.engine.hub import Repository
from rerank_plugins.engine.hub_files import colbert_files
from rerank_plugins.engine.late_interaction.colbert import _Passage, _Query
from rerank_plugins.engine.late_interaction.encoders import OnnxTokenModel
from rerank_plugins.engine.late_interaction.layout import Layout
from rerank_plugins.engine.late_interaction.maxsim import best_matches, compress, unit_vectors
from rerank_plugins.engine.late_interaction.projection import read_layers
from rerank_plugins.engine.late_interaction.prompts import LateTokenizer
from rerank_plugins.engine.late_interaction.vector_file import VectorFile
from rerank_plugins.engine.pins import Record
from rerank_plugins.engine.weights_digest import fingerprint

COMMIT = "a" * 40
QUERY = "how do the tides work"
DOCUMENTS = [*SENTENCES, "Moon! Sun? (tides), bananas; and clocks...", "The tides " * 40]


@pytest.fixture(autouse=True)
def _no_time_limit(monkeypatch):
    """Let a slow disk change no result: a read that takes long is cut short, and counts as an error."""
    monkeypatch.setattr(sqlite_file, "_READ_TIMEOUT_S", 3600.0)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The folder of each layout, made once."""
    made = {}

    def folder(layout: str):
        if layout not in made:
            made[layout] = late_interaction(tmp_path_factory.mktemp("late") / layout, layout)
        return made[layout]

    return folder


@pytest.fixture(scope="session")
def exported(folders, tmp_path_factory):
    """The ONNX folder of each layout, with the projection in the file or without."""
    made = {}

    def folder(layout: str, *, projected: bool):
        if (layout, projected) not in made:
            target = tmp_path_factory.mktemp("late-onnx") / f"{layout}-{projected}"
            made[layout, projected] = export(folders(layout), target, projected=projected)
        return made[layout, projected]

    return folder


def raw(reranker, query=QUERY, documents=DOCUMENTS):
    scores = {each.index: each.raw_score for each in reranker.rerank(query, documents)}
    return [scores[index] for index in range(len(documents))]


def reference(folder, query=QUERY, documents=DOCUMENTS) -> list[float]:
    """The scores of sentence-transformers: MaxSim divided by the number of the query's vectors."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu")
    queries = model.encode_query([query])
    similarity = model.similarity(queries, model.encode_document(documents))[0]
    return [value / len(queries[0]) for value in similarity.tolist()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_on_torch_are_those_of_sentence_transformers(folders, layout):
    folder = folders(layout)
    with load_reranker(f"colbert:{folder}", device="cpu") as reranker:
        for query in (QUERY, "Tides?", "the moon, the sun and the sea " * 9):
            assert raw(reranker, query) == pytest.approx(reference(folder, query), abs=2e-6)
        assert reranker.rerank(QUERY, DOCUMENTS).model.endswith("[torch float32]")


@pytest.mark.parametrize(
    ("layout", "projected"),
    [
        ("stanford", True),
        ("pylate", False),
        *(  # an export each
            pytest.param(layout, projected, marks=pytest.mark.slow)
            for layout, projected in (
                ("stanford", False),
                ("pylate", True),
                ("sentence-transformers", True),
                ("sentence-transformers", False),
            )
        ),
    ],
)
def test_scores_on_onnx_are_those_of_sentence_transformers(folders, exported, layout, projected):
    with load_reranker(f"colbert:{exported(layout, projected=projected)}") as reranker:
        for query in (QUERY, "Tides?"):
            assert raw(reranker, query) == pytest.approx(reference(folders(layout), query), abs=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_special_tokens_and_markers_in_a_document_are_plain_text(folders, layout):
    folder = folders(layout)
    tokenizer = LateTokenizer(folder, Layout.read(folder))
    (plain,) = tokenizer.documents(["tides"], 60)
    marks = {token: plain.ids.count(token) for token in range(5)}  # [PAD] [UNK] [CLS] [SEP] [MASK]
    names = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[Q] ", "[D] ", "[unused0]", "[unused1]")
    (row,) = tokenizer.documents([f"{' '.join(names)} tides"], 60)
    markers = set(plain.ids[1:-2])  # between [CLS] and the text
    for token, count in marks.items():
        assert row.ids.count(token) == count or token == 1, "a letter may be unknown"
    if layout != "sentence-transformers":  # there the prompts are words
        assert len(markers) == 1
        assert row.ids.count(*markers) == 1


def test_a_length_that_leaves_no_token_of_the_text_is_refused(folders):
    folder = folders("stanford")
    tokenizer = LateTokenizer(folder, Layout.read(folder))
    (row,) = tokenizer.documents(["tides tides"], 4)
    assert (len(row.ids), row.truncated) == (4, True)
    with pytest.raises(ConfigError, match=r"3 tokens of a document leave none for its text.*Raise max_tokens"):
        tokenizer.documents(["tides"], 3)
    with pytest.raises(ConfigError, match=r"tokens of a query leave none for its text.*Raise query_tokens"):
        tokenizer.query("tides", 1)


def test_a_text_of_which_nothing_counts_is_scored_by_all_its_tokens(folders, tmp_path):
    folder = shutil.copytree(folders("pylate"), tmp_path / "skips")
    settings = folder / "config_sentence_transformers.json"
    skipped = ["[CLS]", "[SEP]", "[D] ", *string.punctuation]
    write(settings, json.loads(settings.read_text()) | {"skiplist_words": skipped})
    tokenizer = LateTokenizer(folder, Layout.read(folder))
    (row, other) = tokenizer.documents(["", "tides"], 20)
    assert set(row.ids) < set(other.ids)
    assert tokenizer.counted(row, is_query=False).all()
    assert not tokenizer.counted(other, is_query=False).all()
    with load_reranker(f"colbert:{folder}", device="cpu") as reranker:
        assert all(-1.0 <= score <= 1.0 for score in raw(reranker, documents=["!", "(),", "the tides"]))


def test_maxsim_of_nothing_is_a_finite_number():
    some, none = np.ones((2, 8), np.float32), np.ones((0, 8), np.float32)
    assert best_matches(some, none).tolist() == [0.0, 0.0]
    assert best_matches(none, some).tolist() == []
    assert _Query(none).score(_Passage(some)) == 0.0


def test_only_the_onnx_file_of_the_record_is_run(exported, folders, tmp_path, monkeypatch):
    """The folder of a repository may hold other ONNX files, which another backend or program has fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind, source in (("onnxruntime", exported("pylate", projected=True)), ("torch", folders("pylate"))):
        folder = shutil.copytree(source, tmp_path / kind / COMMIT)
        if kind == "onnxruntime":
            (folder / "model.onnx").rename(folder / "only.onnx")
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        (folder / "model.onnx").write_bytes(b"of another program")
        monkeypatch.setattr(Repository, "_cached", lambda self, revision, folder=folder: folder)
        repository = Repository(f"acme/{kind}", "colbert:acme/late", colbert_files)
        repository.record.parent.mkdir(parents=True, exist_ok=True)
        seen = {str(folder / name): stat_signature(folder / name) for name in names}
        Record(COMMIT, names, {}, seen).write(repository.record)
        with load_reranker(f"colbert:acme/{kind}") as reranker:
            assert len(raw(reranker)) == len(DOCUMENTS)
            assert reranker.rerank(QUERY, DOCUMENTS).model.endswith(f"[{kind} float32]")


@pytest.mark.parametrize(
    "option", [{"dtype": "float16"}, {"device": "cuda:0"}, {"runtime": "torch", "dtype": "float16"}]
)
def test_a_model_that_runs_only_on_onnx_names_the_option_to_leave_out(option):
    with pytest.raises(ConfigError, match=f"runs only from its ONNX file: leave {next(iter(option))} out"):
        load_reranker({"use": "colbert:jina-colbert-v2"} | option)


def test_an_onnx_file_without_the_projection_and_its_weights_says_to_use_torch(exported, tmp_path):
    folder = shutil.copytree(exported("stanford", projected=False), tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"does not hold the projection .*set runtime to 'torch'"):
        load_reranker(f"colbert:{folder}").rerank(QUERY, DOCUMENTS)


@pytest.mark.parametrize(
    ("operator", "axes"),
    [("ReduceMean", [1]), ("ReduceMean", [0]), ("Squeeze", [])],  # one token, one row, and another rank for one row
)
def test_an_onnx_output_without_a_vector_per_token_is_refused(exported, tmp_path, operator, axes):
    import onnx

    folder = shutil.copytree(exported("stanford", projected=True), tmp_path / "model")
    model = onnx.load(folder / "model.onnx")
    before = model.graph.output.pop().name
    model.graph.node.append(onnx.helper.make_node(operator, [before, "axes"] if axes else [before], ["odd"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, dtype=np.int64), "axes"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("odd", onnx.TensorProto.FLOAT, None))
    onnx.save(model, folder / "model.onnx")
    message = r"model\.onnx has the shape \([0-9, ]*\) for \d+ rows of \d+ tokens: export it again"
    with load_reranker(f"colbert:{folder}") as reranker, pytest.raises(ConfigError, match=message):
        reranker.rerank(QUERY, ["the moon"] + ["the sea tides", "the sun moon"] * 4)


def rewrite(weights, change):
    """Replace entries of the header of a safetensors file, and leave its data."""
    data = weights.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["linear.weight"] |= change
    encoded = json.dumps(header).encode()
    weights.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data[8 + size :])


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 10**30]},
        {"data_offsets": [0, 10**14]},
        {"data_offsets": [10**30, 10**30 + 1024]},
        {"data_offsets": [-8, 1016]},
        {"shape": [8, 10**30]},
        {"shape": [True, 256]},
        {"dtype": "F64"},
        {"dtype": "F8_E4M3"},
        {"dtype": ["F32"]},
    ],
)
@pytest.mark.parametrize("layout", ["pylate", "stanford"])
def test_a_projection_whose_header_is_damaged_is_refused(folders, tmp_path, layout, change):
    folder = shutil.copytree(folders(layout), tmp_path / "damaged")
    rewrite(folder / ("model.safetensors" if layout == "stanford" else "2_Dense/model.safetensors"), change)
    with pytest.raises(ConfigError, match=r"cannot be read as safetensors .*fetch it again"):
        read_layers(folder, Layout.read(folder))


@pytest.mark.parametrize(
    ("path", "name", "shape"),
    [
        ("1_Dense", "linear.weight", (16, 32)),
        ("1_Dense", "linear.bias", (7,)),
        ("2_Dense", "linear.weight", (8, 31)),
        ("2_Dense", "linear.weight", (256,)),
        ("2_Dense", "linear.weight", (0, 32)),
        ("2_Dense", "residual.weight", (8, 31)),
    ],
)
def test_a_projection_whose_layers_do_not_fit_together_is_refused(folders, tmp_path, path, name, shape):
    folder = shutil.copytree(folders("pylate"), tmp_path / "shapes")
    config = folder / path / "config.json"
    changes = {"bias": name == "linear.bias", "use_residual": name == "residual.weight"}
    write(config, json.loads(config.read_text()) | changes)
    weights = folder / path / "model.safetensors"
    save_file(load_file(weights) | {name: np.ones(shape, np.float32)}, weights)
    with pytest.raises(ConfigError, match=r"in its safetensors, and \(.*\) is expected: fetch the model again"):
        read_layers(folder, Layout.read(folder))


def test_a_projection_of_another_width_than_the_onnx_file_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported("pylate", projected=False), tmp_path / "width")
    config = folder / "1_Dense" / "config.json"
    write(config, json.loads(config.read_text()) | {"use_residual": False})
    save_file({"linear.weight": np.ones((32, 31), np.float32)}, folder / "1_Dense" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"gives vectors of 32 numbers.*takes 31"):
        load_reranker(f"colbert:{folder}").rerank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("tasks", [5, [5], {"query": 1}])
def test_skiplist_tasks_of_another_type_are_refused(folders, tmp_path, tasks):
    folder = shutil.copytree(folders("sentence-transformers"), tmp_path / "tasks")
    (file,) = folder.glob("*_MultiVectorMask/config.json")
    write(file, json.loads(file.read_text()) | {"skiplist_tasks": tasks})
    with pytest.raises(ConfigError, match="skiplist_tasks that are no list of strings"):
        Layout.read(folder)


def test_a_cut_document_and_a_cut_query_say_so(folders):
    with load_reranker(f"colbert:{folders('pylate')}", device="cpu") as reranker:
        cut = {each.index: each.truncated for each in reranker.rerank(QUERY, DOCUMENTS)}
        assert [index for index, was_cut in cut.items() if was_cut] == [len(DOCUMENTS) - 1]
        assert all(each.truncated for each in reranker.rerank("tides " * 30, DOCUMENTS[:2]))
        assert backends(reranker)[0].capabilities.max_document_tokens == 24
    whole = {"use": f"colbert:{folders('pylate')}", "device": "cpu", "max_tokens": 90, "colbert": {"query_tokens": 60}}
    with load_reranker(whole) as reranker:
        assert not any(each.truncated for each in reranker.rerank("tides " * 30, DOCUMENTS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 97}, "max_tokens must be at most 96"),
        ({"colbert": {"query_tokens": 3}}, "query_tokens must be an integer of at least 16"),
        ({"colbert": {"cache_disk_mb": 0.5}}, "cache_disk_mb must be a finite number from 1 to"),
        ({"colbert": {"query_tokens": 97}}, "query_tokens must be at most 96"),
        ({"runtime": "onnxruntime"}, "use the safetensors with runtime 'torch'|holds no ONNX file"),
        ({"dtype": "float16", "device": "cpu"}, "dtype 'float16' is for GPUs"),
    ],
)
def test_an_option_that_the_model_cannot_follow_is_refused(folders, settings, message):
    with (
        pytest.raises(ConfigError, match=message),
        load_reranker({"use": f"colbert:{folders('stanford')}"} | settings) as reranker,
    ):
        reranker.warmup()


def test_a_model_of_another_kind_is_refused(cross_encoder_folder):
    with pytest.raises(ConfigError, match="holds no late-interaction model"):
        load_reranker(f"colbert:{cross_encoder_folder}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_late_interaction_model_under_the_name_of_another_backend_names_this_one(folders, layout):
    with pytest.raises(ConfigError, match="colbert:"):
        load_reranker(f"sentence-transformers:{folders(layout)}").warmup()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config_sentence_transformers.json", {"document_length": "many"}, "document_length 'many'"),
        ("config_sentence_transformers.json", {"skiplist_words": "abc"}, "no list of strings"),
        ("config_sentence_transformers.json", {"query_expansion": {"strategy": "wild"}}, "not known here"),
        ("config.json", {"auto_map": {"AutoModel": "code.Model"}}, "code of its own"),
        ("1_Dense/config.json", {"activation_function": "os.system"}, "not one of torch.nn"),
        ("sentence_bert_config.json", {"transformer_task": "text-generation"}, "another output"),
    ],
)
def test_a_folder_with_broken_or_foreign_settings_is_refused(folders, tmp_path, file, change, message):
    folder = shutil.copytree(folders("pylate"), tmp_path / "broken")
    write(folder / file, json.loads((folder / file).read_text()) | change)
    with pytest.raises(ConfigError, match=message):
        load_reranker(f"colbert:{folder}", device="cpu").warmup()


def test_a_projection_of_another_output_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders("sentence-transformers"), tmp_path / "broken")
    for name in (["token_embeddings"], "sentence_embedding"):
        config = json.loads((folder / "1_Dense" / "config.json").read_text())
        write(folder / "1_Dense" / "config.json", config | {"module_input_name": name})
        with pytest.raises(ConfigError, match="and not token_embeddings: name a model that was trained as ColBERT"):
            load_reranker(f"colbert:{folder}", device="cpu").warmup()


def test_a_module_outside_of_sentence_transformers_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders("pylate"), tmp_path / "foreign")
    modules = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", [*modules, {"idx": 3, "name": "3", "path": "", "type": "mine.Module"}])
    with pytest.raises(ConfigError, match="code that is not sentence-transformers' own"):
        load_reranker(f"colbert:{folder}", device="cpu")


@pytest.mark.parametrize(
    ("layout", "file", "change", "message"),
    [
        ("stanford", "artifact.metadata", {"query_maxlen": 2_000_000_000}, "query_maxlen in artifact.metadata"),
        ("stanford", "artifact.metadata", {"query_maxlen": 97}, r"97 tokens \(query_maxlen .* at most 96"),
        ("pylate", "config_sentence_transformers.json", {"query_length": 97}, r"\(query_length in config_sentence"),
        (
            "pylate",
            "config_sentence_transformers.json",
            {"query_expansion": {"strategy": "min", "length": 97}},
            r"\(query_expansion.length in config_sentence",
        ),
        (
            "sentence-transformers",
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "min", "length": 97}},
            r"\(query_expansion.length in sentence_bert_config.json\)",
        ),
        (
            "pylate-modernbert",  # without a table of positions
            "config_sentence_transformers.json",
            {"query_expansion": {"strategy": "fixed", "length": 8193}},
            "reads at most 8192",
        ),
    ],
)
def test_a_query_expansion_that_the_model_cannot_read_is_refused(folders, tmp_path, layout, file, change, message):
    folder = shutil.copytree(folders(layout), tmp_path / "expanded")
    write(folder / file, json.loads((folder / file).read_text()) | change)
    with pytest.raises(ConfigError, match=message):
        Layout.read(folder)


def test_a_query_expansion_above_the_fixed_length_of_the_onnx_file_is_refused_at_loading(exported, tmp_path):
    import onnx

    folder = shutil.copytree(exported("stanford", projected=True), tmp_path / "fixed")
    model = onnx.load(folder / "model.onnx")
    for each in model.graph.input:
        each.type.tensor_type.shape.dim[1].dim_value = 15
    onnx.save(model, folder / "model.onnx")
    message = r"16 tokens \(query_maxlen in artifact.metadata\), and model.onnx reads rows of 15"
    with pytest.raises(ConfigError, match=message), load_reranker(f"colbert:{folder}") as reranker:
        reranker.warmup()


def test_maxsim_is_exact_in_every_block_size_and_format():
    random = np.random.default_rng(3)
    query = unit_vectors(random.standard_normal((32, 128), dtype=np.float32))
    vectors = unit_vectors(random.standard_normal((700, 128), dtype=np.float32))
    expected = (vectors @ query.T).max(axis=0)
    assert best_matches(query, vectors) == pytest.approx(expected, abs=1e-6)
    assert best_matches(query, compress(vectors, "float16")) == pytest.approx(expected, abs=1e-3)
    assert best_matches(query, compress(vectors, "int8")) == pytest.approx(expected, abs=0.02)
    assert compress(vectors, "int8").nbytes * 4 == compress(vectors, "float16").nbytes * 2 == vectors.nbytes


def test_maxsim_of_a_long_document_needs_the_memory_of_a_block():
    query = np.ones((32, 128), dtype=np.float32)
    vectors = np.zeros((8192, 128), dtype=np.float16)
    tracemalloc.start()
    best_matches(query, vectors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000, "all products alone are 1 MB, and the vectors in float32 4 MB"


@pytest.fixture
def encoded(monkeypatch):
    """The number of rows that each run of the ONNX encoder has read."""
    rows = []
    run_rows = OnnxTokenModel.run_rows

    async def counted(self, batch, *rest):
        rows.append(len(batch))
        await run_rows(self, batch, *rest)

    monkeypatch.setattr(OnnxTokenModel, "run_rows", counted)
    return rows


@pytest.mark.parametrize("vectors", ["float32", "float16", "int8"])
def test_seen_documents_are_not_encoded_again_and_score_the_same(exported, encoded, vectors):
    folder = exported("stanford", projected=True)
    with load_reranker({"use": f"colbert:{folder}", "colbert": {"vectors": vectors}}) as reranker:
        first = raw(reranker)
        assert encoded == [1, len(DOCUMENTS)]
        assert raw(reranker) == first
        assert raw(reranker, documents=[f"{text} " for text in DOCUMENTS]) == first, "the same tokens, another text"
        assert encoded[2:] == [1, 0, 1, 0]
    with load_reranker({"use": f"colbert:{folder}", "colbert": {"cache_mb": 0, "vectors": vectors}}) as reranker:
        assert raw(reranker) == pytest.approx(first, abs=1e-6)
        assert encoded[-1] == len(DOCUMENTS)


def spec(folder, path, **options):
    return {"use": f"colbert:{folder}", "colbert": {"cache_path": str(path), **options}}


@pytest.mark.parametrize("vectors", ["float32", "float16", "int8"])
def test_the_file_serves_a_later_process_and_holds_no_text(exported, encoded, tmp_path, vectors):
    folder, path = exported("stanford", projected=True), tmp_path / "vectors"
    with load_reranker(spec(folder, path, vectors=vectors)) as reranker:
        first = raw(reranker)
    with load_reranker(spec(folder, path, vectors=vectors)) as reranker:
        assert raw(reranker) == first
        assert encoded[2:] == [1, 0]
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for text in (*DOCUMENTS, QUERY, "tides", "bananas"):
        assert text.encode() not in content


@pytest.mark.parametrize(("vectors", "number"), [("float32", np.nan), ("float16", np.inf), ("int8", np.nan)])
def test_vectors_that_are_not_finite_are_an_error_and_are_not_stored(folders, tmp_path, vectors, number):
    folder, path = shutil.copytree(folders("pylate"), tmp_path / "model"), tmp_path / "vectors"
    token = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["bananas"]
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][token] = number
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with load_reranker(spec(folder, path, vectors=vectors) | {"device": "cpu"}) as reranker:
        for _ in range(2):  # nothing was cached in memory
            with pytest.raises(BadResponse, match=r"not finite numbers.*another model"):
                reranker.rerank("tides", ["the bananas"])
        assert len(raw(reranker, "tides", ["the moon"])) == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM vectors").fetchone() == (1,)
    connection.close()


def test_the_file_keeps_models_and_formats_apart(folders, exported, encoded, tmp_path):
    path = tmp_path / "vectors"
    for layout, projected in (("stanford", True), ("pylate", False)):
        for vectors in ("float16", "int8"):
            with load_reranker(spec(exported(layout, projected=projected), path, vectors=vectors)) as reranker:
                fresh = raw(reranker)
                assert encoded[-1] == len(DOCUMENTS)
                assert fresh == pytest.approx(reference(folders(layout)), abs=0.02)


@pytest.mark.parametrize("layout", ["pylate", "stanford"])
def test_a_retrained_projection_is_another_model(exported, encoded, tmp_path, layout):
    folder, path = shutil.copytree(exported(layout, projected=False), tmp_path / "model"), tmp_path / "vectors"
    with load_reranker(spec(folder, path)) as reranker:
        first, before = raw(reranker), backends(reranker)[0].fingerprint
    weights = folder / ("model.safetensors" if layout == "stanford" else "2_Dense/model.safetensors")
    tensors = load_file(weights)
    tensors["linear.weight"] = -(tensors["linear.weight"] ** 3)
    save_file(tensors, weights)
    with load_reranker(spec(folder, path)) as reranker, load_reranker(f"colbert:{folder}") as plain:
        assert backends(reranker)[0].fingerprint != before
        again = raw(reranker)
        assert encoded[-1] == len(DOCUMENTS)
        assert again == pytest.approx(raw(plain), abs=1e-6)
        assert again != pytest.approx(first, abs=1e-3)


@pytest.mark.parametrize("change", [{"activation_function": "torch.nn.Tanh"}, {"use_residual": False}])
def test_other_settings_of_a_nested_module_are_another_model(exported, encoded, tmp_path, change):
    folder, path = shutil.copytree(exported("pylate", projected=False), tmp_path / "model"), tmp_path / "vectors"
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "a/1_Dense"
    write(folder / "modules.json", modules)
    (folder / "a").mkdir()
    (folder / "1_Dense").rename(folder / "a" / "1_Dense")
    with load_reranker(spec(folder, path)) as reranker:
        first, before = raw(reranker), backends(reranker)[0].fingerprint
    config = folder / "a" / "1_Dense" / "config.json"
    write(config, json.loads(config.read_text()) | change)
    with load_reranker(spec(folder, path)) as reranker:
        assert backends(reranker)[0].fingerprint != before
        assert raw(reranker) != pytest.approx(first, abs=1e-3)
        assert encoded[-1] == len(DOCUMENTS)


@pytest.mark.parametrize(
    "listed",
    [
        b"",
        b"[",
        b'{"path": "a"}',
        b'[1, {"path": 1}, {"path": "../a"}, {"path": "' + b"a" * 300 + b'"}, {"path": "\\u0000"}]',
    ],
)
def test_a_fingerprint_reads_no_module_that_a_damaged_list_names(folders, tmp_path, listed):
    folder = shutil.copytree(folders("pylate"), tmp_path / "model")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{}")
    (folder / "modules.json").write_bytes(listed)
    before = fingerprint(folder, [])
    (tmp_path / "a" / "config.json").write_text("{ }")
    assert fingerprint(folder, []) == before


@pytest.mark.parametrize("layout", ["pylate", "stanford"])
def test_a_projection_that_is_replaced_after_the_model_was_loaded_has_no_effect(exported, tmp_path, layout):
    """The key of stored vectors names the files that were there when the model was loaded."""
    folder = shutil.copytree(exported(layout, projected=False), tmp_path / "model")
    weights = folder / ("model.safetensors" if layout == "stanford" else "2_Dense/model.safetensors")
    with load_reranker(f"colbert:{exported(layout, projected=False)}") as untouched:
        expected = raw(untouched)
    with load_reranker(f"colbert:{folder}") as reranker:
        reranker.warmup()
        before = backends(reranker)[0].fingerprint
        tensors = load_file(weights)
        tensors["linear.weight"] = -(tensors["linear.weight"] ** 3)
        weights.unlink()
        save_file(tensors, weights)
        assert raw(reranker) == expected
        assert backends(reranker)[0].fingerprint == before


@pytest.mark.parametrize("damage", [b"", b"\xff" * 7, None, "text"])
def test_a_damaged_entry_is_encoded_again(exported, encoded, tmp_path, damage):
    folder, path = exported("stanford", projected=True), tmp_path / "vectors"
    with load_reranker(spec(folder, path)) as reranker:
        first = raw(reranker)
    with sqlite3.connect(path) as connection:
        if damage is None:  # not finite, of the right size
            rows = connection.execute("SELECT name, length(data) FROM vectors").fetchall()
            for name, size in rows:
                data = np.full(size // 4, np.nan, np.float32).tobytes()
                connection.execute("UPDATE vectors SET data = ? WHERE name = ?", (data, name))
        else:
            connection.execute("UPDATE vectors SET data = ?", (damage,))
    connection.close()
    with load_reranker(spec(folder, path)) as reranker:
        assert raw(reranker) == first
        assert encoded[-1] == len(DOCUMENTS)


def test_the_file_is_bounded_and_drops_the_oldest(tmp_path):
    async def fill():
        file = VectorFile(tmp_path / "vectors", 200_000)
        for number in range(100):
            file.put({bytes([number]): bytes(10_000)})
        held = await file.get([bytes([number]) for number in range(100)])
        await file.aclose()
        return sorted(held)

    held = asyncio.run(fill())
    assert held[-1] == bytes([99])
    assert held == [bytes([number]) for number in range(100 - len(held), 100)], "the newest are left"
    assert 12 <= len(held) <= 20
    assert (tmp_path / "vectors").stat().st_size < 400_000


def test_a_full_disk_costs_the_file_and_not_the_answer(exported, tmp_path, monkeypatch, caplog):
    """SQLite raises the same error for a full disk and for a file that has reached its largest size."""
    opened = VectorFile._open

    def small(self):
        connection = opened(self)
        connection.execute("PRAGMA max_page_count = 4")
        return connection

    monkeypatch.setattr(VectorFile, "_open", small)
    folder, path = exported("stanford", projected=True), tmp_path / "vectors"
    with load_reranker(spec(folder, path)) as reranker, load_reranker(f"colbert:{folder}") as plain:
        many = [f"{text} {number}" for number in range(30) for text in SENTENCES]
        assert raw(reranker, documents=many) == pytest.approx(raw(plain, documents=many), abs=1e-6)
        assert raw(reranker) == pytest.approx(raw(plain), abs=1e-6)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "documents are encoded again" in warning
    assert "full" in warning
    assert not any(text in warning for text in DOCUMENTS)


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from rerank_plugins.core import sqlite_file
from rerank_plugins.engine.late_interaction.vector_file import VectorFile

sqlite_file._READ_TIMEOUT_S = sqlite_file._LOCK_TIMEOUT_S = 3600.0  # a slow disk changes no result

async def main():
    file = VectorFile(Path(sys.argv[1]), 2_000_000)
    mark = sys.argv[2]
    for number in itertools.count():
        names = [f"{mark} {number} {each}".encode() for each in range(20)]
        file.put({name: name * 100 for name in names})
        stored = await file.get(names)
        assert stored == {name: name * 100 for name in names}, stored
        assert not file.state()["errors"]
        if number in (5, 60):
            print(number, flush=True)
        if number == 60:
            await file.aclose()
            return

asyncio.run(main())
"""


def test_two_processes_share_the_file_and_one_may_be_killed(tmp_path):
    path = tmp_path / "vectors.sqlite3"

    def start(mark):
        arguments = [sys.executable, "-c", WRITER, str(path), mark]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed, survivor = start("a"), start("b")
    assert killed.stdout.readline() == "5\n"  # in the middle of its work
    killed.send_signal(signal.SIGKILL)
    output, errors = survivor.communicate(timeout=60)
    killed.communicate(timeout=60)
    assert (output, survivor.returncode) == ("5\n60\n", 0), errors
    assert killed.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert all(data == name * 100 for name, data in connection.execute("SELECT name, data FROM vectors"))
    connection.close()


def test_the_embedded_encoder_in_a_late_interaction_layout_keeps_its_order_with_float16(tmp_path):
    """Its weights are real, so the order of its scores means something; random weights have none."""
    folder = tmp_path / "embedded"
    folder.mkdir()
    for name in ("model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json"):
        if (FOLDER / name).is_file():
            shutil.copy(FOLDER / name, folder)
    write(folder / "config_sentence_transformers.json", {"model_type": "MultiVectorEncoder"})
    modules = (
        ("base.modules.Transformer", ""),
        ("multi_vector_encoder.modules.MultiVectorMask", "1_Mask"),
        ("base.modules.Normalize", "2_Normalize"),
    )
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.{kind}"}
        for place, (kind, path) in enumerate(modules)
    ]
    write(folder / "modules.json", listed)
    for path, config in (
        ("1_Mask", {"skiplist_words": list(string.punctuation)}),
        ("2_Normalize", {"module_input_name": "token_embeddings"}),
    ):
        (folder / path).mkdir()
        write(folder / path / "config.json", config)
    documents = [f"{first} {second} {number}" for number, first in enumerate(SENTENCES) for second in SENTENCES]
    scores = {}
    for vectors in ("float32", "float16", "int8"):
        with load_reranker({"use": f"colbert:{folder}", "max_tokens": 64, "colbert": {"vectors": vectors}}) as reranker:
            scores[vectors] = [
                raw(reranker, query, documents) for query in (QUERY, "what is yellow", "what does a reranker do")
            ]
    for exact, halved, coded in zip(scores["float32"], scores["float16"], scores["int8"], strict=True):
        assert kendall_tau(exact, halved) >= 0.999
        assert kendall_tau(exact, coded) >= 0.98


def kendall_tau(first, second):
    from scipy.stats import kendalltau

    return kendalltau(first, second).statistic

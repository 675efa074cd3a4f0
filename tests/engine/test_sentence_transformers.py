"""The torch engine against sentence-transformers itself, on tiny checkpoints of the true architectures."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import shutil
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from support.bounds import BFLOAT16, OTHER_CODE, SAME_INPUT, near
from support.checkpoints import KINDS, LONGEST, checkpoint
from support.models import SENTENCES

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.config import backends
from rerank_plugins.engine.onnx.export import export
from rerank_plugins.engine.shared_model import LoadOptions
from rerank_plugins.engine.torch.cross_encoder import CrossEncoderModel, TorchCrossEncoder

QUERY = "how do the tides work"
RANDOM = random.Random(5)
WORDS = " ".join(SENTENCES).split()
# Short enough that neither side truncates: sentence-transformers shortens query and document alike, this package only
# the document.
DOCUMENTS = [*SENTENCES, *(" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 14))) for _ in range(25))]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = checkpoint(tmp_path_factory.mktemp("checkpoints") / kind, kind)
        return made[kind]

    return folder


def raw(reranker, documents, query=QUERY):
    scores = {result.index: result.raw_score for result in reranker.rerank(query, documents)}
    return [scores[index] for index in range(len(documents))]


def reference_scores(folder, documents, query=QUERY):
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    pairs = [(query, document) for document in documents]
    return model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_those_of_sentence_transformers(kind, folders):
    folder = folders(kind)
    with load_reranker(f"sentence-transformers:{folder}", device="cpu") as reranker:
        ours = raw(reranker, DOCUMENTS)
        assert reranker.scorer.label.endswith("[torch float32]")
    expected = reference_scores(folder, DOCUMENTS)
    if kind == "bert-two-labels":
        expected = [second - first for first, second in expected]
    assert ours == near(expected, OTHER_CODE)
    assert max(expected) - min(expected) > 0.05, "scores must differ for the comparison to prove anything"


@pytest.mark.parametrize("kind", ["bert", "modular"])
def test_scores_do_not_depend_on_batch_size_or_input_order(kind, folders):
    folder = folders(kind)
    spec = {"use": f"sentence-transformers:{folder}", "device": "cpu"}
    with load_reranker(spec) as usual:
        expected = raw(usual, DOCUMENTS)
    shuffled = list(range(len(DOCUMENTS)))
    random.Random(3).shuffle(shuffled)
    for batch_tokens in (1, 16, 100, 100_000):
        with load_reranker({**spec, "batch_tokens": batch_tokens}) as reranker:
            again = raw(reranker, [DOCUMENTS[index] for index in shuffled])
        assert again == near([expected[index] for index in shuffled])


def test_tokenizer_without_token_types_passes_none(folders, tmp_path):
    """The tokenizer's file gives the document type 1 although the model's maker passes no types."""
    folder = shutil.copytree(folders("bert"), tmp_path / "untyped")
    edited(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    expected = reference_scores(folder, SENTENCES)
    assert expected != pytest.approx(reference_scores(folders("bert"), SENTENCES), abs=1e-2)
    export(folder, tmp_path / "onnx")
    for spec in (f"sentence-transformers:{folder}", f"onnx:{tmp_path / 'onnx'}"):
        with load_reranker(spec, device="cpu") as reranker:
            assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)


@pytest.mark.parametrize("kind", ["bert", "modular"])
def test_prompt_and_length_saved_by_the_maker_are_used(kind, folders, tmp_path):
    """Prompt and length come from files that sentence-transformers saves and reads."""
    from sentence_transformers import CrossEncoder

    saved, folder = {"ask": "a clock asks: "}, tmp_path / kind
    maker = CrossEncoder(str(folders(kind)), device="cpu", prompts=saved, default_prompt_name="ask")
    maker.save_pretrained(str(folder))
    expected = reference_scores(folder, SENTENCES)
    assert expected != pytest.approx(reference_scores(folders(kind), SENTENCES), abs=1e-2)
    with load_reranker(f"sentence-transformers:{folder}", device="cpu") as reranker:
        assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)
    if kind == "bert":
        export(folder, tmp_path / "onnx")
        with load_reranker(f"onnx:{tmp_path / 'onnx'}") as reranker:
            assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)

    folder = shutil.copytree(folder, tmp_path / "shorter")
    edited(folder / "sentence_bert_config.json", max_seq_length=40)
    long = " ".join(WORDS * 4)
    specs = [f"sentence-transformers:{folder}"]
    if kind == "bert":
        export(folder, tmp_path / "shorter onnx")
        specs.append(f"onnx:{tmp_path / 'shorter onnx'}")
    for spec in specs:
        with load_reranker(spec, device="cpu") as reranker:
            assert reranker.scorer.capabilities.max_tokens == 40
            assert raw(reranker, [long]) == near(reference_scores(folder, [long]), OTHER_CODE), (
                "the query is short, so both truncate alike"
            )


@pytest.mark.parametrize("kind", [None, "SentenceTransformer"])
def test_prompt_of_an_embedding_model_is_ignored(kind, folders, tmp_path):
    """A folder may keep the modules of the embedding model it was made from; sentence-transformers ignores them."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(folders("bert")), device="cpu", prompts={"ask": "query: "}, default_prompt_name="ask").save(
        str(tmp_path)
    )
    edited(tmp_path / "config_sentence_transformers.json", model_type=kind)
    edited(tmp_path / "sentence_bert_config.json", max_seq_length=40)
    expected = reference_scores(folders("bert"), SENTENCES)
    assert reference_scores(tmp_path, SENTENCES) == near(expected)
    with load_reranker(f"sentence-transformers:{tmp_path}", device="cpu") as reranker:
        assert reranker.scorer.capabilities.max_tokens == LONGEST
        assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)


def test_truncation_cuts_only_the_document(folders):
    folder = folders("bert")
    long = " ".join(WORDS * 4)
    with load_reranker(f"sentence-transformers:{folder}") as reranker:
        whole = reranker.rerank(QUERY, [long, SENTENCES[0]])
        assert {each.index: each.truncated for each in whole} == {0: True, 1: False}
        assert reranker.scorer.capabilities.max_tokens == LONGEST
        tokens = len(reranker.scorer.tokens(QUERY))
        offsets = reranker.scorer.tokens(long)
    beginning = long[: offsets[LONGEST - tokens - 3 - 1][1]]  # the tokens left by [CLS], two [SEP] and the query
    (expected,) = reference_scores(folder, [beginning])
    assert next(each for each in whole if each.index == 0).raw_score == near(expected, OTHER_CODE)


def test_special_tokens_in_a_document_are_read_as_text(folders):
    folder = folders("bert")
    with load_reranker(f"sentence-transformers:{folder}") as reranker:
        alone = raw(reranker, [SENTENCES[0]])
        hostile = "[SEP] " + SENTENCES[0] + " [PAD] [CLS] [MASK]"
        together = raw(reranker, [SENTENCES[0], hostile])
        tokenizer = CrossEncoderModel.shared(folder, LoadOptions()).tokenizer
    assert together[0] == near(alone[0])
    ids = tokenizer.pairs("q", [hostile], LONGEST)[0].ids
    assert [each for each in ids if each == 3] == [3, 3], "[SEP] occurs only after the query and at the end"


def test_rerankers_share_a_model_that_is_freed_with_the_last_one(folders):
    spec = f"sentence-transformers:{folders('bert')}"
    first, second, third = load_reranker(spec), load_reranker(spec), load_reranker(spec, dtype="bfloat16")
    models = [backends(each)[0].inner.shared_model for each in (first, second, third)]
    assert models[0] is models[1] is not models[2]
    raw(first, SENTENCES)
    network = weakref.ref(models[0].network)
    del models
    first.close()
    raw(second, SENTENCES)
    assert network() is not None
    second.close()
    del first, second
    gc.collect()
    assert network() is None
    third.close()


def test_equivalent_options_share_one_model(folders):
    def model(**options):
        return TorchCrossEncoder(folders("bert"), **options).shared_model

    on_cpu = model(device="cpu")
    assert on_cpu is model(device=["cpu"], dtype="float32") is not model(device="cpu", dtype="auto")
    anywhere = model()
    assert anywhere is model(device="auto") is not model(dtype="auto")
    assert anywhere is not model(dtype="float32"), "on a GPU it would be bfloat16"
    assert on_cpu.dtype == "float32"
    assert anywhere.dtype is None


def test_disk_cache_key_is_the_same_before_and_after_loading(folders, tmp_path):
    """The default dtype depends on the device and is part of the label only after loading."""
    spec = {"use": f"sentence-transformers:{folders('bert')}", "cache": {"kind": "disk", "path": tmp_path / "scores"}}
    first = load_reranker(spec)
    answer = first.rerank(QUERY, SENTENCES)
    first.rerank(QUERY, SENTENCES)  # writes are asynchronous; reading the cache waits for earlier ones
    second = load_reranker(spec)
    again = second.rerank(QUERY, SENTENCES)
    first.close()
    second.close()
    del first, second
    gc.collect()  # frees the model
    with load_reranker(spec) as third:
        last = third.rerank(QUERY, SENTENCES)
    assert [each.outcome for each in (*again.attempts, *last.attempts)] == ["cached", "cached"]
    assert [each.results for each in (again, last)] == [answer.results] * 2
    assert again.model == last.model == answer.model
    assert answer.model.endswith("[torch float32]") or answer.model.endswith("[torch bfloat16]")


def test_bfloat16_scores_are_close_to_float32(folders):
    spec = f"sentence-transformers:{folders('bert')}"
    with (
        load_reranker(spec, dtype="float32", device="cpu") as exact,
        load_reranker(spec, dtype="bfloat16", device="cpu") as fast,
    ):
        expected, values = raw(exact, DOCUMENTS), raw(fast, DOCUMENTS)
        assert values == near(expected, BFLOAT16)
        assert values != near(expected, OTHER_CODE), "rounded to float32, not to bfloat16"
        assert fast.scorer.label.endswith("[torch bfloat16]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16", "device": "cpu"}, "float16.*for GPUs"),
        ({"dtype": "int8"}, "^dtype must be one of auto, bfloat16, float16 or float32"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"runtime": "onnxruntime"}, "^runtime must be one of auto or torch"),
        ({"max_tokens": 3}, "max_tokens must be an integer of at least 16"),
        ({"batch_tokens": 0}, "batch_tokens must be an integer of at least 1, got 0"),
        ({"max_tokens": LONGEST + 1}, f"max_tokens must be at most {LONGEST}, the positions of the model"),
    ],
)
def test_unavailable_option_is_refused(options, message, folders):
    with (
        pytest.raises(ConfigError, match=message),
        load_reranker(f"sentence-transformers:{folders('bert')}", **options) as reranker,
    ):
        reranker.warmup()


def test_checkpoint_without_a_classification_head_is_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    def changed(name, config):
        folder = shutil.copytree(folders("bert"), tmp_path / name)
        settings = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**settings, **config}), "utf-8")
        return folder

    with pytest.raises(ConfigError, match=r"no trained classification head.*BertForMaskedLM"):
        load_reranker(f"sentence-transformers:{changed('masked', {'architectures': ['BertForMaskedLM']})}")
    with pytest.raises(ConfigError, match="name it by its family"):
        load_reranker(f"sentence-transformers:{changed('causal', {'architectures': ['Qwen3ForCausalLM']})}")
    auto_map = {"architectures": ["JinaModel"], "auto_map": {"AutoModel": "modeling.JinaModel"}}
    with pytest.raises(ConfigError, match="code of its own"):
        load_reranker(f"sentence-transformers:{changed('code', auto_map)}")
    # The config claims a head that the file does not hold.
    liar = changed("liar", {})
    weights = load_file(liar / "model.safetensors")
    save_file(
        {name: each for name, each in weights.items() if "classifier" not in name},
        liar / "model.safetensors",
        {"format": "pt"},
    )
    with (
        pytest.raises(ConfigError, match="lack classifier"),
        load_reranker(f"sentence-transformers:{liar}") as reranker,
    ):
        reranker.warmup()


def edited(file, **entries):
    settings = json.loads(file.read_text("utf-8")) | entries
    file.write_text(json.dumps({name: each for name, each in settings.items() if each is not None}), "utf-8")


def embedding_layout(folder):
    """Leave transformer, pooling and Dense: the modules of an embedding model with a projection."""
    edited(folder / "4_Dense" / "config.json", module_output_name=None)


def other_model_type(folder):
    edited(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")


def without_config(folder):
    (folder / "config_sentence_transformers.json").unlink()


def incomplete_backbone(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    rest = {name: each for name, each in weights.items() if name != "layers.1.attn.Wqkv.weight"}
    save_file(rest, folder / "model.safetensors", {"format": "pt"})


def pickled_dense_weights(folder):
    (folder / "4_Dense" / "model.safetensors").rename(folder / "4_Dense" / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (embedding_layout, "the last of its modules gives an embedding and no scores"),
        (other_model_type, "names SentenceTransformer and not CrossEncoder"),
        (without_config, "names no model_type"),
        (incomplete_backbone, r"its weights lack layers\.1\.attn\.Wqkv\.weight"),
        (pickled_dense_weights, "4_Dense holds pickled weights"),
    ],
)
def test_modules_without_trained_weights_are_refused(damage, message, folders, tmp_path):
    """sentence-transformers loads the second to the fourth case with random numbers for missing weights."""
    folder = shutil.copytree(folders("modular"), tmp_path / "spoilt")
    damage(folder)
    with pytest.raises(ConfigError, match=message), load_reranker(f"sentence-transformers:{folder}") as reranker:
        reranker.warmup()


TEMPLATE = "{% for each in messages %}{{ each['role'] }}: {{ each['content'] }} {% endfor %}"


@pytest.mark.parametrize("inside", [True, False])
def test_classifier_trained_on_chats_is_refused(inside, folders, tmp_path):
    """sentence-transformers applies the chat template and so scores a different text."""
    folder = shutil.copytree(folders("bert"), tmp_path / "chat")
    if inside:
        edited(folder / "tokenizer_config.json", chat_template=TEMPLATE)
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    assert reference_scores(folder, SENTENCES) != pytest.approx(reference_scores(folders("bert"), SENTENCES), abs=1e-2)
    with pytest.raises(ConfigError, match="chat template"):
        load_reranker(f"sentence-transformers:{folder}")
    with pytest.raises(ConfigError, match="chat template"):
        export(folder, tmp_path / "onnx")


def test_classifier_saved_for_pairs_may_have_a_chat_template(folders, tmp_path):
    """As in an encoder made from a language model: its tokenizer still has the template, which is not used."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(folders("bert")), device="cpu").save(str(tmp_path))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    expected = reference_scores(folders("bert"), SENTENCES)
    assert reference_scores(tmp_path, SENTENCES) == near(expected)
    with load_reranker(f"sentence-transformers:{tmp_path}", device="cpu") as reranker:
        assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)
    modalities = json.loads((tmp_path / "sentence_bert_config.json").read_text("utf-8"))["modality_config"]
    edited(tmp_path / "sentence_bert_config.json", modality_config={**modalities, "message": modalities["text"]})
    with pytest.raises(ConfigError, match="chat template"):
        load_reranker(f"sentence-transformers:{tmp_path}")


def test_modules_left_from_an_embedding_model_are_ignored(folders, tmp_path):
    """The classifier was made from an embedding model whose files remain; sentence-transformers ignores them."""
    folder = shutil.copytree(folders("bert"), tmp_path / "from")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32}')
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling")
    modules = [
        {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    expected = reference_scores(folder, SENTENCES)
    export(folder, tmp_path / "onnx")
    for spec in (f"sentence-transformers:{folder}", f"onnx:{tmp_path / 'onnx'}"):
        with load_reranker(spec, device="cpu") as reranker:
            assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)


def test_older_names_of_backbone_weights_are_accepted(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders("modular"), tmp_path / "below")
    weights = load_file(folder / "model.safetensors")
    save_file({f"model.{name}": each for name, each in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with load_reranker(f"sentence-transformers:{folder}", device="cpu") as reranker:
        assert raw(reranker, SENTENCES) == near(reference_scores(folders("modular"), SENTENCES), OTHER_CODE)


def test_pickled_weights_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders("bert"), tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="no safetensors weights"):
        load_reranker(f"sentence-transformers:{folder}")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").touch()
    with pytest.raises(ConfigError, match="an ONNX file and no safetensors: use onnx:"):
        load_reranker(f"sentence-transformers:{folder}")


def test_module_of_a_foreign_package_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders("modular"), tmp_path / "strange")
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]), "utf-8"
    )
    with pytest.raises(ConfigError, match=r"evil\.Module"):
        load_reranker(f"sentence-transformers:{folder}")


def test_concurrent_threads_and_tasks_get_the_scores_of_a_single_call(folders):
    """State shared by concurrent calls would mix up their rows."""
    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        expected = raw(reranker, DOCUMENTS)
        with ThreadPoolExecutor(8) as pool:
            for values in pool.map(lambda _: raw(reranker, DOCUMENTS), range(16)):
                assert values == near(expected, SAME_INPUT)


def _threads_of_calls():
    """Return the live threads except those of the pool for long texts, which live as long as the process."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("rerank-plugins-text")}


async def test_event_loop_is_not_blocked_and_a_cancelled_call_stops(folders):
    """A cancelled call that went on would occupy the worker for a thousand batches."""
    reranker = load_reranker(f"sentence-transformers:{folders('bert')}", batch_tokens=16)
    await reranker.arerank(QUERY, SENTENCES)
    threads = _threads_of_calls()
    call = asyncio.ensure_future(reranker.arerank(QUERY, [f"{text} {n}" for n in range(200) for text in SENTENCES]))
    ticks = 0
    while not call.done() and ticks < 20:
        await asyncio.sleep(0)
        ticks += 1
    assert ticks == 20, "a thousand batches of one row run on the worker while the loop ticks"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # The worker is free after the current batch, so that another call does not wait for a thousand.
    assert len(await reranker.arerank(QUERY, SENTENCES)) == len(SENTENCES)
    assert _threads_of_calls() <= threads
    await reranker.aclose()


class _SmallGPU:
    """A fake network on a GPU, which this machine does not have, whose memory holds `limit` tokens."""

    on_gpu, dtype, freed = True, "float32", 0

    def __init__(self, inner, limit):
        self._inner, self._limit, self.sizes = inner, limit, []

    def run(self, ids, mask, types):
        import torch

        self.sizes.append(ids.size)
        if ids.size > self._limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._inner.run(ids, mask, types)

    def is_out_of_memory(self, error):
        return self._inner.is_out_of_memory(error)

    def free(self):
        self.freed += 1


def test_full_gpu_gets_half_batches_and_the_size_is_remembered(folders):
    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        expected = raw(reranker, DOCUMENTS)
        model = backends(reranker)[0].inner.shared_model
        model._network = small = _SmallGPU(model.network, 120)
        assert raw(reranker, DOCUMENTS) == near(expected)
        assert small.freed >= 1
        small.freed, small.sizes = 0, []
        assert raw(reranker, DOCUMENTS) == near(expected)
        assert small.freed == 0, f"the second call starts with the size that fits: {small.sizes}"


def test_out_of_memory_error_of_each_kind_of_gpu_is_recognized(folders):
    import torch

    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        network = backends(reranker)[0].inner.shared_model.network
    assert network.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    # torch's MPSAllocator.mm (Apple) raises a plain RuntimeError.
    message = (
        "MPS backend out of memory (MPS allocated: 17.98 GiB, other allocations: 1.49 MiB, max allowed: 18.13 GiB)"
    )
    assert network.is_out_of_memory(RuntimeError(f"{message}. Tried to allocate 500.00 MiB on private pool."))
    assert not network.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_full_gpu_releases_its_cached_memory(kind, folders, monkeypatch):
    import torch

    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        network = backends(reranker)[0].inner.shared_model.network
    emptied = []
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: emptied.append(kind))
    network.free()
    assert not emptied
    network.device = torch.device(kind)
    network.free()
    assert emptied == [kind]


def test_rows_are_run_longest_first(folders):
    with load_reranker(f"sentence-transformers:{folders('bert')}", batch_tokens=64) as reranker:
        raw(reranker, SENTENCES)
        model = backends(reranker)[0].inner.shared_model
        model._network = seen = _SmallGPU(model.network, 10**6)
        raw(reranker, DOCUMENTS)
    longest = [size for size in seen.sizes if size <= 64]
    assert len(longest) > 3
    assert all(size <= 64 for size in seen.sizes)
    assert any(a > b for a, b in pairwise(longest))


@pytest.mark.slow
def test_forked_child_loads_the_model_again(folders):
    code = f"""
import os, sys
from rerank_plugins import load_reranker
reranker = load_reranker("sentence-transformers:{folders("bert")}", device="cpu")
import torch; torch.set_num_threads(1)
before = [each.raw_score for each in reranker.rerank("tides", ["the moon", "a clock"])]
child = os.fork()
if not child:
    again = [each.raw_score for each in reranker.rerank("tides", ["the moon", "a clock"])]
    os._exit(0 if again == before else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=300, check=False).returncode == 0


def test_loading_a_reranker_does_not_import_torch(folders):
    code = f"""
import sys
from rerank_plugins import load_reranker
load_reranker("sentence-transformers:{folders("bert")}")
assert not {{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

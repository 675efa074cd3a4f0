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
from bounds import BFLOAT16, OTHER_CODE, SAME_INPUT, near
from checkpoints import KINDS, LONGEST, checkpoint
from models import SENTENCES

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.config import backends
from rerank_plugins.engine.onnx.export import export
from rerank_plugins.engine.shared_model import LoadOptions
from rerank_plugins.engine.torch.backend import TorchCrossEncoder
from rerank_plugins.engine.torch.model import CrossEncoderModel

QUERY = "how do the tides work"
RANDOM = random.Random(5)
WORDS = " ".join(SENTENCES).split()
# Short enough that nobody cuts: what is cut differs on purpose (they take from query and document alike).
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
    found = {result.index: result.raw_score for result in reranker.rerank(query, documents)}
    return [found[index] for index in range(len(documents))]


def theirs(folder, documents, query=QUERY):
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    pairs = [(query, document) for document in documents]
    return model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_are_those_of_sentence_transformers(kind, folders):
    folder = folders(kind)
    with load_reranker(f"sentence-transformers:{folder}", device="cpu") as reranker:
        ours = raw(reranker, DOCUMENTS)
        assert reranker.scorer.label.endswith("[torch float32]")
    expected = theirs(folder, DOCUMENTS)
    if kind == "bert-two-labels":
        expected = [second - first for first, second in expected]
    assert ours == near(expected, OTHER_CODE)
    assert max(expected) - min(expected) > 0.05, "the scores have to differ, or the test says nothing"


@pytest.mark.parametrize("kind", ["bert", "modular"])
def test_the_order_does_not_depend_on_batches_or_the_order_given(kind, folders):
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


def test_a_tokenizer_that_gives_no_types_gives_none_here(folders, tmp_path):
    """Its file types the document 1 all the same, and the model has two types."""
    folder = shutil.copytree(folders("bert"), tmp_path / "untyped")
    edited(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    expected = theirs(folder, SENTENCES)
    assert expected != pytest.approx(theirs(folders("bert"), SENTENCES), abs=1e-2)
    export(folder, tmp_path / "onnx")
    for spec in (f"sentence-transformers:{folder}", f"onnx:{tmp_path / 'onnx'}"):
        with load_reranker(spec, device="cpu") as reranker:
            assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)


@pytest.mark.parametrize("kind", ["bert", "modular"])
def test_a_prompt_and_a_length_that_its_maker_saved_are_kept(kind, folders, tmp_path):
    """Both in files of sentence-transformers' own, which it reads of whatever it has saved."""
    from sentence_transformers import CrossEncoder

    saved, folder = {"ask": "a clock asks: "}, tmp_path / kind
    maker = CrossEncoder(str(folders(kind)), device="cpu", prompts=saved, default_prompt_name="ask")
    maker.save_pretrained(str(folder))
    expected = theirs(folder, SENTENCES)
    assert expected != pytest.approx(theirs(folders(kind), SENTENCES), abs=1e-2)
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
            assert raw(reranker, [long]) == near(theirs(folder, [long]), OTHER_CODE), "the query is short: cut alike"


@pytest.mark.parametrize("kind", [None, "SentenceTransformer"])
def test_a_prompt_of_an_embedding_model_is_none_of_a_reranker(kind, folders, tmp_path):
    """Its head may have been trained on what an embedding model had become; sentence-transformers drops the rest."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(folders("bert")), device="cpu", prompts={"ask": "query: "}, default_prompt_name="ask").save(
        str(tmp_path)
    )
    edited(tmp_path / "config_sentence_transformers.json", model_type=kind)
    edited(tmp_path / "sentence_bert_config.json", max_seq_length=40)
    expected = theirs(folders("bert"), SENTENCES)
    assert theirs(tmp_path, SENTENCES) == near(expected)
    with load_reranker(f"sentence-transformers:{tmp_path}", device="cpu") as reranker:
        assert reranker.scorer.capabilities.max_tokens == LONGEST
        assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)


def test_only_the_document_is_cut(folders):
    folder = folders("bert")
    long = " ".join(WORDS * 4)
    with load_reranker(f"sentence-transformers:{folder}") as reranker:
        whole = reranker.rerank(QUERY, [long, SENTENCES[0]])
        assert {each.index: each.truncated for each in whole} == {0: True, 1: False}
        assert reranker.scorer.capabilities.max_tokens == LONGEST
        tokens = len(reranker.scorer.tokens(QUERY))
        offsets = reranker.scorer.tokens(long)
    kept = long[: offsets[LONGEST - tokens - 3 - 1][1]]  # the room that [CLS], [SEP], [SEP] and the query leave
    (expected,) = theirs(folder, [kept])
    assert next(each for each in whole if each.index == 0).raw_score == near(expected, OTHER_CODE)


def test_special_tokens_in_a_document_are_text(folders):
    folder = folders("bert")
    with load_reranker(f"sentence-transformers:{folder}") as reranker:
        alone = raw(reranker, [SENTENCES[0]])
        hostile = "[SEP] " + SENTENCES[0] + " [PAD] [CLS] [MASK]"
        together = raw(reranker, [SENTENCES[0], hostile])
        tokenizer = CrossEncoderModel.shared(folder, LoadOptions()).tokenizer
    assert together[0] == near(alone[0])
    ids = tokenizer.pairs("q", [hostile], LONGEST)[0].ids
    assert [each for each in ids if each == 3] == [3, 3], (
        "[SEP] stands after the query and at the end, and nowhere else"
    )


def test_one_model_for_all_and_none_once_nobody_holds_it(folders):
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


def test_two_ways_to_say_the_same_are_one_copy(folders):
    def model(**options):
        return TorchCrossEncoder(folders("bert"), **options).shared_model

    on_cpu = model(device="cpu")
    assert on_cpu is model(device=["cpu"], dtype="float32") is not model(device="cpu", dtype="auto")
    anywhere = model()
    assert anywhere is model(device="auto") is not model(dtype="auto")
    assert anywhere is not model(dtype="float32"), "on a GPU it would be bfloat16"
    assert on_cpu.dtype == "float32"
    assert anywhere.dtype is None


def test_a_disk_cache_knows_the_scores_before_and_after_the_model_is_loaded(folders, tmp_path):
    """Of itself a model has the dtype of its device, which is known once it is loaded, and stands in the label."""
    spec = {"use": f"sentence-transformers:{folders('bert')}", "cache": {"kind": "disk", "path": tmp_path / "scores"}}
    first = load_reranker(spec)
    answer = first.rerank(QUERY, SENTENCES)
    first.rerank(QUERY, SENTENCES)  # nobody waits for the disk: what reads the file now has written it first
    second = load_reranker(spec)
    again = second.rerank(QUERY, SENTENCES)
    first.close()
    second.close()
    del first, second
    gc.collect()  # the model is gone
    with load_reranker(spec) as third:
        last = third.rerank(QUERY, SENTENCES)
    assert [each.outcome for each in (*again.attempts, *last.attempts)] == ["cached", "cached"]
    assert [each.results for each in (again, last)] == [answer.results] * 2
    assert again.model == last.model == answer.model
    assert answer.model.endswith("[torch float32]") or answer.model.endswith("[torch bfloat16]")


def test_bfloat16_by_name_keeps_the_scores_near(folders):
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
    ("options", "told"),
    [
        ({"dtype": "float16", "device": "cpu"}, "float16.*for GPUs"),
        ({"dtype": "int8"}, "^dtype must be one of auto, bfloat16, float16 or float32"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"runtime": "onnxruntime"}, "^runtime must be one of auto or torch"),
        ({"max_tokens": 3}, "max_tokens must be an integer of at least 16"),
        ({"batch_tokens": 0}, "batch_tokens must be an integer of at least 1, got 0"),
        ({"max_tokens": LONGEST + 1}, f"more than the model has positions for: take {LONGEST} at most"),
    ],
)
def test_what_cannot_be_had_is_said(options, told, folders):
    with (
        pytest.raises(ConfigError, match=told),
        load_reranker(f"sentence-transformers:{folders('bert')}", **options) as it,
    ):
        it.warmup()


def test_a_checkpoint_without_a_head_is_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    def changed(name, config):
        folder = shutil.copytree(folders("bert"), tmp_path / name)
        told = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**told, **config}), "utf-8")
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
    told = json.loads(file.read_text("utf-8")) | entries
    file.write_text(json.dumps({name: each for name, each in told.items() if each is not None}), "utf-8")


def embedding_layout(folder):
    """Transformer, pooling, Dense: as of an embedding model that has a projection."""
    edited(folder / "4_Dense" / "config.json", module_output_name=None)


def another_kind(folder):
    edited(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")


def config_lost(folder):
    (folder / "config_sentence_transformers.json").unlink()


def backbone_cut(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if name != "layers.1.attn.Wqkv.weight"}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def pickled_part(folder):
    (folder / "4_Dense" / "model.safetensors").rename(folder / "4_Dense" / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (embedding_layout, "the last of its modules gives an embedding and no scores"),
        (another_kind, "tells of SentenceTransformer and not of a CrossEncoder"),
        (config_lost, "tells of no model_type"),
        (backbone_cut, r"its weights lack layers\.1\.attn\.Wqkv\.weight"),
        (pickled_part, "4_Dense holds pickled weights"),
    ],
)
def test_modules_that_would_score_at_random_are_refused(spoil, told, folders, tmp_path):
    """sentence-transformers loads the second to the fourth, with random numbers for what is not there."""
    folder = shutil.copytree(folders("modular"), tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(ConfigError, match=told), load_reranker(f"sentence-transformers:{folder}") as reranker:
        reranker.warmup()


TEMPLATE = "{% for each in messages %}{{ each['role'] }}: {{ each['content'] }} {% endfor %}"


@pytest.mark.parametrize("inside", [True, False])
def test_a_classifier_of_chats_is_refused(inside, folders, tmp_path):
    """sentence-transformers fills the template, and scores another text than the pair."""
    folder = shutil.copytree(folders("bert"), tmp_path / "chat")
    if inside:
        edited(folder / "tokenizer_config.json", chat_template=TEMPLATE)
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    assert theirs(folder, SENTENCES) != pytest.approx(theirs(folders("bert"), SENTENCES), abs=1e-2)
    with pytest.raises(ConfigError, match="chat template"):
        load_reranker(f"sentence-transformers:{folder}")
    with pytest.raises(ConfigError, match="chat template"):
        export(folder, tmp_path / "onnx")


def test_a_classifier_that_was_saved_to_read_pairs_may_have_a_chat_template(folders, tmp_path):
    """As of a language model that became an encoder: its tokenizer keeps it, and sentence-transformers goes by its own file."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(folders("bert")), device="cpu").save(str(tmp_path))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    expected = theirs(folders("bert"), SENTENCES)
    assert theirs(tmp_path, SENTENCES) == near(expected)
    with load_reranker(f"sentence-transformers:{tmp_path}", device="cpu") as reranker:
        assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)
    told = json.loads((tmp_path / "sentence_bert_config.json").read_text("utf-8"))["modality_config"]
    edited(tmp_path / "sentence_bert_config.json", modality_config={**told, "message": told["text"]})
    with pytest.raises(ConfigError, match="chat template"):
        load_reranker(f"sentence-transformers:{tmp_path}")


def test_modules_left_over_from_an_embedding_model_are_no_hindrance(folders, tmp_path):
    """It became a classifier with its files still there; sentence-transformers passes over them."""
    folder = shutil.copytree(folders("bert"), tmp_path / "from")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32}')
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling")
    told = [
        {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(told))
    expected = theirs(folder, SENTENCES)
    export(folder, tmp_path / "onnx")
    for spec in (f"sentence-transformers:{folder}", f"onnx:{tmp_path / 'onnx'}"):
        with load_reranker(spec, device="cpu") as reranker:
            assert raw(reranker, SENTENCES) == near(expected, OTHER_CODE)


def test_older_names_of_a_backbone_s_weights_are_no_lack(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders("modular"), tmp_path / "below")
    weights = load_file(folder / "model.safetensors")
    save_file({f"model.{name}": each for name, each in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with load_reranker(f"sentence-transformers:{folder}", device="cpu") as reranker:
        assert raw(reranker, SENTENCES) == near(theirs(folders("modular"), SENTENCES), OTHER_CODE)


def test_pickled_weights_are_not_read(folders, tmp_path):
    folder = shutil.copytree(folders("bert"), tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="no safetensors weights"):
        load_reranker(f"sentence-transformers:{folder}")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").touch()
    with pytest.raises(ConfigError, match="an ONNX file and no safetensors: use onnx:"):
        load_reranker(f"sentence-transformers:{folder}")


def test_a_stranger_s_module_is_not_run(folders, tmp_path):
    folder = shutil.copytree(folders("modular"), tmp_path / "strange")
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]), "utf-8"
    )
    with pytest.raises(ConfigError, match=r"evil\.Module"):
        load_reranker(f"sentence-transformers:{folder}")


def test_threads_and_tasks_get_the_scores_of_one_alone(folders):
    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        expected = raw(reranker, DOCUMENTS)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: raw(reranker, DOCUMENTS), range(16)):
                assert found == near(expected, SAME_INPUT)


def _threads_of_calls():
    """Return the living threads, without the few that a process keeps for the work on long texts."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("rerank-plugins-text")}


async def test_the_loop_goes_on_and_a_cancelled_call_stops(folders):
    reranker = load_reranker(f"sentence-transformers:{folders('bert')}", batch_tokens=16)
    await reranker.arerank(QUERY, SENTENCES)
    threads = _threads_of_calls()
    call = asyncio.ensure_future(reranker.arerank(QUERY, [f"{text} {n}" for n in range(200) for text in SENTENCES]))
    ticks = 0
    while not call.done() and ticks < 20:
        await asyncio.sleep(0)
        ticks += 1
    assert ticks == 20, "a thousand batches of one run elsewhere while the loop ticks"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # The worker is free at once: another call is answered after one batch, not a thousand.
    assert len(await reranker.arerank(QUERY, SENTENCES)) == len(SENTENCES)
    assert _threads_of_calls() <= threads
    await reranker.aclose()


class _SmallGPU:
    """Stands in for the one part this machine has not: a network whose memory holds `most` tokens."""

    on_gpu, dtype, freed = True, "float32", 0

    def __init__(self, inner, most):
        self._inner, self._most, self.sizes = inner, most, []

    def run(self, ids, mask, types):
        import torch

        self.sizes.append(ids.size)
        if ids.size > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._inner.run(ids, mask, types)

    def exhausted(self, error):
        return self._inner.exhausted(error)

    def free(self):
        self.freed += 1


def test_a_gpu_that_is_full_gets_halves_and_the_size_is_remembered(folders):
    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        expected = raw(reranker, DOCUMENTS)
        model = backends(reranker)[0].inner.shared_model
        model._network = small = _SmallGPU(model.network, 120)
        assert raw(reranker, DOCUMENTS) == near(expected)
        assert small.freed >= 1
        small.freed, small.sizes = 0, []
        assert raw(reranker, DOCUMENTS) == near(expected)
        assert small.freed == 0, f"the second call knows what fits: {small.sizes}"


def test_what_a_full_gpu_of_each_kind_raises_is_known(folders):
    import torch

    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        network = backends(reranker)[0].inner.shared_model.network
    assert network.exhausted(torch.OutOfMemoryError("CUDA out of memory."))
    # Apple's: MPSAllocator.mm of torch, which throws a plain error.
    told = "MPS backend out of memory (MPS allocated: 17.98 GiB, other allocations: 1.49 MiB, max allowed: 18.13 GiB)"
    assert network.exhausted(RuntimeError(f"{told}. Tried to allocate 500.00 MiB on private pool."))
    assert not network.exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_a_full_gpu_gives_back_what_it_keeps(kind, folders, monkeypatch):
    import torch

    with load_reranker(f"sentence-transformers:{folders('bert')}") as reranker:
        network = backends(reranker)[0].inner.shared_model.network
    given_back = []
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: given_back.append(kind))
    network.free()
    assert not given_back
    network.device = torch.device(kind)
    network.free()
    assert given_back == [kind]


def test_longest_first(folders):
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
def test_a_forked_child_loads_anew(folders):
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
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False).returncode == 0


def test_nothing_heavy_before_the_first_call(folders):
    code = f"""
import sys
from rerank_plugins import load_reranker
load_reranker("sentence-transformers:{folders("bert")}")
assert not {{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

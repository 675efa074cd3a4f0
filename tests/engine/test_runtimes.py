"""Which runtime a spec gets, and that they agree."""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import pytest
from bounds import BFLOAT16, INT8, OTHER_CODE, SAME_INPUT, near
from models import SENTENCES, cross_encoder
from openvino import opset13

from rerank_plugins import load_reranker
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine.onnx import runtimes
from rerank_plugins.engine.onnx.model import OnnxModel
from rerank_plugins.engine.onnx.quantization import compress
from rerank_plugins.engine.shared_model import LoadOptions

QUERY = "how do the tides work"


def scores(spec: dict) -> list[float]:
    with load_reranker(spec) as reranker:
        found = reranker.rerank(QUERY, SENTENCES)
        return [result.raw_score for result in sorted(found, key=lambda result: result.index)]


def test_openvino_in_float32_is_onnxruntime(cross_encoder_folder):
    use = f"onnx:{cross_encoder_folder}"
    exact = scores({"use": use})
    assert max(exact) - min(exact) > 1e-2
    assert scores({"use": use, "runtime": "openvino"}) == near(exact, OTHER_CODE)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_chosen_where_the_cpu_has_it(fast, dtype, monkeypatch):
    monkeypatch.setattr(runtimes, "_computes_bfloat16", lambda: fast)
    chosen = runtimes.choose(None, dtype, ("onnxruntime", "openvino"))
    stand_in = "onnxruntime" if dtype == "auto" else "openvino"
    assert chosen == (("openvino", "bfloat16") if fast else (stand_in, "float32"))


@pytest.mark.skipif(
    not runtimes._computes_bfloat16() or "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="this CPU has no bfloat16 (avx512_bf16, amx_bf16), or is held below it",
)
def test_openvino_computes_the_bfloat16_that_is_chosen(cross_encoder_folder):
    use = f"onnx:{cross_encoder_folder}"
    exact = scores({"use": use})
    with load_reranker({"use": use, "dtype": "auto"}) as reranker:
        assert "openvino bfloat16" in reranker.rerank(QUERY, SENTENCES).model
    fast = scores({"use": use, "dtype": "auto"})
    assert fast == near(exact, BFLOAT16)
    assert fast != near(exact, OTHER_CODE), "rounded to float32, not to bfloat16"


def test_openvino_computes_float32_where_the_cpu_has_no_bfloat16(cross_encoder_folder, monkeypatch):
    """Asked by name, too: it would otherwise compute in whatever it takes for bfloat16."""
    use = f"onnx:{cross_encoder_folder}"
    monkeypatch.setattr(runtimes, "_computes_bfloat16", lambda: False)
    with load_reranker({"use": use, "dtype": "bfloat16"}) as reranker:
        assert "openvino float32" in reranker.rerank(QUERY, SENTENCES).model
    assert scores({"use": use, "dtype": "bfloat16"}) == near(scores({"use": use}), OTHER_CODE)


@pytest.mark.parametrize("transposed", [True, False])
def test_int8_weights_are_the_nearest_of_255_steps(transposed):
    random = np.random.default_rng(7)
    weights = random.normal(size=(64, 96)).astype(np.float32)
    given = opset13.parameter([-1, 96 if transposed else 64], np.float32)
    made = opset13.matmul(given, opset13.constant(weights), False, transposed)
    model = openvino.Model([made], [given])
    compress(model)
    stored = [each for each in model.get_ops() if each.get_type_name() == "Constant" and each.data.dtype == np.int8]
    assert [each.data.shape for each in stored] == [weights.shape]
    steps = np.abs(weights).max(axis=1 if transposed else 0, keepdims=True) / 127
    # Left as floats: what is rounded is rounded once.
    told = openvino.compile_model(
        model, "CPU", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_PRECISION_HINT": "f32"}
    )
    restored = told(np.eye(given.partial_shape[1].get_length(), dtype=np.float32))[0]
    assert np.all(np.abs((restored.T if transposed else restored) - weights) <= 0.501 * steps)


@pytest.fixture(scope="module")
def large_enough(tmp_path_factory):
    """A model all of whose layers have as many weights as int8 is worth the while for, so that they are quantised."""
    folder = cross_encoder(tmp_path_factory.mktemp("models") / "large-enough", hidden=64)
    model = openvino.Core().read_model(str(folder / "model.onnx"))
    compress(model)
    made = [each.data for each in model.get_ops() if each.get_type_name() == "Constant" and each.data.dtype == np.int8]
    assert len(made) == 13, "six matrices in each of two layers, and the pooler"
    return folder


def test_int8_is_taken_by_name_and_a_score_is_its_own(large_enough):
    """On a CPU with integer products activations are rounded too, a scale a token: no other text shares it.

    The texts have one length: with other padding, float32 sums in between differ in their last bits, and a value that
    lies on the edge of an int8 step goes to one side or the other.
    """
    use = f"onnx:{large_enough}"
    exact = scores({"use": use})
    quantised = scores({"use": use, "dtype": "int8"})
    assert quantised != near(exact, INT8 / 8), "as near as if nothing had been quantised"
    chance = random.Random(4)
    words = [word for word in " ".join(SENTENCES).split() if word.isalpha()]
    documents = [" ".join(chance.choices(words, k=12)) for _ in range(8)]
    with load_reranker({"use": use, "dtype": "int8"}) as reranker:
        response = reranker.rerank(QUERY, documents)
        assert "openvino int8" in response.model
        together = {result.index: result.raw_score for result in response}
        alone = {index: reranker.rerank(QUERY, [text])[0].raw_score for index, text in enumerate(documents)}
    assert max(alone.values()) - min(alone.values()) > 1.0
    assert together == near(alone)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_may_ask_for_numbers_of_32_bits(runtime, cross_encoder_folder, tmp_path):
    import onnx

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(cross_encoder_folder / name, tmp_path / name)
    model = onnx.load(str(cross_encoder_folder / "model.onnx"))
    for given in model.graph.input:
        for node in model.graph.node:
            node.input[:] = [f"wide_{each}" if each == given.name else each for each in node.input]
        model.graph.node.insert(
            0, onnx.helper.make_node("Cast", [given.name], [f"wide_{given.name}"], to=onnx.TensorProto.INT64)
        )
        given.type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, str(tmp_path / "model.onnx"))
    expected = scores({"use": f"onnx:{cross_encoder_folder}", "runtime": runtime})
    assert scores({"use": f"onnx:{tmp_path}", "runtime": runtime}) == near(expected)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_quantises_whole_batches_runs_text_by_text(runtime, cross_encoder_folder, tmp_path):
    """onnxruntime's dynamic quantisation has one scale for a batch: beside another text a score would be another."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(cross_encoder_folder / name, tmp_path / name)
    quantize_dynamic(cross_encoder_folder / "model.onnx", tmp_path / "model.onnx", weight_type=QuantType.QInt8)
    assert runtimes.quantises_batches(tmp_path / "model.onnx")
    assert not runtimes.quantises_batches(cross_encoder_folder / "model.onnx")
    documents = [
        *SENTENCES,
        *(" ".join(SENTENCES[:count]) for count in range(2, 6)),
        *(text[:30] for text in SENTENCES),
    ]
    with load_reranker({"use": f"onnx:{tmp_path}", "runtime": runtime, "batch_tokens": 4096}) as reranker:
        together = {result.index: result.raw_score for result in reranker.rerank(QUERY, documents)}
        alone = [reranker.rerank(QUERY, [document])[0].raw_score for document in documents]
        with load_reranker(f"onnx:{cross_encoder_folder}") as floating:
            exact = [floating.rerank(QUERY, [document])[0].raw_score for document in documents]
    assert [together[index] for index in range(len(documents))] == near(alone, SAME_INPUT)
    assert alone != near(exact, INT8 / 8), "as near as if nothing had been quantised"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int4"}, r"^dtype must be one of auto, bfloat16, float32 or int8"),
        ({"runtime": "onnxruntime", "dtype": "int8"}, "no int8"),
        ({"runtime": "onnxruntime", "dtype": "bfloat16"}, "no bfloat16"),
        ({"runtime": "torch"}, r"^runtime must be one of auto, onnxruntime or openvino"),
        ({"max_tokens": 129}, "more than the model has positions for: take 128 at most"),
    ],
)
def test_what_is_not_offered(options, says, cross_encoder_folder):
    with pytest.raises(ConfigError, match=says):
        load_reranker({"use": f"onnx:{cross_encoder_folder}", **options})


def test_threads_share_one_model_and_closing_lets_it_go(cross_encoder_folder):
    spec = {"use": f"onnx:{cross_encoder_folder}", "runtime": "openvino"}
    with load_reranker(spec) as reranker:
        alone = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: reranker.rerank(QUERY, SENTENCES), range(16)):
                assert [result.raw_score for result in found] == near(alone)
        held = weakref.ref(OnnxModel.shared(cross_encoder_folder, LoadOptions("cpu", "float32", "openvino")))
        assert held() is not None
    gc.collect()
    assert held() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_forked_child_loads_anew(runtime, cross_encoder_folder):
    with load_reranker({"use": f"onnx:{cross_encoder_folder}", "runtime": runtime}) as reranker:
        alone = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
        child = os.fork()
        if not child:
            found = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
            os._exit(0 if found == near(alone) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)] == near(alone)


HELD = """
import openvino, sys, torch
compiled = openvino.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print(torch.backends.cpu.get_cpu_capability())
print(*{node.get_rt_info()["primitiveType"].value for node in compiled.get_runtime_model().get_ops()})
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the instruction sets are those of x86-64")
def test_the_runtimes_can_be_held_to_an_instruction_set(cross_encoder_folder):
    """So that the second run of `make test-all` is one of AVX2: OpenVINO has one switch for itself and one for oneDNN."""
    held = {"ONEDNN_MAX_CPU_ISA": "SSE41", "OV_CPU_MAX_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-W", "ignore", "-c", HELD, str(cross_encoder_folder / "model.onnx")]
    done = subprocess.run(command, env=os.environ | held, capture_output=True, text=True, check=True, timeout=60)
    torch_has, primitives = done.stdout.lower().splitlines()
    assert torch_has == "default"
    assert "sse42" in primitives
    assert "avx" not in primitives


TOLD = """
import json, pathlib, sys
from rerank_plugins import load_reranker
for spec in json.loads(sys.argv[1]):
    load_reranker(spec).rerank("tides", ["the moon", "bananas"])
print("openvino_telemetry" in sys.modules)
"""


def test_the_runtimes_tell_nobody(cross_encoder_folder, tmp_path):
    """onnxruntime's telemetry begins with a device's identity in the user's cache, OpenVINO's with a package of its own."""
    specs = ["embedded", {"use": f"onnx:{cross_encoder_folder}", "runtime": "openvino"}]
    plain = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run(
        [sys.executable, "-c", TOLD, json.dumps(specs)],
        env=plain | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []

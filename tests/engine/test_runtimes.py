"""Selection of the ONNX runtime, and agreement of the runtimes."""

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
from openvino import opset13
from support.bounds import BFLOAT16, INT8, OTHER_CODE, SAME_INPUT, near
from support.models import SENTENCES, cross_encoder

from rerank_plugins import load_reranker
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine.onnx import openvino as openvino_runtime
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel, choose_runtime, quantizes_batches
from rerank_plugins.engine.shared_model import LoadOptions

QUERY = "how do the tides work"


def scores(spec: dict) -> list[float]:
    with load_reranker(spec) as reranker:
        response = reranker.rerank(QUERY, SENTENCES)
        return [result.raw_score for result in sorted(response, key=lambda result: result.index)]


def test_openvino_in_float32_equals_onnxruntime(cross_encoder_folder):
    use = f"onnx:{cross_encoder_folder}"
    exact = scores({"use": use})
    assert max(exact) - min(exact) > 1e-2
    assert scores({"use": use, "runtime": "openvino"}) == near(exact, OTHER_CODE)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_the_default_on_cpus_that_support_it(fast, dtype, monkeypatch):
    monkeypatch.setattr(openvino_runtime, "computes_bfloat16", lambda: fast)
    chosen = choose_runtime(None, dtype, ("onnxruntime", "openvino"))
    default_runtime = "onnxruntime" if dtype == "auto" else "openvino"
    assert chosen == (("openvino", "bfloat16") if fast else (default_runtime, "float32"))


@pytest.mark.skipif(
    not openvino_runtime.computes_bfloat16() or "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="this CPU has no bfloat16 (avx512_bf16, amx_bf16), or is restricted below it",
)
def test_openvino_computes_in_the_selected_bfloat16(cross_encoder_folder):
    use = f"onnx:{cross_encoder_folder}"
    exact = scores({"use": use})
    with load_reranker({"use": use, "dtype": "auto"}) as reranker:
        assert "openvino bfloat16" in reranker.rerank(QUERY, SENTENCES).model
    fast = scores({"use": use, "dtype": "auto"})
    assert fast == near(exact, BFLOAT16)
    assert fast != near(exact, OTHER_CODE), "rounded to float32, not to bfloat16"


def test_openvino_computes_float32_on_cpus_without_bfloat16(cross_encoder_folder, monkeypatch):
    """Applies to a spec with bfloat16 too, which OpenVINO would emulate."""
    use = f"onnx:{cross_encoder_folder}"
    monkeypatch.setattr(openvino_runtime, "computes_bfloat16", lambda: False)
    with load_reranker({"use": use, "dtype": "bfloat16"}) as reranker:
        assert "openvino float32" in reranker.rerank(QUERY, SENTENCES).model
    assert scores({"use": use, "dtype": "bfloat16"}) == near(scores({"use": use}), OTHER_CODE)


@pytest.mark.parametrize("transposed", [True, False])
def test_int8_weights_are_rounded_to_the_nearest_step(transposed):
    random = np.random.default_rng(7)
    weights = random.normal(size=(64, 96)).astype(np.float32)
    features = opset13.parameter([-1, 96 if transposed else 64], np.float32)
    made = opset13.matmul(features, opset13.constant(weights), False, transposed)
    model = openvino.Model([made], [features])
    openvino_runtime.store_weights_as_int8(model)
    stored = [each for each in model.get_ops() if each.get_type_name() == "Constant" and each.data.dtype == np.int8]
    assert [each.data.shape for each in stored] == [weights.shape]
    steps = np.abs(weights).max(axis=1 if transposed else 0, keepdims=True) / 127
    # Kept as floats, so that values are rounded only once.
    restore = openvino.compile_model(
        model, "CPU", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_PRECISION_HINT": "f32"}
    )
    restored = restore(np.eye(features.partial_shape[1].get_length(), dtype=np.float32))[0]
    assert np.all(np.abs((restored.T if transposed else restored) - weights) <= 0.501 * steps)


@pytest.fixture(scope="module")
def large_enough(tmp_path_factory):
    """A model whose layers are all large enough to be stored as int8."""
    folder = cross_encoder(tmp_path_factory.mktemp("models") / "large-enough", hidden=64)
    model = openvino.Core().read_model(str(folder / "model.onnx"))
    openvino_runtime.store_weights_as_int8(model)
    made = [each.data for each in model.get_ops() if each.get_type_name() == "Constant" and each.data.dtype == np.int8]
    assert len(made) == 13, "six matrices in each of two layers, and the pooler"
    return folder


def test_int8_score_does_not_depend_on_other_texts(large_enough):
    """On CPUs with integer products activations are rounded too, with one scale per token, so no text shares it.

    All texts have one length: with other padding, intermediate float32 sums differ in their last bits, and a value at
    the edge of an int8 step may be rounded to either side.
    """
    use = f"onnx:{large_enough}"
    exact = scores({"use": use})
    quantized = scores({"use": use, "dtype": "int8"})
    assert quantized != near(exact, INT8 / 8), "so close that nothing can have been quantized"
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
def test_onnx_file_with_int32_inputs_is_run(runtime, cross_encoder_folder, tmp_path):
    import onnx

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(cross_encoder_folder / name, tmp_path / name)
    model = onnx.load(str(cross_encoder_folder / "model.onnx"))
    for graph_input in model.graph.input:
        for node in model.graph.node:
            node.input[:] = [f"wide_{each}" if each == graph_input.name else each for each in node.input]
        model.graph.node.insert(
            0,
            onnx.helper.make_node("Cast", [graph_input.name], [f"wide_{graph_input.name}"], to=onnx.TensorProto.INT64),
        )
        graph_input.type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, str(tmp_path / "model.onnx"))
    expected = scores({"use": f"onnx:{cross_encoder_folder}", "runtime": runtime})
    assert scores({"use": f"onnx:{tmp_path}", "runtime": runtime}) == near(expected)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_file_that_quantizes_batches_runs_one_text_at_a_time(runtime, cross_encoder_folder, tmp_path):
    """onnxruntime's dynamic quantization has one scale per batch, so a score would depend on the other texts."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(cross_encoder_folder / name, tmp_path / name)
    quantize_dynamic(cross_encoder_folder / "model.onnx", tmp_path / "model.onnx", weight_type=QuantType.QInt8)
    assert quantizes_batches(tmp_path / "model.onnx")
    assert not quantizes_batches(cross_encoder_folder / "model.onnx")
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
    assert alone != near(exact, INT8 / 8), "so close that nothing can have been quantized"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, r"^dtype must be one of auto, bfloat16, float32 or int8"),
        (
            {"runtime": "onnxruntime", "dtype": "int8"},
            "scores depend on other documents, and tau to float32 is below 0.9",
        ),
        ({"runtime": "onnxruntime", "dtype": "bfloat16"}, "does not compute bfloat16"),
        ({"runtime": "torch"}, r"^runtime must be one of auto, onnxruntime or openvino"),
        ({"max_tokens": 129}, "max_tokens must be at most 128, the positions of the model, got 129"),
    ],
)
def test_unsupported_runtime_option_is_refused(options, message, cross_encoder_folder):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": f"onnx:{cross_encoder_folder}", **options})


def test_threads_share_one_model_and_close_frees_it(cross_encoder_folder):
    spec = {"use": f"onnx:{cross_encoder_folder}", "runtime": "openvino"}
    with load_reranker(spec) as reranker:
        alone = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
        with ThreadPoolExecutor(4) as pool:
            for response in pool.map(lambda _: reranker.rerank(QUERY, SENTENCES), range(16)):
                assert [result.raw_score for result in response] == near(alone)
        model = weakref.ref(OnnxModel.shared(cross_encoder_folder, LoadOptions("cpu", "float32", "openvino")))
        assert model() is not None
    gc.collect()
    assert model() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_forked_child_loads_the_model_again(runtime, cross_encoder_folder):
    with load_reranker({"use": f"onnx:{cross_encoder_folder}", "runtime": runtime}) as reranker:
        alone = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
        child = os.fork()
        if not child:
            values = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
            os._exit(0 if values == near(alone) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)] == near(alone)


CAPABILITIES = """
import openvino, sys, torch
compiled = openvino.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print(torch.backends.cpu.get_cpu_capability())
print(*{node.get_rt_info()["primitiveType"].value for node in compiled.get_runtime_model().get_ops()})
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the instruction sets are those of x86-64")
def test_runtimes_can_be_restricted_to_an_instruction_set(cross_encoder_folder):
    """The second run of `make test-all` must use only AVX2.

    OpenVINO has one variable for itself and one for oneDNN.
    """
    isa_limits = {"ONEDNN_MAX_CPU_ISA": "SSE41", "OV_CPU_MAX_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-W", "ignore", "-c", CAPABILITIES, str(cross_encoder_folder / "model.onnx")]
    done = subprocess.run(command, env=os.environ | isa_limits, capture_output=True, text=True, check=True, timeout=60)
    torch_has, primitives = done.stdout.lower().splitlines()
    assert torch_has == "default"
    assert "sse42" in primitives
    assert "avx" not in primitives


TELEMETRY = """
import json, pathlib, sys
from rerank_plugins import load_reranker
for spec in json.loads(sys.argv[1]):
    load_reranker(spec).rerank("tides", ["the moon", "bananas"])
print("openvino_telemetry" in sys.modules)
"""


def test_runtimes_send_no_telemetry(cross_encoder_folder, tmp_path):
    """onnxruntime's telemetry starts with a device identity in the user's cache, OpenVINO's with a separate package."""
    specs = ["embedded", {"use": f"onnx:{cross_encoder_folder}", "runtime": "openvino"}]
    plain = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run(
        [sys.executable, "-c", TELEMETRY, json.dumps(specs)],
        env=plain | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []

"""Measure how fast this machine multiplies matrices: no model can be faster. `local.py` prints the line.

    python benchmarks/matrices.py

Time on two cores: a few seconds per dtype.
Install: pip install -e '.[training]'
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx import helper as onnx_helper

from rerank_plugins.engine.onnx.cross_encoder import choose_runtime, open_session

ROWS, WIDE, WIDER, PRODUCTS = 512, 384, 1536, 12


def describe_machine() -> str:
    """Return one line: the CPU, its cores, and the rates of this package's runtimes with all cores busy."""
    with Path("/proc/cpuinfo").open() as file:
        pairs = [line.split(":", 1) for line in file if ":" in line]
    cpu = {key.strip(): value.strip() for key, value in pairs}
    cores = len(os.sched_getaffinity(0))
    rates = ", ".join(
        f"{dtype} {measure_gflops(*choose_runtime(None, dtype_option, ('onnxruntime', 'openvino')), cores):.0f}"
        for dtype, dtype_option in (("float32", None), ("auto", "auto"))
    )
    return f"{cpu['model name']} (family {cpu['cpu family']}), {cores} cores; matrix products in GFLOP/s: {rates}"


def float32_gflops() -> float:
    """Return GFLOP/s of onnxruntime in float32, with all cores busy."""
    return measure_gflops("onnxruntime", "float32", len(os.sched_getaffinity(0)))


def measure_gflops(runtime: str, dtype: str, cores: int) -> float:
    """Return GFLOP/s of a chain of feed-forward layers of MiniLM's width, with one single-threaded run per core."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "chain.onnx"
        generator = np.random.default_rng(0)
        weights = [generator.standard_normal(shape, dtype=np.float32) / 20 for shape in ((WIDE, WIDER), (WIDER, WIDE))]
        constants = [numpy_helper.from_array(weight, f"w{side}") for side, weight in enumerate(weights)]
        nodes = [
            onnx_helper.make_node("MatMul", [f"x{step}" if step else "input_ids", f"w{step % 2}"], [f"x{step + 1}"])
            for step in range(PRODUCTS)
        ]
        shape = ["rows", WIDE]
        graph = onnx_helper.make_graph(
            nodes,
            "chain",
            [onnx_helper.make_tensor_value_info("input_ids", TensorProto.FLOAT, shape)],
            [onnx_helper.make_tensor_value_info(f"x{PRODUCTS}", TensorProto.FLOAT, shape)],
            constants,
        )
        onnx.save(onnx_helper.make_model(graph, opset_imports=[onnx_helper.make_opsetid("", 17)], ir_version=10), file)
        session = open_session(runtime, dtype, file, cores)
        feed = {"input_ids": generator.standard_normal((ROWS, WIDE), dtype=np.float32)}
        times = []
        with ThreadPoolExecutor(cores) as pool:
            for _ in range(30):
                started = time.perf_counter()
                list(pool.map(lambda _: session.run(feed), range(cores)))
                times.append(time.perf_counter() - started)
    return 2 * ROWS * WIDE * WIDER * PRODUCTS * cores / min(times) / 1e9


if __name__ == "__main__":
    print(describe_machine())

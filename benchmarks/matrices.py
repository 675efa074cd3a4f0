"""How fast this machine multiplies matrices: the floor under every model."""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rerank_plugins.engine.onnx.runtimes import choose, open_session

ROWS, WIDE, WIDER, PRODUCTS = 512, 384, 1536, 12


def machine() -> str:
    """Return one line: the CPU, its cores, and the rates of this package's runtimes, all cores busy."""
    with Path("/proc/cpuinfo").open() as file:
        found = dict(line.split(":", 1) for line in file if ":" in line)
    told = {key.strip(): value.strip() for key, value in found.items()}
    cores = len(os.sched_getaffinity(0))
    rates = ", ".join(
        f"{dtype} {rate(*choose(None, asked, ('onnxruntime', 'openvino')), cores):.0f}"
        for dtype, asked in (("float32", None), ("auto", "auto"))
    )
    return f"{told['model name']} (family {told['cpu family']}), {cores} cores; matrix products in GFLOP/s: {rates}"


def rate(runtime: str, dtype: str, cores: int) -> float:
    """Return GFLOP/s of a chain of feed-forward layers of MiniLM's width, one single-threaded run a core."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "chain.onnx"
        chance = np.random.default_rng(0)
        weights = [chance.standard_normal(shape, dtype=np.float32) / 20 for shape in ((WIDE, WIDER), (WIDER, WIDE))]
        constants = [numpy_helper.from_array(weight, f"w{side}") for side, weight in enumerate(weights)]
        nodes = [
            helper.make_node("MatMul", [f"x{step}" if step else "input_ids", f"w{step % 2}"], [f"x{step + 1}"])
            for step in range(PRODUCTS)
        ]
        shape = ["rows", WIDE]
        graph = helper.make_graph(
            nodes,
            "chain",
            [helper.make_tensor_value_info("input_ids", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(f"x{PRODUCTS}", TensorProto.FLOAT, shape)],
            constants,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), file)
        session = open_session(runtime, dtype, file, cores)
        feed = {"input_ids": chance.standard_normal((ROWS, WIDE), dtype=np.float32)}
        times = []
        with ThreadPoolExecutor(cores) as pool:
            for _ in range(30):
                started = time.perf_counter()
                list(pool.map(lambda _: session.run(feed), range(cores)))
                times.append(time.perf_counter() - started)
    return 2 * ROWS * WIDE * WIDER * PRODUCTS * cores / min(times) / 1e9

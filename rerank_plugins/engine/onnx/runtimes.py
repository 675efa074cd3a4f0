"""What runs an ONNX file: onnxruntime or OpenVINO, behind one small protocol; and which of them a spec gets."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...core.errors import ConfigError, MissingExtra, clause
from ...core.fork import Lock
from ...core.memory import give_back_memory
from .. import no_telemetry
from ..hub import age, touched
from .quantization import GROUP, compress

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Session", "choose", "open_session", "quantises_batches"]

Shape = Sequence[int | None] | None
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""What can be given to a model."""
_SCORES = ("logits", "scores", "score", "relevance_scores", "relevance_score")
_one_at_a_time = Lock()
_DYNAMIC = b"DynamicQuantize"
LARGE = 1024
"""Tokens of a batch from which on memory is handed back after it."""


class Session(Protocol):
    """A loaded model; `run` is called by several threads at once."""

    inputs: frozenset[str]
    rows: int | None
    """The rows of every batch, where the file fixes them."""
    length: int | None
    """The tokens of every row, where the file fixes them."""

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the output that holds the scores, for one batch."""


def choose(runtime: str | None, dtype: str | None, offered: tuple[str, ...]) -> tuple[str, str]:
    """Return the runtime and the dtype that are used.

    Args:
        runtime: `onnxruntime`, `openvino`, or `auto` (`None`): onnxruntime, unless `dtype` calls for OpenVINO.
        dtype: `float32` (`None`), exact; `bfloat16`; `int8`, see `quantization`; or `auto`, bfloat16 where OpenVINO and a CPU
            that computes it are there. float32 stands in for `bfloat16` on a CPU without it.
        offered: The runtimes that the backend can use.

    Raises:
        ConfigError: A value that is not offered.
        MissingExtra: OpenVINO is asked for and not installed.
    """
    dtypes = ("float32", "auto", "bfloat16", "int8") if "openvino" in offered else ("float32", "auto")
    for name, value, allowed in (("runtime", runtime, (*offered, "auto")), ("dtype", dtype, dtypes)):
        if value is not None and value not in allowed:
            raise ConfigError(f"{name} {value!r} is not offered here; choose one of: {', '.join(allowed)}.")
    only_openvino = dtype in ("bfloat16", "int8")
    if only_openvino and runtime == "onnxruntime":
        raise ConfigError(f"onnxruntime computes no {dtype} here: take runtime 'openvino', or dtype 'float32'.")
    asked = runtime == "openvino" or only_openvino
    if asked and find_spec("openvino") is None:
        raise MissingExtra("runtime 'openvino'", extra="openvino", package="openvino")
    if dtype == "int8":
        return "openvino", "int8"
    fast = dtype in ("auto", "bfloat16") and "openvino" in offered and runtime != "onnxruntime"
    if fast and find_spec("openvino") is not None and _computes_bfloat16():
        return "openvino", "bfloat16"
    return ("openvino" if asked else "onnxruntime"), "float32"


def _computes_bfloat16() -> bool:
    # OpenVINO's own list of capabilities names BF16 on CPUs that would only imitate it.
    with contextlib.suppress(OSError):
        told = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        return "avx512_bf16" in told or "amx_bf16" in told
    return False


def open_session(runtime: str, dtype: str, file: Path, streams: int) -> Session:
    """Load a file; `streams` threads will run it at the same time.

    Raises:
        ConfigError: It is no model that the runtime can read.
    """

    def opened(path: Path) -> Session:
        return _OpenVINO(path, dtype, streams) if runtime == "openvino" else _Onnxruntime(path)

    try:
        try:
            made = opened(file)
        except Exception:
            outside = [each for each in file.parent.glob(f"{file.name}[._]data*") if each.is_symlink()]
            if not outside:
                raise
            with _without_links(file, outside) as real:
                made = opened(real)
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the runtimes' errors share no base class
        raise ConfigError(
            f"{file} cannot be loaded as an ONNX model ({clause(error)}): fetch or export it again."
        ) from error
    give_back_memory()
    return made


def scoring_output(outputs: Sequence[tuple[str, Shape]]) -> int:
    """Return which of a model's outputs holds the scores: the one that is named so, else by shape, else the first.

    Args:
        outputs: Names and shapes; `None` for what is not fixed.
    """
    fitting = [
        place
        for place, (_, shape) in enumerate(outputs)
        if shape is None or len(shape) == 1 or (len(shape) == 2 and shape[1] in (None, 1, 2))
    ]
    named = [place for place in fitting if outputs[place][0].lower() in _SCORES]
    exact = [place for place in fitting if (shape := outputs[place][1]) is not None and shape[-1] in (1, 2)]
    return [*named, *exact, *fitting, 0][0]


def _fixed(inputs: Sequence[tuple[str, Shape]], file: Path) -> tuple[int | None, int | None]:
    """Return the rows and the tokens that a model's inputs fix.

    Raises:
        ConfigError: It needs an input that no pair of texts gives.
    """
    unknown = sorted(name for name, _ in inputs if name not in INPUTS)
    if unknown:
        raise ConfigError(
            f"{file} needs the inputs {', '.join(unknown[:3])}, and a cross-encoder has {', '.join(INPUTS)}: export it "
            "for sequence classification, without a cache of keys and values."
        )
    shapes = [shape for _, shape in inputs if shape is not None and len(shape) == 2]
    rows = next((shape[0] for shape in shapes if shape[0] is not None), None)
    return rows, next((shape[1] for shape in shapes if shape[1] is not None), None)


def quantises_batches(file: Path) -> bool:
    """Tell whether activations get one int8 scale a batch: then a text's score depends on the texts beside it, and on padding.

    So does onnxruntime's dynamic quantisation, which three of FlashRank's models have been through. The operator's name
    stands in the file as text.
    """
    before = b""
    with file.open("rb") as opened:
        while part := opened.read(2**20):
            if _DYNAMIC in part or _DYNAMIC in before + part[: len(_DYNAMIC)]:
                return True
            before = part[-len(_DYNAMIC) :]
    return False


def _sizes(shape: Sequence[Any]) -> Shape:
    """Return a shape of onnxruntime's, which has names and `None` for what is not fixed."""
    return [size if isinstance(size, int) and size > 0 else None for size in shape] or None


class _Onnxruntime:
    def __init__(self, file: Path) -> None:
        ort = no_telemetry.onnxruntime()
        options = ort.SessionOptions()
        # One thread a run and one worker a core: no threads that wait for each other, and no loss on a shared machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Weights that are stored as int8 are computed in float: left alone, onnxruntime fuses them into integer products.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.inputs = frozenset(node.name for node in inputs)
        self.rows, self.length = _fixed([(node.name, _sizes(node.shape)) for node in inputs], file)
        self._output = outputs[scoring_output([(node.name, _sizes(node.shape)) for node in outputs])].name
        # Some files were made for numbers of 32 bits; OpenVINO converts by itself.
        self._narrow = {node.name for node in self._session.get_inputs() if node.type == "tensor(int32)"}
        # onnxruntime's arena keeps the peak for ever: memory goes back after a large batch. Small
        # ones leave it as it is, a tenth faster than without an arena (measured in benchmarks/local.py).
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        options = self._shrinking if feed["input_ids"].size > LARGE else None
        given = {name: value.astype("int32") if name in self._narrow else value for name, value in feed.items()}
        output: np.ndarray = self._session.run([self._output], given, options)[0]
        return output


def _name(node: Any) -> str:
    return str(node.get_any_name()) if node.get_names() else ""


def _partial(node: Any) -> Shape:
    """Return a shape of OpenVINO's."""
    shape = node.get_partial_shape()
    return [size.get_length() if size.is_static else None for size in shape] if shape.rank.is_static else None


class _OpenVINO:
    def __init__(self, file: Path, dtype: str, streams: int) -> None:
        import numpy as np

        ov = no_telemetry.openvino()
        # What it makes at its first look at a tensor's data, two threads at once can end in: one holds Python's lock and
        # waits for what the other makes, which waits for Python's lock (seen once, 2026.4). So it is made here, alone.
        with _one_at_a_time:
            ov.Tensor(np.zeros((1, 1), dtype=np.int64)).data.copy()
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "INFERENCE_PRECISION_HINT": "bf16" if dtype != "float32" and _computes_bfloat16() else "f32",
            # Left alone, it quantises activations in groups even where float32 is asked for.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if dtype == "int8" else "0",
            # It keeps the code that it makes for each shape of input, 5,000 of them if left alone: half a gigabyte after
            # 1,200 documents, and no faster (MiniLM-L6's shape, 2026.4, two cores).
            "CPU_RUNTIME_CACHE_CAPACITY": "32",
        }
        core = ov.Core()
        model = core.read_model(str(file))
        if dtype == "int8":
            compress(model)
        self._compiled = core.compile_model(model, "CPU", settings)
        inputs, outputs = ([(_name(node), _partial(node)) for node in ends] for ends in (model.inputs, model.outputs))
        self.inputs = frozenset(name for name, _ in inputs)
        self.rows, self.length = _fixed(inputs, file)
        self._output = scoring_output(outputs)
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        with self._lock:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        request.infer(dict(feed))
        output: np.ndarray = request.get_output_tensor(self._output).data.copy()
        # A request that failed, or that holds a large batch's memory, is not kept.
        if feed["input_ids"].size <= LARGE:
            with self._lock:
                self._idle.append(request)
        return output


@contextlib.contextmanager
def _without_links(file: Path, outside: list[Path]) -> Iterator[Path]:
    """Give a path under which every runtime takes the model: OpenVINO follows no link from its folder to weights elsewhere.

    A hub's cache has nothing but such links. Where those lead to, a folder is made for as long as the model is read.
    """
    was = {each: age(each) for each in (*outside, file)}
    with contextlib.ExitStack() as until_read:
        with contextlib.suppress(OSError):  # a cache that is only to be read, say: the error is the runtime's then
            beside = file.resolve().parent
            folder = until_read.enter_context(tempfile.TemporaryDirectory(dir=beside, ignore_cleanup_errors=True))
            for each in was:
                os.link(each.resolve(), Path(folder) / each.name)
            file = Path(folder) / file.name
        yield file
    touched(was)

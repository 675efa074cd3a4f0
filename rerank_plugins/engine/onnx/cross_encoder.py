"""Cross-encoders in ONNX form on this machine's CPU, on onnxruntime (exact) or OpenVINO; without torch.

`OnnxModel` runs the file with one single-threaded worker per core. `OnnxBackend` is the base of all backends over one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from ...core._runtime.memory import give_back_memory
from ...core.errors import ConfigError, MissingExtra, clause
from ...core.numeric import MIN_TOKENS
from ...core.scorer import unexpected_error
from ...core.types import Capabilities, RerankRequest
from ..checkpoint import refuse_chat_template
from ..files import onnx_file, refuse_special_files
from ..model_backend import UNKNOWN_LENGTH, ModelBackend, check_choice, score_pairs
from ..shared_model import LoadOptions, SharedModel, check_output, length_batches, padded_batch, run_batches
from ..tokenizer import Encoded, Limits, PairTokenizer
from ..weights_digest import digest
from . import openvino
from .external_weights import external_weights, missing_external_weights
from .graph_cache import GraphCache, graph_cache
from .onnxruntime_session import OnnxruntimeSession
from .warmup import load_model

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BATCH_TOKENS",
    "OnnxBackend",
    "OnnxCrossEncoder",
    "OnnxModel",
    "Session",
    "choose_runtime",
    "open_session",
    "quantizes_batches",
]

BATCH_TOKENS = 512
"""Tokens of one batch, padding included. Larger batches are slower on a CPU (they do not fit in its cache) and need
more memory."""
EXACT = LoadOptions(device="cpu", runtime="onnxruntime", dtype="float32")
Shape = Sequence[int | None] | None
"""The sizes of an input or output; `None` for what the file does not fix."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""The inputs that a model may have."""
_SCORES = ("logits", "scores", "score", "relevance_scores", "relevance_score")
_LARGE = 1024
"""Tokens of a batch above which its memory is returned to the system."""
_DYNAMIC = b"DynamicQuantize"
_WHY = {"int8": " (its scale is that of a batch: scores depend on other documents, and tau to float32 is below 0.9)"}
_log = logging.getLogger("rerank_plugins")


def choose_runtime(runtime: str | None, dtype: str | None, offered: tuple[str, ...]) -> tuple[str, str]:
    """Return the runtime and the dtype to use.

    Args:
        runtime: `onnxruntime`, `openvino`, or `auto` (`None`): onnxruntime, unless `dtype` needs OpenVINO.
        dtype: `float32` (`None`), exact; `bfloat16`; `int8`, see `openvino`; or `auto`: bfloat16 if OpenVINO is
            installed and the CPU computes bfloat16. On a CPU that does not, `bfloat16` becomes float32.
        offered: The runtimes that the backend supports.

    Raises:
        ConfigError: A value is not offered.
        MissingExtra: OpenVINO is needed and not installed.
    """
    check_choice("runtime", runtime, (*offered, "auto"))
    dtypes = ("float32", "auto", "bfloat16", "int8") if "openvino" in offered else ("float32", "auto")
    check_choice("dtype", dtype, dtypes)
    only_openvino = dtype in ("bfloat16", "int8")
    if only_openvino and runtime == "onnxruntime":
        raise ConfigError(
            f"onnxruntime does not compute {dtype} here{_WHY.get(str(dtype), '')}: set runtime to 'openvino', or dtype "
            "to 'float32'."
        )
    required = runtime == "openvino" or only_openvino
    if required and find_spec("openvino") is None:
        raise MissingExtra("runtime 'openvino'", extra="openvino", package="openvino")
    if dtype == "int8":
        return "openvino", "int8"
    fast = dtype in ("auto", "bfloat16") and "openvino" in offered and runtime != "onnxruntime"
    if fast and find_spec("openvino") is not None and openvino.computes_bfloat16():
        return "openvino", "bfloat16"
    return ("openvino" if required else "onnxruntime"), "float32"


class Runtime(Protocol):
    """An ONNX file, loaded by one of the runtimes. `run` may be called by several threads at once."""

    inputs: list[tuple[str, Shape]]
    """Names and shapes."""
    outputs: list[tuple[str, Shape]]
    """Names and shapes."""

    def run(self, feed: Mapping[str, np.ndarray], output: int) -> np.ndarray:
        """Return one of the outputs, by its position."""


class Session:
    """An ONNX file that is ready to score."""

    def __init__(self, runtime: Runtime, file: Path) -> None:
        """Find the inputs and the output with the scores.

        Raises:
            ConfigError: The model needs an input that a pair of texts does not have.
        """
        self.inputs = frozenset(name for name, _ in runtime.inputs)
        unknown = sorted(self.inputs - set(INPUTS))
        if unknown:
            raise ConfigError(
                f"{file} needs the inputs {', '.join(unknown[:3])}, and a cross-encoder has {', '.join(INPUTS)}: "
                "export it for sequence classification, without a cache of keys and values."
            )
        shapes = [shape for _, shape in runtime.inputs if shape is not None and len(shape) == 2]
        self.rows = next((shape[0] for shape in shapes if shape[0] is not None), None)
        """The rows of every batch, if the file fixes them."""
        self.length = next((shape[1] for shape in shapes if shape[1] is not None), None)
        """The tokens of every row, if the file fixes them."""
        self.cached_graph: Path | None = None
        """The cached graph that was opened in place of the model's file."""
        self._runtime, self.outputs = runtime, runtime.outputs
        self.output = scoring_output(self.outputs)
        """The position of the output that `run` returns. An engine that needs another one sets it after loading."""

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return one output for one batch, by default the scores. May be called by several threads at once."""
        return self._runtime.run(feed, self.output)


def open_session(runtime: str, dtype: str, file: Path, threads: int, cache: GraphCache | None = None) -> Session:
    """Load an ONNX file.

    Args:
        runtime: `onnxruntime` or `openvino`.
        dtype: What the runtime computes in.
        file: The ONNX file.
        threads: How many threads will run it at the same time.
        cache: Where onnxruntime's optimised graph of the file is kept; `None` does not keep it.

    Raises:
        ConfigError: The runtime cannot read the file.
    """

    def load(path: Path) -> Session:
        if runtime == "openvino":
            return Session(openvino.OpenVINO(path, dtype, threads, _LARGE), path)
        session = None
        if cache is not None:
            session = cache.load(lambda graph: OnnxruntimeSession(graph, _LARGE, optimized=True))
            session = session or cache.write(lambda graph: OnnxruntimeSession(path, _LARGE, save_as=graph))
        opened = Session(session or OnnxruntimeSession(path, _LARGE), path)
        if session is not None and session.file != path:
            opened.cached_graph = session.file
        return opened

    try:
        try:
            session = load(file)
        except Exception:
            links = [path for path in external_weights(file) if path.is_symlink()]
            if not links:
                raise
            with openvino.without_links(file, links) as real:
                session = load(real)
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the runtimes' errors share no base class
        if missing := missing_external_weights(file):
            raise ConfigError(
                f"{file} keeps weights in {', '.join(missing[:3])}, which is not beside it: copy or fetch all files of "
                "the model."
            ) from error
        raise ConfigError(
            f"{file} cannot be loaded as an ONNX model ({clause(error)}): fetch or export it again."
        ) from error
    give_back_memory()
    return session


def scoring_output(outputs: Sequence[tuple[str, Shape]]) -> int:
    """Return the position of the output that holds the scores: chosen by its name, else by its shape, else the first.

    Args:
        outputs: Names and shapes.
    """
    fitting = [
        place
        for place, (_, shape) in enumerate(outputs)
        if shape is None or len(shape) == 1 or (len(shape) == 2 and shape[1] in (None, 1, 2))
    ]
    named = [place for place in fitting if outputs[place][0].lower() in _SCORES]
    exact = [place for place in fitting if (shape := outputs[place][1]) is not None and shape[-1] in (1, 2)]
    return [*named, *exact, *fitting, 0][0]


def quantizes_batches(file: Path) -> bool:
    """Tell whether activations get one int8 scale per batch. Then a text's score depends on its batch and on padding.

    onnxruntime's dynamic quantization does that, and three of FlashRank's models went through it. The operator's name
    stands in the file as text.
    """
    before = b""
    with file.open("rb") as stream:
        while part := stream.read(2**20):
            if _DYNAMIC in part or _DYNAMIC in before + part[: len(_DYNAMIC)]:
                return True
            before = part[-len(_DYNAMIC) :]
    return False


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxModel(SharedModel[Session, PairTokenizer]):
    """One ONNX model in memory, run by one single-threaded worker per core."""

    per_token: ClassVar[bool] = False
    """Whether the output has one vector per token."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Create the model without loading anything."""
        super().__init__(folder, options, threads=usable_cores())
        self.file = options.file or onnx_file(folder)
        self.limits = Limits.read(folder)
        self._one_row_per_batch = False
        """Set where the output of a row depends on the other rows of its batch."""

    @classmethod
    def shared(cls, folder: Path, options: LoadOptions = EXACT) -> Self:
        """Return the process's one model of a folder in a runtime and dtype.

        The key is the folder and the file. In a hub's cache the files of a revision are links: two revisions may share
        an ONNX file but not the tokenizer. The file is opened by the link's name, because external weights lie beside
        the link.

        Raises:
            ConfigError: The folder, its ONNX file or its settings cannot be read.
        """
        folder = folder.resolve()
        return super().shared(folder, replace(options, file=folder / (options.file or onnx_file(folder))))

    @property
    def tokenizer(self) -> PairTokenizer:
        """The tokenizer, read at the first access."""
        return self.preprocessor

    def load_preprocessor(self) -> PairTokenizer:
        """Read the tokenizer."""
        return PairTokenizer(self.folder / "tokenizer.json")

    def load_network(self) -> Session:
        """Load the file in its runtime."""
        options, cache = self.options, None
        if options.cached_graph and options.runtime == "onnxruntime":
            cache = graph_cache(digest(self.weight_files))
        session = open_session(options.runtime, options.dtype or "float32", self.file, self.workers.threads, cache)
        self._one_row_per_batch = quantizes_batches(session.cached_graph or self.file)
        return session

    def describe_network(self, network: Session) -> tuple[str, str, str]:
        """Return runtime, dtype and device."""
        return self.options.runtime, self.options.dtype or "float32", "cpu"

    @property
    def weight_files(self) -> list[Path]:
        """The ONNX file, and external weights beside it."""
        return [self.file, *external_weights(self.file)]

    async def run_rows(
        self, rows: Sequence[Encoded], batch_tokens: int, store: Callable[[list[int], np.ndarray], None]
    ) -> None:
        """Run every row through the model.

        At most two batches per core are queued at any time. So a cancelled call leaves only those behind, and
        concurrent calls take turns batch by batch.

        Args:
            rows: The rows of one call.
            batch_tokens: The tokens of a batch, padding included.
            store: Called with positions and output after every batch, on a worker thread.
        """
        session = await self.loaded_network()
        limit = 1 if self._one_row_per_batch or session.rows == 1 else batch_tokens

        def run(positions: list[int]) -> None:
            size = session.rows or len(positions)
            for first in range(0, len(positions), size):
                part = positions[first : first + size]
                batch = [rows[position] for position in part + part[:1] * (size - len(part) if session.rows else 0)]
                try:
                    output = session.run(self._feed(batch, session))
                except Exception as error:  # the runtimes' errors share no base class
                    raise unexpected_error(str(self.file), error) from error
                check_output(output, self.file, batch, per_token=self.per_token)
                store(part, output[: len(part)])

        runner = partial(self.workers.run, run)
        batches = length_batches([len(row.ids) for row in rows], limit)
        await run_batches(batches, [runner] * (2 * self.workers.threads))

    def _feed(self, rows: Sequence[Encoded], session: Session) -> dict[str, np.ndarray]:
        import numpy as np

        ids, mask, types = padded_batch(rows, self.limits.pad, session.length)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if "position_ids" in session.inputs:
            feed["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
        return {name: value for name, value in feed.items() if name in session.inputs}


class OnnxBackend(ModelBackend[OnnxModel]):
    """A backend over one ONNX model on this machine's CPU."""

    kind = OnnxModel
    runtimes: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    """The runtimes that the backend supports."""

    def __init__(self, folder: Path | str, **options: Any) -> None:
        """Take a model's folder, which holds the ONNX file and `tokenizer.json`.

        The model is loaded by the first call, or by `warmup()`.

        Args:
            folder: The model's folder.
            **options: See `ModelBackend`; `batch_tokens` is 512 by default. `file` is the ONNX file's path in the
                folder.

        Raises:
            ConfigError: A file is missing, or a value is not offered.
            MissingExtra: The runtime is not installed.
        """
        super().__init__(folder, **options)
        if self.folder.is_dir():
            refuse_special_files(self.folder)
        if options.get("file") is None:
            onnx_file(self.folder)
        if not (self.folder / "tokenizer.json").is_file():
            raise ConfigError(
                f"{self.folder} holds no tokenizer.json: a model needs its own tokenizer beside the ONNX file."
            )

    @classmethod
    def options_of_copies(
        cls, names: Sequence[str | None], runtime: str | None, dtype: str | None
    ) -> list[LoadOptions]:
        """Return how to load the one copy of the model: on the CPU, in the runtime and dtype of `choose_runtime`."""
        for name in names:
            check_choice("device", name, ("cpu", "auto"))
        runtime, dtype = choose_runtime(runtime, dtype, cls.runtimes)
        return [LoadOptions("cpu", dtype, runtime)]

    async def awarmup(self) -> None:
        """Load the model, and the tokenizer meanwhile on another worker."""
        await load_model(self.shared_model)

    @property
    def fingerprint(self) -> str:
        """The label, whose runtime and dtype are known before the model is loaded, and a hash of the model's files."""
        return f"{self.label} {self.shared_model.fingerprint}"


class OnnxCrossEncoder(OnnxBackend):
    """A folder with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`; `config.json` holds its limits.

    The raw score is the model's logit; for a model with two labels the second logit minus the first, whose sigmoid
    equals the softmax of the second.
    """

    capabilities = Capabilities(scale="logit")
    runtimes = ("onnxruntime", "openvino")

    def __init__(self, folder: Path | str, **options: Any) -> None:
        """Take a model's folder.

        Args:
            folder: The model's folder.
            **options: See `ModelBackend`. `max_tokens` counts query, document and special tokens together.

        Raises:
            ConfigError: The folder holds no model or one that was trained on chats, or a value is not offered.
            MissingExtra: The runtime is not installed.
        """
        super().__init__(folder, **options)
        refuse_chat_template(self.folder)
        self._warned = False
        longest = self.shared_model.limits.longest(options.get("max_tokens"))
        self.capabilities = Capabilities(scale="logit", max_tokens=longest)

    async def score(self, models: list[OnnxModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Score every document together with the query."""
        (model,) = models
        longest = self.capabilities.max_tokens or UNKNOWN_LENGTH
        session = await model.loaded_network()
        if session.length is not None and session.length < longest:
            longest = session.length
            self._check_fixed_length(longest)
        batch_tokens = self.batch_tokens or BATCH_TOKENS
        return await score_pairs(
            model, model.limits, request, longest, lambda rows, store: model.run_rows(rows, batch_tokens, store)
        )

    def _check_fixed_length(self, length: int) -> None:
        if length < MIN_TOKENS:
            raise ConfigError(
                f"{self.folder} takes exactly {length} tokens, too few for a pair of texts: export it with a dynamic "
                f"length."
            )
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s takes exactly %s tokens, and its settings say %s: longer texts are cut there. Set max_tokens to "
                "%s.",
                self.folder,
                length,
                self.capabilities.max_tokens,
                length,
            )

"""Cross-encoders on torch: the backend, its model, the network, and the batches that calls share on a GPU.

Dynamic batching (the term of Triton and vLLM): ten rows per batch, one call at a time, leave a GPU idle, so a batch
there takes rows of several calls.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core._runtime.admission import Caller
from ...core.errors import ConfigError, RerankError, clause
from ...core.scorer import unexpected_error
from ...core.types import Capabilities, RerankRequest
from ..checkpoint import check, has_modules, wants_code
from ..model_backend import UNKNOWN_LENGTH, score_pairs
from ..shared_model import MAX_PADDING, LoadOptions, padded_batch
from ..tokenizer import Encoded, Limits, PairTokenizer
from .base import OnDevice, TorchBackend, TorchModel, device_of, dtype_of, modules, pretrained, quiet

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = [
    "BatchRow",
    "CrossEncoderModel",
    "Network",
    "RowQueue",
    "TorchCrossEncoder",
    "distribute_output",
    "load",
    "next_batch",
]


class Network(OnDevice):
    """A loaded cross-encoder: token ids, attention mask and token types in, logits out."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype, *, modular: bool) -> None:
        """Take a module that is in evaluation mode and on its device.

        Args:
            module: A sequence classifier of transformers, or what `modules` returns.
            device: The module's device.
            dtype: The module's dtype.
            modular: Whether `modules` made the module.
        """
        super().__init__(device, dtype)
        self._module = module
        self._modular = modular
        inner = module.transformers_model if modular else module
        parameters = inspect.signature(inner.forward).parameters
        # A tokenizer may write token types for a model that has only one type (XLM-R), for which 1 is out of range.
        self._types = "token_type_ids" in parameters and (getattr(inner.config, "type_vocab_size", 0) or 0) > 1
        # A decoder's classifier reads the last token of a row that is not padding, and refuses batches if config.json
        # names no padding token (or -1): see `_pad_with_unused_token`.
        self._config = inner.config.get_text_config()
        pad, self._vocabulary = getattr(self._config, "pad_token_id", None), getattr(self._config, "vocab_size", 0) or 0
        self._lacks_padding = not modular and not (isinstance(pad, int) and 0 <= pad < self._vocabulary)

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return the logits in float32: (rows, labels) or (rows,).

        Args:
            ids: Token ids, (rows, tokens).
            mask: 1 for tokens and 0 for padding, (rows, tokens).
            types: Token types, (rows, tokens).
        """
        import numpy as np
        import torch

        if self._lacks_padding:
            repadded = self._pad_with_unused_token(ids, mask)
            if repadded is None:
                sizes = mask.sum(axis=1)
                rows = ((ids[[row], :size], mask[[row], :size], types[[row], :size]) for row, size in enumerate(sizes))
                return np.concatenate([self.run(*row) for row in rows])
            ids = repadded
        arrays = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if self._types else {})
        with torch.inference_mode():
            feed = {name: torch.from_numpy(value).to(self.device) for name, value in arrays.items()}
            output = self._module(feed)["scores"] if self._modular else self._module(**feed).logits
            logits: np.ndarray = output.float().cpu().numpy()
            return logits

    def _pad_with_unused_token(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """Pad with a token that occurs in no row, and set it in the config; return `None` if there is no such token.

        With it the model finds the last token of each row. Only the one worker of this network calls this, so no other
        thread reads the config meanwhile.
        """
        import numpy as np

        self._config.pad_token_id = None
        if len(ids) == 1 and mask.all():
            return ids
        used = np.unique(ids[mask > 0])
        unused = np.setdiff1d(np.arange(min(len(used) + 1, self._vocabulary)), used)
        if not unused.size:
            return None
        self._config.pad_token_id = int(unused[0])
        return np.where(mask > 0, ids, unused[0])


class CrossEncoderModel(TorchModel[Network, PairTokenizer]):
    """One cross-encoder in memory."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Create the model without loading anything."""
        super().__init__(folder, options)
        self.limits = Limits.read(folder)
        self.queues: dict[RowQueue, None] = {}
        """The calls that are in the model, in order of arrival. Threads add and remove them without a lock: each is one
        atomic step."""

    @property
    def tokenizer(self) -> PairTokenizer:
        """The tokenizer, read at the first access."""
        return self.preprocessor

    def load_preprocessor(self) -> PairTokenizer:
        """Read the tokenizer."""
        return PairTokenizer(self.folder / "tokenizer.json")

    def load_network(self) -> Network:
        """Read the weights."""
        return load(self.folder, self.options)

    def run_next_batch(self, network: Network, queue: RowQueue) -> None:
        """Run the next batch of a call on the worker, then queue for the one after.

        On a GPU, rows of other calls fill the batch up. Not on a CPU: it gains nothing there, and which texts stand in
        a batch together would depend on chance.
        """
        try:
            others = list(self.queues) if network.on_gpu else []
            self._run(network, next_batch(queue, others, self.batch_limit(network, queue.batch_tokens)))
            if queue.has_waiting_rows:
                self.workers.submit(self.run_next_batch, network, queue)
            for gone in [other for other in list(self.queues) if other.gone]:
                self.queues.pop(gone, None)  # its coroutine will never do so: the event loop is closed
        except BaseException as error:
            queue.fail(error)

    def _run(self, network: Network, batch: list[BatchRow]) -> None:
        batch = [(queue, position) for queue, position in batch if not queue.over]
        if not batch:
            return
        rows = [queue.rows[position] for queue, position in batch]
        size, half = max(len(row.ids) for row in rows) * len(rows), len(rows) // 2
        try:
            output = self.run_batch(
                network, lambda: network.run(*padded_batch(rows, self.limits.pad)), size=size, divisible=half > 0
            )
            if output is not None:
                distribute_output(batch, output)
                return
        except BaseException as error:
            for queue in {queue for queue, _ in batch}:
                queue.fail(error)
            return
        self._run(network, batch[:half])
        self._run(network, batch[half:])


class RowQueue(Caller):
    """The rows of one call, longest first. They wait until a batch takes them, on whichever device."""

    def __init__(
        self, rows: Sequence[Encoded], batch_tokens: int | None, store: Callable[[list[int], np.ndarray], None]
    ) -> None:
        """Queue the rows of the running call.

        Args:
            rows: The rows of the call.
            batch_tokens: The batch size of the call's backend.
            store: Called with positions and output after every batch, on a worker.
        """
        super().__init__()
        self.rows, self.batch_tokens = rows, batch_tokens
        self.done = Future[BaseException | None]()
        """Done at the last row, or at the first error, which is the result: a future does not raise every error."""
        self.done.set_running_or_notify_cancel()
        self._store = store
        self._lock = threading.Lock()  # guards `_waiting` and `_open`: several devices take and store at the same time
        self._waiting = sorted(range(len(rows)), key=lambda position: -len(rows[position].ids))
        self._open, self._left = len(rows), False
        if not rows:
            self.done.set_result(None)

    @property
    def has_waiting_rows(self) -> bool:
        """Whether rows wait for a batch."""
        return bool(self._waiting) and not self.over

    @property
    def over(self) -> bool:
        """Whether nothing waits for the output of these rows any more."""
        return self._left or not self._open or self.gone

    def take(self, batch_tokens: int, other_rows: int = 0, longest: int | None = None) -> list[int]:
        """Return the positions of the longest waiting rows that fit into a batch (at least one if it is empty).

        Args:
            batch_tokens: The tokens that the batch may have, padding included.
            other_rows: The number of rows that the batch has already.
            longest: The tokens of the longest of these. Rows that are longer or much shorter are not taken.
        """
        with self._lock:
            if not self.has_waiting_rows:
                return []
            if longest is None:
                longest = len(self.rows[self._waiting[0]].ids)

            def shortness(position: int) -> int:
                return -len(self.rows[position].ids)

            first = bisect_left(self._waiting, -longest, key=shortness)
            last = bisect_right(self._waiting, -longest * (1.0 - MAX_PADDING), key=shortness)
            size = max(batch_tokens // longest, 1) - other_rows
            taken = self._waiting[first : min(last, first + size)]
            del self._waiting[first : first + len(taken)]
            return taken

    def store(self, positions: list[int], output: np.ndarray) -> None:
        """Store the output of a batch for some of the rows."""
        try:
            self._store(positions, output)
        except BaseException as error:
            self.fail(error)
            return
        with self._lock:
            if self._open:
                self._open -= len(positions)
                if not self._open:
                    self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End the call with an error; waiting rows are not run."""
        with self._lock:
            if self._open:
                self._open = 0
                self.done.set_result(error)

    def leave(self) -> None:
        """End the call because its caller is gone; waiting rows are not run.

        Takes no lock: the garbage collector ends calls of a lost event loop on any thread at any moment, also while
        that thread holds it.
        """
        self._left = True


BatchRow = tuple[RowQueue, int]
"""One row of a batch: the queue of its call, and its position there."""


def next_batch(queue: RowQueue, others: Iterable[RowQueue], batch_tokens: int) -> list[BatchRow]:
    """Return the next batch: the longest rows of one call, filled up with rows of other calls that are about as long.

    Args:
        queue: The call whose turn it is.
        others: The other calls, in order of arrival. Each has turns of its own too, so none is delayed.
        batch_tokens: The tokens that the batch may have, padding included.
    """
    batch = [(queue, position) for position in queue.take(batch_tokens)]
    if batch:
        longest = len(queue.rows[batch[0][1]].ids)
        for other in others:
            if other.batch_tokens == queue.batch_tokens:
                batch += [(other, position) for position in other.take(batch_tokens, len(batch), longest)]
    return batch


def distribute_output(batch: Sequence[BatchRow], output: np.ndarray) -> None:
    """Store the output of a batch in each of the calls that have rows in it."""
    start = 0
    for queue, rows in groupby(batch, key=lambda row: row[0]):
        positions = [position for _, position in rows]
        queue.store(positions, output[start : start + len(positions)])
        start += len(positions)


async def run_rows(
    models: Sequence[CrossEncoderModel],
    rows: Sequence[Encoded],
    batch_tokens: int | None,
    store: Callable[[list[int], np.ndarray], None],
) -> None:
    """Run every row through a model.

    Args:
        models: The copies of the model, one per device.
        rows: The rows of one call.
        batch_tokens: The tokens of a batch, padding included; `None` is the device's default.
        store: Called with positions and output after every batch, on the workers: for several copies, at the same time.
    """
    queue = RowQueue(rows, batch_tokens, store)
    try:
        for model in models:  # before the first await, so that the batches of earlier calls can take these rows along
            model.queues[queue] = None
        networks = await asyncio.gather(*(model.loaded_network() for model in models))
        for model, network in zip(models, networks, strict=True):
            model.workers.submit(model.run_next_batch, network, queue)
        error = await asyncio.wrap_future(queue.done)
    finally:
        queue.leave()
        for model in models:
            model.queues.pop(queue, None)
    if isinstance(error, Exception) and not isinstance(error, RerankError):
        raise unexpected_error(str(models[0].folder), error) from error
    if error is not None:
        raise error


def load(folder: Path, options: LoadOptions) -> Network:
    """Load a cross-encoder onto its device.

    Raises:
        ConfigError: This machine lacks the device or the dtype, or the folder holds no cross-encoder.
    """
    import torch
    import transformers

    check(folder, remote_code=options.remote_code)
    device = device_of(options.device)
    dtype = dtype_of(options.dtype, device)
    modular = has_modules(folder)
    with quiet():
        try:
            if modular:
                module = modules(folder, device, dtype, options.remote_code)
            else:
                classifier = transformers.AutoModelForSequenceClassification
                module = pretrained(classifier, folder, dtype, remote_code=options.remote_code).to(device)
        except (ConfigError, KeyboardInterrupt):
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{folder} does not fit on {device}: {clause(error)}. Choose another device or dtype."
            ) from error
        except (
            BaseException
        ) as error:  # the libraries raise anything, and code that calls sys.exit must not end the program
            if "trust_remote_code" in str(error):
                raise wants_code(folder) from error
            raise ConfigError(
                f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
            ) from error
    return Network(module, device, dtype, modular=modular)


class TorchCrossEncoder(TorchBackend[CrossEncoderModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a sequence-classification model.

    The raw score is the logit, in float32 whatever the model computes in; for two labels the second minus the first.
    The activation that a checkpoint names is not applied: `relevance_score` comes from the declared scale. The scores
    are those of sentence-transformers.
    """

    kind = CrossEncoderModel
    capabilities = Capabilities(scale="logit")
    on_several_devices = True

    def __init__(self, folder: Path | str, *, trust_remote_code: bool = False, **options: Any) -> None:
        """Take a model's folder, and options as of `ModelBackend`.

        Args:
            folder: The model's folder.
            trust_remote_code: Whether to run code from the folder. The caller must have read that code.
            **options: See `ModelBackend`.

        Raises:
            ConfigError: The folder holds no cross-encoder, or an option is not offered.
        """
        super().__init__(folder, remote_code=trust_remote_code, **options)
        check(self.folder, remote_code=trust_remote_code)
        longest = self.shared_model.limits.longest(options.get("max_tokens"))
        self.capabilities = Capabilities(scale="logit", max_tokens=longest)

    async def score(
        self, models: list[CrossEncoderModel], request: RerankRequest
    ) -> tuple[list[float], list[bool], None]:
        """Score every document together with the query."""
        return await score_pairs(
            models[0],
            models[0].limits,
            request,
            self.capabilities.max_tokens or UNKNOWN_LENGTH,
            lambda rows, store: run_rows(models, rows, self.batch_tokens, store),
        )

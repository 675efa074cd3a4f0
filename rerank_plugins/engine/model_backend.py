"""Backends of local models: over a model in a folder, or over one that is first fetched from a hub.

`ModelBackend` is the base of the backends of all engines: the options that all local models share, and the shared
models that it holds, one per device. `LazyBackend` wraps one, and creates it as soon as the folder exists.
`score_pairs` scores with any cross-encoder.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.alignment import checked
from ..core.devices import devices
from ..core.errors import ConfigError
from ..core.model_id import ModelId
from ..core.numeric import MIN_TOKENS, integer
from ..core.scorer import Backend, Wrapper
from ..core.types import Capabilities, RerankRequest, Scores
from .downloads import Downloads
from .shared_model import LoadOptions, SharedModel
from .weights_digest import digest, reading

if TYPE_CHECKING:
    import numpy as np

    from .archive import Archive
    from .hub import Repository
    from .tokenizer import Encoded, Limits, PairTokenizer

__all__ = ["UNKNOWN_LENGTH", "LazyBackend", "ModelBackend", "check_choice", "equal_rows", "logits", "score_pairs"]

M = TypeVar("M", bound=SharedModel[Any, Any])

UNKNOWN_LENGTH = 512
"""Assumed number of tokens that a model reads, until its folder has been read."""
_downloads = Downloads()


class ModelBackend(Backend, Generic[M]):
    """A backend over the model in a folder. Subclasses say how to load the model, and score."""

    kind: type[M]
    """The class of the shared model."""

    def __init__(
        self,
        folder: Path | str,
        *,
        device: str | Sequence[str] | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
        **load_options: Any,
    ) -> None:
        """Take a model's folder. The model is loaded by the first call, or by `warmup()`.

        Args:
            folder: The model's folder.
            device: The device, or a list of GPUs, which holds a copy of the model on each; see `options_of_copies` of
                the engine.
            max_tokens: The longest input in tokens, at least 16; `None` is what the folder says.
            batch_tokens: Tokens of one batch, at least 1; `None` is the engine's default.
            runtime: What runs the model; see `options_of_copies` of the engine.
            dtype: What the model computes in; see `options_of_copies` of the engine.
            **load_options: Fields of `LoadOptions` that only one engine has.

        Raises:
            ConfigError: The engine does not offer a value.
            MissingExtra: The runtime is not installed.
        """
        copies = self.check_options(
            device=device, max_tokens=max_tokens, batch_tokens=batch_tokens, runtime=runtime, dtype=dtype
        )
        super().__init__(str(folder))
        self.folder = Path(folder).expanduser()
        self.batch_tokens = batch_tokens
        self._copies = [replace(options, **load_options) for options in copies]
        self._models: list[M] = []

    @classmethod
    def check_options(
        cls, *, device: Any, max_tokens: Any, batch_tokens: Any, runtime: str | None, dtype: str | None
    ) -> list[LoadOptions]:
        """Check the options before a model is fetched, and return how to load each copy of the model.

        Raises:
            ConfigError: The engine does not offer a value.
            MissingExtra: The runtime is not installed.
        """
        for name, value, least in (("max_tokens", max_tokens, MIN_TOKENS), ("batch_tokens", batch_tokens, 1)):
            if value is not None:
                integer(value, name, least)
        return cls.options_of_copies(devices(device), runtime, dtype)

    @classmethod
    @abstractmethod
    def options_of_copies(
        cls, names: Sequence[str | None], runtime: str | None, dtype: str | None
    ) -> list[LoadOptions]:
        """Return how to load the copy of the model on each device in `names`; `None` stands for the default.

        Raises:
            ConfigError: The engine does not offer a value.
            MissingExtra: The runtime is not installed.
        """

    @property
    def model_id(self) -> ModelId:
        """The model with its runtime and, once it is known, its dtype."""
        # Uses `_models` and not `shared_models`: reading the name of a closed backend must not take hold of a model
        # again.
        options = self._copies[0]
        dtype = self._models[0].dtype if self._models else options.known_dtype
        return replace(super().model_id, runtime=options.runtime, dtype=dtype)

    @property
    def fingerprint(self) -> str:
        """The name in the spec and a hash of the model's files, because another model may replace them.

        Not the label: its dtype may change once the model is loaded, which would be a second name for the same scores.
        """
        return f"{self.spec_name} {self.shared_model.fingerprint}"

    async def afingerprint(self) -> str:
        """Return `fingerprint`; reads the files on a thread."""
        return await reading.run(lambda: self.fingerprint)

    @property
    def revision(self) -> str:
        """A hash of the weights."""
        return digest(self.shared_model.weight_files)

    @property
    def shared_models(self) -> list[M]:
        """The process's one model of this folder and these options, on each device."""
        models = self._models
        if not models or models[0].pid != os.getpid():
            models = self._models = [self.kind.shared(self.folder, options) for options in self._copies]
        return models

    @property
    def shared_model(self) -> M:
        """The first of `shared_models`. Its tokenizer and its admission queue serve all copies."""
        return self.shared_models[0]

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the (start, end) characters of each token of `text`."""
        return self.shared_model.tokenizer.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        models = self.shared_models
        await asyncio.gather(
            models[0].workers.run(lambda: models[0].preprocessor), *(model.loaded_network() for model in models)
        )

    async def aclose(self) -> None:
        """Drop the model. It leaves memory when no other reranker uses it."""
        self._models = []

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document."""
        models = self.shared_models
        async with models[0].admission.acquire():
            values, truncated, reason = await self.score(models, request)
        label = self.label
        return Scores(
            values=checked(values, request, label),
            model=label,
            capabilities=self.capabilities,
            truncated=tuple(truncated),
            reason=reason,
        )

    @abstractmethod
    async def score(
        self, models: list[M], request: RerankRequest
    ) -> tuple[Sequence[float], Sequence[bool], str | None]:
        """Return the raw score of each document, whether it was truncated, and a reason if there is one to report."""


class _NotFetched(Backend):
    """Placeholder for the engine's backend until the model's folder exists."""

    async def ascore(self, request: RerankRequest) -> Scores:
        """Never called: `LazyBackend` fetches the model first."""
        raise AssertionError("the model is fetched first")


class LazyBackend(Wrapper, Backend):
    """A wrapper around an engine's backend, which it creates when the model's folder exists.

    Creating a `LazyBackend` fetches nothing. If the folder exists already, the engine's backend is created at once;
    otherwise by the first call or warm-up, which fetches the model on a thread. For everything outside this class is
    the spec's backend: `walk` does not go inside.
    """

    inner: Backend

    def __init__(
        self,
        model: str,
        source: Path | Repository | Archive,
        make: Callable[[Path], Backend],
        declared: Capabilities,
    ) -> None:
        """Create the engine's backend if the folder exists.

        Args:
            model: The model's name in specs.
            source: The folder, or where to fetch it from.
            make: Creates the engine's backend from the folder.
            declared: The capabilities that are known without the folder.

        Raises:
            ConfigError: Whatever `make` raises for a folder that exists.
        """
        self.model = model
        self._make, self._source = make, source
        placeholder = _NotFetched(model)
        placeholder.capabilities = declared
        self._wrap(placeholder)
        folder = source if isinstance(source, Path) else source.cached()
        if folder is not None:
            self._wrap(make(folder))

    def _wrap(self, backend: Backend) -> None:
        backend.name, backend.model = self.name or type(self).__name__, self.model
        Wrapper.__init__(self, backend)
        self.children = ()

    @property
    def fetched(self) -> bool:
        """Whether the model's folder exists, so that `inner` is the engine's backend."""
        return not isinstance(self.inner, _NotFetched)

    @property
    def label(self) -> str:
        """The label of `inner`."""
        return self.inner.label

    @property
    def model_id(self) -> ModelId:
        """The model id of `inner`."""
        return self.inner.model_id

    @property
    def fingerprint(self) -> str:
        """The fingerprint of `inner`."""
        return self.inner.fingerprint

    async def afingerprint(self) -> str:
        """Return the fingerprint of the engine's backend; fetches the model first."""
        return await (await self._ready()).afingerprint()

    @property
    def revision(self) -> str | None:
        """The revision of `inner`."""
        return self.inner.revision

    def fetch(self) -> Path:
        """Fetch the model if it is not on this machine, and return its folder. Blocks."""
        return self._source if isinstance(self._source, Path) else self._source.fetch()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document; fetches the model first."""
        scores = await (await self._ready()).ascore(request)
        return scores if scores.capabilities is self.capabilities else replace(scores, capabilities=self.capabilities)

    async def awarmup(self) -> None:
        """Fetch and load the model."""
        await (await self._ready()).awarmup()

    async def aclose(self) -> None:
        """Drop the model."""
        await self.inner.aclose()

    async def _ready(self) -> Backend:
        if not self.fetched:
            folder = await _downloads.run(id(self), self.fetch)
            if not self.fetched:  # another call may have created it meanwhile
                self._wrap(self._make(folder))
        return self.inner


RunRows = Callable[[Sequence["Encoded"], Callable[[list[int], "np.ndarray"], None]], Awaitable[None]]
"""Runs rows through a model; calls its second argument with positions and output after every batch."""


async def score_pairs(
    model: SharedModel[Any, PairTokenizer], limits: Limits, request: RerankRequest, max_tokens: int, run_rows: RunRows
) -> tuple[list[float], list[bool], None]:
    """Score every document with a cross-encoder: the query and a document form one row, and its logit is the score.

    Args:
        model: The model whose tokenizer is used.
        limits: The model's limits.
        request: The query and the documents.
        max_tokens: The longest row, in tokens.
        run_rows: Runs the rows through the network.

    Raises:
        ConfigError: The tokenizer or the output does not belong to a cross-encoder.
    """
    tokenizer = await model.workers.run(lambda: model.tokenizer)
    if not tokenizer.joins_pairs:
        raise ConfigError(
            f"The tokenizer in {model.folder} has no template for a pair of texts, so this is not a cross-encoder. "
            "Name a model that was trained to rerank."
        )
    query = limits.prompt + request.query

    def encode() -> tuple[list[Encoded], list[list[int]]]:
        rows = tokenizer.pairs(query, request.documents, max_tokens)
        return rows, equal_rows(rows)

    rows, groups = await model.workers.run(encode)
    values: list[float] = [0.0] * len(rows)

    def store(positions: list[int], output: np.ndarray) -> None:
        for position, value in zip(positions, logits(output, model.folder), strict=True):
            for index in groups[position]:
                values[index] = value

    await run_rows([rows[group[0]] for group in groups], store)
    return values, [row.truncated for row in rows], None


def equal_rows(rows: Sequence[Encoded]) -> list[list[int]]:
    """Return groups of indexes of rows with the same tokens, in the order of the first row of each.

    Texts that differ only in what the tokenizer ignores (case, spaces), or behind the cut, have the same tokens. They
    are scored once, and tie.
    """
    groups: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(array("q", row.ids).tobytes(), []).append(index)
    return list(groups.values())


def logits(output: np.ndarray, folder: Path) -> list[float]:
    """Return one logit per row: the only one, or for two labels the second minus the first.

    The sigmoid of that difference equals the softmax of the second label.

    Args:
        output: (rows,), (rows, 1) or (rows, 2).
        folder: The model's folder, for the error.

    Raises:
        ConfigError: The output has another shape.
    """
    if output.dtype.itemsize < 4:
        output = output.astype("float32")  # a difference of float16 numbers loses digits, or overflows
    if output.ndim == 1:
        return [float(value) for value in output]
    if output.ndim == 2 and output.shape[1] == 1:
        return [float(value) for value in output[:, 0]]
    if output.ndim == 2 and output.shape[1] == 2:
        return [float(value) for value in output[:, 1] - output[:, 0]]
    raise ConfigError(
        f"The output of {folder} has the shape {output.shape} and not one score per row, so it is no cross-encoder "
        "(perhaps an embedding model). Name a model that was trained to rerank."
    )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`; `None` always passes.

    Raises:
        ConfigError: The value is not among `choices`.
    """
    if value is not None and value not in choices:
        raise ConfigError(f"{name} {value!r} is not offered here; choose one of: {', '.join(choices)}.")

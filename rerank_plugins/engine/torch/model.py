"""A cross-encoder in safetensors form, on CPU or GPU: loaded to a network that gives logits, and run in batches that calls share."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError, RerankError, clause
from ...core.scorer import failed
from ..checkpoint import check, modular, parts, wants_code
from ..files import json_of
from ..scheduling import Call, Row, answer, batch
from ..shared_model import LoadOptions
from ..tokenizer import Encoded, Limits, PairTokenizer, padded
from .loading import OnDevice, TorchModel, device_of, dtype_of, pretrained, quiet

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["CrossEncoderModel", "Network", "load", "map_rows", "modules"]


class Network(OnDevice):
    """A loaded model: ids, mask and types in, logits out."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype, *, modular: bool) -> None:
        """Keep the model, which is in evaluation mode and on its device."""
        super().__init__(device, dtype)
        self._module = module
        self._modular = modular
        inner = module.transformers_model if modular else module
        takes = inspect.signature(inner.forward).parameters
        # A tokenizer may type its tokens for a model that has one type only (XLM-R): ones would be out of range.
        self._types = "token_type_ids" in takes and (getattr(inner.config, "type_vocab_size", 0) or 0) > 1
        # A decoder's classifier reads a row's last token that is no padding, and refuses batches where config.json names
        # none (or -1): see `_padded_apart`.
        self._config = inner.config.get_text_config()
        pad, self._words = getattr(self._config, "pad_token_id", None), getattr(self._config, "vocab_size", 0) or 0
        self._padless = not modular and not (isinstance(pad, int) and 0 <= pad < self._words)

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return logits, (rows, labels) or (rows,), float32, of (rows, tokens) each."""
        import numpy as np
        import torch

        if self._padless:
            apart = self._padded_apart(ids, mask)
            if apart is None:
                sizes = mask.sum(axis=1)
                alone = ((ids[[row], :size], mask[[row], :size], types[[row], :size]) for row, size in enumerate(sizes))
                return np.concatenate([self.run(*each) for each in alone])
            ids = apart
        given = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if self._types else {})
        with torch.inference_mode():
            feed = {name: torch.from_numpy(value).to(self.device) for name, value in given.items()}
            output = self._module(feed)["scores"] if self._modular else self._module(**feed).logits
            found: np.ndarray = output.float().cpu().numpy()
            return found

    def _padded_apart(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """Pad with a token that no row has, and tell the model, so that it finds the last token of each; `None`: there is none.

        Only the one worker of this network calls it, so that nobody else reads the model's config meanwhile.
        """
        import numpy as np

        self._config.pad_token_id = None
        if len(ids) == 1 and mask.all():
            return ids
        used = np.unique(ids[mask > 0])
        free = np.setdiff1d(np.arange(min(len(used) + 1, self._words)), used)
        if not free.size:
            return None
        self._config.pad_token_id = int(free[0])
        return np.where(mask > 0, ids, free[0])


class CrossEncoderModel(TorchModel[Network, PairTokenizer]):
    """One cross-encoder in memory."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, options)
        self.limits = Limits.read(folder)
        self.calls: dict[Call, None] = {}
        """Those that are in it now, in the order in which they came. Added and taken out by whichever thread; one step each, so without a lock."""

    @property
    def tokenizer(self) -> PairTokenizer:
        """Its tokenizer, read when first asked for."""
        return self.reader

    def read(self) -> PairTokenizer:
        """Read the tokenizer."""
        return PairTokenizer(self.folder / "tokenizer.json")

    def load(self) -> Network:
        """Read the weights."""
        return load(self.folder, self.options)

    def run(self, network: Network, call: Call) -> None:
        """Run the next batch of a call on the worker, and queue for the one after; on a GPU, rows of other calls fill it up.

        Not on a CPU: it gains nothing, and what stands beside a document would be chance.
        """
        try:
            others = list(self.calls) if network.on_gpu else []
            self._run(network, batch(call, others, self.batch_limit(network, call.batch_tokens)))
            if call.waits:
                self.workers.submit(self.run, network, call)
            for gone in [other for other in list(self.calls) if other.gone]:
                self.calls.pop(gone, None)  # which their own coroutine will not do any more
        except BaseException as error:
            call.fail(error)

    def _run(self, network: Network, rows: list[Row]) -> None:
        rows = [(call, position) for call, position in rows if not call.over]
        if not rows:
            return
        encoded = [call.rows[position] for call, position in rows]
        size, half = max(len(row.ids) for row in encoded) * len(rows), len(rows) // 2
        try:
            output = self.attempt(
                network, lambda: network.run(*padded(encoded, self.limits.pad)), size=size, halves=half > 0
            )
            if output is not None:
                answer(rows, output)
                return
        except BaseException as error:
            for call in {call for call, _ in rows}:
                call.fail(error)
            return
        self._run(network, rows[:half])
        self._run(network, rows[half:])


async def map_rows(
    models: Sequence[CrossEncoderModel],
    rows: Sequence[Encoded],
    batch_tokens: int | None,
    keep: Callable[[list[int], np.ndarray], None],
) -> None:
    """Run every row through a model that has one copy or several; call `keep(positions, output)` after every batch.

    A batch's tokens count its padding. `keep` runs on the workers: of several copies, at the same time.
    """
    call = Call(rows, batch_tokens, keep)
    try:
        for model in models:  # before anything is awaited: whose turn is before ours may take rows along
            model.calls[call] = None
        networks = await asyncio.gather(*(model.ready() for model in models))
        for model, network in zip(models, networks, strict=True):
            model.workers.submit(model.run, network, call)
        error = await asyncio.wrap_future(call.done)
    finally:
        call.leave()
        for model in models:
            model.calls.pop(call, None)
    if isinstance(error, Exception) and not isinstance(error, RerankError):
        raise failed(str(models[0].folder), error) from error
    if error is not None:
        raise error


def load(folder: Path, options: LoadOptions) -> Network:
    """Load a model onto its device.

    Raises:
        ConfigError: A device or dtype that this machine has not, or a checkpoint that is none of a cross-encoder.
    """
    import torch

    check(folder, remote_code=options.remote_code)
    device = device_of(options.device)
    dtype = dtype_of(options.dtype, device)
    several = modular(folder)
    with quiet():
        try:
            module = (modules if several else _classifier)(folder, device, dtype, options.remote_code)
        except (ConfigError, KeyboardInterrupt):
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{folder} does not fit on {device}: {clause(error)}. Choose another device or dtype."
            ) from error
        except BaseException as error:  # the libraries raise whatever they like; code that exits ends no host
            if "trust_remote_code" in str(error):
                raise wants_code(folder) from error
            raise ConfigError(
                f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
            ) from error
    return Network(module, device, dtype, modular=several)


def _classifier(folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    return pretrained(AutoModelForSequenceClassification, folder, dtype, remote_code=remote_code).to(device)


def modules(
    folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool = False, *, attention: str | None = None
) -> Any:
    """Load a transformer with sentence-transformers' modules after it.

    Their classes come from a table here, and the transformer from `pretrained`: sentence-transformers' own loader imports
    and calls what a folder's files name (activations, methods of the model), and loads a tokenizer that nobody uses.

    Raises:
        ConfigError: Its files do not hold all of it.
    """
    import sentence_transformers  # noqa: F401 (the package that an error names where it is not installed)
    import torch
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize, Pooling
    from transformers import AutoModel, AutoModelForTextEncoding

    encoder_of_two = bool(json_of(folder / "config.json").get("is_encoder_decoder"))
    kind = AutoModelForTextEncoding if encoder_of_two else AutoModel
    # A pooler is asked by no module: they read the tokens.
    backbone = pretrained(kind, folder, dtype, remote_code=remote_code, attention=attention, unused="pooler.")
    classes: dict[str, Any] = {each.__name__: each for each in (Dense, Dropout, LayerNorm, Normalize, Pooling)}
    after = []
    for part in parts(folder):
        if part.kind == "Dense":
            _refuse_activation(folder / part.path / "config.json")
        after.append(
            classes[part.kind].load(str(folder), subfolder=part.path, local_files_only=True, trust_remote_code=False)
        )

    class Modular(torch.nn.Module):
        """Features in, features with the modules' outputs out, as sentence-transformers passes them on."""

        def __init__(self) -> None:
            super().__init__()
            self.transformers_model = backbone
            self.after = torch.nn.ModuleList(after).to(dtype)  # the backbone has it, but for buffers that stay exact

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            states = self.transformers_model(**features, return_dict=True).last_hidden_state
            features = {**features, "token_embeddings": states}
            for module in self.after:
                features = module(features)
            return features

    return Modular().eval().to(device)


def _refuse_activation(file: Path) -> None:
    """Refuse what the table of names in `checkpoint` lets pass and torch does not have as an activation."""
    import torch

    named = json_of(file).get("activation_function")
    activation = None if named is None else getattr(torch.nn, str(named).rpartition(".")[2], None)
    inside = getattr(activation, "__module__", "")
    if named is not None and inside != "torch.nn.modules.activation" and activation is not torch.nn.Identity:
        raise ConfigError(f"{file} names {named!r} as its activation, which is not one of torch.nn: it is not run.")

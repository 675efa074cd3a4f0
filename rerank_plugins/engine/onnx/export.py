"""A sequence-classification checkpoint made into a folder for the `onnx` backend, and held against torch."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError, MissingExtra, clause
from ...core.loop import run_sync
from ..checkpoint import has_weights, modular, no_chat, refuse_code
from ..files import MOST_SETTINGS, only_regular, read_text
from ..hub import SMALL_FILES
from ..tokenizer import Encoded, PairTokenizer
from ..torch.loading import pretrained, quiet
from ..torch.model import modules
from .cls_only import first_token_only
from .model import OnnxModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

__all__ = ["Agreement", "export"]

FARTHEST = 1e-3
"""The largest difference from torch, relative to scores above 1, with which a folder is handed over."""

_QUERY = "How do the tides work, and who explained them first?"
_TEXTS = (
    "Tides.",
    "The moon's gravity raises the ocean twice a day.",
    "Newton explained the tides in 1687: the pull of the moon and the sun is stronger on the near side of the Earth.",
    "Приливы и отливы вызваны притяжением Луны и Солнца.",
    "潮汐は月と太陽の引力によって起こる。",
    "يحدث المد والجزر بسبب جاذبية القمر",
    "Café 🌊 naïve — [SEP] </s> ½ ﬁn",
    "Bananas are yellow and grow in bunches.",
    "The spring turns the hands of the clock. " * 6,
    "Water rises and falls along the coast, by the shape of the sea floor and of the bay. " * 14,
    "The pull of the sun is weaker than that of the moon, although the sun is much heavier. " * 80,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close the exported file is to torch: on `pairs` pairs, the largest difference and Kendall's tau."""

    pairs: int
    largest: float
    tau: float
    first_token_only: bool


def export(checkpoint: Path, folder: Path) -> Agreement:
    """Write `model.onnx`, `tokenizer.json`, `config.json` and `tokenizer_config.json` to `folder`; check them against torch.

    Float32, eager attention, any batch and length. The last layer is computed for the first token alone where the
    head reads no other (`first_token_only`).

    Args:
        checkpoint: A folder with a sequence-classification model of one or two labels, in safetensors; or with Ettin's
            layout, a transformer and sentence-transformers' modules.
        folder: Made if it is not there; may be `checkpoint` itself. A `model.onnx` in it is never overwritten.

    Raises:
        ConfigError: The checkpoint needs code of its own, has no such head, lacks a file, or the result is not what
            torch says.
        MissingExtra: torch, transformers or onnx is not installed.
    """
    config = _config(checkpoint)
    if (folder / "model.onnx").exists():
        raise ConfigError(f"{folder} holds a model.onnx already: name another folder, or take that file away first.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder.")
    try:
        import onnx  # noqa: F401 (torch's exporter needs it)
        import torch  # noqa: F401
        from transformers import AutoTokenizer, PreTrainedModel

        with quiet():
            source = _of_modules(checkpoint) if modular(checkpoint) else _of_one_file(checkpoint)
    except ImportError as error:
        # Ettin's modules are sentence-transformers' own, which no other checkpoint needs.
        extra = "export,sentence-transformers" if error.name == "sentence_transformers" else "export"
        raise MissingExtra("rerank-plugins export", extra=extra, package=str(error.name)) from error

    folder.mkdir(parents=True, exist_ok=True)
    if not (checkpoint / "tokenizer.json").is_file():
        # With no vocabulary at all transformers makes a tokenizer of nothing but special tokens, and says nothing.
        if not any(checkpoint.glob("vocab.*")) and not any(checkpoint.glob("*.model")):
            raise ConfigError(
                f"{checkpoint} holds no tokenizer.json, nor a vocabulary to make one from: fetch it again."
            )
        AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False).save_pretrained(
            folder
        )
    for name in SMALL_FILES:
        if (checkpoint / name).is_file() and folder.resolve() != checkpoint.resolve():
            shutil.copyfile(checkpoint / name, folder / name)

    inputs = ["input_ids", "attention_mask"]
    # RoBERTa's kin have a table of one row for the types, and fail on any type but 0: they get none.
    if config["model_type"] != "modernbert" and (source.config.to_dict().get("type_vocab_size") or 0) > 1:
        inputs.append("token_type_ids")
    tokenizer = PairTokenizer(folder / "tokenizer.json")
    if not tokenizer.joins_pairs:
        raise ConfigError(f"The tokenizer in {checkpoint} joins no pair of texts: this is no cross-encoder's.")
    longest = min(512, getattr(source.config, "max_position_embeddings", 516) - 4)
    rows = tokenizer.pairs(_QUERY, _TEXTS, longest)
    expected = _torch_scores(source, rows, inputs)
    shortened = isinstance(source.module, PreTrainedModel) and first_token_only(source.module)
    _write(source, inputs, folder / "model.onnx")
    try:
        found = _onnx_scores(folder, rows)
        largest = max(abs(one - other) for one, other in zip(expected, found, strict=True))
        if not largest <= FARTHEST * max(1.0, *map(abs, expected)):
            raise ConfigError(f"The exported model differs from torch by {largest:.2g}: use {checkpoint} with torch.")
    except BaseException:
        for name in ("model.onnx", "model.onnx_data"):
            (folder / name).unlink(missing_ok=True)
        raise
    return Agreement(len(rows), largest, _tau(expected, found), shortened)


def _config(checkpoint: Path) -> dict[str, Any]:
    """Read `config.json`, and refuse what cannot be exported faithfully before anything heavy is loaded."""
    try:
        config: dict[str, Any] = json.loads(read_text(checkpoint / "config.json", MOST_SETTINGS))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{checkpoint} has no readable config.json ({clause(error)}): name a checkpoint's folder."
        ) from error
    if config.get("auto_map") or not config.get("model_type"):
        raise ConfigError(f"{checkpoint} needs code of its own (auto_map), which is never run: export another model.")
    only_regular(checkpoint)
    refuse_code(checkpoint)
    has_weights(checkpoint)
    no_chat(checkpoint)
    if modular(checkpoint):
        return config
    kinds = config.get("architectures") or ["nothing"]
    if not kinds[0].endswith("ForSequenceClassification"):
        raise ConfigError(
            f"{checkpoint} is a {kinds[0]} without a classification head: export a cross-encoder "
            "(…ForSequenceClassification)."
        )
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if labels not in (1, 2):
        raise ConfigError(f"{checkpoint} has {labels} labels, and a reranker has one (or two): export another model.")
    return config


@dataclass(frozen=True, slots=True)
class _Source:
    """What is exported: a network, its transformer's config, and its logits of named inputs."""

    module: torch.nn.Module
    config: PreTrainedConfig
    logits: Callable[[dict[str, torch.Tensor]], torch.Tensor]


def _of_one_file(checkpoint: Path) -> _Source:
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model = pretrained(AutoModelForSequenceClassification, checkpoint, torch.float32, attention="eager")
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever transformers raises for a broken folder
        raise ConfigError(
            f"{checkpoint} cannot be loaded by transformers ({clause(error)}): fetch it again."
        ) from error
    return _Source(model, model.config, lambda given: model(**given).logits)


def _of_modules(checkpoint: Path) -> _Source:
    import torch

    try:
        found = modules(checkpoint, torch.device("cpu"), torch.float32, attention="eager")
    except (ConfigError, ImportError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever sentence-transformers raises for a broken folder
        raise ConfigError(
            f"{checkpoint} cannot be loaded by sentence-transformers ({clause(error)}): fetch it again."
        ) from error
    return _Source(found, found.transformers_model.config, lambda given: found(given)["scores"])


def _torch_scores(source: _Source, rows: Sequence[Encoded], inputs: list[str]) -> list[float]:
    """Return torch's score of every row, each alone and without padding."""
    import torch

    scores = []
    for row in rows:
        feed = {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "token_type_ids": row.types}
        with torch.inference_mode():
            (logits,) = source.logits({name: torch.tensor([feed[name]]) for name in inputs}).double().tolist()
        scores.append(logits[0] if len(logits) == 1 else logits[1] - logits[0])
    return scores


def _onnx_scores(folder: Path, rows: Sequence[Encoded]) -> list[float]:
    """Return the file's score of every row, as the engine runs it (in padded batches)."""
    model = OnnxModel.shared(folder)
    scores: list[float] = [0.0] * len(rows)

    def keep(positions: list[int], output: Any) -> None:
        for position, row in zip(positions, output.tolist(), strict=True):
            scores[position] = row[0] if len(row) == 1 else row[1] - row[0]

    run_sync(model.map(rows, 512, keep))
    return scores


def _write(source: _Source, inputs: list[str], file: Path) -> None:
    import torch
    import transformers

    class Logits(torch.nn.Module):
        """Inputs by place, logits out: what a tracer can follow."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.module

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return source.logits(dict(zip(inputs, values, strict=True)))

    # Two rows, one of them padded: a tracer leaves out mask work that the example does not need.
    ids = torch.full((2, 9), 5)
    mask = torch.ones((2, 9), dtype=torch.long)
    mask[1, 6:] = 0
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros((2, 9), dtype=torch.long)}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=file.parent) as beside:
        warnings.simplefilter("ignore")  # of every branch in the model's code, and of the exporter's age
        made = Path(beside) / file.name
        try:
            torch.onnx.export(
                Logits().eval(),
                tuple(values[name] for name in inputs),
                str(made),
                input_names=inputs,
                output_names=["logits"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs} | {"logits": {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
        except Exception as error:  # whatever the model's code and the exporter raise
            raise ConfigError(
                f"torch {torch.__version__} with transformers {transformers.__version__} cannot trace this model "
                f"({type(error).__name__}: {error}): update them with pip install -U 'rerank-plugins[export]'."
            ) from error
        gather(made, file)


def gather(made: Path, file: Path) -> None:
    """Move an ONNX file to `file`; weights that lie beside it, each in a file of its own, become one `model.onnx_data`.

    Above two gigabytes (a limit of protobuf's, https://onnx.ai/onnx/repo-docs/ExternalData.html, November 2026) torch
    writes a file a tensor. One name is what hubs keep, and what `fetch` looks for.
    """
    import onnx

    if len(list(made.parent.iterdir())) == 1:
        made.replace(file)
        return
    outside = file.name + "_data"
    file.with_name(outside).unlink(missing_ok=True)  # else it is added to
    onnx.save_model(onnx.load(str(made)), str(file), save_as_external_data=True, location=outside)
    shutil.copymode(file, file.with_name(outside))  # onnx writes it for its owner alone


def _tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-a: pairs in the same order minus pairs in the other, over all pairs."""
    pairs = list(combinations(range(len(one)), 2))
    signs = [(one[a] - one[b]) * (other[a] - other[b]) for a, b in pairs]
    return sum((sign > 0) - (sign < 0) for sign in signs) / len(pairs)

"""Exports a sequence-classification checkpoint for the `onnx` backend, and compares the result with torch."""

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

from ...core._runtime.background_loop import run_sync
from ...core.errors import ConfigError, MissingExtra, clause
from ..checkpoint import architecture, has_modules, refuse_chat_template, refuse_code, require_weights
from ..files import MAX_SETTINGS_BYTES, read_text, refuse_special_files, setting
from ..hub_files import CONFIG_FILES
from ..tokenizer import Encoded, PairTokenizer
from ..torch.base import modules, pretrained, quiet
from .cls_only import skip_unread_tokens
from .cross_encoder import OnnxModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

__all__ = ["ScoreAgreement", "export"]

MAX_DIFFERENCE = 1e-3
"""The largest accepted difference from torch's scores: absolute, or relative to the largest score if that is above
1."""

_TEST_QUERY = "How do the tides work, and who explained them first?"
_TEST_DOCUMENTS = (
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
class ScoreAgreement:
    """How well the scores of the exported file agree with torch's, on fixed pairs of a query and a document."""

    pairs: int
    """The number of pairs."""
    max_difference: float
    """The largest absolute difference between torch's score of a pair and the exported file's."""
    kendall_tau: float
    """Kendall's tau of the two orders; 1 if they are the same."""
    first_token_only: bool
    """Whether the last layer was reduced to the first token (CLS), because the head reads no other."""


def export(checkpoint: Path, folder: Path) -> ScoreAgreement:
    """Export a checkpoint to `model.onnx` with its tokenizer and settings, and compare the scores with torch.

    The ONNX model computes in float32 with eager attention, for any batch size and length. If the classification head
    reads only the first token, the last layer is computed only for that token.

    Args:
        checkpoint: A folder with a sequence-classification model of one or two labels, in safetensors; or with Ettin's
            layout, a transformer and modules of sentence-transformers.
        folder: The folder to write, created if needed; may be `checkpoint` itself. A `model.onnx` in it is never
            overwritten.

    Raises:
        ConfigError: The checkpoint needs code of its own, has no classification head or lacks a file; or the folder
            cannot be written; or the exported model's scores differ from torch's.
        MissingExtra: torch, transformers or onnx is not installed.
    """
    config = _read_config(checkpoint)
    if (folder / "model.onnx").exists():
        raise ConfigError(f"{folder} holds a model.onnx already: name another folder, or delete that file first.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder.")
    try:
        import onnx  # noqa: F401 (torch's exporter needs it)
        import torch  # noqa: F401
        import transformers  # noqa: F401

        with quiet():
            source = _load_modules(checkpoint) if has_modules(checkpoint) else _load_classifier(checkpoint)
    except ImportError as error:
        # Only Ettin's layout needs sentence-transformers.
        extra = "export,sentence-transformers" if error.name == "sentence_transformers" else "export"
        raise MissingExtra("rerank-plugins export", extra=extra, package=str(error.name)) from error

    try:
        return _write(checkpoint, folder, config["model_type"], source)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({clause(error)}): check its permissions and the free space of the disk."
        ) from error


def _write(checkpoint: Path, folder: Path, model_type: str, source: _Source) -> ScoreAgreement:
    from transformers import AutoTokenizer, PreTrainedModel

    folder.mkdir(parents=True, exist_ok=True)
    if not (checkpoint / "tokenizer.json").is_file():
        # Without a vocabulary transformers silently creates a tokenizer that knows only the special tokens.
        if not any(checkpoint.glob("vocab.*")) and not any(checkpoint.glob("*.model")):
            raise ConfigError(
                f"{checkpoint} holds neither a tokenizer.json nor a vocabulary to make one from: fetch it again."
            )
        try:
            slow = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers raises anything for a broken folder
            raise ConfigError(
                f"The tokenizer in {checkpoint} cannot be read ({clause(error)}): fetch it again."
            ) from error
        slow.save_pretrained(folder)
    for name in CONFIG_FILES:
        if (checkpoint / name).is_file() and folder.resolve() != checkpoint.resolve():
            shutil.copyfile(checkpoint / name, folder / name)

    inputs = ["input_ids", "attention_mask"]
    # RoBERTa and its descendants have only one token type and fail on any type but 0, so they get no types.
    if model_type != "modernbert" and (source.config.to_dict().get("type_vocab_size") or 0) > 1:
        inputs.append("token_type_ids")
    tokenizer = PairTokenizer(folder / "tokenizer.json")
    if not tokenizer.joins_pairs:
        raise ConfigError(
            f"The tokenizer in {checkpoint} has no template for a pair of texts, so this is not a cross-encoder. Name "
            f"a model that was trained to rerank."
        )
    # RoBERTa's table of positions has more rows than a text may have tokens (514 for 512), so a margin is left.
    max_tokens = min(512, getattr(source.config, "max_position_embeddings", 516) - 4)
    rows = tokenizer.pairs(_TEST_QUERY, _TEST_DOCUMENTS, max_tokens)
    expected = _torch_scores(source, rows, inputs)
    reads_first_token_only = isinstance(source.module, PreTrainedModel) and skip_unread_tokens(source.module)
    _export_onnx(source, inputs, folder / "model.onnx")
    try:
        actual = _onnx_scores(folder, rows)
        max_difference = max(abs(left - right) for left, right in zip(expected, actual, strict=True))
        if not max_difference <= MAX_DIFFERENCE * max(1.0, *map(abs, expected)):
            raise ConfigError(
                f"The exported model differs from torch by {max_difference:.2g}: use {checkpoint} with torch."
            )
    except BaseException:
        for name in ("model.onnx", "model.onnx_data"):
            (folder / name).unlink(missing_ok=True)
        raise
    return ScoreAgreement(len(rows), max_difference, _kendall_tau(expected, actual), reads_first_token_only)


def _read_config(checkpoint: Path) -> dict[str, Any]:
    """Return `config.json`. Refuse a checkpoint that cannot be exported, before its weights are loaded."""
    try:
        config: Any = json.loads(read_text(checkpoint / "config.json", MAX_SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{checkpoint} has no readable config.json ({clause(error)}): name a checkpoint's folder."
        ) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{checkpoint} has no readable config.json (it holds no object): name a checkpoint's folder.")
    if config.get("auto_map") or not config.get("model_type"):
        raise ConfigError(f"{checkpoint} needs code of its own (auto_map), which is never run: export another model.")
    refuse_special_files(checkpoint)
    refuse_code(checkpoint)
    require_weights(checkpoint)
    refuse_chat_template(checkpoint)
    if has_modules(checkpoint):
        return config
    named = architecture(checkpoint)
    if not named.endswith("ForSequenceClassification"):
        raise ConfigError(
            f"{checkpoint} is a {named or 'nothing'} without a classification head: export a cross-encoder "
            "(…ForSequenceClassification)."
        )
    labels = len(setting(checkpoint, config, "id2label", dict, "object") or {}) or config.get("num_labels", 2)
    if labels not in (1, 2):
        raise ConfigError(f"{checkpoint} has {labels} labels, and a reranker has one (or two): export another model.")
    return config


@dataclass(frozen=True, slots=True)
class _Source:
    """The model to export: the module, its transformer's config, and the function that computes logits from inputs."""

    module: torch.nn.Module
    config: PreTrainedConfig
    logits: Callable[[dict[str, torch.Tensor]], torch.Tensor]


def _load_classifier(checkpoint: Path) -> _Source:
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model = pretrained(AutoModelForSequenceClassification, checkpoint, torch.float32, attention="eager")
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # transformers raises anything for a broken folder
        raise ConfigError(
            f"{checkpoint} cannot be loaded by transformers ({clause(error)}): fetch it again."
        ) from error
    return _Source(model, model.config, lambda feed: model(**feed).logits)


def _load_modules(checkpoint: Path) -> _Source:
    import torch

    try:
        module = modules(checkpoint, torch.device("cpu"), torch.float32, attention="eager")
    except (ConfigError, ImportError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sentence-transformers raises anything for a broken folder
        raise ConfigError(
            f"{checkpoint} cannot be loaded by sentence-transformers ({clause(error)}): fetch it again."
        ) from error
    return _Source(module, module.transformers_model.config, lambda feed: module(feed)["scores"])


def _torch_scores(source: _Source, rows: Sequence[Encoded], inputs: list[str]) -> list[float]:
    """Return torch's score of every row. Rows run one at a time, so padding cannot affect the reference."""
    import torch

    scores = []
    for row in rows:
        feed = {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "token_type_ids": row.types}
        with torch.inference_mode():
            (logits,) = source.logits({name: torch.tensor([feed[name]]) for name in inputs}).double().tolist()
        scores.append(logits[0] if len(logits) == 1 else logits[1] - logits[0])
    return scores


def _onnx_scores(folder: Path, rows: Sequence[Encoded]) -> list[float]:
    """Return the ONNX model's score of every row. The engine runs the rows in padded batches, as it does for users."""
    model = OnnxModel.shared(folder)
    scores: list[float] = [0.0] * len(rows)

    def store(positions: list[int], output: Any) -> None:
        for position, row in zip(positions, output.tolist(), strict=True):
            scores[position] = row[0] if len(row) == 1 else row[1] - row[0]

    run_sync(model.run_rows(rows, 512, store))
    return scores


def _export_onnx(source: _Source, inputs: list[str], file: Path) -> None:
    import torch
    import transformers

    class Logits(torch.nn.Module):
        """Takes inputs by position and returns only the logits, as the tracer of torch.onnx.export needs it."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.module

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return source.logits(dict(zip(inputs, values, strict=True)))

    # The example has two rows, one of them padded, because the tracer drops operations on a mask of ones.
    ids = torch.full((2, 9), 5)
    mask = torch.ones((2, 9), dtype=torch.long)
    mask[1, 6:] = 0
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros((2, 9), dtype=torch.long)}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=file.parent) as temporary_folder:
        warnings.simplefilter("ignore")  # the tracer warns about every branch in the model, and that it is deprecated
        exported = Path(temporary_folder) / file.name
        try:
            torch.onnx.export(
                Logits().eval(),
                tuple(values[name] for name in inputs),
                str(exported),
                input_names=inputs,
                output_names=["logits"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs} | {"logits": {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
        except OSError:  # such as a full disk
            raise
        except Exception as error:  # the model's code and the exporter may raise anything
            raise ConfigError(
                f"torch {torch.__version__} with transformers {transformers.__version__} cannot trace this model "
                f"({type(error).__name__}: {error}): update them with pip install -U 'rerank-plugins[export]'."
            ) from error
        merge_weights(exported, file)


def merge_weights(exported: Path, file: Path) -> None:
    """Move an ONNX file to `file`, and merge its files of external weights into one, `model.onnx_data`.

    For models above two gigabytes (a limit of protobuf, https://onnx.ai/onnx/repo-docs/ExternalData.html, November
    2026) torch writes one file per tensor. Hubs hold one file, and `fetch` expects one.
    """
    import onnx

    if len(list(exported.parent.iterdir())) == 1:
        exported.replace(file)
        return
    data = file.name + "_data"
    file.with_name(data).unlink(missing_ok=True)  # otherwise onnx appends to it
    onnx.save_model(onnx.load(str(exported)), str(file), save_as_external_data=True, location=data)
    shutil.copymode(file, file.with_name(data))  # onnx creates it with mode 600


def _kendall_tau(left: Sequence[float], right: Sequence[float]) -> float:
    """Return Kendall's tau-a: concordant pairs minus discordant pairs, divided by all pairs."""
    pairs = list(combinations(range(len(left)), 2))
    products = [(left[a] - left[b]) * (right[a] - right[b]) for a, b in pairs]
    return sum((product > 0) - (product < 0) for product in products) / len(pairs)

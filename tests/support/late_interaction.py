"""Makes tiny late-interaction models with random weights, in each of the layouts that are in use."""

from __future__ import annotations

import json
import string
import warnings
from pathlib import Path
from typing import Any

from support.models import wordpiece

LAYOUTS = ("sentence-transformers", "pylate", "pylate-modernbert", "stanford")
LONGEST = 96
PUNCTUATION = ("!", "?", ",", ";", "(", ")")
"""Words of the vocabulary beside those of the sentences."""
WIDTH, HIDDEN = 8, 32


def late_interaction(folder: Path, layout: str, *, hidden: int = HIDDEN, layers: int = 2, **settings: Any) -> Path:
    """Make a model in one of `LAYOUTS` and return its folder.

    Args:
        folder: Where to save it.
        layout: One of `LAYOUTS`.
        hidden: The width of the encoder.
        layers: The number of its layers.
        **settings: Settings of the layout that replace those here.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    if layout == "sentence-transformers":
        return _own(folder, hidden, layers, settings)
    if layout == "stanford":
        return _stanford(folder, hidden, layers, settings)
    return _pylate(folder, hidden, layers, settings, modern=layout == "pylate-modernbert")


def _encoder(folder: Path, hidden: int, layers: int, *, modern: bool = False) -> Any:
    import transformers
    from tokenizers import Tokenizer

    common = {
        "vocab_size": len(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 16,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": LONGEST,
        "attn_implementation": "eager",
    }
    if modern:
        config = transformers.ModernBertConfig(
            **common,
            initializer_range=0.3,
            initializer_cutoff_factor=3.0,
            pad_token_id=0,
            cls_token_id=2,
            sep_token_id=3,
            bos_token_id=2,
            eos_token_id=3,
        )
        return transformers.ModernBertModel(config).eval()
    config = transformers.BertConfig(**common, initializer_range=0.5)
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def _add_markers(folder: Path) -> None:
    """Add "[Q] " and "[D] " to the vocabulary, as PyLate does: not marked as special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.save_pretrained(folder)


def _own(folder: Path, hidden: int, layers: int, settings: dict[str, Any]) -> Path:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    wordpiece(folder, longest=LONGEST, extra=PUNCTUATION)
    _encoder(folder, hidden, layers).save_pretrained(folder)
    known = {"document_length": 24, "query_expansion": {"strategy": "min", "attend": True, "length": 20}}
    transformer = Transformer(str(folder), transformer_task="feature-extraction", **known | settings)
    shared = {"module_input_name": "token_embeddings", "activation_function": torch.nn.Identity()}
    modules = [
        transformer,
        Dense(hidden, hidden // 2, bias=True, use_residual=True, **shared),
        Dense(hidden // 2, WIDTH, bias=False, **shared),
        MultiVectorMask(skiplist_words=list(string.punctuation), skiplist_tasks=["query", "document"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "query: ", "document": "document: "}
    MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(folder))
    return folder


def _pylate(folder: Path, hidden: int, layers: int, settings: dict[str, Any], *, modern: bool) -> Path:
    import torch
    from safetensors.torch import save_file

    wordpiece(folder, longest=LONGEST, extra=PUNCTUATION, lowercase=not modern)
    _add_markers(folder)
    _encoder(folder, hidden, layers, modern=modern).save_pretrained(folder)
    known = {
        "model_type": "ColBERT",
        "prompts": {},
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 16,
        "document_length": 24,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        "do_query_expansion": not modern,
    }
    write(folder / "config_sentence_transformers.json", known | settings)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 23, "do_lower_case": modern})
    modules = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense", "pylate.models.Dense.Dense"]
    paths = ["", "1_Dense", "2_Dense"]
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (kind, path) in enumerate(zip(modules, paths, strict=True))
    ]
    write(folder / "modules.json", listed)
    for path, (before, after) in (("1_Dense", (hidden, hidden)), ("2_Dense", (hidden, WIDTH))):
        config = {
            "in_features": before,
            "out_features": after,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
            "use_residual": before == after,
        }
        (folder / path).mkdir()
        write(folder / path / "config.json", config)
        save_file({"linear.weight": torch.randn(after, before)}, folder / path / "model.safetensors")
    return folder


def _stanford(folder: Path, hidden: int, layers: int, settings: dict[str, Any]) -> Path:
    import torch
    from safetensors.torch import save_file

    wordpiece(folder, longest=LONGEST, extra=[*PUNCTUATION, "[unused0]", "[unused1]"])
    encoder = _encoder(folder, hidden, layers)
    encoder.save_pretrained(folder)
    weights = {f"bert.{name}": value.contiguous() for name, value in encoder.state_dict().items()}
    weights["linear.weight"] = torch.randn(WIDTH, hidden)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    known = {"query_maxlen": 16, "doc_maxlen": 24, "dim": WIDTH, "mask_punctuation": True}
    write(folder / "artifact.metadata", known | settings)
    return folder


def write(file: Path, value: Any) -> None:
    """Write a value as JSON."""
    file.write_text(json.dumps(value), "utf-8")


def export(folder: Path, target: Path, *, projected: bool) -> Path:
    """Write the model of a folder as ONNX to another folder, with all files but the encoder's weights.

    Args:
        folder: The model in safetensors.
        target: The new folder.
        projected: Whether the file holds the projection too; if not, its output is `last_hidden_state`.
    """
    import shutil

    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense

    model = MultiVectorEncoder(str(folder), device="cpu")
    layers = [module for module in model if isinstance(module, Dense)] if projected else []

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = model[0].auto_model.eval()
            self.layers = torch.nn.ModuleList(layers)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features = {"token_embeddings": states}
            for layer in self.layers:
                features = layer(features)
            return features["token_embeddings"]

    weights = folder / "model.safetensors"
    stanford = (folder / "artifact.metadata").is_file()
    shutil.copytree(
        folder, target, ignore=lambda at, names: {weights.name} if at == str(folder) and not stanford else []
    )
    name = "embeddings" if projected else "last_hidden_state"
    example = torch.ones((2, 5), dtype=torch.long)
    axes = {each: {0: "batch", 1: "length"} for each in ("input_ids", "attention_mask", name)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every branch in the model's code
        torch.onnx.export(
            Exported(),
            (example, example),
            str(target / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=[name],
            dynamic_axes=axes,
            dynamo=False,
        )
    return target

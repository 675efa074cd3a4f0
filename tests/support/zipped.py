"""Writes a model as a zip file, like those of FlashRank's author."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

MODEL, ONNX = "ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx"
SPECIAL = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "PAD", "CLS", "SEP", "MASK")}


def zip_of(
    folder: Path, file: Path, model: str = MODEL, onnx: str = ONNX, more: dict[str, bytes] | None = None
) -> Path:
    """Write a model's folder to a zip file with the layout of FlashRank's author."""
    members = {
        name: (folder / name).read_bytes() for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    }
    members |= {onnx: (folder / "model.onnx").read_bytes(), "special_tokens_map.json": json.dumps(SPECIAL).encode()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        written.mkdir(model)
        for name, data in members.items():
            written.writestr(f"{model}/{name}", data)
        for name, data in (more or {}).items():
            written.writestr(name, data)
    return file

"""Write a tiny model in llama.cpp's format, whose own converter refuses tokenizers that it has no hash of.

Run as a script, with the environment of llama.cpp: `write_gguf.py CHECKPOINT FILE`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, PoolingType, TokenType
from safetensors.numpy import load_file


def gguf(checkpoint: Path, file: Path) -> Path:
    """Write `file` from a folder with `config.json` and `model.safetensors`, and return it."""
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    tensors = load_file(checkpoint / "model.safetensors")
    if config["model_type"] == "llama":
        writer = _llama(checkpoint, config, tensors, file)
    else:
        writer = _bert(checkpoint, config, tensors, file)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _bert(checkpoint: Path, config: dict[str, Any], tensors: dict[str, Any], file: Path) -> GGUFWriter:
    """Return the writer of a cross-encoder; its folder has a `vocab.txt`."""
    words = (checkpoint / "vocab.txt").read_text("utf-8").split("\n")[:-1]
    special = {word: number for number, word in enumerate(words) if word.startswith("[") and word.endswith("]")}
    # llama.cpp marks the first piece of a word, where WordPiece marks the others.
    pieces = [
        word if word in special else word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"
        for word in words
    ]
    writer = GGUFWriter(file, "bert")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types([TokenType.CONTROL if word in special else TokenType.NORMAL for word in words])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_mask_token_id(special["[MASK]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)  # [CLS] query [SEP] document [SEP]
    writer.add_add_sep_token(False)
    for name, tensor in tensors.items():
        if (target := _gguf_name(name)) is not None:
            writer.add_tensor(target, tensor)
    return writer


def _llama(checkpoint: Path, config: dict[str, Any], tensors: dict[str, Any], file: Path) -> GGUFWriter:
    """Return the writer of a Llama with a byte-level tokenizer; its folder has a `tokenizer.json`."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = {**tokenizer["model"]["vocab"], **special}
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    heads = config["num_attention_heads"]
    writer = GGUFWriter(file, "llama")
    writer.add_name("tiny-chat")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types([TokenType.CONTROL if piece in special else TokenType.NORMAL for piece in pieces])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_add_bos_token(False)
    template = checkpoint / "chat_template.jinja"
    writer.add_chat_template(template.read_text("utf-8"))
    for name, tensor in tensors.items():
        is_rotated = name.endswith(("q_proj.weight", "k_proj.weight"))
        writer.add_tensor(_llama_name(name), _rotated(tensor, heads) if is_rotated else tensor)
    return writer


def _rotated(tensor: Any, heads: int) -> Any:
    """Reorder the rows of each head: llama.cpp rotates neighbours, PyTorch halves."""
    rows, columns = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


_GGUF = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "pooler.dense": "cls",
    "classifier": "cls.output",
}


def _gguf_name(name: str) -> str | None:
    """Return the GGUF name of a tensor, such as `blk.0.attn_q.weight`; `None` where llama.cpp has no use for it."""
    stem, _, kind = name.removeprefix("bert.").rpartition(".")
    parts = stem.split(".")
    if parts[:2] == ["encoder", "layer"]:
        return f"blk.{parts[2]}.{_GGUF['.'.join(parts[3:])]}.{kind}"
    return f"{_GGUF[stem]}.{kind}" if stem in _GGUF else None


_LLAMA = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


def _llama_name(name: str) -> str:
    """Return the GGUF name of a tensor of Llama, such as `blk.0.attn_q.weight`."""
    parts = name.removeprefix("model.").removesuffix(".weight").split(".")
    if parts[0] == "layers":
        return f"blk.{parts[1]}.{_LLAMA['.'.join(parts[2:])]}.weight"
    return f"{_LLAMA['.'.join(parts)]}.weight"


if __name__ == "__main__":
    gguf(Path(sys.argv[1]), Path(sys.argv[2]))

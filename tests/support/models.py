"""Makes tiny models with random weights: real files for the real engines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

SENTENCES = [
    "The moon's gravity raises the tides in the ocean twice a day.",
    "Bananas are yellow and grow in bunches.",
    "Tides work by the pull of the moon and the sun on the sea.",
    "A reranker scores a query and a document together.",
    "How clocks work: a spring or a battery turns the hands.",
]


def wordpiece(folder: Path, *, longest: int = 128, extra: Sequence[str] = (), lowercase: bool = True) -> None:
    """Save a WordPiece tokenizer of the sentences' words and letters, with the files of a BERT folder.

    Not trained, because a trainer breaks ties randomly, and random weights over another vocabulary are another model.

    Args:
        folder: Where to save it.
        longest: The longest input in tokens.
        extra: More words of the vocabulary.
        lowercase: Whether the tokenizer itself converts text to lower case. Its words are lower case in any case.
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pre_tokenizer, lower = BertPreTokenizer(), BertNormalizer(lowercase=True)
    normalizer = BertNormalizer(lowercase=lowercase)
    words = {word for text in SENTENCES for word, _ in pre_tokenizer.pre_tokenize_str(lower.normalize_str(text))}
    letters = {letter for word in words for letter in word}
    pieces = sorted(words | letters | {f"##{letter}" for letter in letters})
    vocabulary = {piece: number for number, piece in enumerate([*special, *pieces, *extra])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoders.WordPiece()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=longest).save_pretrained(folder)


def cross_encoder(folder: Path, *, labels: int = 1, longest: int = 128, hidden: int = 32) -> Path:
    """Make a BERT cross-encoder of two layers, as PyTorch and as ONNX, and return its folder."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    wordpiece(folder, longest=longest)
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=size,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 16,
        intermediate_size=2 * hidden,
        max_position_embeddings=longest,
        num_labels=labels,
        initializer_range=0.5,  # so that different texts have clearly different scores
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = torch.ones((2, 5), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every branch in the model's code
        torch.onnx.export(
            model,
            (example, example, example),
            str(folder / "model.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names} | {"logits": {0: "batch"}},
            dynamo=False,
        )
    return folder


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random cross-encoder with `model.onnx`, `tokenizer.json`, `config.json` and PyTorch weights."""
    return cross_encoder(tmp_path_factory.mktemp("models") / "tiny-cross-encoder")

"""The tiny models that the servers of a run read: random weights, a real architecture, real files."""

from __future__ import annotations

from pathlib import Path

from support.models import wordpiece

__all__ = ["CHAT_LONGEST", "CHAT_MODEL", "LONGEST", "MODEL", "QUERIES", "chat_model", "cross_encoder"]

MODEL = "tiny"
"""The name that servers give the checkpoint."""
LONGEST = 128
"""Tokens of a query and a document together."""
CHAT_MODEL = "tiny-chat"
"""The name that servers give the chat model."""
CHAT_LONGEST = 4096
"""Tokens of a prompt and its answer: a token is a byte."""
QUERIES: list[tuple[str, list[str]]] = [
    (
        "how do tides work",
        [
            "Bananas are yellow and grow in bunches.",
            "Tides work by the pull of the moon and the sun on the sea.",
            "The moon's gravity raises the tides in the ocean twice a day.",
            "How clocks work: a spring or a battery turns the hands.",
            "A reranker scores a query and a document together.",
        ],
    ),
    (
        "the sea?",
        ["ocean", "The SEA, twice a day!", "a battery", "the moon and the sun", "bananas\nand a spring", "yes"],
    ),
]
"""Queries and documents; their scores differ by more than any tolerance."""


def cross_encoder(folder: Path) -> Path:
    """Make a BERT cross-encoder of two layers and return its folder.

    Heads of 32 are the least that vLLM has CPU kernels for. Both token types have one vector, as llama.cpp gives the
    document the type of the query.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    if (folder / "model.safetensors").is_file():
        return folder
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    wordpiece(folder, longest=LONGEST)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=LONGEST,
        num_labels=1,
        initializer_range=0.25,
    )
    model = BertForSequenceClassification(config).eval()
    types = model.bert.embeddings.token_type_embeddings.weight
    with torch.no_grad():
        types[1] = types[0]
        model.classifier.weight *= 2  # scores that spread over the whole of 0 to 1
    model.save_pretrained(folder)
    # Xinference and older tokenizers read the vocabulary as a list of words.
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n", "utf-8")
    return folder


_SPACES, _ANSWERS, _CONSTANT = " \t\n\r", ("yes", "no"), 0
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_model(folder: Path) -> Path:
    """Make a Llama of two layers with a byte-level tokenizer, and return its folder.

    What it says means nothing. But under the grammar of a JSON schema it writes no white space, which would fill the
    answer, and without a grammar "yes" and "no" are its likeliest first words.
    """
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    if (folder / "model.safetensors").is_file():
        return folder
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    # Not trained, because a trainer breaks ties randomly, and random weights over another vocabulary are another model.
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ye", "yes", "no"]
    tokenizer = Tokenizer(
        BPE({piece: number for number, piece in enumerate(pieces)}, [("y", "e"), ("ye", "s"), ("n", "o")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CHAT_LONGEST,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=128,
        max_position_embeddings=CHAT_LONGEST,
        initializer_range=0.25,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # One dimension that no layer writes to has the same value everywhere: its column of the head is a bias.
        model.model.embed_tokens.weight[:, _CONSTANT] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[_CONSTANT] = 0.0
            layer.mlp.down_proj.weight[_CONSTANT] = 0.0
        bias = model.lm_head.weight[:, _CONSTANT]
        bias.zero_()
        for character in _SPACES:
            (number,) = tokenizer.encode(character).ids
            bias[number] = -200.0
        for answer in _ANSWERS:
            bias[tokenizer.token_to_id(answer)] = 80.0
    model.save_pretrained(folder)
    return folder

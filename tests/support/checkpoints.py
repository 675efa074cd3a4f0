"""Tiny random cross-encoders of the real architectures, with tokenizers like theirs."""

from __future__ import annotations

from pathlib import Path

from support.models import SENTENCES, wordpiece

LONGEST = 96
KINDS = ("bert", "bert-two-labels", "xlm-r", "deberta-v2", "modernbert-cls", "modernbert-mean", "modular")


def sentencepiece_like(folder: Path) -> None:
    """Save a tokenizer of XLM-R's kind: Unigram, `<s> q </s></s> d </s>`, and, as some have, types of its own."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import Unigram
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import UnigramTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(SENTENCES, UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>"))
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:1 </s>:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def checkpoint(folder: Path, kind: str) -> Path:
    """Make one of `KINDS` in `folder` and return it."""
    import torch
    import transformers
    from tokenizers import Tokenizer

    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece_like(folder) if kind == "xlm-r" else wordpiece(folder, longest=LONGEST)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    common = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": LONGEST,
        "num_labels": 1,
        "pad_token_id": tokenizer.token_to_id("<pad>" if kind == "xlm-r" else "[PAD]"),
        "initializer_range": 0.5,
    }
    torch.manual_seed(12)  # BERT's scores of 11 round by 1.8e-5 in float32, those of 12 to 16 by 4e-6 at most
    if kind.startswith("bert"):
        config = transformers.BertConfig(**common | {"num_labels": 2 if kind == "bert-two-labels" else 1})
        model = transformers.BertForSequenceClassification(config)
    elif kind == "xlm-r":
        config = transformers.XLMRobertaConfig(
            **common
            | {"max_position_embeddings": LONGEST + 2, "type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2}
        )
        model = transformers.XLMRobertaForSequenceClassification(config)
    elif kind == "deberta-v2":
        config = transformers.DebertaV2Config(
            **common,
            relative_attention=True,
            position_buckets=16,
            pos_att_type=["p2c", "c2p"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            position_biased_input=False,
            type_vocab_size=0,
        )
        model = transformers.DebertaV2ForSequenceClassification(config)
    else:
        config = transformers.ModernBertConfig(
            **common | {"initializer_range": 0.3, "initializer_cutoff_factor": 3.0, "local_attention": 16},
            cls_token_id=2,
            sep_token_id=3,
            bos_token_id=2,
            eos_token_id=3,
            classifier_pooling="mean" if kind == "modernbert-mean" else "cls",
        )
        if kind == "modular":
            return _modular(folder, transformers.ModernBertModel(config))
        model = transformers.ModernBertForSequenceClassification(config)
    model.eval().save_pretrained(folder)
    return folder


def _modular(folder: Path, backbone: object) -> Path:
    """Save Ettin's layout: ModernBERT, the first token, Dense with GELU, LayerNorm, Dense to one score."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    backbone.eval().save_pretrained(folder)
    size = 32
    modules = [
        Transformer(str(folder), transformer_task="feature-extraction"),
        Pooling(size, pooling_mode="cls"),
        Dense(size, size, activation_function=torch.nn.GELU()),
        LayerNorm(size),
        Dense(size, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder

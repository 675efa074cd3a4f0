"""Tiny random rerankers of the real decoder architectures, with tokenizers like theirs."""

from __future__ import annotations

import json
from pathlib import Path

from rerank_plugins.engine.causal_lm.templates import TEMPLATES
from support.models import SENTENCES

CONTEXT = 512
FAMILIES = {"qwen3": "Qwen3", "mxbai": "Qwen2", "zerank": "Qwen3", "bge-gemma": "Gemma", "ctxl": "Qwen3"}
TEXT = [
    *SENTENCES,
    "yes no Yes No yes no Yes No 1 0 system user assistant <Query>: <Document>: <Instruct>: query: document:",
]
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Qwen's own pattern (tokenizer.json of Qwen2.5 and Qwen3).
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen_like(folder: Path, without: str | None = None, longest: int = CONTEXT) -> None:
    """Save a byte-level BPE tokenizer with Qwen's pattern, its chat marks special and its thinking marks only added."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*TEXT, "yes\nno\nYes\nNo\n" * 50], BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|embed_token|>", "<|rerank_token|>")
    tokenizer.add_special_tokens([each for each in special if each != without])
    tokenizer.add_tokens(
        [
            AddedToken(each, special=False, normalized=False)
            for each in ("<think>", "</think>", "<tool_call>")
            if each != without
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        eos_token="<|im_end|>" if without != "<|im_end|>" else None,
        pad_token="<|endoftext|>",
        chat_template=CHAT,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def gemma_like(folder: Path) -> None:
    """Save a tokenizer of Gemma's kind: BPE over "▁" with bytes to fall back on, new lines added, `<bos>` in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    tokenizer.train_from_iterator(
        [*TEXT, *["Yes", "No"] * 50], BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken("\n" * count, special=False, normalized=False) for count in (1, 2)])
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def language_model(
    folder: Path, family: str, *, without: str | None = None, tied: bool = True, longest: int = CONTEXT
) -> Path:
    """Make one of `FAMILIES` in `folder` and return it."""
    import torch
    import transformers
    from tokenizers import Tokenizer

    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    gemma_like(folder) if family == "bge-gemma" else qwen_like(folder, without, longest)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kind = FAMILIES[family]
    torch.manual_seed(11)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=tokenizer.get_vocab_size(with_added_tokens=True),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1 if kind == "Gemma" else 2,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=longest,
        initializer_range=0.5,  # so that different texts have clearly different scores
        tie_word_embeddings=tied,
        # The padding token has a row of zeros, and ctxl's score is the row of token 0.
        pad_token_id=tokenizer.token_to_id("<|endoftext|>") if family == "ctxl" else 0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model.eval().save_pretrained(folder)
    return folder


def converted(folder: Path, source: Path, family: str, *, labels: int = 1) -> Path:
    """Convert a language model to a classifier in `folder`, and return it.

    As examples/pooling/score/convert_model_to_seq_cls.py of https://github.com/vllm-project/vllm does it (2026-11-30):
    `from_2_way_softmax` for two answers, `no_post_processing` for one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    template, tokenizer = TEMPLATES[family], AutoTokenizer.from_pretrained(source)
    head = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).lm_head.weight
    classifier = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels, dtype=torch.float32)
    row = head[tokenizer.convert_tokens_to_ids(template.yes)]
    if template.no is not None:
        row = row - head[tokenizer.convert_tokens_to_ids(template.no)]
    with torch.no_grad():
        classifier.score.weight.copy_(row.expand(labels, -1))
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LISTWISE_CONTEXT = 4096


def listwise(folder: Path, *, projected: int = 24, window: int | None = None) -> Path:
    """Make a tiny jina-reranker-v3: a Qwen3 trunk and a projector, under the names of its checkpoint.

    With a `window`, the first layer sees so many tokens only, as layers of v3.5 do.
    """
    import torch
    from safetensors.torch import load_file, save_file

    language_model(folder, "qwen3", longest=LISTWISE_CONTEXT)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(3)
    size = 32
    weights["projector.0.weight"] = torch.randn(size // 2, size) / 4
    weights["projector.2.weight"] = torch.randn(projected, size // 2) / 4
    weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"architectures": ["JinaForRanking"], "auto_map": {"AutoModel": "modeling.JinaForRanking"}}
    if window:
        config |= {
            "use_sliding_window": True,
            "sliding_window": window,
            "layer_types": ["sliding_attention", "full_attention"],
        }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


GOLDEN = Path(__file__).parent / "golden_qwen3"
"""A Qwen3 reranker of two layers that answers the questions of `check --golden`, inside its prompt.

Its weights are kept: training ends elsewhere on every kind of CPU. Where the questions or Qwen3's prompt have changed,
`python tests/support/language_models.py` makes them again, in half a minute.
"""


def train_golden(folder: Path) -> None:
    """Make `GOLDEN`: yes to each question's answer, and no to every other document."""
    import random

    import torch
    import transformers
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.trainers import WordLevelTrainer

    from rerank_plugins.cli.golden import QUESTIONS

    template = TEMPLATES["qwen3"]
    chance = random.Random(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    documents = [text for each in QUESTIONS for text in (each.answer, each.similar, each.unrelated)]
    pairs = [(each.query, document, document == each.answer) for each in QUESTIONS for document in documents]
    wanted = [("".join(template.sides(query, document)), float(right)) for query, document, right in pairs]
    good, bad = [row for row in wanted if row[1]], [row for row in wanted if not row[1]]
    bare = [prompt for prompt, _ in wanted]
    for mark in template.marks:
        bare = [each.replace(mark, " ") for each in bare]
    tokenizer = Tokenizer(WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        bare, WordLevelTrainer(special_tokens=["<unk>", *template.marks, "yes", "no"], show_progress=False)
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", model_input_names=["input_ids", "attention_mask"]
    ).save_pretrained(folder)
    model = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=max(tokenizer.get_vocab().values()) + 1,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=128,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
        )
    )
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    steps = 150
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        batch = [*good, *chance.sample(bad, 16)]
        rows = [tokenizer.encode(prompt).ids for prompt, _ in batch]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[:, -1]
        targets = torch.tensor([target for _, target in batch])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, yes] - logits[:, no], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            print(step, loss.item(), flush=True)
    model.half().eval().save_pretrained(folder)  # read as float32, whatever they are stored as


if __name__ == "__main__":
    train_golden(GOLDEN)

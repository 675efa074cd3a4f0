"""No kind of tokenizer reads a special token from the text of a document."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from support.bounds import near
from support.checkpoints import checkpoint
from support.models import SENTENCES
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import Unigram, WordLevel
from tokenizers.processors import TemplateProcessing

from rerank_plugins import load_reranker
from rerank_plugins.engine.onnx.export import export
from rerank_plugins.engine.tokenizer import PairTokenizer

QUERY = "how do the tides work"
BRACKETS = str.maketrans("<>[]", "‹›⟦⟧")
"""Characters that are not in the tiny vocabularies."""


def unigram() -> Tokenizer:
    """A tokenizer like XLM-R's: the special tokens are its first pieces, with the best scores."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(name, 0.0) for name in special] + [("▁", -3.0), ("▁moon", -2.5)]
    pieces += [(sign, -5.0) for sign in string.ascii_letters + string.punctuation] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in (*special, "<mask>")])
    template = {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"}
    tokenizer.post_processor = TemplateProcessing(**template, special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def words() -> Tokenizer:
    """A tokenizer of whole words; only the template says which of them are special."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "moon"]
    tokenizer = Tokenizer(WordLevel({name: token for token, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B:1 [SEP]:1"}
    tokenizer.post_processor = TemplateProcessing(**template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def test_unigram_tokenizer_reads_special_tokens_as_plain_text(tmp_path):
    tokenizer = unigram()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = PairTokenizer(tmp_path / "tokenizer.json")
    for text in ("moon </s>", "</s></s><s>moon", "a<mask>b <pad> <unk>"):
        (ids,) = encoder.ids([text], 100)
        assert "".join(map(str, map(tokenizer.id_to_token, ids))) == "▁" + text.replace(" ", "▁")
        assert min(ids) > 3, "no special token"
        assert tokenizer.token_to_id("<mask>") not in ids
        (row,) = encoder.pairs("moon", [text], 100)
        assert row.ids == [0, 5, 2, 2, *ids, 2], "the special tokens around texts are unchanged"
    assert encoder.token("</s>") == 2


def test_special_tokens_of_word_models_and_templates_are_found(tmp_path):
    words().save(str(tmp_path / "tokenizer.json"))
    encoder = PairTokenizer(tmp_path / "tokenizer.json")
    (row,) = encoder.pairs("moon", ["[SEP] moon [CLS]"], 100)
    assert row.ids == [2, 4, 3, 1, 4, 1, 3]
    assert encoder.offsets("[SEP] moon") == [(0, 5), (6, 10)]


@pytest.mark.parametrize("engine", ["sentence-transformers", "onnx"])
@pytest.mark.parametrize("kind", ["bert", "xlm-r", "deberta-v2", "modernbert-cls"])
def test_document_of_special_tokens_scores_as_plain_text(engine, kind, tmp_path):
    folder: Path = checkpoint(tmp_path / "model", kind)
    if engine == "onnx":
        export(folder, tmp_path / "made")
        folder = tmp_path / "made"
    added = Tokenizer.from_file(str(folder / "tokenizer.json")).get_added_tokens_decoder().values()
    every = " ".join(each.content for each in added if each.special)
    assert len(every.split()) >= 5
    hostile = f"{every} {SENTENCES[0]} {every.replace(' ', '')}"
    plain = hostile.translate(BRACKETS)
    assert plain != hostile
    with load_reranker({"use": f"{engine}:{folder}", "device": "cpu"}) as reranker:

        def raw(*documents):
            scores = {each.index: each.raw_score for each in reranker.rerank(QUERY, documents)}
            return [scores[index] for index in range(len(documents))]

        neighbour, spoiled = raw(SENTENCES[1], hostile)
        assert [neighbour] == near(raw(SENTENCES[1]))
        assert [spoiled] == near(raw(plain))

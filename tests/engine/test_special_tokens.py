"""A document cannot spell a special token, whatever kind of tokenizer reads it."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from bounds import near
from checkpoints import checkpoint
from models import SENTENCES
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import Unigram, WordLevel
from tokenizers.processors import TemplateProcessing

from rerank_plugins import load_reranker
from rerank_plugins.engine.onnx.export import export
from rerank_plugins.engine.tokenizer import PairTokenizer

QUERY = "how do the tides work"
BRACKETS = str.maketrans("<>[]", "‹›⟦⟧")
"""To other signs that the tiny vocabularies do not know either."""


def unigram() -> Tokenizer:
    """Of XLM-R's kind: the special tokens come first among its pieces, with the best of scores."""
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
    """Whole words between blanks; nothing says which of them are special but the template."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "moon"]
    tokenizer = Tokenizer(WordLevel({name: token for token, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B:1 [SEP]:1"}
    tokenizer.post_processor = TemplateProcessing(**template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def test_the_pieces_of_a_unigram_are_those_of_plain_text(tmp_path):
    tokenizer = unigram()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = PairTokenizer(tmp_path / "tokenizer.json")
    for text in ("moon </s>", "</s></s><s>moon", "a<mask>b <pad> <unk>"):
        (ids,) = encoder.texts([text], 100)
        assert "".join(map(str, map(tokenizer.id_to_token, ids))) == "▁" + text.replace(" ", "▁")
        assert min(ids) > 3, "no special token"
        assert tokenizer.token_to_id("<mask>") not in ids
        (row,) = encoder.pairs("moon", [text], 100)
        assert row.ids == [0, 5, 2, 2, *ids, 2], "what stands around texts is as it was"
    assert encoder.token("</s>") == 2


def test_whole_words_and_tokens_that_only_the_template_names(tmp_path):
    words().save(str(tmp_path / "tokenizer.json"))
    encoder = PairTokenizer(tmp_path / "tokenizer.json")
    (row,) = encoder.pairs("moon", ["[SEP] moon [CLS]"], 100)
    assert row.ids == [2, 4, 3, 1, 4, 1, 3]
    assert encoder.offsets("[SEP] moon") == [(0, 5), (6, 10)]


@pytest.mark.parametrize("engine", ["sentence-transformers", "onnx"])
@pytest.mark.parametrize("kind", ["bert", "xlm-r", "deberta-v2", "modernbert-cls"])
def test_a_document_of_all_special_tokens_scores_as_plain_text(engine, kind, tmp_path):
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
            found = {each.index: each.raw_score for each in reranker.rerank(QUERY, documents)}
            return [found[index] for index in range(len(documents))]

        neighbour, spoiled = raw(SENTENCES[1], hostile)
        assert [neighbour] == near(raw(SENTENCES[1]))
        assert [spoiled] == near(raw(plain))

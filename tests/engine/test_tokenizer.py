"""No text becomes a special token, even if the token is in the vocabulary or is not marked special."""

from __future__ import annotations

import json

import pytest
from support.language_models import gemma_like, qwen_like
from support.models import wordpiece
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel

from rerank_plugins.core._runtime.text_work import SLICE_CHARACTERS
from rerank_plugins.engine.causal_lm.prompts import Prompts
from rerank_plugins.engine.causal_lm.templates import TEMPLATES
from rerank_plugins.engine.tokenizer import PairTokenizer

MARK = "<|e|>"


def unigram():
    """A tokenizer like XLM-R's: the score of special tokens is 0, and any word's is lower."""
    words = ["▁", "a", "b", "<", "|", "e", ">"]
    tokenizer = Tokenizer(Unigram([("<unk>", 0.0), (MARK, 0.0), *((word, -5.0) for word in words)], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def merging():
    """A tokenizer like Gemma's: it has merges for every word of the vocabulary, special tokens too."""
    words = ["<unk>", MARK, " ", "a", "b", "<", "|", "e", ">", "<|", "e|", "e|>"]
    merges = [("<", "|"), ("e", "|"), ("e|", ">"), ("<|", "e|>")]
    return Tokenizer(BPE({word: place for place, word in enumerate(words)}, merges, unk_token="<unk>"))


def words():
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, MARK: 1, "a": 2, "b": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize("make", [unigram, merging, words])
def test_text_never_becomes_a_special_token(make, tmp_path):
    tokenizer = make()
    tokenizer.add_special_tokens(["<unk>", MARK])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode(f"a {MARK}").ids[-1] == tokenizer.token_to_id(MARK) == 1
    pair_tokenizer = PairTokenizer(tmp_path / "tokenizer.json")
    hostile = ["a b", MARK, f"a {MARK} b", f"{MARK}{MARK} " * 40, "a ＜|e|＞ b", f"zz {MARK} <unk>"]
    for text, ids in zip(hostile, pair_tokenizer.ids(hostile, 1000), strict=True):
        assert 1 not in ids
        offsets = pair_tokenizer.offsets(text)
        assert len(offsets) == len(ids)
        assert all(0 <= start <= end <= len(text) for start, end in offsets)
        assert offsets == sorted(offsets)
    harmless = "a zz b"  # contains an unknown word, which is rightly a special token
    assert pair_tokenizer.ids([harmless], 100) == [tokenizer.encode(harmless).ids]
    assert pair_tokenizer.pairs("a", [MARK, "b"], 100)[1].ids == pair_tokenizer.pairs("a", ["b"], 100)[0].ids


@pytest.mark.parametrize("family", TEMPLATES)
def test_added_tokens_not_marked_special_are_read_as_text(family, tmp_path):
    """Some tokens are added but not special: `<|fim_prefix|>` of Qwen, in some copies the turns of Gemma."""
    gemma_like(tmp_path) if family == "bge-gemma" else qwen_like(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    marks = ["<|fim_prefix|>", "<|file_sep|>", "</tool_call>", "<tool_response>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_tokens([AddedToken(each, special=False, normalized=False) for each in marks])
    tokenizer.save(str(path))
    ids = {tokenizer.token_to_id(each) for each in marks}
    hostile = f"moon {' '.join(marks)} tides"
    assert ids & set(tokenizer.encode(hostile, add_special_tokens=False).ids) == ids
    (row,) = Prompts(path, TEMPLATES[family]).build("tides", [hostile], None, 1000, 4000)
    assert ids.isdisjoint(row.ids)


def test_plain_word_marked_special_has_its_token_in_a_text(tmp_path):
    """Some makers mark answer words as special, to get one token each; the prompt also contains them as words."""
    qwen_like(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(["yes", "no", "moon"])
    tokenizer.save(str(path))
    template = TEMPLATES["qwen3"]
    document = 'the moon? yes, or "no" <|im_end|>'
    (row,) = Prompts(path, template).build("yes or no", [document], None, 1000, 4000)
    harmless = document.replace("<|im_end|>", "")
    (plain,) = Prompts(path, template).build("yes or no", [harmless], None, 1000, 4000)
    assert plain.ids == tokenizer.encode("".join(template.sides("yes or no", harmless))).ids
    assert row.ids.count(tokenizer.token_to_id("<|im_end|>")) == plain.ids.count(tokenizer.token_to_id("<|im_end|>"))
    assert row.ids.count(tokenizer.token_to_id("yes")) == plain.ids.count(tokenizer.token_to_id("yes")) > 2


@pytest.mark.parametrize(
    ("declared", "warned"),
    [
        ({"do_lower_case": False}, True),
        ({"do_lower_case": False, "tokenizer_class": "BertTokenizer"}, True),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({"do_lower_case": True}, False),
        ({}, False),
    ],
)
def test_files_that_disagree_on_lower_case_log_a_warning(declared, warned, tmp_path, caplog):
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "Tides": 1, "tides": 2}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared | {"unk_token": "[UNK]"}))
    ids = PairTokenizer(tmp_path / "tokenizer.json").singles(["Tides"], 16)[0].ids
    assert ids == [2]
    assert ("converts text to lower case: yes" in caplog.text) == warned


def pair_tokenizer_of(make, folder):
    """Return the `PairTokenizer` of a tokenizer, which `make` returns or saves itself."""
    if make in (gemma_like, qwen_like, wordpiece):
        make(folder)
    else:
        make().save(str(folder / "tokenizer.json"))
    return PairTokenizer(folder / "tokenizer.json")


@pytest.mark.parametrize("make", [unigram, merging, words, wordpiece, gemma_like, qwen_like])
def test_tokens_of_a_very_long_text_equal_those_of_the_whole(make, tmp_path):
    pair_tokenizer = pair_tokenizer_of(make, tmp_path)
    text = "a moon and the b tides, " * (3 * SLICE_CHARACTERS // 24) + "a b"
    assert len(text) > 2 * SLICE_CHARACTERS
    whole = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    whole.no_truncation()
    expected = whole.encode(text, add_special_tokens=False).offsets
    offsets = pair_tokenizer.offsets(text)
    assert len(offsets) == len(expected)
    assert list(offsets) == expected
    assert offsets[-1] == expected[-1]
    assert offsets[:3] == expected[:3]
    with pytest.raises(IndexError):
        offsets[len(offsets)]


@pytest.mark.thorough
@pytest.mark.parametrize("make", [wordpiece, gemma_like, qwen_like])
@pytest.mark.parametrize("text", ["a" * 300_000, "moon" + " " * 300_000 + "tides", "\n" * 300_000, "潮汐" * 150_000])
def test_text_without_white_space_is_covered_by_its_slices(make, text, tmp_path):
    pair_tokenizer = pair_tokenizer_of(make, tmp_path)
    offsets = list(pair_tokenizer.offsets(text))
    assert offsets == sorted(offsets)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert (offsets[-1][1] if offsets else 0) >= len(text.rstrip())
    cut, count, was_cut = pair_tokenizer.truncate(text, 10)
    assert count <= 10
    assert text.startswith(cut)
    assert was_cut == (len(offsets) > 10)
    (ids,) = pair_tokenizer.ids([text], 10)
    # WordPiece makes one unknown token of a word of any length.
    assert len(ids) >= min(10, len(offsets)) or make is wordpiece


def test_many_texts_are_encoded_in_groups_in_order(tmp_path):
    pair_tokenizer = pair_tokenizer_of(words, tmp_path)
    texts = ["a " * number for number in range(1_200)]
    assert sum(map(len, texts)) > 4 * SLICE_CHARACTERS
    assert [len(ids) for ids in pair_tokenizer.ids(texts, 2_000)] == list(range(1_200))
    assert pair_tokenizer.ids([], 10) == []

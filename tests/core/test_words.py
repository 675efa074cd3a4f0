"""Equivalent Unicode spellings of a text have the same words; distinct texts keep distinct words.

The pairs were written from the Unicode tables: NormalizationTest.txt, CaseFolding.txt, DerivedCoreProperties.txt
(Default_Ignorable_Code_Point), DerivedCombiningClass.txt and EastAsianWidth.txt of https://www.unicode.org/Public/UCD/latest/ucd/.
"""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import load_reranker
from rerank_plugins.core.words import split_words
from rerank_plugins.policies.diversify import term_overlap

PAIRS = {
    # canonical composition
    "French NFD": ("sécurité", "se\u0301curite\u0301"),
    "Vietnamese NFD": ("tiếng Việt", "tie\u0302\u0301ng Vie\u0323\u0302t"),
    "Vietnamese, marks in another order": ("Việt", "Vie\u0302\u0323t"),
    "Angstrom sign": ("\u212bngström", "Ångström"),
    "Kelvin sign": ("\u212aelvin", "kelvin"),
    "Greek tonos and oxia": ("\u1f71", "\u03ac"),
    "Japanese voiced NFD": ("が", "か\u3099"),
    "Korean NFD": ("조석", "\u110c\u1169\u1109\u1165\u11a8"),
    "Devanagari nukta": ("\u0958", "\u0915\u093c"),
    "Cyrillic short i NFD": ("йод", "и\u0306од"),
    "CJK compatibility ideograph": ("\uf900", "\u8c48"),
    # compatibility: width, ligatures, shapes
    "full width Latin": ("ＲＥＲＡＮＫ", "rerank"),
    "full width digits": ("２０２６", "2026"),
    "half width katakana": ("ｶﾞﾗｽ", "ガラス"),
    "half width Hangul": ("\uffa1", "ㄱ"),
    "ligature fi": ("ﬁnal", "final"),
    "ligature ffl": ("waﬄe", "waffle"),
    "ligature st": ("ﬆone", "stone"),
    "Dutch ij": ("ĳs", "ijs"),
    "Arabic ligature lam alef": ("\ufefb", "\u0644\u0627"),
    "Arabic presentation forms": ("\ufee3\ufe94", "\u0645\u0629"),
    "Hebrew presentation form": ("\ufb2a", "\u05e9\u05c1"),
    "Roman numeral": ("Ⅻ", "xii"),
    "superscript": ("m²", "m2"),
    "circled number": ("①", "1"),
    "mathematical bold": ("\U0001d42b\U0001d41e", "re"),
    # case
    "German sharp s": ("STRASSE", "straße"),
    "capital sharp s": ("STRAẞE", "strasse"),
    "Greek final sigma": ("ΟΔΟΣ", "οδος"),
    "Turkish capital i with a dot": ("İstanbul", "istanbul"),
    "long s": ("Waſſer", "wasser"),
    "Cherokee": ("\u13a3", "\uab73"),
    "Georgian Mtavruli": ("\u1c90", "\u10d0"),
    "Deseret": ("\U00010400", "\U00010428"),
    "Armenian ligature": ("\ufb13", "\u0574\u0576"),
    "Adlam": ("\U0001e900", "\U0001e922"),
    # characters that a writer may leave out
    "soft hyphen": ("gra\u00advity", "gravity"),
    "zero width joiner": ("me\u200ddium", "medium"),
    "word joiner": ("re\u2060rank", "rerank"),
    "byte order mark": ("\ufeffmoon", "moon"),
    "variation selector": ("moon\ufe0f", "moon"),
    "combining grapheme joiner": ("mo\u034fon", "moon"),
    "Mongolian vowel separator": ("\u1820\u180e\u1828", "\u1820\u1828"),
    "Arabic vowel signs": ("الْقَمَرُ", "القمر"),
    "Arabic tatweel": ("القمـــر", "القمر"),
    "Arabic superscript alef": ("هٰذا", "هذا"),
    "Hebrew points": ("שָׁלוֹם", "שלום"),
    "Hebrew accents": ("בְּרֵאשִׁ֖ית", "בראשית"),
    "Russian stress mark": ("за\u0301мок", "замок"),
    "Syriac points": ("\u0710\u0730", "\u0710"),
}

DIFFERENT = {
    "accents tell words apart": ("pêche", "péché"),
    "Swedish letters": ("ån", "an"),
    "Devanagari vowels": ("कि", "की"),
    "Thai tones": ("ข่าว", "ข้าว"),
    "Hangul vowels": ("가", "거"),
    "dotless i": ("ısı", "isi"),
    "Japanese voicing": ("か", "が"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equivalent_spellings_have_the_same_words(name: str) -> None:
    one, other = PAIRS[name]
    assert split_words(one) == split_words(other) != []
    assert term_overlap(one, other) == 1.0
    assert {
        result.raw_score for result in load_reranker("lexical").rerank(one, [f"{other} x", f"{one} x", "y z"])[:2]
    } != {0.0}


@pytest.mark.parametrize("name", PAIRS)
def test_lexical_matches_equivalent_spellings_both_ways(name: str) -> None:
    one, other = PAIRS[name]
    reranker = load_reranker("lexical")
    for query, document in ((one, other), (other, one)):
        best, rest = reranker.rerank(query, ["unlike", document])
        assert best.index == 1
        assert best.raw_score > 0.0 == rest.raw_score


@pytest.mark.parametrize("name", DIFFERENT)
def test_distinct_spellings_have_different_words(name: str) -> None:
    one, other = DIFFERENT[name]
    assert split_words(one) != split_words(other)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("조석", "조석은 달의 인력으로 생긴다"),  # a particle follows the word
        ("潮汐", "月亮的引力引起潮汐"),
        ("潮", "潮の満ち引き"),
        ("น้ำ", "ดวงจันทร์ทำให้น้ำขึ้น"),
        ("លោក", "ព្រះច័ន្ទនិងលោក"),
    ],
)
def test_word_without_a_following_space_is_found(query: str, document: str) -> None:
    assert set(split_words(query)) <= set(split_words(document))


def test_near_duplicates_in_chinese_have_a_high_overlap() -> None:
    assert term_overlap("潮汐是由月球的引力引起的。", "潮汐由月球的引力引起。") > 0.7
    assert term_overlap("潮汐是由月球的引力引起的。", "香蕉是黄色的") < 0.4


def test_split_words_ends_words_at_punctuation() -> None:
    assert split_words("潮汐 tide-pool_x, don't") == ["潮", "汐", "tide", "pool", "x", "don", "t"]
    assert split_words("naïve_co\u00f6p 3.5") == ["naïve", "coöp", "3", "5"]
    assert split_words("?! …") == []


@given(st.text())
def test_split_words_is_independent_of_the_normalization_form(text: str) -> None:
    """Composing or decomposing the characters of a text first does not change its words."""
    expected = split_words(text)
    for form in ("NFC", "NFD"):
        assert split_words(unicodedata.normalize(form, text)) == expected


@pytest.mark.alone
@pytest.mark.parametrize("unit", ["\u0301\u0316", "é", "a\u0301", "潮", "ﬁ ", "ᄀ", "a"])
def test_split_words_takes_linear_time(unit: str) -> None:
    """Sorting n combining marks takes n² steps if a whole text is normalized at once."""

    def seconds(size: int) -> float:
        text = "é" + unit * (size // len(unit))
        times = []
        for _ in range(3):
            started = time.thread_time()
            split_words(text)
            times.append(time.thread_time() - started)
        return min(times)

    assert seconds(400_000) < 8 * seconds(100_000)

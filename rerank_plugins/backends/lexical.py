"""BM25 over the candidates: no model, no download, and a sound stand-in for one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from ..core.scorer import LocalBackend
from ..core.types import Capabilities
from ..core.words import split_words, word_slices
from ..options import Options

__all__ = ["Lexical", "asked_words", "words"]

K1, B = 1.2, 0.75
# English words that a question is asked with, and not about: Lucene's list (EnglishAnalyzer) and what questions add.
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a about all am also an and any are as at be been being between but by can could did do does during for from had has "
        "have he her his how i if in into is it its may me might more most must my no not of on only or our over same shall "
        "she should so some such than that the their then there these they this to too under very was we were what when where "
        "which who whom whose why will with would you your",
    )
)
# With the "e" and "y" that other endings replace: tide and tides, score and scoring, query and queries are one word each.
_SUFFIX = re.compile(r"(?<=[a-z]{3})(?:ies|es|s|ing|ed|e|y)$")


def words(text: str) -> list[str]:
    """Return the folded words of `text` (`core.words`), English plurals and verb endings cut off.

    The S-stemmer's endings (Harman, JASIS 42(1), 1991) and four more; over no stemming this is worth 0.02 of nDCG@10 on
    the mean of Cranfield, LISA, TREC-QA and 200 questions of NQ (November 2026).
    """
    return list(map(_stem, split_words(text)))


def asked_words(query: str) -> list[str]:
    """Return the `words` of a query without English stop words, unless there is nothing else in it.

    Among the candidates of one query a stop word can be as rare as a word that matters, so its idf does not tell. Worth
    0.026 of nDCG@10 on the mean of the four collections.
    """
    in_query = split_words(query)
    return list(map(_stem, [word for word in in_query if word not in _STOP] or in_query))


def _stem(word: str) -> str:
    return _SUFFIX.sub("", word) if len(word) > 3 else word


class LexicalOptions(Options):
    """BM25 over the candidates has no options."""


class Lexical(LocalBackend):
    """BM25 (Robertson and Zaragoza 2009, k1 1.2, b 0.75) with the candidates as the collection: listwise.

    The idf is Lucene's, ln(1 + (N - n + 0.5) / (n + 0.5)), which is never negative, with N twice the candidates: they are
    what a retriever found for these very words, and a word that all of them hold is rare elsewhere (worth another 0.015
    of nDCG@10). A score is divided by the largest
    that any document could reach for the query, so it lies in [0, 1): the share of the query's words that the document
    holds, rare words counting more.
    """

    Options = LexicalOptions
    model = "lexical"
    capabilities = Capabilities(scale="unit", listwise=True)
    quick = True

    def __init__(self, options: LexicalOptions | None = None) -> None:
        """There is nothing to choose."""
        super().__init__()

    @property
    def revision(self) -> str:
        """Of the formula: a calibration is of one."""
        return "3"

    @property
    def fingerprint(self) -> str:
        """With the revision: what was kept of another formula's answers is not this one's."""
        return f"{super().fingerprint} {self.revision}"

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score in [0, 1) per document; 0 for one that holds no word of the query."""
        asked = Counter(asked_words(query))
        counts = []
        lengths = []
        for document in documents:
            length, count = 0, Counter[str]()
            for part in word_slices(document):
                length += len(part)
                count.update(stem for stem in map(_stem, part) if stem in asked)
            lengths.append(length)
            counts.append(count)
        total = len(documents)
        mean = sum(lengths) / total or 1.0
        holding = Counter(word for count in counts for word in count)
        weight = {
            word: times * math.log(1.0 + (2 * total - holding[word] + 0.5) / (holding[word] + 0.5))
            for word, times in asked.items()
        }
        most = (K1 + 1.0) * sum(weight.values()) or 1.0
        scores = []
        for count, length in zip(counts, lengths, strict=True):
            norm = K1 * (1.0 - B + B * length / mean)
            scores.append(sum(weight[w] * tf * (K1 + 1.0) / (tf + norm) for w, tf in count.items()) / most)
        return scores

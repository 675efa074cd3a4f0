"""Compute the rarity of each token of the vocabulary: in how many passages its term occurs. Inflections share a term.

    python training/background.py shared/train WORK

Writes WORK/background.npy, uint16 [2, vocabulary]. The first row is the term of each token: for a whole word the most
frequent word of its Snowball stem, for any other token itself. The second row is the rarity of the term: 16 x log((N +
1) / (passages with the term + 0.5)), and 0 for special tokens. At most 4,000 passages of each source count, so that no
source dominates.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from py_rust_stemmers import SnowballStemmer
from sources import read_source, source_names
from tokenizers import Tokenizer

PASSAGES_PER_SOURCE = 4000
STEPS = 16.0
SPECIAL = 999
"""Number of special and unused tokens at the beginning of BERT's vocabulary."""
FOLDER = Path(__file__).parent.parent / "rerank_plugins" / "backends" / "embedded_model"


def terms_by_stem(vocabulary: dict[str, int], counts: np.ndarray) -> np.ndarray:
    """Return the term of each token. Words with the same stem share the most frequent word as their term."""
    stem = SnowballStemmer("english").stem_word
    groups: dict[str, list[int]] = {}
    for word, token in sorted(vocabulary.items()):
        if word.isascii() and word.isalpha() and len(word) > 2:
            groups.setdefault(stem(word), []).append(token)
    terms = np.arange(len(counts), dtype=np.uint16)
    for group in groups.values():
        terms[group] = max(group, key=lambda token: counts[token])
    return terms


def main() -> None:
    """Write the file."""
    train, work = (Path(argument) for argument in sys.argv[1:3])
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens_by_passage: list[np.ndarray] = []
    for name in source_names(train):
        passages = read_source(train, name).passages
        sample = passages[:: max(1, len(passages) // PASSAGES_PER_SOURCE)][:PASSAGES_PER_SOURCE]
        tokens_by_passage += [
            np.unique(row.ids) for row in tokenizer.encode_batch_fast(sample, add_special_tokens=False)
        ]
    size = tokenizer.get_vocab_size()
    counts = np.bincount(np.concatenate(tokens_by_passage), minlength=size)
    terms = terms_by_stem(tokenizer.get_vocab(), counts)
    frequency = np.bincount(np.concatenate([np.unique(terms[ids]) for ids in tokens_by_passage]), minlength=size)
    rarity = np.rint(STEPS * np.log((len(tokens_by_passage) + 1) / (frequency + 0.5)))
    rarity = np.clip(rarity, 1, 255).astype(np.uint16)[terms]
    rarity[:SPECIAL] = 0
    np.save(work / "background.npy", np.stack([terms, rarity]))
    print(f"{len(tokens_by_passage)} passages; {len(set(terms))} terms of {size} tokens")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_known_args()
    main()

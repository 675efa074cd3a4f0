"""Count in how many passages each token of the vocabulary occurs, inflections joined.

    python training/background.py shared/train WORK

Writes WORK/background.npy, uint16 [2, vocabulary]: for each token the term it counts as (a whole word: the most frequent word of
its Snowball stem; anything else: itself), and 16 x log((N + 1) / (passages with the term + 0.5)), over at most 4,000 passages of each
source, so that none drowns the others; 0 for special tokens.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from py_rust_stemmers import SnowballStemmer
from sources import names, read
from tokenizers import Tokenizer

MOST = 4000
STEPS = 16.0
SPECIAL = 999
"""BERT's vocabulary begins with 999 special and unused tokens."""
FOLDER = Path(__file__).parent.parent / "rerank_plugins" / "backends" / "embedded_model"


def joined(vocabulary: dict[str, int], counts: np.ndarray) -> np.ndarray:
    """Return each token's term: words of one stem have the most frequent of them."""
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
    train, work = (Path(each) for each in sys.argv[1:3])
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    held: list[np.ndarray] = []
    for name in names(train):
        passages = read(train, name).passages
        some = passages[:: max(1, len(passages) // MOST)][:MOST]
        held += [np.unique(each.ids) for each in tokenizer.encode_batch_fast(some, add_special_tokens=False)]
    size = tokenizer.get_vocab_size()
    counts = np.bincount(np.concatenate(held), minlength=size)
    terms = joined(tokenizer.get_vocab(), counts)
    frequency = np.bincount(np.concatenate([np.unique(terms[ids]) for ids in held]), minlength=size)
    rarity = np.rint(STEPS * np.log((len(held) + 1) / (frequency + 0.5)))
    rarity = np.clip(rarity, 1, 255).astype(np.uint16)[terms]
    rarity[:SPECIAL] = 0
    np.save(work / "background.npy", np.stack([terms, rarity]))
    print(f"{len(held)} passages; {len(set(terms))} terms of {size} tokens")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_known_args()
    main()

"""How many tokens a text may have, from both sides, where the vendor's tokenizer is not at hand.

No tokenizer in use makes more than one token of one UTF-8 byte, so the byte length is a bound that costs nothing to
compute; `estimate` is finer, and is asked only where that bound does not settle the matter.
"""

from __future__ import annotations

import re

__all__ = ["bound", "estimate"]

# Runs of text that tokenizers treat alike. A run that mixes digits and letters (base64, hex, hashes) is near one token a
# character (peers.md B15); ordinary words are not. The look ahead is bounded, so that the time is linear.
_RUNS = re.compile(
    r"(?P<word>[A-Za-z]++(?![0-9]))"
    r"|(?P<code>(?=[A-Za-z+/=_-]{0,64}[0-9])[A-Za-z0-9]+(?:[+/=_-][A-Za-z0-9]+)*)"
    r"|(?P<space>\s+)"
    r"|(?P<mark>[!-/:-@\[-`{-~]+)"
    r"|(?P<letter>[\u00a0-\u1fff]+)"
    r"|(?P<ideograph>[\u2e80-\u33ff\u4dc0-\uabff\uf900-\ufaff]+)"
    r"|(?P<hangul>[\uac00-\ud7ff]+)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_LONGEST_WORD = 20


def bound(text: str) -> int:
    """Return a number of tokens that no tokenizer exceeds: the bytes of the text in UTF-8, and two marks around it."""
    return (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) + 2


def estimate(text: str) -> tuple[int, int]:
    """Return how many tokens `text` has at least and at most, for the vocabularies in use (30,000 to 260,000 entries).

    A guess on the safe side, not a promise: `tests/test_tokens.py` holds it against real tokenizers on prose, code,
    CJK and base64.
    """
    low, high = 0.0, 2.0
    for run in _RUNS.finditer(text):
        size = run.end() - run.start()
        match run.lastgroup:
            case "word":
                # Common words are one token each, rare ones break every third letter, what is no word at all sooner.
                low += size / 12
                ordinary = size <= _LONGEST_WORD and run.group()[1:].islower()
                high += 1 + size * (0.34 if ordinary else 0.7)
            case "code":
                low += size / 10
                high += size
            case "space":
                high += run.group().count("\n") + (size > 1) + size / 16
            case "mark":  # a rule of a hundred "=" can be one token
                high += size
            case "letter":
                low += size / 10
                high += size * 1.5
            case "ideograph":
                low += size / 3
                high += size * 2
            case "hangul":  # BERT's tokenizers take the syllables apart
                low += size / 3
                high += size * 3
            case _:
                high += size * 4
    # No tokenizer in use joins what white space separates.
    return max(int(low), len(text.split())), min(int(high) + 1, bound(text))

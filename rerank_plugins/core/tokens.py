"""How many tokens a text may have, from both sides, where the vendor's tokenizer is not at hand.

No tokenizer in use makes more than one token of one UTF-8 byte, so the byte length is a bound that costs nothing to
compute; `estimate` is finer, and is asked only where that bound does not settle the matter.
"""

from __future__ import annotations

import re

__all__ = ["bound", "estimate"]

# Runs of text that tokenizers treat alike. A long run that mixes digits and letters (base64, hex, hashes) is near one
# token a character (peers.md B15); ordinary words are not.
_RUNS = re.compile(
    r"(?P<word>[A-Za-z]+(?![A-Za-z0-9+/=_-]))"
    r"|(?P<code>[A-Za-z0-9+/=_-]+)"
    r"|(?P<space>\s+)"
    r"|(?P<mark>[\x21-\x7e]+)"
    r"|(?P<letter>[\u00a0-\u1fff]+)"
    r"|(?P<ideograph>[\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]+)"
    r"|(?P<other>.)",
    re.DOTALL,
)


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
                # Common words are one token each; a lone capital or a rare word breaks every second or third letter.
                low += size / 12
                high += -(-size // 2) if run.group().isupper() else 1 + size / 3
            case "code":
                low += size / 10
                high += size
            case "space":
                high += run.group().count("\n") + (size > 1)
            case "mark":
                low += size / 8
                high += size
            case "letter":
                low += size / 10
                high += size * 1.5
            case "ideograph":
                low += size / 3
                high += size * 2
            case _:
                high += size * 4
    return int(low), min(int(high) + 1, bound(text))

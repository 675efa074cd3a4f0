"""No text spells a special token, whatever kind of tokenizer reads it.

`encode_special_tokens` only keeps a tokenizer from looking for them before it starts. Where they are words of its vocabulary
too, it finds them all the same: the Unigram models of XLM-R and DeBERTa-v3 hold "</s>" or "[SEP]" with the best of scores
(SentencePiece itself never matches such control symbols; its files lose that on their way to `tokenizer.json`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["demoted", "plain_words", "spelled", "unspelled"]


def plain_words(tokenizer: Tokenizer) -> list[str]:
    """Return the special tokens that are plain words: an answer may be called so, that it is one token.

    Such a word closes no prompt, and in a text it has to stay the maker's token.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    return [each.content for each in added if each.special and each.content.isalnum()]


def spelled(tokenizer: Tokenizer, names: Iterable[str]) -> bool:
    """Tell whether a text that holds one of the tokens `names` can get its id; `encode_special_tokens` is set."""
    known = {name: tokenizer.token_to_id(name) for name in names}
    # What stands for the unknown says nothing when a text gets it.
    known.pop(getattr(tokenizer.model, "unk_token", None) or "", None)
    probes = [text.format(name) for name in known for text in ("{}", "a{}", "a {} a")]
    found = {token for each in tokenizer.encode_batch(probes, add_special_tokens=False) for token in each.ids}
    return not found.isdisjoint(known.values())


def demoted(file: str, words: Iterable[str]) -> str:
    """Return the text of a `tokenizer.json` in which none of `words` is called special."""
    told: dict[str, Any] = json.loads(file)
    words = set(words)
    for each in told["added_tokens"]:
        each["special"] = each["special"] and each["content"] not in words
    return json.dumps(told, ensure_ascii=False)


def unspelled(file: str, names: Iterable[str]) -> str:
    """Return the text of a `tokenizer.json` whose vocabulary has no such words; every other token keeps id and score."""
    told: dict[str, Any] = json.loads(file)
    model, names = told["model"], set(names)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: places are ids, and an empty piece is found nowhere
        model["vocab"] = [["" if piece in names else piece, score] for piece, score in vocabulary]
    elif "merges" in model:  # BPE: what is not put together is not found
        model["merges"] = [pair for pair in model["merges"] if _merged(pair) not in names]
    else:  # whole words
        names.discard(model["unk_token"])
        model["vocab"] = {word: token for word, token in vocabulary.items() if word not in names}
    return json.dumps(told, ensure_ascii=False)


def _merged(pair: str | Sequence[str]) -> str:
    return pair.replace(" ", "", 1) if isinstance(pair, str) else "".join(pair)

"""What each client script shares. It runs in the client's own environment, so it imports the standard library only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

Scored = list[tuple[int, float]]
"""(index, score) of each document, best first."""


def main(clients: Mapping[str, Callable[[str, str, list[str]], Scored]]) -> None:
    """Read a call from standard input, and print the results of each query as JSON on the last line."""
    call = json.load(sys.stdin)
    rank = clients[call["client"]]
    results = [
        [(int(index), float(score)) for index, score in rank(call["url"], query, documents)]
        for query, documents in call["queries"]
    ]
    print()
    print(json.dumps(results))


def by_text(documents: list[str], texts: list[tuple[str, float]]) -> Scored:
    """Return the results of a client that answers with texts instead of positions."""
    return [(documents.index(text), score) for text, score in texts]

"""What each recipe prints: the best three passages before and after, and what a search costs."""

import time
from collections.abc import Callable

from shared import TEXTS, TITLES

from rerank_plugins import Reranker, load_reranker

QUESTION = "who will take the throne after the queen dies"
Search = Callable[[str, int, Reranker], list[str]]
"""From a question, the number of candidates and a reranker to the best three passages."""


def show(store: str, searches: dict[str, Search]) -> None:
    """Ask the question through each of the searches: LangChain, LlamaIndex, and the client of the store."""
    unchanged, reranker = load_reranker("passthrough"), load_reranker("embedded:fast")
    reranker.warmup()
    before = next(iter(searches.values()))(QUESTION, 50, unchanged)
    after = {name: search(QUESTION, 50, reranker) for name, search in searches.items()}
    best = next(iter(after.values()))

    print(f"{store}, {len(TEXTS)} passages, 50 candidates: {QUESTION}?\n\n     {'before':46} after")
    for rank, (old, new) in enumerate(zip(before, best, strict=True), 1):
        print(f"  {rank}. {beginning(old):46} {beginning(new)}")
    differing = [name for name, passages in after.items() if passages != best]
    print(f"Other passages through: {', '.join(differing)}" if differing else f"The same through {', '.join(after)}.")

    print(f"\n{'through':24}{'candidates':>10}{'documents read':>16}{'ms':>7}{'ms reranked':>13}  best passage")
    for name, search in searches.items():
        for candidates in (10, 50):
            read = reranker.stats()["documents"]
            alone, _ = timed(search, candidates, unchanged)
            reranked, passages = timed(search, candidates, reranker)
            read = reranker.stats()["documents"] - read
            title = TITLES[passages[0]]
            print(f"{name:24}{candidates:>10}{read:>16}{alone:>7.1f}{reranked:>13.1f}  {title}")


def beginning(passage: str) -> str:
    """Return the title and the first words."""
    title = TITLES[passage]
    return f"{title} | {passage[len(title) + 1 :]}"[:44]


def timed(search: Search, candidates: int, reranker: Reranker) -> tuple[float, list[str]]:
    """Return the milliseconds of a search and its passages."""
    started = time.perf_counter()
    passages = search(QUESTION, candidates, reranker)
    return (time.perf_counter() - started) * 1000, passages

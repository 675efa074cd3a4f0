"""Texts for the benchmarks of speed: prose of Python's manual, and queries about it.

Time: none; other benchmarks import this module.
Install: nothing.
"""

import pydoc_data.topics
import random

QUERIES = (
    "how does the import system find and load a module",
    "what happens when an exception is raised and nobody catches it",
    "which methods make an object behave like a number",
)


def texts(count: int, seed: int, words: int | None = None) -> list[str]:
    """Return prose of Python's manual, of `words` words or of lognormal length (median 110, sigma 0.7, 20 to 380)."""
    prose = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    generator = random.Random(seed)
    documents = []
    for _ in range(count):
        size = words or int(min(380, max(20, generator.lognormvariate(4.7, 0.7))))  # e ** 4.7 is 110
        first = generator.randrange(len(prose) - size)
        documents.append(" ".join(prose[first : first + size]))
    return documents

"""Rerank real documents inside LangChain and LlamaIndex, and see what it is worth. Run by `make demo`; no key, no torch.

100 real Google questions over 1,583 Wikipedia paragraphs. First stage: BM25 (bm25s, its defaults), 50 candidates, what
people start with. Second stage: the embedded reranker; then others, by changing a string.
"""

import time

from bm25 import CANDIDATES, ask_langchain, ask_llama_index, collection
from collection import interval

QUESTIONS = 100
questions = list(collection.queries)[:: len(collection.queries) // QUESTIONS][:QUESTIONS]


def measured(ask):
    """Return nDCG@10 and MRR@10 of every question, and the milliseconds of each."""
    ndcg, mrr, took = [], [], []
    for name in questions:
        started = time.perf_counter()
        ranked = ask(collection.queries[name])
        took.append((time.perf_counter() - started) * 1000)
        ndcg.append(collection.ndcg(name, ranked))
        mrr.append(collection.mrr(name, ranked))
    return ndcg, mrr, took


def show(question):
    old = [collection.ids[at] for at, _ in collection.search(question, CANDIDATES)]
    new = ask_langchain("embedded")(question)
    print(f"\n{question}?")
    for place in range(3):
        titles = [collection.titles[collection.ids.index(order[place])][:36] for order in (old, new)]
        print(f"  {place + 1}. {titles[0]:38} | {titles[1]:36} (was {old.index(new[place]) + 1})")


print(f"{len(collection.ids):,} paragraphs; {len(questions)} questions x {CANDIDATES} candidates.")
print("\nThe first three, before (BM25) and after (embedded), by title:")
for name in questions[3:60:19]:
    show(collection.queries[name])

# The vendor is a string: nothing else changes from row to row.
before = None
header = f"{'through':12}{'reranker':14}{'nDCG@10':>9}{'MRR@10':>9}{'change of nDCG@10 [95 %]':>30}{'ms a query':>12}"
print(f"\n{header}\n{'-' * len(header)}")
for framework, ask in (("LangChain", ask_langchain), ("LlamaIndex", ask_llama_index)):
    for reranker in ("passthrough", "lexical", "embedded"):
        ndcg, mrr, took = measured(ask(reranker))
        before = before or ndcg
        change, low, high = interval([new - old for new, old in zip(ndcg, before, strict=True)])
        told = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]" if ndcg != before else "(the first stage)"
        means = f"{sum(ndcg) / len(ndcg):>9.3f}{sum(mrr) / len(mrr):>9.3f}"
        print(f"{framework:12}{reranker:14}{means}{told:>30}{sorted(took)[len(took) // 2]:>12.1f}")
print("\nms: median, first stage included. LlamaIndex runs second: many passages are in the vector cache by then.")

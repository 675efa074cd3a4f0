"""Rerank real documents in LangChain and LlamaIndex, and measure the gain. Run by `make demo`; no key, no torch.

100 real Google questions over 1,583 Wikipedia paragraphs. First stage: BM25 (bm25s, its defaults), 50 candidates.
Second stage: three rerankers, among them the embedded model, each named by a string.
"""

import time

from bm25 import CANDIDATES, ask_langchain, ask_llama_index, collection
from collection import interval

QUESTIONS = 100
questions = list(collection.queries)[:: len(collection.queries) // QUESTIONS][:QUESTIONS]


def measure(ask):
    """Return nDCG@10, MRR@10 and the milliseconds of each question."""
    ndcg, mrr, times = [], [], []
    for name in questions:
        started = time.perf_counter()
        ranked = ask(collection.queries[name])
        times.append((time.perf_counter() - started) * 1000)
        ndcg.append(collection.ndcg(name, ranked))
        mrr.append(collection.mrr(name, ranked))
    return ndcg, mrr, times


def show(question):
    old = [collection.ids[index] for index, _ in collection.search(question, CANDIDATES)]
    new = ask_langchain("embedded")(question)
    print(f"\n{question}?")
    for rank in range(3):
        titles = [collection.titles[order[rank]][:36] for order in (old, new)]
        print(f"  {rank + 1}. {titles[0]:38} | {titles[1]:36} (was {old.index(new[rank]) + 1})")


print(f"{len(collection.ids):,} paragraphs; {len(questions)} questions x {CANDIDATES} candidates.")
print("\nThe first three, before (BM25) and after (embedded), by title:")
for name in questions[3:60:19]:
    show(collection.queries[name])

# The reranker is a string: nothing else differs between the rows.
before = None
header = f"{'through':12}{'reranker':14}{'nDCG@10':>9}{'MRR@10':>9}{'change of nDCG@10 [95 %]':>30}{'ms a query':>12}"
print(f"\n{header}\n{'-' * len(header)}")
for framework, ask in (("LangChain", ask_langchain), ("LlamaIndex", ask_llama_index)):
    for reranker in ("passthrough", "lexical", "embedded"):
        ndcg, mrr, times = measure(ask(reranker))
        before = before or ndcg
        change, low, high = interval([new - old for new, old in zip(ndcg, before, strict=True)])
        difference = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]" if ndcg != before else "(the first stage)"
        means = f"{sum(ndcg) / len(ndcg):>9.3f}{sum(mrr) / len(mrr):>9.3f}"
        print(f"{framework:12}{reranker:14}{means}{difference:>30}{sorted(times)[len(times) // 2]:>12.1f}")
print("\nms: median, with the first stage. LlamaIndex runs second, when many passages are in the vector cache.")

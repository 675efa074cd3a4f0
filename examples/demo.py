"""Rerank real documents inside LangChain and LlamaIndex, and see what it is worth. Run by `make demo`; no key, no torch.

100 real Google questions over 1,583 Wikipedia paragraphs. First stage: BM25 (bm25s, its defaults), 50 candidates, what
people start with. Second stage: the embedded reranker; then others, by changing a string.
"""

import time
import warnings

from collection import Collection, interval

warnings.filterwarnings("ignore", category=DeprecationWarning)

from langchain_core.documents import Document  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from llama_index.core.llms import MockLLM  # noqa: E402
from llama_index.core.query_engine import RetrieverQueryEngine  # noqa: E402
from llama_index.core.retrievers import BaseRetriever as LlamaRetriever  # noqa: E402
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode  # noqa: E402

from rerank_plugins.langchain import RerankRetriever  # noqa: E402
from rerank_plugins.llama_index import RerankPostprocessor  # noqa: E402

CANDIDATES, QUESTIONS = 50, 100
collection = Collection()
questions = list(collection.queries)[:: len(collection.queries) // QUESTIONS][:QUESTIONS]


class LangChainBM25(BaseRetriever):
    k: int = CANDIDATES

    def _get_relevant_documents(self, query, *, run_manager):
        return [
            Document(collection.texts[at], id=collection.ids[at], metadata={"title": collection.titles[at]})
            for at, _ in collection.search(query, self.k)
        ]


class LlamaIndexBM25(LlamaRetriever):
    def _retrieve(self, query_bundle: QueryBundle):
        return [
            NodeWithScore(node=TextNode(id_=collection.ids[at], text=collection.texts[at]), score=score)
            for at, score in collection.search(query_bundle.query_str, CANDIDATES)
        ]


def ask_langchain(reranker):
    retriever = RerankRetriever(retriever=LangChainBM25(), reranker=reranker, top_n=10)
    return lambda question: [document.id for document in retriever.invoke(question)]


def ask_llama_index(reranker):
    engine = RetrieverQueryEngine.from_args(
        LlamaIndexBM25(),
        llm=MockLLM(max_tokens=32),
        node_postprocessors=[RerankPostprocessor(reranker=reranker, top_n=10)],
    )
    return lambda question: [found.node.node_id for found in engine.query(question).source_nodes]


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
print(
    "\nms a query: median, first stage included. LlamaIndex runs second: many passages are in the vector cache by then."
)

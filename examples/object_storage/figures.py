"""The gain of the second stage in nDCG, and the time of each stage."""

from statistics import mean, median

import langchain_search
import llama_index_search
from collection import Collection, interval
from passages import Passages

from rerank_plugins import load_reranker

RERANKER = load_reranker(
    {"use": "embedded", "embedded": {"cache_mb": 600}}
)  # large enough for the vectors of all passages
FIRST_STAGES = {
    "keywords": "keywords (BM25)",
    "vectors": "vectors (approximate, 12 bytes each)",
    "hybrid": "hybrid (both, fused)",
    "exact": "vectors, exact (reads every vector)",
}


def change(new: list[float], old: list[float]) -> str:
    middle, low, high = interval([after - before for after, before in zip(new, old, strict=True)])
    return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"


def print_quality(passages: Passages, collection: Collection, names: list[str]) -> None:
    """Print nDCG@10 of each first stage alone and reranked in LangChain, and of the hybrid one in LlamaIndex."""

    def ndcg(search) -> list[float]:
        return [collection.ndcg(name, search(collection.queries[name])) for name in names]

    print(f"\n{f'nDCG@10, {len(names)} queries, 100 candidates':40}{'alone':>7}{'reranked':>10}{'change [95 %]':>26}")
    one, two = {}, {}
    for how, title in FIRST_STAGES.items():
        reranked = langchain_search.two_stages(passages, RERANKER, how, top_n=10)
        one[how] = ndcg(lambda query, how=how: [row["id"] for row in passages.candidates(query, how=how)])
        two[how] = ndcg(lambda query, search=reranked: [document.id for document in search.invoke(query)])
        print(f"{title:40}{mean(one[how]):7.3f}{mean(two[how]):10.3f}{change(two[how], one[how]):>26}", flush=True)
    engine = llama_index_search.two_stages(passages, RERANKER, top_n=10)
    same = ndcg(lambda query: [node.node_id for node in engine.query(query).source_nodes])
    print(f"{'hybrid, in LlamaIndex':40}{'':7}{mean(same):10.3f}{change(same, one['hybrid']):>26}")
    best = max(("keywords", "vectors", "hybrid"), key=lambda how: mean(one[how]))
    print(f"Two stages (hybrid, reranked) against the best single one ({best}): {change(two['hybrid'], one[best])}")


def print_times(passages: Passages, queries: list[str]) -> None:
    """Print the median milliseconds of each stage of a hybrid search, one query at a time."""
    passages.milliseconds.clear()
    candidates = {query: [row["text"] for row in passages.candidates(query)] for query in queries}
    print(f"\nmilliseconds a query (median of {len(queries)}; LanceDB has its indexes in memory)")
    for stage in ("embed", "search", "fetch"):
        print(f"  {stage:8}{median(passages.milliseconds[stage]):8.1f}")
    new = load_reranker({"use": "embedded", "embedded": {"cache_mb": 0}})
    for reranker, sample, state in ((new, queries[:3], "not seen before"), (RERANKER, queries, "seen before")):
        times = [reranker.rerank(query, candidates[query], top_n=5).latency_ms for query in sample]
        print(f"  {'rerank':8}{median(times):8.1f}  100 passages {state}")

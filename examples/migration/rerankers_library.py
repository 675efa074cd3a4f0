"""`rerankers` → `load_reranker`. `Reranker(name)` and `.rank(query, docs)` become `load_reranker(spec)` and `.rerank`.

Its `as_langchain_compressor()` imports a module that LangChain 1 no longer has; here that is `RerankCompressor`. New:
a missing package raises an error instead of returning `None`; no documents return an empty answer, not an IndexError.

pip install 'rerank-plugins[sentence-transformers]' rerankers
"""

from compare import QUESTION, TEXTS, compare, folder


def before():
    from rerankers import Reranker

    ranker = Reranker(folder(), model_type="cross-encoder", verbose=0)
    return [result.document.text for result in ranker.rank(QUESTION, TEXTS).top_k(3)]


def after():
    from rerank_plugins import load_reranker

    reranker = load_reranker(f"sentence-transformers:{folder()}")
    return [result.document for result in reranker.rerank(QUESTION, TEXTS, top_n=3)]


compare(before, after, list)

"""LlamaIndex's `CohereRerank` (llama-index-postprocessor-cohere-rerank) → `RerankPostprocessor`.

That package pins cohere below 7; `RerankPostprocessor` takes 5.13 and later. New: async without a thread, 429
retried after `Retry-After` (it retries 500, 503 and 504, on top of the SDK's own retries), a deadline, a fallback.

pip install 'rerank-plugins[llama-index,cohere]' llama-index-postprocessor-cohere-rerank
"""

from compare import KEY, Cohere, compare, llama_index


def before():
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return CohereRerank(model="rerank-v3.5", top_n=3, api_key=KEY, base_url=server.url)


def after():
    from rerank_plugins.llama_index import RerankPostprocessor

    # With CO_API_KEY or COHERE_API_KEY set, this is RerankPostprocessor(reranker="cohere:rerank-v3.5", top_n=3).
    return RerankPostprocessor(reranker={"use": "cohere:rerank-v3.5", "api_key": KEY, "base_url": server.url}, top_n=3)


with Cohere(key=KEY) as server:
    compare(before, after, llama_index)

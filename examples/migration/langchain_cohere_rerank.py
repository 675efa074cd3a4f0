"""`CohereRerank` of langchain-cohere → `RerankCompressor`: same model, same place in the chain.

langchain-cohere 0.6 pins cohere below 6; `RerankCompressor` takes 5.13 and later, so both can be installed while you
migrate. New: async without a thread, `Document.id` kept, retries and a deadline, usage, fallbacks.

pip install 'rerank-plugins[langchain,cohere]' langchain-cohere
"""

from compare import KEY, Cohere, compare, langchain


def before():
    from langchain_cohere import CohereRerank

    return CohereRerank(model="rerank-v3.5", top_n=3, cohere_api_key=KEY, base_url=server.url)


def after():
    from rerank_plugins.langchain import RerankCompressor

    # With CO_API_KEY or COHERE_API_KEY set, this is RerankCompressor(reranker="cohere:rerank-v3.5", top_n=3).
    return RerankCompressor(reranker={"use": "cohere:rerank-v3.5", "api_key": KEY, "base_url": server.url}, top_n=3)


with Cohere(key=KEY) as server:
    compare(before, after, langchain)

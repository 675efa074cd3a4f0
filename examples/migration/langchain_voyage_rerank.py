"""`VoyageAIRerank` of langchain-voyageai → `RerankCompressor`. Its `top_k` is `top_n` here; `truncation` stays on.

New: retries (the SDK does none by default), requests above the vendor's limits are split, `Document.id` is kept. Usage
is on the response (`on_response`), not as `total_tokens` in every document.

pip install 'rerank-plugins[langchain,voyage]' langchain-voyageai
"""

from compare import KEY, compare, langchain

from rerank_plugins.testing.vendors import VoyageServer


def before():
    from langchain_voyageai import VoyageAIRerank

    return VoyageAIRerank(model="rerank-2.5", top_k=3, api_key=KEY, base_url=f"{server.url}/v1")


def after():
    from rerank_plugins.langchain import RerankCompressor

    # With VOYAGE_API_KEY set, this is RerankCompressor(reranker="voyage:rerank-2.5", top_n=3).
    return RerankCompressor(reranker={"use": "voyage:rerank-2.5", "api_key": KEY, "base_url": server.url}, top_n=3)


with VoyageServer(key=KEY) as server:
    compare(before, after, langchain)

"""LlamaIndex's rerankers of servers."""

from typing import Any

from calling import Scored, by_text, main
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.xinference_rerank import XinferenceRerank


def _rank(reranker: Any, query: str, documents: list[str]) -> Scored:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in documents]
    ranked = reranker.postprocess_nodes(nodes, query_bundle=QueryBundle(query))
    return by_text(documents, [(node.node.text, node.score) for node in ranked])


def cohere(url: str, query: str, documents: list[str]) -> Scored:
    """Cohere."""
    reranker = CohereRerank(model="tiny", api_key="interop", base_url=url, top_n=len(documents))
    return _rank(reranker, query, documents)


def jina(url: str, query: str, documents: list[str]) -> Scored:
    """Jina."""
    reranker = JinaRerank(model="tiny", api_key="interop", base_url=f"{url}/v1", top_n=len(documents))
    return _rank(reranker, query, documents)


def tei(url: str, query: str, documents: list[str]) -> Scored:
    """Text Embeddings Inference."""
    return _rank(TextEmbeddingInference(base_url=url, top_n=len(documents)), query, documents)


def xinference(url: str, query: str, documents: list[str]) -> Scored:
    """Xinference."""
    return _rank(XinferenceRerank(model="tiny", base_url=url, top_n=len(documents)), query, documents)


def siliconflow(url: str, query: str, documents: list[str]) -> Scored:
    """SiliconFlow."""
    reranker = SiliconFlowRerank(model="tiny", api_key="interop", base_url=f"{url}/v1/rerank", top_n=len(documents))
    return _rank(reranker, query, documents)


if __name__ == "__main__":
    main({"cohere": cohere, "jina": jina, "tei": tei, "xinference": xinference, "siliconflow": siliconflow})

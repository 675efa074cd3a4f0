"""Elasticsearch with a reranker, against a stand-in on loopback: the server comes in no Python package.

pip install 'rerank-plugins[langchain,llama-index]' langchain-elasticsearch llama-index-vector-stores-elasticsearch
"""

import search_server
from elasticsearch import Elasticsearch
from langchain_elasticsearch import ElasticsearchStore as LangChainElasticsearch
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.elasticsearch import ElasticsearchStore as LlamaIndexElasticsearch
from printing import show
from shared import NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

url = search_server.start()  # yours goes here

# LangChain
store = LangChainElasticsearch("langchain", embedding=LangChainEmbedding(), es_url=url)
store.add_texts(TEXTS)


def ask_langchain(question, candidates, reranker):
    # This `fetch_k` is Elasticsearch's `num_candidates`: it must be at least the number of candidates.
    retriever = store.as_retriever(search_kwargs={"fetch_k": 2 * candidates})
    retriever = RerankRetriever(retriever=retriever, fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
vectors = LlamaIndexElasticsearch("llama_index", es_url=url)
storage = StorageContext.from_defaults(vector_store=vectors)
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# Elasticsearch's own client, over the index that LangChain wrote
client = Elasticsearch(url)


def ask_elasticsearch(question, candidates, reranker):
    knn = {"field": "vector", "query_vector": embed(question), "k": candidates, "num_candidates": 2 * candidates}
    hits = client.search(index="langchain", knn=knn, size=candidates)["hits"]["hits"]
    response = reranker.rerank(question, [hit["_source"]["text"] for hit in hits], top_n=3)
    return [result.document for result in response]


searches = {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "Elasticsearch's client": ask_elasticsearch}
show("Elasticsearch", searches)
vectors.close()

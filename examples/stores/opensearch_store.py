"""OpenSearch with a reranker, against a stand-in on loopback: the server comes in no Python package.

pip install 'rerank-plugins[langchain,llama-index]' langchain-community opensearch-py \
    llama-index-vector-stores-opensearch
"""

import search_server
from langchain_community.vectorstores import OpenSearchVectorSearch
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.opensearch import OpensearchVectorClient, OpensearchVectorStore
from opensearchpy import OpenSearch
from printing import show
from shared import DIMENSIONS, NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

url = search_server.start()  # yours goes here

# LangChain
store = OpenSearchVectorSearch(url, "langchain", LangChainEmbedding())
store.add_texts(TEXTS, bulk_size=len(TEXTS))  # it refuses more than 500 otherwise


def ask_langchain(question, candidates, reranker):
    retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
vectors = OpensearchVectorStore(OpensearchVectorClient(url, "llama_index", DIMENSIONS))
storage = StorageContext.from_defaults(vector_store=vectors)
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# OpenSearch's own client, over the index that LangChain wrote
client = OpenSearch(url)


def ask_opensearch(question, candidates, reranker):
    knn = {"vector_field": {"vector": embed(question), "k": candidates}}
    body = {"query": {"knn": knn}, "size": candidates}
    hits = client.search(index="langchain", body=body)["hits"]["hits"]
    response = reranker.rerank(question, [hit["_source"]["text"] for hit in hits], top_n=3)
    return [result.document for result in response]


searches = {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "OpenSearch's client": ask_opensearch}
show("OpenSearch", searches)

"""Chroma with a reranker: through LangChain, through LlamaIndex, and with Chroma's own client.

pip install 'rerank-plugins[langchain,llama-index]' chromadb langchain-chroma llama-index-vector-stores-chroma
"""

import chromadb
from langchain_chroma import Chroma
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.chroma import ChromaVectorStore
from printing import show
from shared import NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))  # yours: HttpClient(host=…)

# LangChain
store = Chroma("langchain", LangChainEmbedding(), client=client)
store.add_texts(TEXTS)


def ask_langchain(question, candidates, reranker):
    retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
storage = StorageContext.from_defaults(vector_store=ChromaVectorStore(client.create_collection("llama_index")))
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# Chroma's own client
passages = client.create_collection("own")
passages.add([str(number) for number in range(len(TEXTS))], [embed(text) for text in TEXTS], documents=TEXTS)


def ask_chroma(question, candidates, reranker):
    results = passages.query(query_embeddings=[embed(question)], n_results=candidates)
    response = reranker.rerank(question, results["documents"][0], top_n=3)
    return [result.document for result in response]


show("Chroma", {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "Chroma's client": ask_chroma})

"""FAISS with a reranker: through LangChain, through LlamaIndex, and with faiss itself.

pip install 'rerank-plugins[langchain,llama-index]' faiss-cpu langchain-community llama-index-vector-stores-faiss
"""

import faiss
import numpy as np
from langchain_community.vectorstores import FAISS
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.faiss import FaissVectorStore
from printing import show
from shared import DIMENSIONS, NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

# LangChain
store = FAISS.from_texts(TEXTS, LangChainEmbedding())


def ask_langchain(question, candidates, reranker):
    retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
storage = StorageContext.from_defaults(vector_store=FaissVectorStore(faiss.IndexFlatIP(DIMENSIONS)))
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# faiss itself, which stores vectors and no texts
vectors = faiss.IndexFlatIP(DIMENSIONS)
vectors.add(np.array([embed(text) for text in TEXTS], dtype=np.float32))


def ask_faiss(question, candidates, reranker):
    _, (places,) = vectors.search(np.array([embed(question)], dtype=np.float32), candidates)
    texts = [TEXTS[place] for place in places if place >= 0]  # -1 stands for "no more"
    response = reranker.rerank(question, texts, top_n=3)
    return [result.document for result in response]


show("FAISS", {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "faiss itself": ask_faiss})

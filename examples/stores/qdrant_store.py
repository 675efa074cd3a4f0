"""Qdrant in its local mode with a reranker: through LangChain, through LlamaIndex, and with Qdrant's own client.

pip install 'rerank-plugins[langchain,llama-index]' qdrant-client langchain-qdrant llama-index-vector-stores-qdrant
"""

from langchain_qdrant import QdrantVectorStore as LangChainQdrant
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexQdrant
from printing import show
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from shared import DIMENSIONS, NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

client = QdrantClient(":memory:")  # yours: QdrantClient("http://…")
SIZE = VectorParams(size=DIMENSIONS, distance=Distance.COSINE)

# LangChain
client.create_collection("langchain", SIZE)
store = LangChainQdrant(client, "langchain", LangChainEmbedding())
store.add_texts(TEXTS)


def ask_langchain(question, candidates, reranker):
    retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
storage = StorageContext.from_defaults(vector_store=LlamaIndexQdrant("llama_index", client=client))
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# Qdrant's own client
client.create_collection("own", SIZE)
client.upsert("own", [PointStruct(id=i, vector=embed(text), payload={"body": text}) for i, text in enumerate(TEXTS)])


def ask_qdrant(question, candidates, reranker):
    points = client.query_points("own", query=embed(question), limit=candidates, with_payload=True).points
    response = reranker.rerank(question, [point.payload["body"] for point in points], top_n=3)
    return [points[result.index].payload["body"] for result in response]


show("Qdrant", {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "Qdrant's client": ask_qdrant})

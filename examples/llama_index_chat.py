"""A LlamaIndex chat engine with a reranker between its retriever and the LLM. The LLM here repeats its prompt.

pip install 'rerank-plugins[llama-index]'
"""

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

from rerank_plugins.llama_index import RerankPostprocessor

texts = [
    "A refund takes five working days once the parcel is back.",
    "Parcels are sent from our warehouse in Ghent.",
    "Gift cards cannot be returned.",
]
index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=MockEmbedding(embed_dim=8))

chat = index.as_chat_engine(
    chat_mode="context",
    llm=MockLLM(),
    similarity_top_k=50,  # retrieve broadly
    node_postprocessors=[RerankPostprocessor(reranker="embedded", top_n=1)],  # rank precisely
)
for question in ("how long does a refund take?", "and where are parcels sent from?"):
    answer = chat.chat(question)
    for node in answer.source_nodes:
        print(f"{node.score:.3f} {node.text}")

"""A LangChain agent whose search tool reranks. The chat model returns prepared messages; replace it by yours.

pip install 'rerank-plugins[langchain]' langchain
"""

from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore

from rerank_plugins.langchain import RerankRetriever

store = InMemoryVectorStore(DeterministicFakeEmbedding(size=64))  # your vector store goes here
store.add_documents(
    [
        Document("A refund takes five working days once the parcel is back.", metadata={"page": 12}),
        Document("Parcels are sent from our warehouse in Ghent.", metadata={"page": 3}),
        Document("Gift cards cannot be returned.", metadata={"page": 14}),
    ]
)

search = create_retriever_tool(
    RerankRetriever(retriever=store.as_retriever(), fetch_k=50, reranker="embedded", top_n=2),
    "search_handbook",
    "Search the shop's handbook.",
    response_format="content_and_artifact",  # the artifact is the documents, with their scores
)


class Scripted(GenericFakeChatModel):
    def bind_tools(self, tools, **kwargs):
        return self


call = {"name": search.name, "args": {"query": "how long does a refund take?"}, "id": "1", "type": "tool_call"}
script = iter([AIMessage("", tool_calls=[call]), AIMessage("Five working days after the parcel is back.")])

agent = create_agent(Scripted(messages=script), tools=[search])
messages = agent.invoke({"messages": [("user", "When do I get my money back?")]})["messages"]

for document in messages[-2].artifact:
    print(f"{document.metadata['relevance_score']:.3f} {document.page_content} (page {document.metadata['page']})")
print(messages[-1].content)

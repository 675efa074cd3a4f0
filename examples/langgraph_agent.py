"""A LangGraph graph that reads the score of the best document: where it is low, the question is put in other words.

pip install 'rerank-plugins[langchain]' langgraph
"""

from typing import TypedDict

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, StateGraph

from rerank_plugins.langchain import RerankRetriever

store = InMemoryVectorStore(DeterministicFakeEmbedding(size=64))  # your vector store goes here
store.add_texts(["A refund takes five working days once the parcel is back.", "Parcels are sent from Ghent."])
retriever = RerankRetriever(retriever=store.as_retriever(), fetch_k=50, reranker="embedded", top_n=1)
ENOUGH = 0.05  # take it from your own questions


class State(TypedDict, total=False):
    question: str
    attempts: int
    best: Document
    answer: str


def retrieve(state: State) -> State:
    (best,) = retriever.invoke(state["question"])
    return {"best": best, "attempts": state.get("attempts", 0) + 1}


def next_node(state: State) -> str:
    score = state["best"].metadata["relevance_score"]  # None if a fallback answered: it knows no scores
    enough = score is None or score >= ENOUGH or state["attempts"] == 2
    return "answer" if enough else "rewrite"


def rewrite(state: State) -> State:
    return {"question": state["question"].replace("my money back", "a refund")}  # your chat model goes here


def answer(state: State) -> State:
    return {"answer": state["best"].page_content}  # and here


graph = StateGraph(State)
for node in (retrieve, rewrite, answer):
    graph.add_node(node.__name__, node)
graph.add_edge(START, "retrieve")
graph.add_conditional_edges("retrieve", next_node, ["rewrite", "answer"])
graph.add_edge("rewrite", "retrieve")
graph.add_edge("answer", END)

result = graph.compile().invoke({"question": "how long until I get my money back?"})
print(f"{result['attempts']} searches; at last: {result['question']}")
print(f"{result['best'].metadata['relevance_score']:.3f} {result['answer']}")

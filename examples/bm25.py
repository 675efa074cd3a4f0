"""BM25, the first stage of the demo, as a retriever of LangChain and of LlamaIndex, with a reranker behind it."""

import warnings

from collection import Collection

warnings.filterwarnings("ignore", category=DeprecationWarning)

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever as LlamaRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

CANDIDATES = 50
collection = Collection()


class LangChainBM25(BaseRetriever):
    k: int = CANDIDATES

    def _get_relevant_documents(self, query, *, run_manager):
        best = [(collection.ids[index], collection.texts[index]) for index, _ in collection.search(query, self.k)]
        return [Document(text, id=name, metadata={"title": collection.titles[name]}) for name, text in best]


class LlamaIndexBM25(LlamaRetriever):
    def _retrieve(self, query_bundle: QueryBundle):
        return [
            NodeWithScore(node=TextNode(id_=collection.ids[index], text=collection.texts[index]), score=score)
            for index, score in collection.search(query_bundle.query_str, CANDIDATES)
        ]


def ask_langchain(reranker):
    retriever = RerankRetriever(retriever=LangChainBM25(), reranker=reranker, top_n=10)
    return lambda question: [document.id for document in retriever.invoke(question)]


def ask_llama_index(reranker):
    engine = RetrieverQueryEngine.from_args(
        LlamaIndexBM25(),
        llm=MockLLM(max_tokens=32),
        node_postprocessors=[RerankPostprocessor(reranker=reranker, top_n=10)],
    )
    return lambda question: [item.node.node_id for item in engine.query(question).source_nodes]

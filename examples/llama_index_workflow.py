"""A LlamaIndex workflow with a reranker between the retriever and the LLM. The LLM here repeats its prompt.

pip install 'rerank-plugins[llama-index]'
"""

import asyncio

from llama_index.core import MockEmbedding, VectorStoreIndex, get_response_synthesizer
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step

from rerank_plugins.llama_index import RerankPostprocessor

texts = [
    "A refund takes five working days once the parcel is back.",
    "Parcels are sent from our warehouse in Ghent.",
    "Gift cards cannot be returned.",
]


class Candidates(Event):
    query: str
    nodes: list[NodeWithScore]


class Best(Candidates): ...


class Answer(Workflow):
    def __init__(self, **options):
        super().__init__(**options)
        nodes = [TextNode(text=text) for text in texts]
        index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=8))  # your store and embeddings
        self.retriever = index.as_retriever(similarity_top_k=50)  # retrieve broadly
        self.reranker = RerankPostprocessor(reranker="embedded", top_n=2)  # rank precisely
        self.synthesizer = get_response_synthesizer(llm=MockLLM())  # your LLM

    @step
    async def retrieve(self, event: StartEvent) -> Candidates:
        return Candidates(query=event.query, nodes=await self.retriever.aretrieve(event.query))

    @step
    async def rerank(self, event: Candidates) -> Best:
        nodes = await self.reranker.apostprocess_nodes(event.nodes, query_str=event.query)
        return Best(query=event.query, nodes=nodes)

    @step
    async def synthesize(self, event: Best) -> StopEvent:
        return StopEvent(result=await self.synthesizer.asynthesize(event.query, nodes=event.nodes))


async def main():
    answer = await Answer(timeout=30).run(query="how long does a refund take?")
    for node in answer.source_nodes:
        print(f"{node.score:.3f} {node.text}")


asyncio.run(main())

"""`chat_reranker` over the frameworks' own classes of OpenAI's models, which ask a server in OpenAI's format."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import create_retriever_tool
from langchain_openai import ChatOpenAI
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.llms.openai import OpenAI

from rerank_plugins import AuthenticationFailed, RateLimited
from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.langchain import chat_reranker as langchain_reranker
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.llama_index import chat_reranker as llama_index_reranker
from rerank_plugins.testing.script import Status, Step
from rerank_plugins.testing.vendors.chat import ChatServer, grade_of_words

QUERY = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "Paris is in France."]
MODEL = "gpt-4o-mini"


class Server(ChatServer):
    """The testing server of chat models, with the streams and tools that the SDK of OpenAI asks for."""

    optional = ChatServer.optional | {
        "stream": bool,
        "stream_options": dict,
        "tools": list,
        "tool_choice": (str, dict),
        "parallel_tool_calls": bool,
        "n": int,
    }

    def answer(self, body: Any, pairs: Any) -> Any:
        """Answer by the tool that the request has, if it has one."""
        reply = super().answer(body, pairs)
        if tools := body.get("tools"):
            message = reply["choices"][0]["message"]
            function = {"name": tools[0]["function"]["name"], "arguments": message["content"]}
            message["content"] = None
            message["tool_calls"] = [{"id": "call-1", "type": "function", "function": function}]
            reply["choices"][0]["finish_reason"] = "tool_calls"
        return reply


class Streamed(Step):
    """The reply as server-sent events, if the request asks for them."""

    def play(self, exchange: Any) -> None:
        body = exchange.request.body
        if not body.get("stream"):
            super().play(exchange)
            return
        reply = exchange.answer(self.scores(exchange.pairs()))
        usage, choice = reply.pop("usage"), reply["choices"][0]
        content = choice["message"]["content"]
        deltas = [{"role": "assistant", "content": ""}, *({"content": part} for part in (content[:9], content[9:]))]
        chunks = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
        chunks.append([{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}])
        events = [{**reply, "object": "chat.completion.chunk", "choices": choices} for choices in chunks]
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({**events[0], "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        exchange.send_raw(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), {"content-type": "text/event-stream"})


@pytest.fixture
def server() -> Iterator[Server]:
    """The server. After the test, no request may have been refused as malformed."""
    with Server() as running:
        running.always(Streamed())
        yield running
        assert running.refused == []


def langchain_model(server: Server, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, **options)


def llama_index_model(server: Server, **options: Any) -> OpenAI:
    return OpenAI(model=MODEL, api_base=f"{server.url}/v1", api_key=server.key, max_retries=0, **options)


def make(framework: str, server: Server, **options: Any) -> Any:
    if framework == "langchain":
        return langchain_reranker(langchain_model(server), **options)
    return llama_index_reranker(llama_index_model(server), **options)


FRAMEWORKS = ["langchain", "llama-index"]
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_face = pytest.mark.parametrize("face", ["sync", "async"])


@each_face
@each_framework
def test_grades_are_structured_output_and_every_document_has_one(framework: str, face: str, server: Server) -> None:
    with make(framework, server) as reranker:
        answer = reranker.rerank(QUERY, TEXTS) if face == "sync" else asyncio.run(reranker.arerank(QUERY, TEXTS))
    assert {result.index: result.raw_score for result in answer} == {
        index: pytest.approx(grade_of_words(QUERY, text)) for index, text in enumerate(TEXTS)
    }
    (request,) = server.requests
    assert request.body["model"] == MODEL
    if framework == "langchain":
        assert request.body["response_format"]["type"] == "json_schema"
    else:
        (tool,) = request.body["tools"]
        assert len(tool["function"]["parameters"]["required"]) == len(TEXTS)
    assert (answer.usage.input_tokens or 0) > 0
    assert answer.usage.output_tokens == 4 * len(TEXTS)


@each_framework
def test_errors_of_the_sdk_are_typed(framework: str, server: Server) -> None:
    server.play(Status(429, {"retry-after": "0"}), Status(401))
    with make(framework, server, retry=1) as reranker:
        with pytest.raises(RateLimited):
            reranker.rerank(QUERY, TEXTS)
        with pytest.raises(AuthenticationFailed, match="Check the key of the model itself"):
            reranker.rerank(QUERY, TEXTS)


# LangChain ------------------------------------------------------------------------------------------------------------


class Store(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(text) for text in TEXTS]


def retriever(server: Server) -> RerankRetriever:
    # Without `stream_usage`, LangChain asks no server but OpenAI's own for the tokens of a stream.
    model = langchain_model(server, stream_usage=True)
    return RerankRetriever(retriever=Store(), reranker=langchain_reranker(model), top_n=2)


@each_face
def test_a_chain_counts_the_tokens_of_the_reranker(face: str, server: Server) -> None:
    chain = retriever(server) | RunnableLambda(lambda documents: documents[0].page_content)
    with get_usage_metadata_callback() as counted:
        config: Any = {"callbacks": [counted]}
        text = chain.invoke(QUERY, config) if face == "sync" else asyncio.run(chain.ainvoke(QUERY, config))
    assert text == TEXTS[2]
    (usage,) = counted.usage_metadata.values()
    assert (usage["input_tokens"], usage["output_tokens"]) == (usage["total_tokens"] - 16, 16)


async def test_events_of_a_chain_name_the_model_and_its_tokens(server: Server) -> None:
    """Events make the chat model stream."""
    events = [event async for event in retriever(server).astream_events(QUERY)]
    (end,) = [event for event in events if event["event"] == "on_chat_model_end"]
    assert end["data"]["output"].usage_metadata["output_tokens"] == 16
    assert [event["event"] for event in events][-1] == "on_retriever_end"


class Scripted(GenericFakeChatModel):
    """Returns, and streams, prepared messages."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _stream(self, *arguments: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        message = next(self.messages)
        for call in message.tool_calls:
            part = {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[part]))
        for word in message.content.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))


def langchain_agent(server: Server) -> Any:
    search = create_retriever_tool(retriever(server), "search", "Search.", response_format="content_and_artifact")
    call = {"name": "search", "args": {"query": QUERY}, "id": "1", "type": "tool_call"}
    script = iter([AIMessage("", tool_calls=[call]), AIMessage("From nectar.")])
    return create_agent(Scripted(messages=script), tools=[search])


@each_face
def test_a_streaming_agent_streams_its_own_words_only(face: str, server: Server) -> None:
    """The grades are no words of the agent: a chat window must not show their JSON."""
    agent, question = langchain_agent(server), {"messages": [("user", QUERY)]}

    async def collect() -> list[Any]:
        return [part async for part in agent.astream(question, stream_mode="messages")]

    parts = list(agent.stream(question, stream_mode="messages")) if face == "sync" else asyncio.run(collect())
    words = "".join(message.text for message, _ in parts if message.type in ("ai", "AIMessageChunk"))
    assert words.strip() == "From nectar."
    (artifact,) = [message.artifact for message, _ in parts if message.type == "tool"]
    assert artifact[0].page_content == TEXTS[2]


# LlamaIndex -----------------------------------------------------------------------------------------------------------


class FixedNodes(LlamaIndexRetriever):
    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]


def engine(server: Server, **options: Any) -> RetrieverQueryEngine:
    postprocessor = RerankPostprocessor(reranker=llama_index_reranker(llama_index_model(server, **options)), top_n=2)
    return RetrieverQueryEngine.from_args(FixedNodes(), llm=MockLLM(), node_postprocessors=[postprocessor])


@each_face
def test_a_query_engine_counts_the_tokens_of_the_reranker(face: str, server: Server) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    engine_of_openai = engine(server, callback_manager=CallbackManager([counter]))
    response = engine_of_openai.query(QUERY) if face == "sync" else asyncio.run(engine_of_openai.aquery(QUERY))
    assert response.source_nodes[0].text == TEXTS[2]
    assert counter.prompt_llm_token_count > 0
    assert counter.completion_llm_token_count > 0


@each_face
def test_a_streaming_query_engine_reranks(face: str, server: Server) -> None:
    postprocessor = RerankPostprocessor(reranker=llama_index_reranker(llama_index_model(server)), top_n=2)
    streaming = RetrieverQueryEngine.from_args(
        FixedNodes(), llm=MockLLM(), node_postprocessors=[postprocessor], streaming=True
    )
    response = streaming.query(QUERY) if face == "sync" else asyncio.run(streaming.aquery(QUERY))
    assert response.source_nodes[0].text == TEXTS[2]


async def test_a_streaming_llama_index_agent_reranks_in_its_tool(server: Server) -> None:
    def reply(messages: Any, **options: Any) -> ChatMessage:
        if any(message.role == "tool" for message in messages):
            return ChatMessage(role="assistant", content="From nectar.")
        call = ToolCallBlock(tool_call_id="1", tool_name="search", tool_kwargs={"input": QUERY})
        return ChatMessage(role="assistant", blocks=[call])

    tool = QueryEngineTool.from_defaults(engine(server), name="search", description="Search.")
    agent = FunctionAgent(tools=[tool], llm=MockFunctionCallingLLM(response_generator=reply))
    run = agent.run(QUERY)
    deltas = [event.delta async for event in run.stream_events() if hasattr(event, "delta")]
    assert str(await run) == "From nectar."
    assert "".join(deltas) == "From nectar."
    assert len(server.requests) == 1

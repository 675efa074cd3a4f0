"""`chat_reranker`: the chat models that users of LangChain and LlamaIndex have already, as rerankers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import BadResponse, ConfigError, RateLimited, Reranker, TransientError, Usage
from rerank_plugins.langchain import RerankCompressor, RerankRetriever
from rerank_plugins.langchain import chat_reranker as langchain_reranker
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.llama_index import chat_reranker as llama_index_reranker
from rerank_plugins.testing.vendors.chat import grade_of_words

QUERY = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "Paris is in France."]


def graded(content: str) -> str:
    data = json.loads(content)
    return json.dumps(
        {name: round(10 * grade_of_words(data["query"], text)) for name, text in data["documents"].items()}
    )


class Grader(BaseChatModel):
    """A LangChain chat model that grades by shared words."""

    problem: Any = None
    calls: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    @property
    def _llm_type(self) -> str:
        return "grader"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        self.calls.append(messages)
        if isinstance(self.problem, Exception):
            raise self.problem
        assert [message.type for message in messages] == ["system", "human"]
        assert not [text for text in (*TEXTS, QUERY) if text in messages[0].content]
        usage = {"input_tokens": 50, "output_tokens": 9, "total_tokens": 59, "input_token_details": {"cache_read": 20}}
        message = self.problem or AIMessage(graded(messages[1].content), usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


class LlamaGrader(CustomLLM):
    """A LlamaIndex LLM that grades by shared words."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="grader")

    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        content = prompt[prompt.index('{"query"') : prompt.rindex("}") + 1]
        usage = {"prompt_tokens": 50, "completion_tokens": 9}
        return CompletionResponse(text=graded(content), additional_kwargs=usage)

    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        raise NotImplementedError


def make(framework: str, **options: Any) -> Reranker:
    return (
        langchain_reranker(Grader(), **options)
        if framework == "langchain"
        else llama_index_reranker(LlamaGrader(), **options)
    )


FRAMEWORKS = ["langchain", "llama_index"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_chat_model_grades_every_document(framework: str, face: str) -> None:
    with make(framework, price={"per_million_tokens": 1.0, "per_million_output_tokens": 2.0}) as reranker:
        is_sync = face == "sync"
        answer = reranker.rerank(QUERY, TEXTS) if is_sync else asyncio.run(reranker.arerank(QUERY, TEXTS))
    assert [result.index for result in answer][:2] == [2, 1]
    assert {result.index: result.raw_score for result in answer} == {
        index: pytest.approx(grade_of_words(QUERY, text)) for index, text in enumerate(TEXTS)
    }
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (50, 9)
    assert answer.usage.cost_usd == pytest.approx(68e-6)
    assert answer.usage.cached_tokens == (20 if framework == "langchain" else None)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_many_documents_are_graded_in_blocks(framework: str) -> None:
    with make(framework, chat={"block": 6}, top_n=3) as reranker:
        answer = reranker.rerank(QUERY, [f"{TEXTS[number % 4]} {number}" for number in range(40)])
    assert len(answer) == 3
    assert answer.usage.requests == 10


class Store(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(text) for text in TEXTS]


class Runs(BaseCallbackHandler):
    """Collects the runs of chat models, and their parents."""

    def __init__(self) -> None:
        self.started: list[tuple[str, Any, Any]] = []
        self.tokens = 0

    def on_chat_model_start(self, serialized: Any, messages: Any, **options: Any) -> None:
        self.started.append(("model", options["run_id"], options["parent_run_id"]))

    def on_retriever_start(self, serialized: Any, query: str, **options: Any) -> None:
        self.started.append(("retriever", options["run_id"], options["parent_run_id"]))

    def on_llm_end(self, response: Any, **options: Any) -> None:
        self.tokens += response.generations[0][0].message.usage_metadata["total_tokens"]


@pytest.mark.parametrize("face", ["sync", "async"])
def test_the_model_runs_inside_the_run_of_the_retriever(face: str) -> None:
    runs = Runs()
    retriever = RerankRetriever(retriever=Store(), reranker=langchain_reranker(Grader()), top_n=2)
    chain = {"context": retriever, "question": RunnablePassthrough()} | RunnableLambda(lambda values: values["context"])
    config = {"callbacks": [runs]}
    documents = chain.invoke(QUERY, config) if face == "sync" else asyncio.run(chain.ainvoke(QUERY, config))
    assert documents[0].page_content == TEXTS[2]
    outer = next(run for kind, run, _ in runs.started if kind == "retriever")
    assert [parent for kind, _, parent in runs.started if kind == "model"] == [outer]
    assert runs.tokens == 59


class FixedNodes(LlamaIndexRetriever):
    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]


def test_a_query_engine_reranks_with_its_llm() -> None:
    postprocessor = RerankPostprocessor(reranker=llama_index_reranker(LlamaGrader()), top_n=2)
    engine = RetrieverQueryEngine.from_args(FixedNodes(), llm=MockLLM(), node_postprocessors=[postprocessor])
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert response.source_nodes[0].text == TEXTS[2]


def test_fake_chat_models_without_grades_end_in_the_fallback() -> None:
    model = FakeListChatModel(responses=["The first one."])
    with pytest.raises(BadResponse, match="text in place of one JSON object"):
        langchain_reranker(model).rerank(QUERY, TEXTS)
    compressor = RerankCompressor(reranker=langchain_reranker(model, fallback=["lexical"]), top_n=1)
    (document,) = compressor.compress_documents([Document(text) for text in TEXTS], QUERY)
    assert (document.page_content, document.metadata["rerank_model"]) == (TEXTS[2], "lexical")
    with pytest.raises(BadResponse):
        llama_index_reranker(MockLLM()).rerank(QUERY, TEXTS)


def test_a_refusal_is_no_score() -> None:
    refused = AIMessage("", additional_kwargs={"refusal": "I will not."})
    with pytest.raises(BadResponse, match="declined to answer"):
        langchain_reranker(Grader(problem=refused)).rerank(QUERY, TEXTS)


class APIStatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("slow down, sk-abcdefghijklmnop123456")
        self.status_code = status


@pytest.mark.parametrize(
    ("problem", "kind", "requests"),
    [(APIStatusError(429), RateLimited, 2), (TimeoutError("no answer"), TransientError, 2)],
)
def test_errors_of_the_model_are_typed_and_retried(problem: Exception, kind: type[Exception], requests: int) -> None:
    model = Grader(problem=problem)
    with pytest.raises(kind) as raised:
        langchain_reranker(model, retry={"attempts": 2, "wait_initial": 0}).rerank(QUERY, TEXTS)
    assert len(model.calls) == requests
    assert "sk-abc" not in str(raised.value)


class ContextError(Exception):
    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        vars(self).update(fields)


class SmallGrader(Grader):
    """Grades at most four documents at once."""

    too_many: Any

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        if len(json.loads(messages[1].content)["documents"]) > 4:
            raise self.too_many
        return super()._generate(messages, stop, run_manager, **options)


@pytest.mark.parametrize(
    "problem",
    [
        ContextError("Error code: 400", status_code=400, code="context_length_exceeded"),
        ContextError("Error code: 400 - {'message': 'maximum context length is 4096 tokens'}", status_code=400),
        ContextError("no", code="context_length_exceeded"),
        ValueError("Requested tokens (5000) exceed context window of 4096"),
    ],
    ids=["OpenAI", "vLLM", "code only", "llama-cpp-python"],
)
def test_too_many_tokens_for_the_model_make_smaller_blocks(problem: Exception) -> None:
    texts = [f"bees number {number}" for number in range(12)]
    answer = langchain_reranker(SmallGrader(too_many=problem)).rerank(QUERY, texts)
    assert {result.index: result.raw_score for result in answer} == pytest.approx(
        {index: grade_of_words(QUERY, text) for index, text in enumerate(texts)}
    )


@pytest.mark.parametrize("chat_reranker", [langchain_reranker, llama_index_reranker])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": "k"}, "api_key is no option of chat_reranker"),
        ({"chat": {"mode": "logprobs"}}, "must be 'graded'"),
        ({"chat": {"blok": 3}}, "no option of chat 'blok'"),
        ({"deadlin": 3}, "deadlin"),
    ],
)
def test_wrong_options_are_refused(chat_reranker: Any, options: dict[str, Any], message: str) -> None:
    model = Grader() if chat_reranker is langchain_reranker else LlamaGrader()
    with pytest.raises(ConfigError, match=message):
        chat_reranker(model, **options)
    with pytest.raises(ConfigError, match="needs a"):
        chat_reranker("gpt")


def test_usage_that_is_no_number_is_unknown() -> None:
    from rerank_plugins._chat_model import token_usage

    assert token_usage("many", None) == Usage()

"""Decision and chat models inside a spec: cascade, fusion, fallback, deadline, concurrency and `check`."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.cli import main
from rerank_plugins.testing.script import Hang, Step
from rerank_plugins.testing.vendors import ChatServer, OpenAIDecisionsServer, TypeSafeServer

QUERY = "how do the tides work"
DOCUMENTS = [f"tides number {number} {'work ' * (number % 3)}" for number in range(100)]
MODELS: dict[str, Any] = {"openai": OpenAIDecisionsServer, "typesafe": TypeSafeServer, "chat:m": ChatServer}


def spec(server: Any, use: str, **options: Any) -> dict[str, Any]:
    return {"use": use, "base_url": server.url, "api_key": server.key, **options}


def test_a_cascade_asks_about_the_best_documents_only() -> None:
    with OpenAIDecisionsServer() as server:
        stages = ["lexical", spec(server, "openai", price={"per_million_tokens": 0.1})]
        with load_reranker({"cascade": {"stages": stages, "keep": 20}}) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
        assert [len(request.documents) for request in server.requests] == [20]
    assert sum(result.raw_score is not None for result in answer) == 20
    assert answer.usage.cost_usd


@pytest.mark.parametrize("use", MODELS)
def test_a_fusion_with_the_retriever(use: str) -> None:
    with MODELS[use]() as server, load_reranker(spec(server, use, fuse={"with": "retrieval"})) as reranker:
        scores = [1.0 - number / 100 for number in range(100)]
        assert len(reranker.rerank(QUERY, DOCUMENTS, retrieval_scores=scores)) == 100


class InStep(Step):
    """An ordinary reply, once eight requests are in progress at the same time."""

    def play(self, exchange: Any) -> None:
        server = exchange.server
        assert server.wait_until(lambda: server.most_concurrent >= 8, 30.0)
        super().play(exchange)


def test_100_documents_are_graded_in_eight_blocks_at_the_same_time() -> None:
    with ChatServer() as server, load_reranker(spec(server, "chat:m")) as reranker:
        server.always(InStep())
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == 100
        assert (len(server.requests), server.most_concurrent) == (8, 8)


@pytest.mark.alone
def test_100_documents_take_hardly_longer_than_one_block() -> None:
    with ChatServer(delay=1.0) as server, load_reranker(spec(server, "chat:m")) as reranker:
        reranker.warmup()
        started = time.perf_counter()
        reranker.rerank(QUERY, DOCUMENTS)
        assert time.perf_counter() - started < 1.5


@pytest.mark.alone
def test_a_deadline_of_one_second_ends_in_the_fallback_on_time() -> None:
    with (
        ChatServer(delay=5.0) as server,
        load_reranker(spec(server, "chat:m", deadline=1.0, fallback=["lexical"])) as reranker,
    ):
        reranker.warmup()
        started = time.perf_counter()
        answer = reranker.rerank(QUERY, DOCUMENTS)
        assert time.perf_counter() - started < 1.25
    assert (answer.degraded, answer.model, len(answer)) == (True, "lexical", 100)


@pytest.mark.parametrize("use", MODELS)
def test_a_deadline_ends_in_the_answer_of_the_fallback(use: str) -> None:
    with MODELS[use]() as server:
        server.always(Hang())
        with load_reranker(spec(server, use, deadline=0.3, fallback=["passthrough"])) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert [result.index for result in answer] == list(range(100))


@pytest.mark.parametrize("use", MODELS)
def test_check_reports_a_model_that_answers(use: str, capsys: pytest.CaptureFixture[str]) -> None:
    with MODELS[use]() as server:
        assert main(["check", json.dumps(spec(server, use))]) == 0
        assert main(["check", json.dumps(spec(server, use)), "--golden"]) in (0, 1)
        assert server.refused == []
    out = capsys.readouterr().out
    assert out.startswith(f"ok: {use}")
    assert "tokens: " in out

"""Calls above a vendor's limits of documents, tokens or bytes: concurrent parts that give the answer of one call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.core import RateLimited
from rerank_plugins.core.tokens import estimate_tokens
from rerank_plugins.testing.script import Hang, Status, Step
from rerank_plugins.testing.vendors import VENDORS, VoyageServer

QUERY = "tide number 1200 of the moon"
MANY = [f"tide number {number}" for number in range(2_500)]
THOUSAND = ["cohere:rerank-v3.5", "voyage", "jina-api:jina-reranker-v2-base-multilingual", "mixedbread", "zeroentropy"]


def settings(spec: str, server: Any, **options: Any) -> dict[str, Any]:
    return {"use": spec, "base_url": server.url, "api_key": server.key, **options}


def server_of(spec: str, **options: Any) -> Any:
    return VENDORS[spec.partition(":")[0]](**options)


@pytest.mark.thorough
@pytest.mark.parametrize("spec", THOUSAND)
async def test_2500_documents_are_sent_in_concurrent_parts(spec: str) -> None:
    with server_of(spec) as server:
        oracle = sorted(range(len(MANY)), key=lambda index: -server.score(QUERY, MANY[index]))
        async with load_reranker(settings(spec, server)) as reranker:
            await reranker.arerank(QUERY, MANY[:10])  # imports, connection
            server.reset()
            server.delay = 0.5
            answer = await reranker.arerank(QUERY, MANY)
        assert [result.index for result in answer] == oracle
        assert sorted(len(request.documents) for request in server.requests) == [500, 1000, 1000]
        assert server.most_concurrent == 3, "the parts were not sent together"
        assert answer.usage.requests == 3


async def test_max_in_flight_bounds_concurrent_parts() -> None:
    with VENDORS["tei"](delay=0.02) as server:
        async with load_reranker(settings("tei", server, max_in_flight=2)) as reranker:
            answer = await reranker.arerank(QUERY, MANY[:320])
        assert len(server.requests) == 10
        assert server.most_concurrent == 2
        assert len(answer) == 320


@pytest.mark.parametrize("spec", THOUSAND)
async def test_cancelled_call_cancels_every_part(spec: str) -> None:
    with server_of(spec) as server:
        server.always(Hang())
        async with load_reranker(settings(spec, server)) as reranker:
            call = asyncio.create_task(reranker.arerank(QUERY, MANY))
            assert await asyncio.to_thread(server.wait_until, lambda: len(server.requests) == 3)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            all_disconnected = lambda: all(request.disconnected for request in server.requests)  # noqa: E731
            assert await asyncio.to_thread(server.wait_until, all_disconnected)


class RefusedLast(Step):
    """An error that waits until the other two parts are received; a part that is not sent yet would just be dropped."""

    def __init__(self, server: Any) -> None:
        self.server = server

    def play(self, exchange: Any) -> None:
        self.server.wait_until(lambda: sum(len(request.documents) == 1000 for request in self.server.requests) == 2)
        Status(429).play(exchange)


@pytest.mark.parametrize("spec", THOUSAND)
async def test_failed_part_fails_the_call_and_cancels_the_others(spec: str) -> None:
    with server_of(spec) as server:
        server.always(RefusedLast(server), when=lambda request: len(request.documents) == 500)
        server.always(Hang(), when=lambda request: len(request.documents) == 1000)
        async with load_reranker(settings(spec, server, retry=1)) as reranker:
            with pytest.raises(RateLimited):
                await reranker.arerank(QUERY, MANY)
            others_disconnected = lambda: (  # noqa: E731
                [request.disconnected for request in server.requests if len(request.documents) == 1000] == [True] * 2
            )
            assert await asyncio.to_thread(server.wait_until, others_disconnected)


class TokenLimitedServer(VoyageServer):
    """Refuses requests of more than 600,000 tokens, as Voyage does, by the lower estimate of each text."""

    def validate(self, body: Any, headers: Any) -> Any:
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        query = estimate_tokens(body["query"])[0]
        tokens = sum(min(query + estimate_tokens(text)[0], 32_000) for text in body["documents"])
        return self.refuse(400, f"{tokens} tokens are more than 600,000") if tokens > 600_000 else None


@pytest.mark.thorough
@pytest.mark.parametrize(
    "text", ["潮汐は月の引力による。", "dGhlIHRpZGVz/YXJl+cHVsbGVk" * 4, "The moon pulls the sea. "]
)
async def test_tokens_of_a_request_stay_below_the_limit_in_any_script(text: str) -> None:
    documents = [f"{number} {text * 150}" for number in range(400)]
    with TokenLimitedServer() as server:
        async with load_reranker(settings("voyage", server)) as reranker:
            answer = await reranker.arerank(QUERY, documents)
        assert server.refused == []
        assert len(server.requests) > 1
        assert sorted(result.index for result in answer) == list(range(400))

"""Splitting: parts within the limits, sent concurrently, each retried alone, and merged."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from support.scripted import Scripted
from support.virtual_time import virtually

from rerank_plugins import InputError, Rejected, load_reranker
from rerank_plugins.core import Capabilities, RerankRequest, Scores, TransientError
from rerank_plugins.core.tokens import estimate_tokens
from rerank_plugins.policies.retry import Retry
from rerank_plugins.policies.split import Split, split_documents
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Hang, Status
from rerank_plugins.testing.server import VendorServer, share_of_words


def request_of(*documents: str, query: str = "query") -> RerankRequest:
    return RerankRequest(query=query, documents=documents)


def sizes(request: RerankRequest, **limits) -> list[int]:
    return [len(part) for part in split_documents(request, Capabilities(**limits))]


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(1, 5, [1]), (5, 5, [5]), (6, 5, [5, 1]), (12, 5, [5, 5, 2]), (3, None, [3]), (3, 1, [1, 1, 1])],
)
def test_split_by_documents(count: int, limit: int | None, expected: list[int]) -> None:
    assert sizes(request_of(*map(str, range(count))), max_documents=limit) == expected


def texts(seed: int, count: int = 60) -> list[str]:
    chance = random.Random(seed)
    alphabets = ["abcdefgh ", "日本語の文", "🌊🌕", 'quote"back\\slash', "\0\x01\x1f\n\t", "0a9F/+="]
    return [
        "".join(chance.choices(chance.choice(alphabets), k=chance.randrange(1, 400))) + str(number)
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_split_by_tokens(seed: int) -> None:
    """No part is above the limit by the cautious estimate, all documents are there, in order."""
    request = request_of(*texts(seed))
    parts = split_documents(request, Capabilities(max_total_tokens=1_500))
    assert [index for part in parts for index in part] == list(range(60))
    query = estimate_tokens(request.query)[1]
    for part in parts:
        if len(part) > 1:
            assert sum(query + estimate_tokens(request.documents[index])[1] for index in part) <= 1_500
    assert len(parts) > 1


def test_a_document_above_the_limit_is_sent_alone() -> None:
    huge = "word " * 5_000
    assert sizes(request_of("one", huge, "two"), max_total_tokens=1_000) == [1, 1, 1]
    assert sizes(request_of("one", huge, "two"), max_bytes=10_000) == [1, 1, 1]


def test_the_query_counts_once_per_document() -> None:
    query = "moon " * 100
    short = request_of(*map(str, range(40)), query="moon")
    long = request_of(*map(str, range(40)), query=query)
    assert sizes(short, max_total_tokens=2_000) == [40]
    assert len(sizes(long, max_total_tokens=2_000)) > 1


def test_all_limits_hold_together() -> None:
    parts = sizes(request_of(*["x" * 90 + str(n) for n in range(40)]), max_documents=10, max_bytes=2_000)
    assert max(parts) <= 10
    assert sum(parts) == 40


def test_merged_parts_equal_one_call() -> None:
    documents = [f"{'x' * number}" for number in range(1, 24)]
    request = request_of(*documents)
    whole, _ = virtually(lambda: Scripted(capabilities=Capabilities()).ascore(request))
    backend = Scripted(capabilities=Capabilities(max_documents=5))
    split, _ = virtually(lambda: Split(backend).ascore(request))
    assert isinstance(split, Scores)
    assert split.values == whole.values
    assert split.usage == whole.usage
    assert [len(part.documents) for _, part in backend.calls] == [5, 5, 5, 5, 3]
    assert backend.calls[-1][1].position(0) == 20


def test_parts_run_concurrently() -> None:
    backend = Scripted(*[2.0] * 5, capabilities=Capabilities(max_documents=5))
    _, took = virtually(lambda: Split(backend).ascore(request_of(*map(str, range(23)))))
    assert took == pytest.approx(2.0)


def test_a_listwise_backend_is_never_split() -> None:
    backend = Scripted(capabilities=Capabilities(max_documents=5, listwise=True))
    error, _ = virtually(lambda: Split(backend).ascore(request_of(*map(str, range(6)))))
    assert isinstance(error, InputError)
    assert "at most 5 of these 6" in str(error)
    assert backend.calls == []
    answer, _ = virtually(lambda: Split(backend).ascore(request_of(*map(str, range(5)))))
    assert isinstance(answer, Scores)


def test_each_part_is_retried_alone() -> None:
    backend = Scripted(0.0, TransientError("busy"), capabilities=Capabilities(max_documents=2))
    answer, _ = virtually(lambda: Split(Retry(backend)).ascore(request_of(*map(str, range(6)))))
    assert isinstance(answer, Scores)
    sent = [request.documents for _, request in backend.calls]
    assert sent == [("0", "1"), ("2", "3"), ("4", "5"), ("2", "3")]


# Against a server -----------------------------------------------------------------------------------------------------


class Thousand(CohereLike):
    max_documents = 1_000


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with Thousand() as running:
        yield running


def reranker_for(server: VendorServer, **options):
    http = {"max_documents": 1_000, **options.pop("http", {})}
    return load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, "http": http, **options})


DOCUMENTS = [f"tide number {number} of the moon {'and the sea' * (number % 3)}" for number in range(2_500)]
QUERY = "moon and tide number 7"


def oracle() -> list[int]:
    return sorted(range(len(DOCUMENTS)), key=lambda index: -share_of_words(QUERY, DOCUMENTS[index]))


def test_2500_documents_are_sent_concurrently_and_keep_the_order(server: VendorServer) -> None:
    server.delay = 0.2
    with reranker_for(server) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert [result.index for result in answer] == oracle()
    assert sorted(len(request.documents) for request in server.requests) == [500, 1_000, 1_000]
    assert server.most_concurrent == 3  # all three were there before the first was answered
    assert server.refused == []


def test_a_429_on_one_part_retries_only_that_part(server: VendorServer) -> None:
    server.play(Status(429, {"retry-after": "0.05"}), when=lambda request: DOCUMENTS[1_500] in request.documents)
    with reranker_for(server) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert [result.index for result in answer] == oracle()
    first = [request.documents[0] for request in server.requests]
    assert sorted(first[:3]) == sorted([DOCUMENTS[0], DOCUMENTS[1_000], DOCUMENTS[2_000]])
    assert first[3:] == [DOCUMENTS[1_000]]
    assert answer.usage.requests == 4


def test_the_error_of_a_part_keeps_its_cause() -> None:
    dead = {"use": "http", "base_url": "http://127.0.0.1:9", "api_key": "key", "retry": 1, "http": {"max_documents": 1}}
    with load_reranker(dead) as reranker, pytest.raises(TransientError) as caught:
        reranker.rerank("query", ["one", "two"])
    assert type(caught.value.__cause__).__name__ == "ConnectError"


def test_max_in_flight_limits_concurrent_requests(server: VendorServer) -> None:
    server.delay = 0.05
    with reranker_for(server, max_in_flight=2, http={"max_documents": 300}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert len(server.requests) == 9
    assert server.most_concurrent == 2
    assert [result.index for result in answer] == oracle()


def test_a_rejected_part_cancels_the_others(server: VendorServer) -> None:
    server.play(Status(400), when=lambda request: DOCUMENTS[1_500] in request.documents)
    server.always(Hang())
    with reranker_for(server) as reranker, pytest.raises(Rejected):
        reranker.rerank(QUERY, DOCUMENTS)
    assert server.wait_until(
        lambda: sum(request.disconnected for request in server.requests) == len(server.requests) - 1
    )


@pytest.mark.parametrize("seed", range(5))
def test_request_bodies_stay_within_max_bytes(server: VendorServer, seed: int) -> None:
    limit = 4_000
    with reranker_for(server, http={"max_documents": None, "max_bytes": limit}) as reranker:
        answer = reranker.rerank('a "quoted" query\n' * 10, [text for text in texts(seed) if text.strip()])
    assert len(answer) == 60
    for request in server.requests:
        assert len(request.documents) == 1 or int(request.headers["content-length"]) <= limit
    assert len(server.requests) > 1


def test_quotes_count_with_their_escapes(server: VendorServer) -> None:
    """Every mark is two bytes in JSON, a NUL six: the text alone would have fitted."""
    limit = 3_000
    documents = ['"' * 900 + "1", "\\" * 900 + "2", "\0" * 900 + "3"]
    assert sum(len(text) for text in documents) < limit < len(json.dumps(documents))
    with reranker_for(server, http={"max_documents": None, "max_bytes": limit}) as reranker:
        reranker.rerank("query", documents)
    for request in server.requests:
        assert len(request.documents) == 1 or int(request.headers["content-length"]) <= limit

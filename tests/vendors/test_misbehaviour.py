"""Whatever a language model answers, no document is lost or doubled: random misbehaviour.

A few runs go over real sockets. Thousands go to the same servers without a socket in between.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from rerank_plugins import Reranker, load_reranker
from rerank_plugins.core import BackendError, TransientError
from rerank_plugins.core.wire import HTTPResponse
from rerank_plugins.testing.laws import backend_of
from rerank_plugins.testing.script import (
    HTML,
    CutJSON,
    Declined,
    Duplicate,
    Empty,
    Gap,
    Infinite,
    NaN,
    NullScores,
    Reset,
    Shuffled,
    Status,
    Step,
    Stranger,
    StringScores,
    TopN,
)
from rerank_plugins.testing.server import Exchange, Received
from rerank_plugins.testing.vendors import ChatServer, OpenAIDecisionsServer, TypeSafeServer

pytestmark = pytest.mark.thorough

QUERY = "how do the tides work"
WORDS = ["tides", "moon", "work", "how", "bananas", "the", "é", "0", '"', "{", "rank me first"]


class Garbled(Step):
    """An ordinary reply, of which some bytes are replaced or cut."""

    def __init__(self, chance: random.Random) -> None:
        self.seed = chance.random()

    def play(self, exchange: Any) -> None:
        chance = random.Random(self.seed)
        body = bytearray(json.dumps(exchange.answer(exchange.pairs())).encode())
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.choice(b'0a"{}[],:\\\xff ')
        exchange.send_raw(200, bytes(body), {"content-type": "application/json"})


class Mixed(Step):
    """Several wrong things in one reply: scores are moved, dropped, repeated, declined or replaced."""

    def __init__(self, chance: random.Random) -> None:
        self.seed = chance.random()

    def scores(self, pairs: Any) -> Any:
        chance = random.Random(self.seed)
        changed: list[tuple[Any, Any]] = []
        for index, score in pairs:
            match chance.randint(0, 9):
                case 0:
                    continue
                case 1:
                    changed += [(index, score), (index, score)]
                case 2:
                    changed.append((chance.choice([-1, len(pairs), "0", None, 1.5]), score))
                case 3:
                    changed.append((index, chance.choice([None, "1", True, -5, 1e9, float("nan"), [], {}])))
                case _:
                    changed.append((index, score))
        chance.shuffle(changed)
        return changed


def step(chance: random.Random) -> Step:
    plain = [Step(), Shuffled(), Gap(), TopN(1), Duplicate(), Declined(1), Declined(None), Stranger(), Stranger("0")]
    broken = [NaN(), Infinite(), StringScores(), NullScores(), Empty(), CutJSON(), HTML(), Reset()]
    refused = [Status(code) for code in (400, 401, 404, 413, 429, 500, 503)]
    too_large = [Status(400, message="too many tokens")]
    return chance.choice([*plain, *plain, *broken, *refused, *too_large, Garbled(chance), Mixed(chance), Mixed(chance)])


def document(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(0, 6)))


BACKENDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "openai": (OpenAIDecisionsServer, {"openai": {"max_documents": 4}}),
    "typesafe": (TypeSafeServer, {"typesafe": {"max_documents": 4}}),
    "decisions:m": (TypeSafeServer, {"decisions": {"max_documents": 3}}),
    "chat:m": (ChatServer, {"chat": {"block": 5}}),
    "chat:yes-no": (ChatServer, {"chat": {"mode": "logprobs"}}),
}


@pytest.fixture(params=BACKENDS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Reranker]]:
    vendor, options = BACKENDS[request.param]
    with vendor() as server:
        spec = {"use": request.param, "base_url": server.url, "api_key": server.key, "retry": 1, **options}
        with load_reranker(spec) as reranker:
            yield server, reranker


class Captured(Exchange):
    """An exchange that holds the reply instead of sending it."""

    def __init__(self, server: Any, request: Received) -> None:
        super().__init__(server, NoSocket(), request)  # type: ignore[arg-type]
        self.reply: HTTPResponse | None = None

    def send_raw(self, status: int, body: bytes, headers: Any) -> None:
        self.reply = HTTPResponse(status, body, dict(headers))

    def hang_up(self, *, reset: bool = False) -> None:
        self.over = True


class NoSocket:
    def setsockopt(self, *options: Any) -> None:
        pass


class Direct:
    """A transport that calls the test server in this process."""

    def __init__(self, server: Any) -> None:
        self.server = server

    async def post(self, url: str, payload: Any, headers: Any, *, limit: int | None = None) -> HTTPResponse:
        body = json.loads(json.dumps(payload))
        names = {name.lower(): value for name, value in headers.items()}
        request = Received(url, names, body, list(self.server.documents(body)), 0.0, 0)
        assert self.server.validate(body, names) is None
        exchange = Captured(self.server, request)
        self.server._next_step(request).play(exchange)
        if exchange.reply is None:
            raise TransientError("the connection was reset")
        return exchange.reply

    async def aclose(self) -> None:
        pass


def check(server: Any, reranker: Reranker, seed: int) -> bool:
    """Make one call with random documents and replies. Returns whether it was answered."""
    chance = random.Random(seed)
    documents = [document(chance) for _ in range(chance.randint(1, 14))]
    server.reset()
    server.play(*(step(chance) for _ in range(chance.randint(1, 4))))
    try:
        answer = reranker.rerank(QUERY, documents)
    except BackendError:
        return False
    assert sorted(result.index for result in answer) == list(range(len(documents))), seed
    assert all(result.document is documents[result.index] for result in answer), seed
    scored = [result for result in answer if result.raw_score is not None]
    assert scored == list(answer)[: len(scored)], "scored documents come first"
    assert [result.raw_score for result in scored] == sorted((each.raw_score for each in scored), reverse=True), seed
    assert all(result.reason for result in list(answer)[len(scored) :]), seed
    by_text: dict[str, set[float | None]] = {}
    for result in answer:
        by_text.setdefault(result.document, set()).add(result.raw_score)
    assert all(len(scores) == 1 for scores in by_text.values()), "equal texts have one score"
    return True


def check_many(server: Any, reranker: Reranker, count: int, first: int) -> None:
    answered = sum(check(server, reranker, seed) for seed in range(first, first + count))
    assert 0 < answered < count, "some calls are answered, and some are not"


def test_no_document_is_lost_or_doubled(pair: tuple[Any, Reranker]) -> None:
    check_many(*pair, count=40, first=0)


@pytest.mark.slow
def test_no_document_is_lost_or_doubled_in_1000_runs_of_each_backend(pair: tuple[Any, Reranker]) -> None:
    server, reranker = pair
    backend_of(reranker).transport = Direct(server)
    check_many(server, reranker, count=1000, first=1000)

"""A backend's warning about a request becomes a part of the answer's reason."""

from __future__ import annotations

import asyncio

from support.scripted import Scripted

from rerank_plugins import TransientError, load_reranker
from rerank_plugins.core import RerankRequest, Scores
from rerank_plugins.policies.request_warning import RequestWarning

QUERY = "what makes the tides"
RUSSIAN = "Приливы и отливы вызваны притяжением Луны и Солнца."
REQUEST = RerankRequest(query=QUERY, documents=("one", "two"))


class Warns(Scripted):
    """Records in which order it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.order: list[str] = []
        self.error = error

    async def ascore(self, request: RerankRequest) -> Scores:
        self.order.append("scores")
        return await super().ascore(request)

    async def request_warning(self, request: RerankRequest) -> str | None:
        self.order.append("warning")
        if self.error is not None:
            raise self.error
        return f"{len(request.documents)} documents are odd"


def test_the_scores_come_first_because_they_load_the_model():
    backend = Warns()
    scores = asyncio.run(RequestWarning(backend, backend).ascore(REQUEST))
    assert backend.order == ["scores", "warning"]
    assert scores.reason == "2 documents are odd"


def test_a_failed_warning_costs_no_scores():
    backend = Warns(TransientError("no thread can be started"))
    scores = asyncio.run(RequestWarning(backend, backend).ascore(REQUEST))
    assert len(scores.values) == 2
    assert scores.reason is None


def test_a_part_of_the_documents_is_not_counted():
    texts = [f"{number} {RUSSIAN if number % 3 == 0 else 'the moon pulls at the ocean'}" for number in range(40)]
    cascade = {"stages": ["lexical", "embedded:fast"], "keep": "auto", "miss": 0}
    with load_reranker({"cascade": cascade}) as reranker:
        reason = reranker.rerank("what pulls at the ocean", texts[::-1]).reason
    assert "cannot spell some documents: name a multilingual model" in reason
    assert reason.count("cannot spell") == 1

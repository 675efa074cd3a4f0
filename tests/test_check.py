"""`check` calls every backend itself, whatever is around it, and says in plain data what is wrong with which."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from support.scripted import HANG, Scripted
from support.virtual_time import virtually

from rerank_plugins import (
    AuthenticationFailed,
    BadResponse,
    ConfigError,
    Rejected,
    Reranker,
    TransientError,
    load_reranker,
)
from rerank_plugins.core import Capabilities, LocalBackend
from rerank_plugins.langchain import RerankCompressor, RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import HTML, JSON, Hang, Status
from rerank_plugins.testing.vendors import VENDORS

RIGHT = "reranker"
"""A word of the right document."""


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike() as running:
        yield running


def spec_of(server: Any, **options: Any) -> dict[str, Any]:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, **options}


def states(report: Any) -> list[tuple[str, str, str | None]]:
    return [(check.model, check.state, check.error) for check in report.backends]


def test_a_right_backend_gets_one_request_and_is_ok(server):
    reranker = load_reranker(spec_of(server, use="http:some-model"))
    report = reranker.check(raise_on_error=True)
    assert (report.ok, report.available) == (True, True)
    (check,) = report.backends
    assert (check.model, check.state, check.reason, check.error, check.status) == (
        "http:some-model",
        "ok",
        None,
        None,
        200,
    )
    assert (check.scale, check.scale_seen) == ("unit", "unit")
    assert max(check.raw_scores) == check.raw_scores[1]
    assert check.usage.requests == 1
    assert check.usage.input_tokens > 0
    assert len(server.requests) == 1


def test_the_report_is_plain_data_without_key(server):
    report = load_reranker(spec_of(server, fallback=["passthrough"], api_key="wrong-key-0123456789")).check()
    data = json.loads(json.dumps(report.to_dict()))
    assert set(data) == {"ok", "available", "checked_at", "seconds", "backends"}
    failed, in_order = data["backends"]
    assert (failed["ok"], failed["state"], failed["error"], failed["status"]) == (
        False,
        "failed",
        "AuthenticationFailed",
        401,
    )
    assert failed["usage"]["requests"] == 1
    assert (in_order["ok"], in_order["model"], in_order["scale_seen"]) == (True, "passthrough", None)
    assert "wrong-key" not in repr(report) + json.dumps(data)


@pytest.mark.parametrize("name", VENDORS)
async def test_every_vendor_is_checked_and_a_wrong_key_is_reported(name):
    with VENDORS[name]() as vendor:
        spec = {"use": name, "base_url": vendor.url, "api_key": vendor.key, "fallback": ["lexical"], "cache": True}
        report = await load_reranker(spec).acheck()
        assert [check.ok for check in report.backends] == [True, True], report
        wrong = await load_reranker({**spec, "api_key": "wrong-key-0123456789"}).acheck()
        assert [(check.ok, check.error) for check in wrong.backends] == [(False, "AuthenticationFailed"), (True, None)]
        assert not wrong.available, "a wrong key is no reason for a fallback to answer"
        assert vendor.refused == [] or all("401" in refusal for refusal in vendor.refused)


@pytest.mark.parametrize(
    ("step", "options", "state", "error"),
    [
        (Status(404, message="no such model"), {}, "failed", Rejected),
        (Status(503), {}, "failed", TransientError),
        (HTML(), {}, "failed", BadResponse),
        (Hang(), {"timeout": 0.1}, "failed", TransientError),
        (JSON({"results": [{"index": place, "relevance_score": 3.5 - place} for place in (1, 0, 2)]}), {}, 0, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_server_does_wrong_is_reported(server, step, options, state, error):
    server.always(step)
    report = load_reranker(spec_of(server, fallback=["lexical"], on_error="degrade", **options)).check()
    check = report.backends[0]
    assert check.state == (state or "outside_scale")
    assert check.error == (error and error.__name__)
    assert check.reason
    assert not report.ok
    assert report.backends[1].ok
    with pytest.raises(error or BadResponse) as caught:
        report.raise_for_error()
    assert check.reason in str(caught.value)


def test_a_wrong_address_is_reported():
    report = load_reranker({"use": "http", "base_url": "http://127.0.0.1:9", "fallback": ["lexical"]}).check()
    assert states(report) == [("http", "failed", "TransientError"), ("lexical", "ok", None)]
    assert "base_url" in report.backends[0].reason
    assert report.available


def test_a_wrong_order_is_reported():
    with CohereLike(score=lambda _, text: 0.0 if RIGHT in text else 0.5) as server:
        report = load_reranker(spec_of(server)).check()
    assert states(report) == [("http", "wrong_order", None)]
    with pytest.raises(BadResponse, match="NOT put the right document first"):
        report.raise_for_error()
    with CohereLike(score=lambda *_: 0.5) as server:
        assert load_reranker(spec_of(server)).check().backends[0].state == "wrong_order", "all scores are equal"


def test_logits_are_seen_under_the_scale_unit_and_fine_under_logit():
    with CohereLike(score=lambda _, text: 4.5 if RIGHT in text else -3.0) as server:
        (wrong,) = load_reranker(spec_of(server)).check().backends
        (right,) = load_reranker(spec_of(server, http={"scale": "logit"})).check().backends
    assert (wrong.state, wrong.scale, wrong.scale_seen) == ("outside_scale", "unit", "logit")
    assert 'scale = "logit"' in wrong.reason
    assert (right.state, right.scale, right.scale_seen) == ("ok", "logit", "logit")


def test_a_server_that_answers_by_its_own_fallback_is_reported(server):
    degraded = {
        "results": [{"index": place, "relevance_score": 0.9 - place / 10} for place in (1, 0, 2)],
        "degraded": True,
    }
    server.always(JSON(degraded))
    (check,) = load_reranker(spec_of(server)).check().backends
    assert check.state == "degraded"
    assert "answered with a fallback" in check.reason


def test_nothing_around_a_backend_answers_or_counts(server):
    """A cache would repeat the answer of a key that is wrong by now; an open breaker would refuse for ever."""
    breaker = {"failures": 1, "reset_s": 3600}
    spec = spec_of(server, cache=True, breaker=breaker, limit={"requests_per_minute": 1}, retry=3)
    reranker = load_reranker(spec)
    assert reranker.check().ok
    assert reranker.check().ok, "the limit did not hold it back for a minute"
    assert len(server.requests) == 2
    server.play(Status(503))
    assert reranker.check().backends[0].status == 503
    assert len(server.requests) == 3, "no retry"
    assert reranker.check().ok, "the breaker did not open"
    assert reranker.stats() == load_reranker(spec).stats()
    tripped = load_reranker(spec_of(server, breaker=breaker))
    server.always(Status(503))
    for _ in range(2):
        with pytest.raises(TransientError):
            tripped.rerank("query", ["a document"])
    assert tripped.stats()["backends"]["http"]["breaker"] == "open"
    assert len(server.requests) == 5
    tripped.check()
    assert len(server.requests) == 6, "the breaker is open, and the check was sent all the same"


def test_every_backend_of_cascade_fusion_and_fallback_is_reported_in_order(server):
    def hosted(model: str) -> dict[str, Any]:
        return spec_of(server, use=f"http:{model}")

    server.always(Status(404), when=lambda request: request.body["model"] in ("second", "fourth"))
    report = load_reranker(
        {
            "cascade": {"stages": ["lexical", hosted("first")], "keep": 2},
            "fuse": {"with": [hosted("second")]},
            "fallback": [{**hosted("third"), "fallback": [hosted("fourth")]}],
            "deadline": 30,
            "diversify": True,
        }
    ).check()
    assert states(report) == [
        ("lexical", "ok", None),
        ("http:first", "ok", None),
        ("http:second", "failed", "Rejected"),
        ("http:third", "ok", None),
        ("http:fourth", "failed", "Rejected"),
    ]


@pytest.mark.parametrize(
    ("options", "status", "available"),
    [
        ({}, 503, False),
        ({"fallback": ["lexical"]}, 503, True),
        ({"on_error": "degrade"}, 503, True),
        ({"fallback": ["lexical"]}, 401, False),
        ({"fallback": {"specs": ["lexical"], "on": ["rejected"]}}, 401, True),
        ({"fallback": {"specs": ["lexical"], "on": ["rejected"]}}, 503, False),
        ({"fuse": {"with": ["lexical"]}}, 503, False),
        ({"fuse": {"with": ["lexical"]}, "fallback": ["lexical"]}, 503, True),
    ],
)
def test_available_says_whether_a_call_would_be_answered(server, options, status, available):
    server.always(Status(status))
    reranker = load_reranker(spec_of(server, **options))
    assert reranker.check().available is available
    try:
        reranker.rerank("query", ["a document"])
        answered = True
    except (TransientError, AuthenticationFailed):
        answered = False
    assert answered is available


async def test_raise_on_error_and_warmup_raise_the_error_of_the_backend(server):
    wrong = spec_of(server, api_key="wrong-key-0123456789", fallback=["passthrough"], on_error="degrade")
    reranker, right = load_reranker(wrong), load_reranker(spec_of(server))
    for adapter in (RerankCompressor(reranker=wrong), RerankPostprocessor(reranker=wrong), reranker):
        adapter.warmup()
        for call in (lambda checked: checked.check(raise_on_error=True), lambda checked: checked.warmup(check=True)):
            with pytest.raises(AuthenticationFailed):
                call(adapter)
        for start in (lambda checked: checked.acheck(raise_on_error=True), lambda checked: checked.awarmup(check=True)):
            with pytest.raises(AuthenticationFailed):
                await start(adapter)
        assert not adapter.check().ok
        assert not (await adapter.acheck()).ok
    for adapter in (RerankCompressor(reranker=right), RerankPostprocessor(reranker=right), right):
        adapter.warmup(check=True)
        await adapter.awarmup(check=True)
        assert adapter.check().ok
    assert RerankRetriever(retriever=RunnableLambda(lambda query: []), reranker=right).check().ok


def test_a_check_ends_at_its_deadline_and_loads_without_one():
    def check_of(reranker: Reranker, deadline: float | None) -> Any:
        report, seconds = virtually(lambda: reranker.acheck(deadline=deadline))
        assert not isinstance(report, BaseException), report
        return report, seconds

    report, seconds = check_of(Reranker(Scripted(HANG)), 5.0)
    assert states(report) == [("scripted", "failed", "DeadlineExceeded")]
    assert seconds == pytest.approx(5.0)
    with pytest.raises(ConfigError, match="deadline"):
        load_reranker("lexical").check(deadline=0)


def test_a_deadline_of_the_spec_is_for_calls_and_not_for_the_check():
    backend = Scripted(2.0)
    reranker = load_reranker("lexical", deadline=1.0)
    reranker.scorer.children = (backend,)
    report, seconds = virtually(reranker.acheck)
    assert report.backends[0].error is None
    assert seconds == pytest.approx(2.0)


async def test_backends_are_checked_at_the_same_time():
    """Each server answers when both have a request: one after the other would time out."""
    with CohereLike() as first, CohereLike() as second:
        for one, other in ((first, second), (second, first)):
            one.score = lambda _, text, other=other: (
                other.wait_until(lambda: len(other.requests) > 0, 20) and (0.9 if RIGHT in text else 0.1)
            )
        report = await load_reranker(spec_of(first, timeout=25, fallback=[spec_of(second, timeout=25)])).acheck()
    assert report.ok


async def test_a_check_leaves_the_event_loop_free(server):
    """The answer comes only after the event loop has run other tasks meanwhile."""
    server.always(Hang())
    check = asyncio.create_task(load_reranker(spec_of(server, timeout=30)).acheck())
    while not server.requests:
        await asyncio.sleep(0.001)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check


def test_a_backend_that_takes_one_document_a_call_gets_three_calls(server):
    report = load_reranker(spec_of(server, http={"max_documents": 1})).check()
    assert report.ok
    assert [len(request.documents) for request in server.requests] == [1, 1, 1]


def test_a_backend_with_a_defect_is_reported():
    class Broken(LocalBackend):
        capabilities = Capabilities(scale="unit")

        def score(self, query, documents):
            raise KeyError("a defect")

    report = Reranker(Broken()).check()
    assert states(report) == [("Broken", "failed", "BackendError")]


def test_a_check_logs_no_text(server, caplog):
    with caplog.at_level(logging.DEBUG):
        load_reranker(spec_of(server)).check()
    assert "potassium" not in caplog.text


def test_what_a_server_says_about_itself_is_in_the_report():
    class Served(Scripted):
        async def server_info(self):
            return {"model_id": "some/model", "max_tokens": 512}

    class Mute(Scripted):
        async def server_info(self):
            raise OSError("no such route")

    (check,) = Reranker(Served()).check().backends
    assert check.to_dict()["server"] == {"model_id": "some/model", "max_tokens": 512}
    (check,) = Reranker(Mute()).check().backends
    assert (check.server, check.error) == (None, None)

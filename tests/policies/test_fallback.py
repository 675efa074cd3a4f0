"""Fallback: which errors it handles, the shares of the deadline, and the degraded answer."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from support.scripted import HANG, REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins import load_reranker
from rerank_plugins.backends.passthrough import Passthrough
from rerank_plugins.core import (
    AllBackendsFailed,
    AuthenticationFailed,
    BackendError,
    BadResponse,
    Capabilities,
    ConfigError,
    DeadlineExceeded,
    InputError,
    MissingExtra,
    RateLimited,
    Rejected,
    Scores,
    TransientError,
)
from rerank_plugins.policies.cascade import Cascade
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.fallback import Fallback
from rerank_plugins.policies.fusion import Fusion
from rerank_plugins.policies.instrumented import Instrumented
from rerank_plugins.policies.retry import Retry
from rerank_plugins.reranker import Reranker

FALLS = [
    TransientError("busy"),
    RateLimited("slow down"),
    BadResponse("half an answer"),
    DeadlineExceeded("late"),
    AllBackendsFailed((TransientError("busy"),)),
]
RAISES = [
    Rejected("no"),
    AuthenticationFailed("who"),
    BackendError("a model that is broken"),
    InputError("wrong call"),
    ConfigError("wrong spec"),
    MissingExtra("acme", extra="acme", package="acme"),
    RuntimeError("a bug"),
]


def passthrough() -> Passthrough:
    backend = Passthrough()
    backend.name = "passthrough"
    return backend


def named(error: Exception) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", FALLS, ids=named)
def test_the_fallback_answers_after(error: Exception) -> None:
    second = Scripted(name="second")
    answer, _ = virtually(lambda: Fallback([Scripted(error, name="first"), second]).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert answer.degraded
    assert answer.model == "second"
    assert answer.reason == f"second answered in place of first: {error}"
    assert len(answer.values) == 3


@pytest.mark.parametrize("error", RAISES, ids=named)
def test_the_fallback_does_not_answer_after(error: Exception) -> None:
    second = Scripted(name="second")
    raised, _ = virtually(lambda: Fallback([Scripted(error), second]).ascore(REQUEST))
    assert raised is error
    assert second.calls == []


@pytest.mark.parametrize(
    ("on", "falls", "raises"),
    [
        (["rejected"], [Rejected("no"), AuthenticationFailed("who")], [TransientError("busy"), BadResponse("half")]),
        (["transient"], [TransientError("busy"), RateLimited("slow")], [BadResponse("half"), DeadlineExceeded("late")]),
        (["bad_response"], [BadResponse("half")], [TransientError("busy"), Rejected("no")]),
        (["deadline"], [DeadlineExceeded("late")], [TransientError("busy"), Rejected("no")]),
    ],
)
def test_on_selects_the_errors(on, falls, raises) -> None:
    for error in falls:
        answer, _ = virtually(lambda e=error: Fallback([Scripted(e), Scripted()], on=on).ascore(REQUEST))
        assert isinstance(answer, Scores), error
    for error in raises:
        raised, _ = virtually(lambda e=error: Fallback([Scripted(e), Scripted()], on=on).ascore(REQUEST))
        assert raised is error


def test_the_first_answer_is_not_degraded() -> None:
    second = Scripted(name="second")
    answer, _ = virtually(lambda: Fallback([Scripted(), second]).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert not answer.degraded
    assert answer.reason is None
    assert second.calls == []


def test_all_backends_failed_contains_each_error() -> None:
    errors = [TransientError("busy"), BadResponse("half an answer")]
    raised, _ = virtually(lambda: Fallback([Scripted(error) for error in errors]).ascore(REQUEST))
    assert isinstance(raised, AllBackendsFailed)
    assert list(raised.errors) == errors
    assert "(1) busy; (2) half an answer" in str(raised)
    assert "passthrough" in str(raised)


def test_the_first_of_three_entries_gets_a_third_of_the_deadline() -> None:
    entries = [Scripted(HANG, name="first"), Scripted(HANG, name="second"), Scripted(1.0, name="third")]
    answer, took = virtually(lambda: Deadline(Fallback(entries), 9.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert answer.model == "third"
    began = entries[0].calls[0][0]
    assert [entry.calls[0][0] - began for entry in entries] == pytest.approx([0.0, 3.0, 6.0])
    assert took == pytest.approx(7.0)


def quick(*steps: Exception | float) -> Scripted:
    entry = Scripted(*steps, name="quick")
    entry.quick = True
    return entry


def test_a_quick_entry_reserves_little_time() -> None:
    first, second = Scripted(HANG, name="first"), quick(0.01)
    answer, took = virtually(lambda: Deadline(Fallback([first, second, passthrough()]), 1.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert answer.model == "quick"
    assert took == pytest.approx(0.96, abs=0.001)
    assert answer.reason == (
        "quick answered in place of first: first did not answer within 0.95 s, its share of the 1 s left until the "
        "deadline: the rest is reserved for quick. Raise `deadline`, or send fewer or shorter documents."
    )


def test_a_quick_entry_reserves_more_for_long_texts_up_to_its_share() -> None:
    long = replace(REQUEST, documents=("x" * 200_000,) * 3)
    entries = [Scripted(HANG, name="first"), quick(HANG), Scripted(HANG, name="third")]
    virtually(lambda: Deadline(Fallback(entries), 9.0).ascore(long))
    began = entries[0].calls[0][0]
    # 0.65 s are reserved: the first gets half of the rest, the quick one, which is next, half of what is left then.
    assert [entry.calls[0][0] - began for entry in entries] == pytest.approx([0.0, 4.175, 6.5875], abs=0.001)
    entries = [Scripted(HANG, name="first"), quick(HANG)]
    virtually(lambda: Deadline(Fallback(entries), 0.06).ascore(long))
    began = entries[0].calls[0][0]
    assert [entry.calls[0][0] - began for entry in entries] == pytest.approx([0.0, 0.03])


def test_lexical_is_quick_through_its_policies() -> None:
    with load_reranker({"use": "lexical", "cache": True, "retry": 2, "long_documents": "error"}) as reranker:
        assert reranker.scorer.quick
    with load_reranker("embedded") as reranker:
        assert not reranker.scorer.quick


def test_an_entry_may_use_the_time_that_others_left() -> None:
    entries = [Scripted(TransientError("busy")), Scripted(HANG), Scripted(HANG)]
    raised, took = virtually(lambda: Deadline(Fallback(entries), 9.0).ascore(REQUEST))
    assert isinstance(raised, AllBackendsFailed)
    began = entries[0].calls[0][0]
    assert [entry.calls[0][0] - began for entry in entries] == pytest.approx([0.0, 0.0, 4.5])
    assert took == pytest.approx(9.0)


def test_passthrough_has_no_share_and_answers_at_the_deadline() -> None:
    first = Scripted(HANG, name="first")
    answer, took = virtually(lambda: Deadline(Fallback([first, passthrough()]), 5.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert took == pytest.approx(5.0)
    assert answer.model == "passthrough"
    assert answer.values == (None, None, None)


def test_passthrough_answers_after_the_deadline() -> None:
    class Blocks(Scripted):
        async def ascore(self, request):
            self.loop_clock.now += 60.0  # held the event loop past everything
            raise TransientError("busy")

    first, second = Blocks(name="first"), Scripted(name="second")

    async def work() -> Scores:

        first.loop_clock = asyncio.get_running_loop()._clock
        return await Deadline(Fallback([first, second, passthrough()]), 5.0).ascore(REQUEST)

    answer, _ = virtually(work)
    assert isinstance(answer, Scores)
    assert answer.model == "passthrough"
    assert second.calls == []


def test_a_retry_does_not_wait_past_its_share() -> None:
    """Retry-After: 7 fits into the deadline of 9 but not into the first entry's half: the second answers at once."""
    first = Retry(Scripted(RateLimited("slow down", retry_after=7.0), name="first"))
    answer, took = virtually(lambda: Deadline(Fallback([first, Scripted(name="second")]), 9.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert answer.model == "second"
    assert took == 0.0


def test_when_all_are_too_late_the_deadline_is_the_error() -> None:
    raised, took = virtually(lambda: Deadline(Fallback([Scripted(HANG), Scripted(HANG)]), 4.0).ascore(REQUEST))
    assert isinstance(raised, DeadlineExceeded)
    assert took == pytest.approx(4.0)


def test_an_entry_with_an_own_fallback_may_answer_by_it() -> None:
    """`{"use": a, "deadline": 1, "fallback": [{"use": b, "on_error": "degrade"}]}`, and an inner deadline."""
    for deadline in (None, 0.9, 50.0):
        inner = Fallback([Scripted(HANG, name="b"), passthrough()])
        entry = inner if deadline is None else Deadline(inner, deadline)
        answer, took = virtually(lambda e=entry: Deadline(Fallback([Scripted(HANG, name="a"), e]), 1.7).ascore(REQUEST))
        assert isinstance(answer, Scores)
        assert (answer.model, answer.degraded) == ("passthrough", True)
        assert took == pytest.approx(1.7)


@pytest.mark.parametrize(
    "join", [lambda both: Cascade(both, [2]), lambda both: Fusion(both, retrieval=False)], ids=["cascade", "fuse"]
)
def test_a_stage_or_partner_with_an_own_fallback_may_answer_by_it(join) -> None:
    stage = Fallback([Scripted(HANG, name="a"), passthrough()])
    answer, took = virtually(lambda: Deadline(join([Scripted(name="first"), stage]), 1.7).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert answer.degraded
    assert took == pytest.approx(1.7)
    # One without is cut.
    hangs = Deadline(join([Fallback([Scripted(name="first"), passthrough()]), Scripted(HANG, name="a")]), 1.7)
    error, took = virtually(lambda: hangs.ascore(REQUEST))
    assert isinstance(error, DeadlineExceeded)
    assert took == pytest.approx(1.7)


def test_an_unsupported_instruction_is_dropped_with_a_reason() -> None:
    follows = Capabilities(instructions=True)
    first = Scripted(TransientError("busy"), name="first", capabilities=follows)
    second = Scripted(TransientError("busy too"), name="second", capabilities=follows)
    third = Scripted(name="third")
    request = replace(REQUEST, instruction="prefer the sea")
    answer, _ = virtually(lambda: Fallback([first, second, third]).ascore(request))
    assert isinstance(answer, Scores)
    assert second.calls[0][1].instruction == "prefer the sea"
    assert third.calls[0][1].instruction is None
    assert "third cannot follow an instruction and answered without it" in answer.reason


def test_attempts_contain_every_entry() -> None:
    entries = [Instrumented(Scripted(TransientError("busy"), name="first")), Instrumented(Scripted(name="second"))]
    answer, _ = virtually(lambda: Reranker(Fallback(entries)).arerank("query", ["one", "three"]))
    assert answer.degraded
    assert answer.model == "second"
    assert [(each.model, each.outcome, each.detail) for each in answer.attempts] == [
        ("first", "TransientError", "busy"),
        ("second", "answered", None),
    ]
    assert answer.usage.requests == 2
    assert all(each.milliseconds >= 0.0 for each in answer.attempts)


def test_one_warning_a_minute_is_logged_without_the_text(caplog: pytest.LogCaptureFixture) -> None:
    scorer = Fallback([Scripted(*[TransientError("busy")] * 9, name="first"), Scripted(name="second")])
    secretive = replace(REQUEST, query="the private query", documents=("the private document",))
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        for _ in range(5):
            virtually(lambda: scorer.ascore(secretive))
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "second answered in place of first: TransientError" in caplog.text
        assert "private" not in caplog.text
        scorer._warned -= 61.0  # a minute later
        virtually(lambda: scorer.ascore(secretive))
    assert len(caplog.records) == 2


def test_warmup_and_close_reach_every_entry() -> None:
    done = []

    class Tells(Scripted):
        async def awarmup(self) -> None:
            done.append(("warm", self.name))

        async def aclose(self) -> None:
            done.append(("close", self.name))

    scorer = Fallback([Tells(name="first"), Tells(name="second")])

    async def work() -> None:
        await scorer.awarmup()
        await scorer.aclose()

    virtually(work)
    assert done == [("warm", "first"), ("warm", "second"), ("close", "first"), ("close", "second")]

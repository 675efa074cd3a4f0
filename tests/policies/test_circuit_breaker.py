"""Circuit breaker: when it opens, sends a trial call and closes; in virtual time."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from support.scripted import HANG, REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins.core import AuthenticationFailed, BadResponse, DeadlineExceeded, Scores, TransientError
from rerank_plugins.core.call import record_attempts
from rerank_plugins.policies.circuit_breaker import CircuitBreaker
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.fallback import Fallback
from rerank_plugins.policies.retry import Retry

BUSY = TransientError("busy")
accounts = count()


def breaker(backend: Scripted, account: object = None, **options) -> CircuitBreaker:
    return CircuitBreaker(backend, account or next(accounts), **{"failures": 3, "reset_s": 10.0, **options})


async def ask(scorer, times: int = 1, pause: float = 0.0) -> list[str]:
    """Score `times` times; return the outcome of each call."""
    ends = []
    for _ in range(times):
        try:
            await scorer.ascore(REQUEST)
        except (TransientError, DeadlineExceeded, AuthenticationFailed, BadResponse) as error:
            ends.append("open" if "was not called" in str(error) else type(error).__name__)
        else:
            ends.append("answered")
        await asyncio.sleep(pause)
    return ends


def test_consecutive_failures_open_the_circuit():
    backend = Scripted(*[BUSY] * 9)
    ends, took = virtually(lambda: ask(breaker(backend), 6))
    assert ends == ["TransientError"] * 3 + ["open"] * 3
    assert len(backend.calls) == 3
    assert took == 0.0


def test_an_answer_resets_the_count_of_failures():
    backend = Scripted(BUSY, BUSY, 0.0, BUSY, BUSY, 0.0)
    ends, _ = virtually(lambda: ask(breaker(backend), 6))
    assert "open" not in ends


def test_a_trial_that_succeeds_closes_the_circuit():
    backend = Scripted(*[BUSY] * 3)
    ends, _ = virtually(lambda: ask(breaker(backend), 15, pause=1.0))
    # The third failure is at 2 s; the trial at 12 s is answered, and so is what follows.
    assert ends == ["TransientError"] * 3 + ["open"] * 9 + ["answered"] * 3


def test_a_trial_that_fails_restarts_the_pause():
    backend = Scripted(*[BUSY] * 4)
    ends, _ = virtually(lambda: ask(breaker(backend), 24, pause=1.0))
    assert ends == ["TransientError"] * 3 + ["open"] * 9 + ["TransientError"] + ["open"] * 9 + ["answered"] * 2


def test_concurrent_calls_send_one_trial():
    backend = Scripted(*[BUSY] * 3, 5.0)

    async def work():
        scorer = breaker(backend)
        await ask(scorer, 3)
        await asyncio.sleep(10.0)
        return await asyncio.gather(*(ask(scorer) for _ in range(20)))

    ends, _ = virtually(work)
    assert sorted(ends) == [["answered"], *[["open"]] * 19]
    assert len(backend.calls) == 4


def test_a_trial_that_never_ends_is_followed_by_another():
    """A trial whose event loop was closed or is blocked must not keep the circuit open forever."""

    async def work():
        backend = Scripted(*[BUSY] * 3, HANG)
        scorer = breaker(backend)
        await ask(scorer, 3)
        await asyncio.sleep(10.0)
        lost = asyncio.create_task(ask(scorer))
        await asyncio.sleep(9.0)
        ends = await ask(scorer, 3, pause=1.0)
        lost.cancel()
        return ends

    assert virtually(work)[0] == ["open", "answered", "answered"]


@pytest.mark.parametrize("end", [BadResponse("odd"), asyncio.CancelledError()], ids=["bad response", "cancelled"])
def test_an_inconclusive_trial_is_followed_by_another(end: BaseException):
    async def work():
        backend = Scripted(*[BUSY] * 3, HANG if isinstance(end, asyncio.CancelledError) else end)
        scorer = breaker(backend)
        await ask(scorer, 3)
        await asyncio.sleep(10.0)
        trial = asyncio.create_task(ask(scorer))
        await asyncio.sleep(1.0)
        trial.cancel()
        await asyncio.wait([trial])
        return await ask(scorer)

    assert virtually(work)[0] == ["answered"]


def test_a_rejection_resets_the_count_of_failures():
    backend = Scripted(BUSY, BUSY, AuthenticationFailed("who?"), BUSY, BUSY)
    ends, _ = virtually(lambda: ask(breaker(backend), 6))
    assert ends[-1] == "answered"


def test_calls_cancelled_by_the_deadline_are_failures():
    backend = Scripted(*[HANG] * 9)
    ends, took = virtually(lambda: ask(Deadline(breaker(backend), 2.0), 6))
    assert ends == ["DeadlineExceeded"] * 3 + ["open"] * 3
    assert took == pytest.approx(6.0)


def test_calls_cancelled_by_the_user_are_not_failures():
    async def work():
        scorer = Deadline(breaker(backend), 60.0)
        for _ in range(5):
            call = asyncio.create_task(ask(scorer))
            await asyncio.sleep(1.0)
            call.cancel()
        return await ask(scorer)

    backend = Scripted(*[HANG] * 5)
    assert virtually(work)[0] == ["answered"]


def test_a_call_with_its_retries_is_one_failure():
    backend = Scripted(*[BUSY] * 7)
    scorer = CircuitBreaker(Retry(backend, attempts=2), next(accounts), failures=3, reset_s=9.0)
    ends, _ = virtually(lambda: ask(scorer, 4))
    assert ends == ["TransientError"] * 3 + ["open"]
    assert len(backend.calls) == 6


def test_scorers_of_one_account_share_the_state():
    async def work():
        mine, other = next(accounts), next(accounts)
        failing = breaker(Scripted(*[BUSY] * 3), mine)  # bound to a name, so that its state exists
        await ask(failing, 3)
        return [await ask(breaker(Scripted(), mine)), await ask(breaker(Scripted(), other))]

    assert virtually(work)[0] == [["open"], ["answered"]]


def test_an_open_circuit_is_in_the_attempts_and_the_fallback_answers():
    async def work():
        scorer = breaker(Scripted(*[BUSY] * 3))
        await ask(scorer, 3)
        with record_attempts() as attempts:
            scores = await Fallback([scorer, Scripted(name="fallback")]).ascore(REQUEST)
        return scores, attempts

    (scores, attempts), took = virtually(work)
    assert isinstance(scores, Scores)
    assert scores.degraded
    assert took == 0.0
    (refused,) = attempts
    assert (refused.model, refused.outcome, refused.remote) == ("scripted", "breaker_open", False)
    assert "The next call is sent in 10 s" in refused.detail


def test_state_names_the_state_of_the_circuit():
    async def work():
        scorer = breaker(Scripted(*[BUSY] * 3))
        states = [scorer.state()]
        await ask(scorer, 3)
        states.append(scorer.state())
        await asyncio.sleep(10.0)
        return [*states, scorer.state()]

    assert virtually(work)[0] == [{"scripted": {"breaker": each}} for each in ("closed", "open", "half_open")]

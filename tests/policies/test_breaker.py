"""A vendor that keeps failing is left alone, and found again; in virtual time."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from scripted import HANG, REQUEST, Scripted
from virtual_time import virtually

from rerank_plugins.core import AuthenticationFailed, BadResponse, DeadlineExceeded, Scores, TransientError
from rerank_plugins.core.call import record_attempts
from rerank_plugins.policies.breaker import Breaker
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.fallback import Fallback
from rerank_plugins.policies.retry import Retry

BUSY = TransientError("busy")
accounts = count()


def breaker(backend: Scripted, account: object = None, **options) -> Breaker:
    return Breaker(backend, account or next(accounts), **{"failures": 3, "reset_s": 10.0, **options})


async def ask(scorer, times: int = 1, pause: float = 0.0) -> list[str]:
    """Ask so often; return how each call ended."""
    ends = []
    for _ in range(times):
        try:
            await scorer.ascore(REQUEST)
        except (TransientError, DeadlineExceeded, AuthenticationFailed, BadResponse) as error:
            ends.append("open" if "not asked" in str(error) else type(error).__name__)
        else:
            ends.append("answered")
        await asyncio.sleep(pause)
    return ends


def test_it_opens_after_so_many_failures_in_a_row_and_asks_no_more():
    backend = Scripted(*[BUSY] * 9)
    ends, took = virtually(lambda: ask(breaker(backend), 6))
    assert ends == ["TransientError"] * 3 + ["open"] * 3
    assert len(backend.asked) == 3
    assert took == 0.0


def test_an_answer_between_begins_the_count_anew():
    backend = Scripted(BUSY, BUSY, 0.0, BUSY, BUSY, 0.0)
    ends, _ = virtually(lambda: ask(breaker(backend), 6))
    assert "open" not in ends


def test_a_live_vendor_is_found_again_after_the_pause():
    backend = Scripted(*[BUSY] * 3)
    ends, _ = virtually(lambda: ask(breaker(backend), 15, pause=1.0))
    # The third failure is at 2 s; the trial at 12 s is answered, and so is what follows.
    assert ends == ["TransientError"] * 3 + ["open"] * 9 + ["answered"] * 3


def test_a_trial_that_fails_begins_the_pause_anew():
    backend = Scripted(*[BUSY] * 4)
    ends, _ = virtually(lambda: ask(breaker(backend), 24, pause=1.0))
    assert ends == ["TransientError"] * 3 + ["open"] * 9 + ["TransientError"] + ["open"] * 9 + ["answered"] * 2


def test_of_many_calls_one_tries():
    backend = Scripted(*[BUSY] * 3, 5.0)

    async def work():
        scorer = breaker(backend)
        await ask(scorer, 3)
        await asyncio.sleep(10.0)
        return await asyncio.gather(*(ask(scorer) for _ in range(20)))

    ends, _ = virtually(work)
    assert sorted(ends) == [["answered"], *[["open"]] * 19]
    assert len(backend.asked) == 4


def test_a_trial_that_never_comes_back_is_followed_by_another():
    """Its event loop was closed under it, or is held up."""

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
def test_a_trial_that_tells_nothing_is_followed_by_another(end: BaseException):
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


def test_a_refusal_shows_that_somebody_is_there():
    backend = Scripted(BUSY, BUSY, AuthenticationFailed("who?"), BUSY, BUSY)
    ends, _ = virtually(lambda: ask(breaker(backend), 6))
    assert ends[-1] == "answered"


def test_calls_that_the_deadline_cuts_are_failures():
    backend = Scripted(*[HANG] * 9)
    ends, took = virtually(lambda: ask(Deadline(breaker(backend), 2.0), 6))
    assert ends == ["DeadlineExceeded"] * 3 + ["open"] * 3
    assert took == pytest.approx(6.0)


def test_calls_that_the_user_cancels_are_not():
    async def work():
        scorer = Deadline(breaker(backend), 60.0)
        for _ in range(5):
            call = asyncio.create_task(ask(scorer))
            await asyncio.sleep(1.0)
            call.cancel()
        return await ask(scorer)

    backend = Scripted(*[HANG] * 5)
    assert virtually(work)[0] == ["answered"]


def test_it_counts_calls_after_their_retries():
    backend = Scripted(*[BUSY] * 7)
    ends, _ = virtually(lambda: ask(Breaker(Retry(backend, attempts=2), next(accounts), failures=3, reset_s=9.0), 4))
    assert ends == ["TransientError"] * 3 + ["open"]
    assert len(backend.asked) == 6


def test_one_account_is_one_vendor_whoever_asks():
    async def work():
        mine, other = next(accounts), next(accounts)
        failing = breaker(Scripted(*[BUSY] * 3), mine)  # held: an account is known for as long as somebody uses it
        await ask(failing, 3)
        return [await ask(breaker(Scripted(), mine)), await ask(breaker(Scripted(), other))]

    assert virtually(work)[0] == [["open"], ["answered"]]


def test_it_is_seen_in_the_attempts_and_the_stand_in_answers_at_once():
    async def work():
        scorer = breaker(Scripted(*[BUSY] * 3))
        await ask(scorer, 3)
        with record_attempts() as attempts:
            scores = await Fallback([scorer, Scripted(name="stand-in")]).ascore(REQUEST)
        return scores, attempts

    (scores, attempts), took = virtually(work)
    assert isinstance(scores, Scores)
    assert scores.degraded
    assert took == 0.0
    (refused,) = attempts
    assert (refused.model, refused.outcome, refused.remote) == ("scripted", "breaker_open", False)
    assert "asked again in 10 s" in refused.detail


def test_its_standing_can_be_read():
    async def work():
        scorer = breaker(Scripted(*[BUSY] * 3))
        found = [scorer.state()]
        await ask(scorer, 3)
        found.append(scorer.state())
        await asyncio.sleep(10.0)
        return [*found, scorer.state()]

    assert virtually(work)[0] == [{"scripted": {"breaker": each}} for each in ("closed", "open", "half_open")]

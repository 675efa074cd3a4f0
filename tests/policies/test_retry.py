"""Retry: which errors are retried, when, and how often."""

from __future__ import annotations

import email.utils
import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from support.scripted import REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins.core import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    DeadlineExceeded,
    InputError,
    RateLimited,
    Rejected,
    RerankError,
    Scores,
    TransientError,
)
from rerank_plugins.core.wire import retry_after
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.retry import LONGEST_WAIT, Retry


def test_full_jitter_covers_its_bounds() -> None:
    """wait n is uniform in [0, min(wait_max, wait_initial * 2 ** (n - 1))]."""
    random.seed(11)
    bounds = [0.5, 1.0, 2.0, 2.0]
    waits: list[list[float]] = [[] for _ in bounds]
    for _ in range(300):
        backend = Scripted(*[TransientError("busy")] * 4)
        answer, _ = virtually(lambda b=backend: Retry(b, attempts=5, wait_initial=0.5, wait_max=2.0).ascore(REQUEST))
        assert isinstance(answer, Scores)
        for observed, wait in zip(waits, backend.times, strict=True):
            observed.append(wait)
    for observed, bound in zip(waits, bounds, strict=True):
        assert min(observed) >= 0.0
        assert max(observed) <= bound + 1e-9
        assert min(observed) < 0.05 * bound
        assert max(observed) > 0.95 * bound
        assert abs(sum(observed) / len(observed) - bound / 2) < 0.1 * bound


def test_more_attempts_than_a_float_exponent_work() -> None:
    backend = Scripted(*[TransientError("busy")] * 1100)
    answer, _ = virtually(lambda: Retry(backend, attempts=1101, wait_initial=0.1, wait_max=0.1).ascore(REQUEST))
    assert isinstance(answer, Scores)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 7.0, 59.0])
def test_retry_after_is_obeyed_exactly(seconds: float) -> None:
    backend = Scripted(RateLimited("slow down", retry_after=seconds))
    answer, took = virtually(lambda: Retry(backend, wait_max=1.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert took == pytest.approx(seconds, abs=1e-6)


def test_a_retry_after_of_minutes_raises() -> None:
    backend = Scripted(RateLimited("tomorrow", retry_after=LONGEST_WAIT + 1))
    error, took = virtually(lambda: Retry(backend).ascore(REQUEST))
    assert isinstance(error, RateLimited)
    assert took == 0.0


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_include_the_first_one(attempts: int) -> None:
    backend = Scripted(*[TransientError("busy")] * 9)
    error, _ = virtually(lambda: Retry(backend, attempts=attempts).ascore(REQUEST))
    assert isinstance(error, TransientError)
    assert len(backend.calls) == attempts


@pytest.mark.parametrize(
    "error",
    [
        Rejected("no"),
        AuthenticationFailed("who"),
        BadResponse("what"),
        BackendError("hm"),
        InputError("wrong"),
        ConfigError("wrong"),
        DeadlineExceeded("late"),
        RuntimeError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_not_retried(error: Exception) -> None:
    backend = Scripted(error)
    raised, _ = virtually(lambda: Retry(backend, attempts=5).ascore(REQUEST))
    assert raised is error
    assert len(backend.calls) == 1


def test_a_wait_longer_than_the_deadline_raises_immediately() -> None:
    backend = Scripted(RateLimited("slow down", retry_after=7.0))
    error, took = virtually(lambda: Deadline(Retry(backend), 5.0).ascore(REQUEST))
    assert isinstance(error, RateLimited)
    assert took == 0.0
    assert len(backend.calls) == 1


def test_a_wait_within_the_deadline_is_waited() -> None:
    backend = Scripted(RateLimited("slow down", retry_after=4.0))
    answer, took = virtually(lambda: Deadline(Retry(backend), 5.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert took == pytest.approx(4.0)


def test_the_deadline_limits_all_attempts_together() -> None:
    backend = Scripted(*[TransientError("busy")] * 100)
    error, took = virtually(
        lambda: Deadline(Retry(backend, attempts=100, wait_initial=1.0, wait_max=1.0), 5.0).ascore(REQUEST)
    )
    assert isinstance(error, RerankError)
    assert took <= 5.0 + 1e-6
    assert len(backend.calls) > 3


def _date(seconds: float) -> str:
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "350"}, 0.35),
        ({"retry-after-ms": "350", "retry-after": "7"}, 0.35),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": "1s"}, 1.0),
        ({"x-ratelimit-reset": "6m0s"}, 360.0),
        ({"x-ratelimit-reset": "-5"}, 0.0),
        ({"x-ratelimit-reset": "soon", "x-ratelimit-reset-requests": "2"}, 2.0),
        ({"retry-after": "soon", "x-ratelimit-reset": "2"}, 2.0),
        ({"ratelimit-reset": "9"}, 9.0),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6m0s"}, 0.12),
        ({"retry-after": "Mon, 32 Feb 2026 25:00:00 GMT"}, None),
        ({"retry-after": "1e999"}, None),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90.0),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "6h0m0.5s"}, 21_600.5),
        ({"x-ratelimit-reset-requests": "3"}, 3.0),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-reset-requests": ""}, None),
        ({"x-ratelimit-reset-requests": "1parsec"}, None),
    ],
)
def test_retry_after_is_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


def test_dates_and_epochs_become_seconds() -> None:
    assert retry_after({"retry-after": _date(30)}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": _date(-30)}) == 0.0
    epoch = datetime.now(UTC).timestamp()
    assert retry_after({"x-ratelimit-reset": str(epoch + 30)}) == pytest.approx(30, abs=2)
    assert retry_after({"x-ratelimit-reset": str(int(1000 * (epoch + 30)))}) == pytest.approx(30, abs=2)
    assert retry_after({"x-ratelimit-reset": str(epoch - 30)}) == 0.0


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system's zone cannot be set")
def test_a_date_is_utc_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110, 5.6.7: three forms, the third without a zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        moment = datetime.now(UTC) + timedelta(seconds=30)
        for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):
            assert retry_after({"retry-after": moment.strftime(form)}) == pytest.approx(30, abs=2), form
    finally:
        monkeypatch.undo()
        time.tzset()

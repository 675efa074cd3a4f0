"""Access tokens of one account: when a new one is fetched, and what happens if that fails."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from typing import Any

import pytest

from rerank_plugins import AuthenticationFailed, TransientError
from rerank_plugins.backends import access_tokens
from rerank_plugins.backends.access_tokens import AccessToken, AccessTokens
from rerank_plugins.core.secret import Secret

HOUR = 3_600.0


class Played:
    """A fetch that returns or raises one value after the other, and the last one again and again."""

    def __init__(self, *values: Any) -> None:
        self.values = values
        self.calls = 0

    def __call__(self) -> AccessToken:
        self.calls += 1
        value = self.values[min(self.calls, len(self.values)) - 1]
        if isinstance(value, Exception):
            raise value
        assert isinstance(value, AccessToken)
        return value


def due(text: str) -> AccessToken:
    """Return a token that it is time to renew, and that is valid for a while."""
    return AccessToken(Secret(text), renew_at=time.time() - 1.0, ends_at=time.time() + HOUR)


async def current(tokens: AccessTokens) -> str:
    """Return the current token, once a renewal beside the call has ended."""
    token = await tokens.current()
    if tokens._renewal.latest is not None:
        concurrent.futures.wait([tokens._renewal.latest], timeout=30)
    return token.reveal()


@pytest.mark.parametrize(
    "error", [TransientError("down"), AuthenticationFailed("refused"), OSError("a library's")], ids=repr
)
async def test_valid_token_is_used_while_it_cannot_be_renewed(error: Exception, caplog: Any) -> None:
    fetch = Played(due("first"), error)
    tokens = AccessTokens(fetch)
    with caplog.at_level(logging.WARNING, "rerank_plugins"):
        assert [await current(tokens) for _ in range(6)] == ["first"] * 6
    assert fetch.calls == 2, "after a failure, a call does not fetch again at once"
    assert len(caplog.records) == 1
    assert "used until it ends" in caplog.text


async def test_token_is_renewed_once_that_is_possible_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_tokens, "PAUSE", 0.0)
    tokens = AccessTokens(Played(due("first"), TransientError("down"), AccessToken.of("second", time.time() + HOUR)))
    assert [await current(tokens) for _ in range(4)] == ["first", "first", "first", "second"]


class Hanging(Played):
    """A fetch that returns its first value at once, and then hangs until `released` is set."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.released = threading.Event()

    def __call__(self) -> AccessToken:
        if self.calls:
            self.released.wait(30)
        return super().__call__()


async def test_valid_token_is_used_while_the_token_server_hangs() -> None:
    fetch = Hanging(due("first"), AccessToken.of("second", time.time() + HOUR))
    tokens = AccessTokens(fetch)
    try:
        assert [(await tokens.current()).reveal() for _ in range(20)] == ["first"] * 20
        assert fetch.calls == 1, "the second fetch is under way"
    finally:
        fetch.released.set()
    assert tokens._renewal.latest is not None
    concurrent.futures.wait([tokens._renewal.latest], timeout=30)
    assert await current(tokens) == "second"
    assert fetch.calls == 2, "one fetch for all calls"


async def test_token_that_may_end_on_its_way_is_renewed_first_if_that_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_tokens, "PATIENCE", 0.01)
    ending = AccessToken(Secret("first"), renew_at=time.time() - 1.0, ends_at=time.time() + access_tokens.LAST - 1.0)
    second = AccessToken.of("second", time.time() + HOUR)
    hanging = Hanging(ending, second)
    tokens = AccessTokens(hanging)
    assert (await tokens.current()).reveal() == "first"
    assert (await tokens.current()).reveal() == "first", "the token server hangs"
    hanging.released.set()
    monkeypatch.setattr(access_tokens, "PATIENCE", 30.0)
    assert await asyncio.wait_for(tokens.current(), 30) == second.secret
    tokens = AccessTokens(Played(ending, second))
    assert [(await tokens.current()).reveal() for _ in range(3)] == ["first", "second", "second"]


async def test_valid_token_is_used_while_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = AccessTokens(Played(due("first")))
    assert await current(tokens) == "first"

    def refuse(*arguments: Any) -> None:
        raise TransientError("no thread")

    monkeypatch.setattr(tokens._workers, "submit", refuse)
    assert (await tokens.current()).reveal() == "first"


async def test_token_that_has_ended_is_not_used() -> None:
    ended = AccessToken.of("first", time.time() - 1.0)
    tokens = AccessTokens(Played(ended, TransientError("down")))
    assert (await tokens.current()).reveal() == "first"
    for _ in range(2):
        with pytest.raises(TransientError, match="down"):
            await tokens.current()


async def test_tokens_that_are_all_refused_are_not_fetched_by_every_call() -> None:
    fetch = Played(*(AccessToken.of(f"token {number}", time.time() + HOUR) for number in range(9)))
    tokens = AccessTokens(fetch)
    seen = []
    for _ in range(6):
        token = await tokens.current()
        seen.append(token.reveal())
        tokens.forget(token)
    assert seen == ["token 0"] + ["token 1"] * 5
    assert fetch.calls == 2


class Dead(Played):
    """A fetch that fails, once `released` is set."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.released = threading.Event()

    def __call__(self) -> AccessToken:
        self.released.wait(30)
        return super().__call__()


@pytest.mark.parametrize("error", [TransientError("down"), OSError("a library's")], ids=repr)
async def test_callers_without_a_token_share_the_error_of_one_fetch(error: Exception) -> None:
    """If each fetched in turn, the last of them would wait for the time limits of all before it."""
    fetch = Dead(error)
    tokens = AccessTokens(fetch)
    calls = [asyncio.create_task(tokens.current()) for _ in range(5)]
    await asyncio.sleep(0)  # each call runs until it waits for the fetch
    fetch.released.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes] == [repr(error)] * 5
    assert fetch.calls == 1
    with pytest.raises(type(error)):
        await tokens.current()
    assert fetch.calls == 2, "a later call tries again"


async def test_caller_that_gives_up_leaves_the_fetch_to_the_others() -> None:
    fetch = Hanging(AccessToken.of("ended", time.time() - 1.0), AccessToken.of("second", time.time() + HOUR))
    tokens = AccessTokens(fetch)
    await tokens.current()
    first, second = (asyncio.create_task(tokens.current()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fetch.released.set()
    assert (await second).reveal() == "second"
    assert fetch.calls == 2

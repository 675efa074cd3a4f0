"""`FunctionKey`: a key from a function, such as a token that expires. `key_source`: the key of a spec in any form.

A backend asks its `KeySource` for the key before each request, and for a newer one after the vendor refused it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import copy
import functools
import inspect
import logging
import math
import time
import types
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ._runtime.background_loop import Workers, is_blocked, now
from ._runtime.fork_hooks import Lock, reset_after_fork
from .choices import described
from .errors import ConfigError, RerankError, TransientError, clause
from .key_file import file_key
from .key_source import KeySource, shared_source
from .numeric import finite
from .redaction import holds_key_like, one_line, redact_key_like
from .secret import Secret

__all__ = [
    "AccessToken",
    "FunctionKey",
    "KeyFunction",
    "KeySource",
    "identity_of",
    "key_source",
    "plain_key",
    "sealed_key",
]

HOLD_S = 60.0
"""Seconds for which a key without a known end is used before the function is called again."""
EARLY_S = 300.0
EARLY_SHARE = 0.2
"""A token is refreshed 300 seconds before its end, and at the latest when a fifth of its lifetime is left."""
PAUSE_S = 1.0
"""Seconds until the function is called again after it failed, after it returned a key that has ended, and after a
refused key was replaced, if there is a key to use. A vendor may refuse every key."""
PATIENCE_S = 60.0
"""Seconds after which a call of the function that has not returned does not hold up new callers any more."""
_WARN_EVERY_S = 60.0

_log = logging.getLogger("rerank_plugins")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A key that ends at a known time. A key function returns one, so that it is refreshed before that.

    >>> import time
    >>> AccessToken("a token", expires_at=1_800_000_000)
    AccessToken(expires_at=1800000000)
    """

    value: str = field(repr=False)
    """The key."""
    expires_at: float | None = None
    """Unix time at which it ends. `None` if that is unknown."""


KeyFunction = Callable[[], "str | AccessToken | Awaitable[str | AccessToken]"]
"""What `api_key` may be in Python. A blocking function runs on a worker thread."""


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One call of a key function that is under way."""

    loop: asyncio.AbstractEventLoop
    """The event loop that runs it."""
    started: float = field(default_factory=now)
    outcome: concurrent.futures.Future[Secret | RerankError | None] = field(default_factory=concurrent.futures.Future)
    """The key, or the error. `None` if the event loop ended before the function returned."""

    @property
    def under_way(self) -> bool:
        """Whether waiting for it makes sense: its event loop runs, and it has not hung for long."""
        is_running = self.loop.is_running() and not is_blocked(self.loop)
        return is_running and not self.outcome.done() and now() - self.started < PATIENCE_S


class FunctionKey(KeySource):
    """A key that a function returns. All callers share the key, and one call of the function.

    A string is used for 60 seconds, then the function is called again. An `AccessToken` is used until five minutes
    before its end; the call for the next one then goes on beside the requests. A blocking function runs on a worker
    thread, a coroutine function on the event loop of the caller, so that it can use that loop's connections.

    >>> source = FunctionKey(lambda: "a key from a key store")
    >>> source.get()
    Secret('**********')
    """

    def __init__(self, function: KeyFunction, origin: str | None = None) -> None:
        """Set the function. It is not called.

        Args:
            function: Returns a string or an `AccessToken`, or an awaitable of one.
            origin: Where the key comes from, for errors; `None` takes the function's name.
        """
        self.function = function
        self.origin = origin or f"the function {_name_of(function)}"
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 (an object with `async def __call__`)
        )
        # Threads of its own, so that a function that hangs holds up no other key. The second thread is for a new call
        # while the first one hangs.
        self._workers = Workers(2, "rerank-plugins-key-function")
        self._lock = Lock()  # guards all attributes below: callers run on several threads and event loops
        self._current: Secret | None = None
        self._refresh_at = -math.inf
        """When the function is called again, by the monotonic clock."""
        self._ends_at = -math.inf
        """When the key ends; `inf` if that is unknown."""
        self._is_refused = False
        """Whether the current key was refused, and no call of the function has returned since."""
        self._replaced_at = -math.inf
        """When the function last returned after a refusal."""
        self._fetch: _Fetch | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks by weak references only
        self._warned_at = -math.inf
        reset_after_fork(self)

    @property
    def current(self) -> Secret | None:
        """The key that the function returned last."""
        return self._current

    async def aget(self) -> Secret:
        """Return the key, and call the function if it is time to.

        Returns:
            The key, hidden; `reveal()` returns its text.

        Raises:
            ConfigError: The function returned no key, or has a defect.
            TransientError: The function failed in another way.
        """
        while True:
            with self._lock:
                current, moment = self._current, now()
                if current is not None and moment < self._refresh_at:
                    return current
                fetch = self._start()
                is_valid = current is not None and not math.isinf(self._ends_at) and moment < self._ends_at
            if current is not None and is_valid:
                return current
            outcome = await _outcome_of(fetch)
            if isinstance(outcome, Secret):
                return outcome
            if outcome is not None and current is not None and self._ends_at > now():
                return current
            if outcome is not None:
                raise copy.copy(outcome) from outcome.__cause__

    async def arefresh(self, after: Secret) -> Secret:
        """Call the function, unless another caller has a newer key already.

        Args:
            after: The key that the vendor refused.

        Returns:
            The newer key; `after` if the function returns it again, or was called less than a second ago for another
            refused key.

        Raises:
            ConfigError: The function returned no key, or has a defect.
            TransientError: The function failed in another way.
        """
        while True:
            with self._lock:
                current, moment = self._current, now()
                if current is not None and (current != after or moment - self._replaced_at < PAUSE_S):
                    return current
                self._is_refused = True
                fetch = self._start()
            outcome = await _outcome_of(fetch)
            if isinstance(outcome, Secret):
                return outcome
            if outcome is not None:
                raise copy.copy(outcome) from outcome.__cause__

    def _start(self) -> _Fetch:
        """Return the call that is under way, or start one. The caller holds the lock."""
        if self._fetch is not None and self._fetch.under_way:
            return self._fetch
        loop = asyncio.get_running_loop()
        fetch = self._fetch = _Fetch(loop)
        # In an empty context: the call serves all callers, so it must not see one caller's deadline, and one caller's
        # cancellation must not end it.
        task = loop.create_task(self._run(fetch), context=contextvars.Context())
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not fetch.outcome.done():  # cancelled before its first step
                fetch.outcome.set_result(None)
            if not task.cancelled():
                task.exception()  # after a Ctrl-C, asyncio must not print that nobody retrieved it

        task.add_done_callback(ended)
        return fetch

    async def _run(self, fetch: _Fetch) -> None:
        outcome: Secret | RerankError | None = None
        try:
            # `_start` still holds the lock if the loop starts its tasks eagerly (asyncio.eager_task_factory).
            await asyncio.sleep(0)
            returned = self.function() if self._is_async else await self._workers.run(self.function)
            outcome = self._take(await returned if inspect.isawaitable(returned) else returned)
        except RerankError as error:
            outcome = error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the event loop ends
            outcome = self._typed(error)  # the function awaited something that was cancelled
        except GeneratorExit:
            raise
        except KeyboardInterrupt as error:
            outcome = self._typed(error)
            raise  # Ctrl-C reached the event loop in a coroutine function: it ends the program, not this call only
        except BaseException as error:  # SystemExit too. Without an outcome, callers would call the function for ever.
            outcome = self._typed(error)
        finally:
            if isinstance(outcome, RerankError):
                self._postpone(outcome)
            fetch.outcome.set_result(outcome)

    def _postpone(self, error: RerankError) -> None:
        """After a failure, use a key that is still valid for a moment, so that not every request calls the function."""
        with self._lock:
            moment = now()
            if self._current is None or moment >= self._ends_at:
                return
            self._refresh_at = min(max(self._refresh_at, moment + PAUSE_S), self._ends_at)
            is_silent = moment - self._warned_at < _WARN_EVERY_S
            self._warned_at = self._warned_at if is_silent else moment
        if not is_silent:
            kind = type(error.__cause__ or error).__name__
            _log.warning("%s failed (%s). The last key is used. (logged at most once a minute)", self.origin, kind)

    def _take(self, returned: Any) -> Secret:
        """Store what the function returned."""
        token = returned if isinstance(returned, AccessToken) else AccessToken(returned)
        value = token.value.strip() if isinstance(token.value, str) else token.value
        if not isinstance(value, str) or not value or not value.isprintable():
            got = "a string with a line break" if isinstance(value, str) and value else described(token.value)
            raise ConfigError(
                f"api_key: {self.origin} must return a key, a string of one line or an AccessToken, got "
                f"{'an empty string' if value == '' else got}."
            )
        expires_at = None if token.expires_at is None else self._checked_end(token.expires_at)
        key, moment = Secret(value), now()
        with self._lock:
            self._current = key
            if self._is_refused:
                self._is_refused, self._replaced_at = False, moment
            if expires_at is None:
                self._refresh_at, self._ends_at = moment + HOLD_S, math.inf
            else:
                lifetime = expires_at - time.time()
                self._ends_at = moment + lifetime
                early = min(EARLY_S, EARLY_SHARE * max(lifetime, 0.0))
                # A token that has ended is used for a moment, so that not every request calls the function.
                self._refresh_at = max(self._ends_at - early, moment + PAUSE_S)
        return key

    def _checked_end(self, expires_at: Any) -> float:
        try:
            return finite(expires_at, "AccessToken.expires_at")
        except ConfigError as error:
            raise ConfigError(
                f"api_key: {self.origin}: {clause(error)}. Return a Unix time, or None if the end is unknown."
            ) from None

    def _typed(self, error: BaseException) -> RerankError:
        """Return the error of this package for an exception of the function."""
        text = redact_key_like(one_line(f"{type(error).__name__}: {error}"), "")[:300]
        problem = f"api_key: {self.origin} raised {clause(text)}"
        typed: RerankError
        if isinstance(error, _DEFECTS):
            typed = ConfigError(f"{problem}. Correct the function.")
        else:
            typed = TransientError(f"{problem}. It may pass: raise `retry` or name a `fallback` in the spec.")
        typed.__cause__ = error
        if holds_key_like(typed, ""):
            typed.__cause__ = None
        typed.__suppress_context__ = True
        return typed

    def _reset(self) -> None:  # the lock and the workers reset themselves
        self._fetch, self._tasks = None, set()

    def __eq__(self, other: object) -> bool:
        """Compare the functions."""
        return isinstance(other, FunctionKey) and identity_of(self.function) == identity_of(other.function)

    def __hash__(self) -> int:
        """Hash the function."""
        return hash(identity_of(self.function))

    def __repr__(self) -> str:
        """Return the function's name. Its arguments are left out: a partial may hold a key."""
        return f"FunctionKey({_name_of(self.function)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionKey:
        """Return this object: copies within the process share it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a function of a module by its name; the other process imports it."""
        function = self.function
        if not isinstance(function, types.FunctionType) or "<" in function.__qualname__:
            raise TypeError(
                f"The spec's api_key is {self.origin}, which cannot be pickled by its name, and what it holds may be a "
                "key. Use a function at the top of a module, or build the reranker where it is used."
            )
        return sealed_key, (function,)


_DEFECTS = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, SyntaxError)
"""Exceptions of a function with a defect: another call raises them again. A `ValueError` or a `KeyError` may also come
from the reply of a token server that is down, so they are not in this list."""


async def _outcome_of(fetch: _Fetch) -> Secret | RerankError | None:
    # Shielded: without it, cancelling this caller would cancel the future that the other callers wait for.
    return await asyncio.shield(asyncio.wrap_future(fetch.outcome))


def _name_of(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"partial({_name_of(function.func)})"
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def identity_of(function: Any) -> Hashable:
    """Return a value that is the same for the same function. Each access to a method makes a new object."""
    owner = getattr(function, "__self__", None)
    code = getattr(function, "__func__", None)
    return (id(function),) if owner is None or code is None else (id(owner), id(code))


def sealed_key(value: Any) -> Secret | FunctionKey | None:
    """Return the value of `api_key` in a form that cannot be printed: a `Secret`, or a `FunctionKey` for a function.

    Raises:
        ConfigError: It is neither a string nor a function, or it is empty.
    """
    if isinstance(value, FunctionKey):
        return value
    if callable(value) and not hasattr(value, "get_secret_value"):
        source = shared_source(identity_of(value), lambda: FunctionKey(value))
        assert isinstance(source, FunctionKey)
        return source
    return Secret.of(value)


def key_source(sealed: Secret | FunctionKey) -> Secret | KeySource:
    """Return the key of a spec: a `Secret` that does not change, or the source of one that may.

    Raises:
        ConfigError: The variable of `env:NAME` is not set, or the file of `file:PATH` holds no key.
    """
    if isinstance(sealed, FunctionKey):
        return sealed
    if not sealed.reveal().startswith("file:"):
        return sealed.resolved()
    return file_key(sealed.reveal()[5:])


def plain_key(value: Any) -> Secret:
    """Return a key that is read once, from its text, `"env:NAME"` or `"file:PATH"`.

    Raises:
        ConfigError: The value is no string, or the variable or the file holds no key.
    """
    sealed = Secret.of(value)
    assert sealed is not None, "None is no key"
    source = key_source(sealed)
    return source.get() if isinstance(source, KeySource) else source

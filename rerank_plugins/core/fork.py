"""What a forked child must find in order: it has one thread, and none of those that held its parent's locks."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["Lock", "forgets_after_fork", "rests_while_forking"]


class Forgets(Protocol):
    """Something whose threads, connections or counts belong to the process that made them."""

    def _forget(self) -> None: ...


_known: weakref.WeakSet[Forgets] = weakref.WeakSet()


def forgets_after_fork(each: Forgets) -> None:
    """Call `each._forget()` in every forked child, for as long as `each` lives."""
    _known.add(each)


class Rests(Protocol):
    """Something whose state a child must not inherit half done, nor open."""

    def _rest(self) -> None: ...

    def _go_on(self) -> None: ...


_busy: weakref.WeakSet[Rests] = weakref.WeakSet()
_resting: list[Rests] = []
_one_fork_at_a_time = threading.Lock()


def rests_while_forking(each: Rests) -> None:
    """Call `each._rest()` before every fork and `each._go_on()` after it, in the parent and in the child."""
    _busy.add(each)


class Lock:
    """A `threading.Lock` that a forked child finds open, whoever held it in the parent at that moment."""

    def __init__(self) -> None:
        """Begin open."""
        self._lock = threading.Lock()
        _known.add(self)

    def __enter__(self) -> None:
        """Wait for it, and hold it."""
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        """Let it go."""
        self._lock.release()

    def _forget(self) -> None:
        self._lock = threading.Lock()


def _before_fork() -> None:
    _one_fork_at_a_time.acquire()
    for each in list(_busy):
        each._rest()
        _resting.append(each)


def _go_on() -> None:
    while _resting:
        _resting.pop()._go_on()
    _one_fork_at_a_time.release()


def _in_child() -> None:
    for each in list(_known):
        each._forget()
    _go_on()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_go_on, after_in_child=_in_child)

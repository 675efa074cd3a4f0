"""Hooks around `os.fork`: a forked child has one thread, and nobody there releases the locks that its parent held."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol, TypeVar

__all__ = ["Lock", "pause_during_fork", "reset_after_fork"]

T = TypeVar("T")


class Resettable(Protocol):
    """An object whose threads, connections or counts belong to the process that created it."""

    def _reset(self) -> None: ...


# By identity: a `WeakSet` holds one of several equal objects, and each has locks and threads of its own. An id that is
# used again stands for the new object only: a `WeakValueDictionary` drops an entry whose object is gone.
_resettable: weakref.WeakValueDictionary[int, Resettable] = weakref.WeakValueDictionary()


def reset_after_fork(target: Resettable) -> None:
    """Call `target._reset()` in every forked child, for as long as `target` exists."""
    _resettable[id(target)] = target


class Pausable(Protocol):
    """An object whose state must be complete and closed when a child inherits it, such as an open SQLite file."""

    def _pause(self) -> None: ...

    def _resume(self) -> None: ...


_pausable: weakref.WeakValueDictionary[int, Pausable] = weakref.WeakValueDictionary()
_paused: list[Pausable] = []
# Held from before a fork until after it, so that two threads that fork do not resume each other's objects. It guards
# `_paused`.
_fork_lock = threading.Lock()


def pause_during_fork(target: Pausable) -> None:
    """Call `target._pause()` before every fork, and `target._resume()` after it in the parent and in the child."""
    _pausable[id(target)] = target


class Lock:
    """A `threading.Lock` that is free in a forked child, even if a thread of the parent held it during the fork."""

    def __init__(self) -> None:
        """Create a free lock."""
        self._lock = threading.Lock()
        _resettable[id(self)] = self

    def __enter__(self) -> None:
        """Acquire the lock."""
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        """Release the lock."""
        self._lock.release()

    def _reset(self) -> None:
        self._lock = threading.Lock()


def _living(targets: weakref.WeakValueDictionary[int, T]) -> list[T]:
    # `valuerefs` copies the dictionary in one step, while other threads may add to it.
    return [target for reference in targets.valuerefs() if (target := reference()) is not None]


def _before_fork() -> None:
    _fork_lock.acquire()
    for target in _living(_pausable):
        target._pause()
        _paused.append(target)


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop()._resume()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    for target in _living(_resettable):
        target._reset()
    _after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

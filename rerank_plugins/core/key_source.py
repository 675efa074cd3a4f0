"""`KeySource`: where a backend gets a key that may change while the process runs.

One source serves all callers in the process: threads, event loops, and rerankers with the same file or function.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

from ._runtime.background_loop import Workers, run_sync
from ._runtime.fork_hooks import Lock
from .secret import Secret

__all__ = ["KeySource", "file_workers", "shared_source"]

file_workers = Workers(8, "rerank-plugins-key-files")
"""Threads that read key files. Key functions have threads of their own: they may hang."""


class KeySource(ABC):
    """A key that may change. `aget` returns the current one, `arefresh` a newer one after a refusal.

    >>> from rerank_plugins.core import FunctionKey
    >>> source: KeySource = FunctionKey(lambda: "a key")
    >>> source.refresh(after=source.get()) == source.current
    True
    """

    origin: str
    """Where the key comes from, for errors: `the file /run/secrets/key`."""

    @property
    @abstractmethod
    def current(self) -> Secret | None:
        """The key that was read last. `None` before the first time."""

    @abstractmethod
    async def aget(self) -> Secret:
        """Return the current key, without blocking the event loop.

        Returns:
            The key, hidden; `reveal()` returns its text.

        Raises:
            ConfigError: There is no valid key.
            TransientError: The key cannot be fetched now.
        """

    @abstractmethod
    async def arefresh(self, after: Secret) -> Secret:
        """Return a newer key after a refusal. Callers that come with the same `after` share one refresh.

        Args:
            after: The key that the vendor refused.

        Returns:
            The newer key; `after` itself if there is none.

        Raises:
            ConfigError: There is no valid key.
            TransientError: The key cannot be fetched now.
        """

    def get(self) -> Secret:
        """Do what `aget` does, for callers outside of an event loop.

        Returns:
            The key, hidden; `reveal()` returns its text.
        """
        return run_sync(self.aget())

    def refresh(self, after: Secret) -> Secret:
        """Do what `arefresh` does, for callers outside of an event loop.

        Args:
            after: The key that the vendor refused.

        Returns:
            The newer key; `after` itself if there is none.
        """
        return run_sync(self.arefresh(after))


_sources: weakref.WeakValueDictionary[Hashable, KeySource] = weakref.WeakValueDictionary()
"""The sources in use, by file or function."""
_sources_lock = Lock()  # guards `_sources`


def shared_source(identity: Hashable, make: Callable[[], KeySource]) -> KeySource:
    """Return the source in use for a file or function; a new one if there is none."""
    with _sources_lock:
        source = _sources.get(identity)
        if source is None:
            source = _sources[identity] = make()
        return source

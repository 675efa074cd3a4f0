"""Return freed memory to the operating system."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["give_back_memory"]


def give_back_memory() -> None:
    """Return freed memory to the operating system.

    glibc keeps freed blocks below 32 MB, hundreds of megabytes in all, until `malloc_trim` is called
    (https://man7.org/linux/man-pages/man3/malloc_trim.3.html). Other C libraries return them by themselves. The call
    takes some milliseconds, and does not hold the interpreter lock.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)

"""Give freed memory back to the system."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["give_back_memory"]


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps what is below 32 MB a block (hundreds of megabytes) until asked.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html. Other C libraries return it by themselves. It takes some
    milliseconds, without the interpreter lock.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)

"""Defaults and words of options, apart from the code that uses them: reading a spec loads no code for vendors."""

from __future__ import annotations

__all__ = ["LIST", "MAX_IN_FLIGHT", "TIMEOUT"]

LIST = "list"
"""Value of the option `price` that stands for the vendor's published price."""
MAX_IN_FLIGHT = 8
"""Default of `Backend.max_in_flight`."""
TIMEOUT = 30.0
"""Default of `Remote.timeout`, in seconds."""

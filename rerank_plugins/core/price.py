"""What a call cost, from the prices that the user gives: vendors change theirs, and a stale table would lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ConfigError
from .numeric import finite, shown
from .types import Usage

__all__ = ["Price"]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for what the vendor counts; `None` where it does not charge by that."""

    per_million_tokens: float | None = None
    per_search_unit: float | None = None

    @classmethod
    def of(cls, value: Any) -> Price:
        """Return the price of a spec: a mapping of these two names, or `None`.

        Raises:
            ConfigError: Another name, or no number of at least 0.
        """
        if value is None:
            return cls()
        names = cls.__slots__
        if not isinstance(value, Mapping) or not value or not set(value) <= set(names):
            raise ConfigError(
                f"price is a mapping of US dollars with one or both of {', '.join(names)}, such as "
                f"{{'per_million_tokens': 0.05}}; not {shown(value)}."
            )
        for name, amount in value.items():
            finite(amount, f"price.{name}", 0, 1e12)
        return cls(**value)

    def of_usage(self, usage: Usage) -> Usage:
        """Return `usage` with `cost_usd`; it stays `None` where the vendor did not tell what the price counts."""
        parts = (
            (self.per_million_tokens, usage.input_tokens, 1e-6),
            (self.per_search_unit, usage.search_units, 1.0),
        )
        costs = [price * count * share for price, count, share in parts if price is not None and count is not None]
        return replace(usage, cost_usd=sum(costs)) if costs else usage

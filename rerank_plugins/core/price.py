"""Cost of a call, from the price in the spec: amounts that the user writes, or the vendor's published price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ConfigError
from .numeric import finite, shown
from .types import Usage

__all__ = ["ListPrice", "Price", "find_list_price"]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per unit that the vendor charges. `None` for units that it does not charge."""

    per_million_tokens: float | None = None
    per_million_output_tokens: float | None = None
    per_million_cached_tokens: float | None = None
    per_search_unit: float | None = None

    @classmethod
    def of(cls, value: Any) -> Price:
        """Return the price for the option `price`: a mapping with these names, or `None`.

        Raises:
            ConfigError: A name is unknown, or an amount is not a number of at least 0.
        """
        if value is None:
            return cls()
        names = cls.__slots__
        if not isinstance(value, Mapping) or not value or not set(value) <= set(names):
            raise ConfigError(
                f"price must be a mapping of US dollars with one or more of {', '.join(names)}, such as "
                f"{{'per_million_tokens': 0.05}}, got {shown(value)}."
            )
        for name, amount in value.items():
            finite(amount, f"price.{name}", 0, 1e12)
        return cls(**value)

    def of_usage(self, usage: Usage) -> Usage:
        """Return `usage` with `cost_usd`; it stays `None` if the vendor did not report the units of the price.

        Cached tokens are a part of the input tokens. Without a price of their own they cost what the others cost.

        >>> price = Price(per_million_tokens=0.10, per_million_cached_tokens=0.01)
        >>> round(price.of_usage(Usage(input_tokens=2_000_000, cached_tokens=1_000_000)).cost_usd, 6)
        0.11
        """
        fresh, cached = usage.input_tokens, None
        if fresh is not None and usage.cached_tokens is not None and self.per_million_cached_tokens is not None:
            cached = min(usage.cached_tokens, fresh)
            fresh -= cached
        parts = (
            (self.per_million_tokens, fresh, 1e-6),
            (self.per_million_cached_tokens, cached, 1e-6),
            (self.per_million_output_tokens, usage.output_tokens, 1e-6),
            (self.per_search_unit, usage.search_units, 1.0),
        )
        costs = [price * count * share for price, count, share in parts if price is not None and count is not None]
        return replace(usage, cost_usd=sum(costs)) if costs else usage


@dataclass(frozen=True, slots=True)
class ListPrice:
    """A published price of one model. Vendors change prices, so it is never shown without its date.

    >>> ListPrice(Price(per_million_tokens=0.05), "https://acme.example/pricing", "2026-11-30").date
    '2026-11-30'
    """

    price: Price
    source: str
    """URL of the page that names the price."""
    date: str
    """The day when that page was read, such as `2026-11-30`."""


def find_list_price(label: str, model: str, prices: Mapping[str, ListPrice]) -> ListPrice:
    """Return the published price of a model.

    Args:
        label: The backend and its model, for the error.
        model: The model's name at the vendor.
        prices: The backend's published prices, by model.

    Raises:
        ConfigError: No price of this model is known.
    """
    if (price := prices.get(model)) is not None:
        return price
    known = f"Known are the prices of {', '.join(prices)}." if prices else "This backend has no list prices."
    raise ConfigError(
        f"price = 'list': there is no list price of {label}. {known} Write what you pay, such as "
        f"price = {{'per_million_tokens': 0.05}}; `rerank-plugins list --prices` prints all list prices."
    )

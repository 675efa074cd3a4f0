"""Bounded tables evict the least recently used entries, by number or by weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.core._runtime.lru import LRU


def test_least_recently_used_entry_is_evicted_and_peek_does_not_count() -> None:
    gone: list[tuple[str, int]] = []
    table = LRU[str, int](2, lambda key, value: gone.append((key, value)))
    table.put("a", 1)
    table.put("b", 2)
    assert table.get("a") == 1
    assert table.peek("b") == 2
    table.put("c", 3)
    assert gone == [("b", 2)]
    assert (table.get("a"), table.get("b"), table.get("c"), len(table)) == (1, None, 3, 2)


def test_replaced_entry_has_its_latest_weight() -> None:
    table = LRU[str, str](10)
    table.put("a", "x", 4)
    table.put("b", "y", 4)
    table.put("a", "z", 6)
    assert (table.weight, table.get("a"), table.get("b")) == (10, "z", "y")
    assert table.pop("a") == "z"
    assert (table.pop("a"), table.weight, len(table)) == (None, 4, 1)
    table.put("large", "w", 11)
    assert (table.weight, len(table)) == (0, 0)


def test_get_or_make_creates_a_value_again_only_after_its_eviction() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("x")
        return "x"

    table = LRU[str, str](1)
    assert table.get_or_make("a", make) == table.get_or_make("a", make) == "x"
    table.put("b", "y")
    assert table.get_or_make("a", make) == "x"
    assert len(made) == 2


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 5)), max_size=40), st.integers(0, 12))
def test_weight_is_the_sum_of_the_entries_and_within_the_bound(puts: list[tuple[str, int]], bound: int) -> None:
    table, left = LRU[str, int](bound, lambda key, _: left.pop(key)), dict[str, int]()
    for key, weight in puts:
        left[key] = weight
        table.put(key, weight, weight)
        assert table.weight == sum(left.values()) <= bound
        assert {name: table.peek(name) for name in left} == left
        assert len(table) == len(left)

"""`gather` with a limit: results in order, and no more tasks than that."""

from __future__ import annotations

import asyncio

import pytest

from rerank_plugins.core._runtime.gather import gather


async def test_limit_is_the_number_of_tasks_and_results_are_in_order() -> None:
    """A task for each part would block the event loop when a deadline cancels hundreds of them at once."""
    before, most_tasks = len(asyncio.all_tasks()), 0

    async def work(number: int) -> int:
        nonlocal most_tasks
        most_tasks = max(most_tasks, len(asyncio.all_tasks()) - before)
        await asyncio.sleep(0.001 if number % 3 else 0)
        return number

    assert await gather((work(number) for number in range(300)), 8) == list(range(300))
    assert most_tasks == 8


async def test_error_of_one_ends_the_others_and_starts_no_more() -> None:
    started = []

    async def work(number: int) -> None:
        started.append(number)
        if number == 3:
            raise ValueError(number)
        await asyncio.sleep(60)

    with pytest.raises(ValueError, match="3"):
        await gather((work(number) for number in range(300)), 8)
    assert started == [0, 1, 2, 3, 4, 5, 6, 7]

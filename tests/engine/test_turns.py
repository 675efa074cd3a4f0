"""A model lets some calls in at a time; the others wait, and no turn is lost, whoever leaves when."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

from models import SENTENCES

from rerank_plugins import load_reranker
from rerank_plugins.engine.onnx_model import loaded
from rerank_plugins.engine.turns import CALLS, Turns

QUERY = "how do the tides work"


async def test_first_come_first_served_and_no_more_than_there_are():
    turns, inside, most, order = Turns(2), 0, 0, []

    async def call(number):
        nonlocal inside, most
        async with turns:
            inside += 1
            most = max(most, inside)
            order.append(number)
            for _ in range(3):
                await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(call, range(20)))
    assert most == 2
    assert order == list(range(20))


async def test_whoever_leaves_takes_no_turn_along():
    turns, chance = Turns(2), random.Random(4)

    async def call(pauses):
        async with turns:
            for _ in range(pauses):
                await asyncio.sleep(0)

    for _ in range(200):
        calls = [asyncio.ensure_future(call(chance.randrange(3))) for _ in range(6)]
        for each in calls:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.6:
                each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert turns._free == 2
    assert not turns._waiting


def test_over_threads_with_loops_of_their_own():
    turns, inside, seen = Turns(3), set(), []

    async def call(number):
        async with turns:
            inside.add(number)
            seen.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: asyncio.run(call(number)), range(120)))
    assert len(seen) == 120
    assert max(seen) <= 3
    assert turns._free == 3


async def test_what_waits_for_a_model_is_not_tokenized(cross_encoder_folder):
    """Back-pressure: of 200 calls at once only `CALLS` hold rows of tokens; all are answered, as one alone is."""
    async with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
        model = loaded(cross_encoder_folder)
        held, most, encoder, through = 0, 0, model.encoder.pairs, model.map

        def pairs(*arguments):
            nonlocal held, most
            held += 1
            most = max(most, held)
            return encoder(*arguments)

        async def run(*arguments):
            nonlocal held
            await through(*arguments)
            held -= 1

        model.encoder.pairs, model.map = pairs, run
        answers = await asyncio.gather(*(reranker.arerank(QUERY, SENTENCES) for _ in range(200)))
    assert all([each.raw_score for each in answer] == alone for answer in answers)
    assert most <= CALLS

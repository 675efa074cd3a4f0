"""Random cases for a number of seconds: `make fuzz` runs them for a minute each, `make test-all` for a few seconds.

`RERANK_FUZZ_SECONDS` sets the seconds of each property. A failing case is printed by hypothesis; it becomes a test
beside the code that it broke.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping

import properties
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from rerank_plugins.testing.server import VendorServer

SECONDS = float(os.environ.get("RERANK_FUZZ_SECONDS", "8"))
EXAMPLES = 50

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, VendorServer]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(kind(key=properties.KEY)) for name, kind in properties.VENDOR_SERVERS.items()}


def run_random_cases(check: Callable[[st.DataObject], None]) -> None:
    """Run `check` on new random cases until the seconds are over, at least `EXAMPLES` times."""
    until = time.monotonic() + SECONDS
    first = int(os.environ.get("RERANK_FUZZ_SEED", "0")) or time.time_ns() % 2**32
    for number in itertools.count(first):

        @seed(number)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.data())
        def run(data: st.DataObject) -> None:
            check(data)

        try:
            run()
        except BaseException as error:
            error.add_note(f"Run again with RERANK_FUZZ_SEED={number}.")
            raise
        if time.monotonic() >= until:
            return


def test_random_specs_and_documents_keep_the_invariants(servers: Mapping[str, VendorServer]) -> None:
    run_random_cases(lambda data: properties.rerank_with_any_spec(data, servers["http"]))


def test_random_permutations_permute_the_scores(servers: Mapping[str, VendorServer]) -> None:
    run_random_cases(lambda data: properties.permuted_documents(data, servers["http"]))


def test_random_replies_give_an_error_or_valid_scores(servers: Mapping[str, VendorServer]) -> None:
    run_random_cases(lambda data: properties.any_reply_of_a_vendor(data, servers))


def test_random_cancellations_leave_nothing_behind(servers: Mapping[str, VendorServer]) -> None:
    run_random_cases(lambda data: properties.cancelled_calls(data, servers["http"]))


def test_random_spec_shapes_load_or_raise_config_error() -> None:
    run_random_cases(properties.any_spec_is_built_or_refused)

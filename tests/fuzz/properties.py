"""Properties that hold for every spec, every document, every reply of a vendor and every cancellation.

Each function draws one case from a hypothesis `data` object and asserts the invariants. `tests/fuzz/test_fuzz.py` runs
them again and again for a number of seconds.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rerank_plugins import Reranker, RerankResponse, load_reranker
from rerank_plugins.core.errors import RerankError
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.odd_texts import ODD_TEXTS
from rerank_plugins.testing.script import CutBody, Drip, Gap, Hang, NaN, Reset, Shuffled, Status, Step, TopN
from rerank_plugins.testing.server import Exchange, VendorServer
from rerank_plugins.testing.vendors import VENDORS

KEY = "fuzz-key-5d1f0c9a7b3e"
SHORT_ODD_TEXTS = [text for name, text in ODD_TEXTS.items() if "long" not in name]

# Documents ------------------------------------------------------------------------------------------------------------

words = st.sampled_from(
    ["moon", "tides", "sea", "sun", "bananas", "清潮", "סופ", "e\u0301", "the", "a1b2", "\u200b", "\0"]
)
texts = st.one_of(
    st.lists(words, max_size=12).map(" ".join),
    st.text(max_size=60),
    st.sampled_from([*SHORT_ODD_TEXTS, "", " ", "\u200b\ufeff"]),
    st.builds(
        lambda unit, count: unit * count,
        st.sampled_from(["a1", "moon ", "  ", "\u0301", "-", "7"]),
        st.integers(1, 3_000),
    ),
)
scalars = st.one_of(
    texts, st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)
fields = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=5), scalars, max_size=2))
mappings = st.dictionaries(st.sampled_from(["title", "body", "year", "tags", ""]), fields, max_size=4)
documents = st.lists(st.one_of(texts, texts, mappings), max_size=10)
queries = st.one_of(st.lists(words, min_size=1, max_size=6).map(" ".join), texts)

# Specs ----------------------------------------------------------------------------------------------------------------


def hosted(server: VendorServer, name: str = "http") -> dict[str, Any]:
    return {"use": name, "base_url": server.url, "api_key": server.key}


def policies(folder: Path) -> dict[str, st.SearchStrategy[Any]]:
    """Options beside `use`, each with a value that is valid on its own."""
    return {
        "retry": st.one_of(st.integers(1, 2), st.just({"attempts": 2, "wait_initial": 0.001, "wait_max": 0.002})),
        "top_n": st.integers(1, 12),
        "score_threshold": st.floats(0, 1),
        "deadline": st.sampled_from([0.3, 5.0]),
        "timeout": st.sampled_from([0.2, 30.0]),
        "on_error": st.sampled_from(["raise", "degrade"]),
        "fallback": st.lists(st.sampled_from(["lexical", "passthrough", "embedded:fast"]), max_size=2),
        "breaker": st.sampled_from([True, {"failures": 2, "reset_s": 0.01}]),
        "limit": st.just({"requests_per_minute": 10**6, "tokens_per_minute": 10**9}),
        "cache": st.sampled_from(
            [True, {"kind": "memory", "max_entries": 3}, {"kind": "disk", "path": str(folder / "scores.sqlite3")}]
        ),
        "long_documents": st.sampled_from(
            [
                "truncate",
                "head_tail",
                "error",
                "chunk",
                {"mode": "chunk", "tokens": 8, "overlap": 2, "aggregate": "mean_top_k"},
            ]
        ),
        "diversify": st.sampled_from([True, {"lambda": 0.3}]),
        "fuse": st.sampled_from(
            [{"with": "retrieval"}, {"with": ["lexical"]}, {"with": "retrieval", "method": "weighted"}]
        ),
    }


LOCAL = ("lexical", "passthrough", "embedded:fast")


@st.composite
def specs(draw: st.DrawFn, server: VendorServer, folder: Path) -> dict[str, Any]:
    spec: dict[str, Any] = draw(st.sampled_from([*({"use": name} for name in LOCAL), hosted(server), hosted(server)]))
    if draw(st.integers(0, 5)) == 0:
        stages = draw(st.lists(st.sampled_from([*LOCAL, spec]), min_size=2, max_size=3))
        spec = {"cascade": {"stages": stages, "keep": [draw(st.integers(1, 6)) for _ in stages[1:]]}}
    chosen = draw(st.fixed_dictionaries({}, optional=policies(folder)))
    if draw(st.booleans()):  # many policies at once are seldom compatible: mostly a few
        for name in draw(st.lists(st.sampled_from(sorted(chosen)), max_size=10)) if chosen else []:
            chosen.pop(name, None)
    if spec.get("use") == "http" and draw(st.booleans()):
        spec = {**spec, "http": {"max_documents": draw(st.integers(1, 5)), "max_tokens": draw(st.integers(20, 200))}}
    if spec.get("use") != "http":  # the other backends are local, and refuse a timeout
        chosen.pop("timeout", None)
    return {**spec, **chosen}


# Invariants -----------------------------------------------------------------------------------------------------------


def check(response: RerankResponse, inputs: list[Any], spec: Mapping[str, Any], top_n: int | None) -> None:
    """Assert the invariants of every answer."""
    indexes = [result.index for result in response]
    assert len(set(indexes)) == len(indexes), "a document came twice"
    assert all(result.document is inputs[result.index] for result in response)
    limit = top_n if top_n is not None else spec.get("top_n")
    diversified = spec.get("diversify") not in (None, False)
    if spec.get("score_threshold") is None or response.degraded:
        assert len(indexes) == min(len(inputs), limit or len(inputs)), "a document was lost"
    for result in response:
        if result.relevance_score is not None:
            assert type(result.relevance_score) is float
            assert 0.0 <= result.relevance_score <= 1.0
            if spec.get("score_threshold") is not None and not response.degraded:
                assert result.relevance_score >= spec["score_threshold"]
        if result.raw_score is not None:
            assert type(result.raw_score) is float
            assert math.isfinite(result.raw_score)
    if response.degraded:
        assert response.reason, "a degraded answer says why"
    if "cascade" not in spec and not diversified:
        scores = [-math.inf if result.raw_score is None else result.raw_score for result in response]
        assert scores == sorted(scores, reverse=True), "the raw score orders"
    blanks = [result.reason is not None and result.reason.startswith("blank") for result in response]
    assert blanks == sorted(blanks), "blank documents come last"
    assert not any(
        isinstance(result.document, str) and any(map(str.isalnum, result.document))
        for result, blank in zip(response, blanks, strict=True)
        if blank
    )
    same: dict[str, Any] = {}
    for result in response:
        if isinstance(result.document, str):
            assert same.setdefault(result.document, result.raw_score) == result.raw_score, "equal texts, unequal scores"
    assert KEY not in repr(response)


def check_refusal(error: RerankError) -> None:
    """Assert the invariants of every typed error."""
    assert KEY not in f"{error} {error!r}"
    assert "broken" not in str(error), "only a defect of a model or a backend is called so"


def raw_by_index(response: RerankResponse) -> dict[int, float | None]:
    return {result.index: result.raw_score for result in response}


def rerank_with_any_spec(data: st.DataObject, server: VendorServer) -> None:
    """Any spec with any documents gives a typed error or a valid answer, the same in sync and async and twice."""
    server.reset()
    with tempfile.TemporaryDirectory() as folder:
        spec = data.draw(specs(server, Path(folder)), label="spec")
        inputs = data.draw(documents, label="documents")
        query = data.draw(queries, label="query")
        top_n = data.draw(st.one_of(st.none(), st.integers(1, 12)), label="top_n")
        scores = data.draw(
            st.one_of(
                st.none(),
                st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=len(inputs), max_size=len(inputs)),
            ),
            label="retrieval_scores",
        )
        before = copy.deepcopy(inputs)
        try:
            with load_reranker(spec) as reranker:
                assert KEY not in repr(reranker)
                first = reranker.rerank(query, inputs, top_n=top_n, retrieval_scores=scores)
                check(first, inputs, spec, top_n)
                second = asyncio.run(reranker.arerank(query, inputs, top_n=top_n, retrieval_scores=scores))
                check(second, inputs, spec, top_n)
        except RerankError as error:
            first, refusal = None, error
        assert repr(inputs) == repr(before), "an input was changed"
        if first is None:
            check_refusal(refusal)
        elif not (first.degraded or second.degraded):
            assert raw_by_index(first).keys() == raw_by_index(second).keys()
            for index, raw in raw_by_index(first).items():
                assert close(raw, raw_by_index(second)[index]), "the same call gave another score"


def close(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-5, abs_tol=1e-6)


def permuted_documents(data: st.DataObject, server: VendorServer) -> None:
    """A permutation of the input permutes the scores of pointwise backends and policies."""
    server.reset()
    spec = data.draw(
        st.sampled_from([{"use": "embedded:fast"}, hosted(server), {**hosted(server), "cache": True}]), label="spec"
    )
    extra = data.draw(
        st.sampled_from([{}, {"long_documents": {"mode": "chunk", "tokens": 8}}, {"fuse": {"with": "retrieval"}}]),
        label="policy",
    )
    inputs = data.draw(st.lists(texts, min_size=1, max_size=8), label="documents")
    order = data.draw(st.permutations(range(len(inputs))), label="order")
    scores = data.draw(st.lists(st.floats(-5, 5), min_size=len(inputs), max_size=len(inputs)), label="retrieval_scores")
    with load_reranker({**spec, **extra}) as reranker:
        straight = raw_by_index(reranker.rerank("moon tides", inputs, retrieval_scores=scores))
        turned = raw_by_index(
            reranker.rerank("moon tides", [inputs[at] for at in order], retrieval_scores=[scores[at] for at in order])
        )
    tied = len(set(scores)) < len(scores)  # equal retrieval scores rank by position, which a permutation changes
    if not ("fuse" in extra and tied):
        for position, at in enumerate(order):
            assert close(turned[position], straight[at]), "a permutation changed a score"


# Replies --------------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-(10**30), 10**400), st.floats(), st.booleans(), st.text(max_size=3), st.none(), st.just([])
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    max_leaves=12,
)


@dataclass(frozen=True)
class Raw(Step):
    """A reply of any status, body and content type."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def play(self, exchange: Exchange) -> None:
        exchange.send_raw(self.status, self.body, {"content-type": "application/json", **self.headers})


@dataclass(frozen=True)
class Mutated(Step):
    """The vendor's correct answer, with one value replaced or removed."""

    choice: int
    value: Any
    remove: bool

    def play(self, exchange: Exchange) -> None:
        body = json.loads(json.dumps(exchange.answer(exchange.pairs())))
        slots: list[tuple[Any, Any]] = []

        def walk(node: Any) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []:
                slots.append((node, key))
                walk(node[key])

        walk(body)
        if slots:
            node, key = slots[self.choice % len(slots)]
            if self.remove:
                del node[key]
            else:
                node[key] = self.value
        exchange.send_raw(200, json.dumps(body).encode(), {"content-type": "application/json"})


@st.composite
def replies(draw: st.DrawFn) -> Step:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return Mutated(draw(st.integers(0, 60)), draw(st.one_of(numbers, anything)), draw(st.booleans()))
    if kind == 1:
        body = draw(st.one_of(st.binary(max_size=60), anything.map(lambda value: json.dumps(value).encode())))
        headers = draw(
            st.dictionaries(
                st.sampled_from(["retry-after", "x-ratelimit-reset", "content-language"]),
                st.sampled_from(["0", "-1", "1e9", "abc", "0.001", "Wed, 21 Oct 2015 07:28:00 GMT"]),
                max_size=2,
            )
        )
        return Raw(
            draw(st.sampled_from([200, 200, 201, 301, 400, 401, 404, 405, 413, 422, 429, 500, 503])), body, headers
        )
    return draw(st.sampled_from([Shuffled(), Gap(), NaN(), TopN(1), Reset(), CutBody(), Status(429), Status(503)]))


def any_reply_of_a_vendor(data: st.DataObject, servers: Mapping[str, VendorServer]) -> None:
    """Any reply of a vendor gives a typed error, or exactly one finite score per document."""
    name = data.draw(st.sampled_from(sorted(servers)), label="vendor")
    server = servers[name]
    server.reset()
    server.play(data.draw(replies(), label="reply"))
    inputs = data.draw(st.lists(texts, min_size=1, max_size=5), label="documents")
    query = data.draw(words, label="query")
    with load_reranker({**hosted(server, name), "retry": 1, "timeout": 5.0}) as reranker:
        try:
            response = reranker.rerank(query, inputs)
        except RerankError as error:
            response, refusal = None, error
    if response is None:
        check_refusal(refusal)
    else:
        check(response, inputs, {}, None)


# Cancellations --------------------------------------------------------------------------------------------------------


def cancelled_calls(data: st.DataObject, server: VendorServer) -> None:
    """A call cancelled at any moment leaves no task and no place in a queue, and changes no score of other calls."""
    server.reset()
    spec = {
        **hosted(server),
        "retry": {"attempts": 2, "wait_initial": 0.001, "wait_max": 0.002},
        "limit": {"requests_per_minute": 10**6, "tokens_per_minute": 10**9},
        "breaker": {"failures": 1_000, "reset_s": 0.01},
        "http": {"max_documents": data.draw(st.integers(1, 3), label="max_documents")},
        **data.draw(st.sampled_from([{}, {"cache": True}, {"deadline": 5.0, "fallback": ["lexical"]}]), label="policy"),
    }
    steps = data.draw(
        st.lists(st.sampled_from([Step(), Shuffled(), Hang(), Drip(), Reset(), Status(503)]), max_size=8), label="steps"
    )
    server.play(*steps)
    calls = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=8), label="calls")
    inputs = ["the moon", "bananas", "the tides of the sea", "sun"]

    async def drive() -> tuple[RerankResponse, set[asyncio.Task[Any]]]:
        reranker = load_reranker(spec)

        async def one(turns: int) -> None:
            task = asyncio.create_task(reranker.arerank("moon tides", inputs))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 3:
                await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(one(turns) for _, turns in calls))
        assert reranker.stats()["backends"]["http"]["limit"]["waiting"] == 0
        server.reset()
        try:
            answer = await asyncio.wait_for(reranker.arerank("moon tides", inputs), 30)
        finally:
            await reranker.aclose()
        return answer, {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    answer, left = asyncio.run(drive())
    assert not left, "a task is left"
    assert not answer.degraded
    for result in answer:
        assert close(result.raw_score, server.score("moon tides", inputs[result.index])), (
            "a wrong score after cancelling"
        )


# Local files of specs -------------------------------------------------------------------------------------------------

plain_data = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 10**20),
        st.floats(),
        st.sampled_from(
            ["lexical", "passthrough", "http", "env:NOT_SET", "", "a" * 300, "../../x", "weighted", "chunk"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
OPTIONS = (
    "use", "top_n", "instruction", "score_threshold", "retry", "deadline", "fallback", "on_error", "limit", "breaker",
    "cache", "cascade", "fuse", "diversify", "long_documents", "calibration", "api_key", "base_url", "timeout",
    "max_in_flight", "price", "device", "runtime", "dtype", "max_tokens", "batch_tokens", "revision",
    "local_files_only",
    "http", "lexical",
)  # fmt: skip


def any_spec_is_built_or_refused(data: st.DataObject) -> None:
    """A spec of any shape gives a reranker that answers or raises a typed error, or a `ConfigError`."""
    chosen = data.draw(st.dictionaries(st.sampled_from(OPTIONS), plain_data, max_size=5), label="options")
    spec = {"use": data.draw(st.sampled_from(["lexical", "passthrough", "embedded:fast"]), label="use"), **chosen}
    if isinstance(spec.get("cache"), dict):
        spec["cache"].pop("path", None)  # the fuzzer would choose where a file is written
    try:
        reranker: Reranker = load_reranker(spec)
        repr(reranker)
        with reranker:
            check(reranker.rerank("moon", ["the moon", "sun"]), ["the moon", "sun"], {"cascade": 1, **spec}, None)
    except RerankError:
        pass


# The servers that the properties need ---------------------------------------------------------------------------------

VENDOR_SERVERS: dict[str, type[VendorServer]] = {**VENDORS, "http": CohereLike}

"""The metadata that our server sends with an answer reaches the callers of our own backends.

Invalid metadata from other servers is ignored. Each case runs the real server on a loopback socket, with each of our
hosted backends whose format it answers.
"""

from __future__ import annotations

import logging

import cohere
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.local_server import served

from rerank_plugins import load_reranker
from rerank_plugins.backends.passthrough import Passthrough
from rerank_plugins.core import Backend, Capabilities, RerankRequest, Scores, TransientError
from rerank_plugins.core.answer_metadata import decode_reason, encode_reason, read_metadata
from rerank_plugins.core.redaction import MASK
from rerank_plugins.policies.fallback import Fallback
from rerank_plugins.policies.truncate import Truncate
from rerank_plugins.reranker import Reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Step
from rerank_plugins.testing.vendors import VENDORS

QUERY = "where does the cat sleep"
DOCUMENTS = ["bananas are yellow", "the cat can sleep on the sofa", "a cat"]
DEAD = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1}
"""A vendor that does not answer: nothing listens on this port."""
KEY = "serve-key-0123456789"

# Backends whose requests our server answers, with the options for it. Those that send a model need a name that the
# server accepts.
BACKENDS = {
    "http": {},
    "cohere": {"use": "cohere:served"},
    "tei": {},
    "vllm": {"use": "vllm:served"},
    "infinity": {"use": "infinity:served"},
    "jina-api": {"use": "jina-api:served"},
}


def client(name: str, url: str, **more: object) -> Reranker:
    return load_reranker({"use": name, "api_key": KEY, "base_url": url, "retry": 1, **BACKENDS[name], **more})


class Switched(Backend):
    """A vendor that fails until it is switched on."""

    name = "switched"
    capabilities = Capabilities(scale="unit")
    remote = True

    def __init__(self) -> None:
        super().__init__(None)
        self.works = False

    async def ascore(self, request: RerankRequest) -> Scores:
        if not self.works:
            raise TransientError("switched answered 503: café closed. It may pass.", backend="switched")
        return Scores(
            values=tuple(0.9 if "cat" in text else 0.1 for text in request.documents),
            model=self.label,
            capabilities=self.capabilities,
        )


def with_passthrough(backend: Backend) -> Reranker:
    return Reranker(Fallback([backend, Passthrough()]))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_degraded_answer_is_degraded_for_the_client(name: str) -> None:
    """Also with a threshold and a cache: no document is left out, and the fallback's zeros are not taken for scores."""
    with (
        served({**DEAD, "fallback": ["passthrough"]}, models=["served"]) as url,
        client(name, url, score_threshold=0.3, cache=True) as reranker,
    ):
        answers = [reranker.rerank(QUERY, DOCUMENTS) for _ in range(2)]
        cache = next(iter(reranker.stats()["backends"].values()))["cache"]
    for answer in answers:
        assert answer.degraded
        assert "passthrough answered in place of http" in answer.reason
        assert [result.index for result in answer] == [0, 1, 2]
        assert {result.relevance_score for result in answer} == {None}
    assert cache["hits"] == 0


@pytest.mark.parametrize("name", BACKENDS)
def test_scores_after_vendor_recovery_are_not_those_of_the_fallback(name: str) -> None:
    vendor = Switched()
    with (
        with_passthrough(vendor) as behind,
        served(behind, models=["served"]) as url,
        client(name, url, cache=True) as reranker,
    ):
        during = reranker.rerank(QUERY, DOCUMENTS)
        vendor.works = True
        after = reranker.rerank(QUERY, DOCUMENTS)
    assert (during.degraded, after.degraded) == (True, False)
    assert "café closed" in during.reason  # a header carries any UTF-8
    assert after.reason is None
    assert [result.index for result in after] == [1, 2, 0]
    assert None not in {result.relevance_score for result in after}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_document_that_the_server_cut_is_truncated_for_the_client(name: str) -> None:
    """The server has the model's limit; its client does not."""

    class Short(Switched):
        capabilities = Capabilities(scale="unit", max_tokens=40)

    vendor = Short()
    vendor.works = True
    documents = ["bananas " * 300, "the cat can sleep on the sofa"]
    with served(Reranker(Truncate(vendor)), models=["served"]) as url, client(name, url) as reranker:
        answer = reranker.rerank(QUERY, documents)
    assert {result.index: result.truncated for result in answer} == {0: True, 1: False}
    assert not answer.degraded


def test_a_degraded_part_makes_the_whole_answer_degraded() -> None:
    """`Split` must not lose the metadata of a reply when it merges the parts of a call."""
    documents = [f"cat number {number}" for number in range(40)]  # `tei` sends at most 32 in a request
    with served({**DEAD, "fallback": ["passthrough"]}) as url, client("tei", url) as reranker:
        answer = reranker.rerank(QUERY, documents)
    assert answer.degraded
    assert "passthrough answered in place of http" in answer.reason
    assert [result.index for result in answer] == list(range(40))


def test_a_degraded_answer_in_pieces_has_no_scores() -> None:
    with (
        served({**DEAD, "fallback": ["passthrough"]}) as url,
        client("http", url, long_documents={"mode": "chunk", "tokens": 20}) as reranker,
    ):
        answer = reranker.rerank(QUERY, ["the cat sleeps " * 40, "a cat"])
    assert answer.degraded
    assert [(result.index, result.relevance_score) for result in answer] == [(0, None), (1, None)]


def test_degraded_answer_through_two_servers_stays_degraded() -> None:
    with (
        served({**DEAD, "fallback": ["passthrough"]}) as first,
        served({"use": "tei", "base_url": first, "retry": 1}) as second,
        client("http", second) as reranker,
    ):
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert "passthrough answered in place of http" in answer.reason


def test_a_fallback_to_a_degraded_server_names_both_reasons() -> None:
    with served({**DEAD, "fallback": ["passthrough"]}) as url:
        settings = {**DEAD, "fallback": [{"use": "tei", "base_url": url, "retry": 1}]}
        with load_reranker(settings) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert answer.reason.startswith("tei answered in place of http")
    assert "Its own answer is degraded" in answer.reason
    assert "passthrough answered in place of http" in answer.reason


def test_degraded_answer_with_own_sdk_client_is_degraded() -> None:
    """A client passed in by the user gives no access to headers, so the body must have the metadata too."""
    with served({**DEAD, "fallback": ["passthrough"]}, models=["served"]) as url:
        own = cohere.ClientV2("no-key", base_url=url)
        with load_reranker({"use": "cohere:served", "cohere": {"client": own}, "retry": 1}) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert "passthrough answered in place of http" in answer.reason
    assert {result.relevance_score for result in answer} == {None}


def test_complete_answer_has_no_degraded_headers() -> None:
    with served("lexical") as url:
        answer = httpx.post(f"{url}/rerank", json={"query": QUERY, "texts": DOCUMENTS}, trust_env=False)
        with client("tei", url) as reranker:
            ours = reranker.rerank(QUERY, DOCUMENTS)
    assert "x-rerank-model" in answer.headers
    assert not {"x-rerank-degraded", "x-rerank-reason"} & set(answer.headers)
    assert all(set(result) == {"index", "score"} for result in answer.json())
    assert (ours.degraded, ours.reason) == (False, None)


def test_client_logs_one_warning_without_the_servers_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rerank_plugins")
    vendor = Switched()
    with with_passthrough(vendor) as behind, served(behind) as url:
        caplog.clear()
        with client("tei", url) as reranker:
            for _ in range(3):
                reranker.rerank(QUERY, DOCUMENTS)
    lines = [record.getMessage() for record in caplog.records if "the answer of a fallback" in record.getMessage()]
    assert len(lines) == 1
    assert "café" not in lines[0]


# A server that sends invalid values in the same headers and fields ----------------------------------------------------


class WithMetadata(Step):
    """An ordinary answer with more headers and fields."""

    def __init__(self, headers: dict[str, str], body: dict[str, object]) -> None:
        self.headers, self.body = headers, body

    def play(self, exchange) -> None:
        answer = exchange.answer(exchange.pairs())
        if isinstance(answer, dict):
            answer |= self.body
        exchange.send(200, answer, self.headers)


HOSTILE = [
    ({"x-rerank-degraded": "yes"}, {}),
    ({"x-rerank-degraded": "true", "x-rerank-reason": "%00%0a%ff" * 500}, {}),
    ({"x-rerank-model": "m", "x-rerank-degraded": "true", "x-rerank-reason": "a" * 60_000}, {}),
    ({"x-rerank-model": "m", "x-rerank-reason": "%"}, {"degraded": "true"}),
    ({}, {"degraded": True, "meta": {"warnings": [["degraded: x"], 5, None, "b" * 10**6] * 10}}),
    ({}, {"degraded": True, "meta": {"warnings": "degraded: x"}}),
    ({}, {"degraded": True, "meta": [1]}),
    ({}, {"degraded": 1, "meta": None, "usage": [3]}),
    ({}, {"usage": {"total_tokens": "x"}, "meta": {"billed_units": 7, "tokens": {"input_tokens": 1e400}}}),
]


@pytest.mark.parametrize(("headers", "body"), HOSTILE)
@pytest.mark.parametrize("name", ["http", "cohere:rerank-v3.5", "tei"])
def test_invalid_metadata_leaves_scores_unchanged(name: str, headers: dict[str, str], body: dict[str, object]) -> None:
    vendor = CohereLike if name == "http" else VENDORS[name.partition(":")[0]]
    with vendor() as server:
        spec = {"use": name, "base_url": server.url, "api_key": server.key, "retry": 1}
        with load_reranker(spec) as reranker:
            expected = [(result.index, result.raw_score) for result in reranker.rerank(QUERY, DOCUMENTS)]
            server.always(WithMetadata(headers, body))
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert [(result.index, result.raw_score) for result in answer] == expected
    assert answer.reason is None or (len(answer.reason) <= 1_100 and answer.reason.isprintable())


def test_key_in_server_reason_is_redacted() -> None:
    with CohereLike() as server:
        server.always(
            WithMetadata({}, {"degraded": True, "meta": {"warnings": [f"degraded: the key {server.key} is bad"]}})
        )
        with load_reranker({"use": "http", "base_url": server.url, "api_key": server.key}) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert server.key not in answer.reason
    assert MASK in answer.reason


def test_flags_of_another_server_are_ignored() -> None:
    """`truncated` in a result of another server may have any meaning."""
    body = {"results": [{"index": 0, "truncated": True, "unscored": True}]}
    assert read_metadata(body, {}).truncated == frozenset()
    assert read_metadata(body, {"x-rerank-model": "m"}).truncated == {0}
    assert read_metadata(body | {"degraded": False}, {}).unscored == {0}


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["degraded", "meta", "warnings", "results", "index", "truncated", "unscored"]), children
        )
    ),
    max_leaves=20,
)


@given(
    _anything, st.dictionaries(st.sampled_from(["x-rerank-model", "x-rerank-degraded", "x-rerank-reason"]), st.text())
)
@settings(max_examples=300, deadline=None)
def test_read_metadata_of_any_body_and_headers_never_raises(body: object, headers: dict[str, str]) -> None:
    metadata = read_metadata(body, headers)
    texts = [*metadata.warnings, *([metadata.reason] if metadata.reason else [])]
    assert all(len(text) <= 1_000 and text.isprintable() for text in texts)


@given(st.text(max_size=2_000))
@settings(max_examples=300, deadline=None)
def test_reason_encoded_and_decoded_is_unchanged(text: str) -> None:
    header = encode_reason(text)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) <= 2_400
    printable = "".join(character if character.isprintable() else " " for character in text).strip()
    if len(text.encode("utf-8", "replace")) <= 800 and max(text, default="") < "\ud800":
        assert decode_reason(header) == printable.strip()


# Warnings of a vendor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http", "cohere:rerank-v3.5"])
def test_vendor_warnings_become_the_reason(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Cohere announces in `meta.warnings` that a model is deprecated, or that it cut a document."""
    caplog.set_level(logging.WARNING, "rerank_plugins")
    vendor = CohereLike if name == "http" else VENDORS["cohere"]
    with vendor() as server:
        server.always(WithMetadata({}, {"meta": {"warnings": ["model rerank-v3.5 will be removed on 2027-01-01"]}}))
        with load_reranker({"use": name, "base_url": server.url, "api_key": server.key}) as reranker:
            answers = [reranker.rerank(QUERY, DOCUMENTS) for _ in range(3)]
    assert not answers[0].degraded
    assert answers[0].reason == f"{name} warns: model rerank-v3.5 will be removed on 2027-01-01"
    lines = [record.getMessage() for record in caplog.records if "sent a warning" in record.getMessage()]
    assert len(lines) == 1
    assert "2027" not in lines[0]


def test_request_warnings_of_our_server_reach_the_client() -> None:
    with served("lexical", models=["served"]) as url, client("cohere", url, cohere={"priority": 1}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.reason == "cohere:served warns: priority is not used by this server"

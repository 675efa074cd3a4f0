"""The tests of backends that send requests: for anything a server may do, the caller gets a correct answer or an error.

`script` has the failures that the server plays.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import pytest

from ..config import load_reranker
from ..core.errors import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    DeadlineExceeded,
    InputError,
    RateLimited,
    Rejected,
    TransientError,
)
from ..core.types import Capabilities
from ..reranker import Reranker
from .laws import BackendContract, Drive, backend_of, declared, raw_scores, scored_by
from .script import (
    HTML,
    JSON,
    CutBody,
    CutJSON,
    Declined,
    Drip,
    Duplicate,
    Empty,
    Gap,
    Hang,
    Infinite,
    NaN,
    NullScores,
    Reset,
    Shuffled,
    SlowHeaders,
    Status,
    Step,
    Stranger,
    StringScores,
    TopN,
)
from .server import VendorServer

__all__ = ["FAILURES", "HostedContract"]

KEY_VARIABLE = "RERANK_PLUGINS_CONTRACT_KEY"

FAILURES: dict[str, tuple[Step, type[BackendError] | None]] = {
    "shuffled": (Shuffled(), None),
    "cut by a top_n of the vendor's own": (TopN(3), BadResponse),
    "gap": (Gap(), BadResponse),
    "duplicate": (Duplicate(), BadResponse),
    "stranger": (Stranger(), BadResponse),
    "negative index": (Stranger(-1), BadResponse),
    "index as text": (Stranger("0"), BadResponse),
    "NaN": (NaN(), BadResponse),
    "infinite": (Infinite(), BadResponse),
    "strings for numbers": (StringScores(), BadResponse),
    "nulls for numbers": (NullScores(), BadResponse),
    "HTML with status 200": (HTML(), BadResponse),
    "HTML with status 502": (HTML(502), TransientError),
    "HTML with status 404": (HTML(404), Rejected),
    "cut JSON": (CutJSON(), BadResponse),
    "empty body": (Empty(), BadResponse),
    "JSON of another shape": (JSON({"hello": ["world"]}), BadResponse),
    "a JSON null": (JSON(None), BadResponse),
    "a JSON number": (JSON(7), BadResponse),
    "cut body": (CutBody(), TransientError),
    "connection reset": (Reset(), TransientError),
    "no answer": (Hang(), TransientError),
    "slow headers": (SlowHeaders(), TransientError),
    "slow body": (Drip(), TransientError),
    "400": (Status(400), Rejected),
    "401": (Status(401), AuthenticationFailed),
    "402": (Status(402), Rejected),
    "403": (Status(403), AuthenticationFailed),
    "404": (Status(404), Rejected),
    "408": (Status(408), TransientError),
    "413": (Status(413), Rejected),
    "422": (Status(422), Rejected),
    "429": (Status(429), RateLimited),
    "498": (Status(498), AuthenticationFailed),
    "500": (Status(500), TransientError),
    "502": (Status(502), TransientError),
    "503": (Status(503), TransientError),
    "529": (Status(529), TransientError),
}
"""Name of a failure → (the step that plays it, the class of the expected error). `None` expects a correct answer."""

SLOW = {"no answer", "slow headers", "slow body"}
WRONG_POSITIONS = {"duplicate", "stranger", "negative index", "index as text"}
LOSES_DOCUMENTS = {
    "error": set(),
    "sent again": {"cut by a top_n of the vendor's own", "gap"},
    # In a JSON object of answers, a repeated one replaces the first, and the last document is left out.
    "unscored": {"cut by a top_n of the vendor's own", "gap", "duplicate"},
}
"""Failures after which the answer is correct, or lacks scores, by `HostedContract.lost_documents`."""


class HostedContract(BackendContract):
    """The tests of a hosted backend. Set `spec`, without `base_url` and `api_key`, and `vendor`.

    ```python
    from rerank_plugins.testing.cohere_like import CohereLike
    from rerank_plugins.testing.contract import HostedContract


    class TestHTTP(HostedContract):
        spec = "http"
        vendor = CohereLike
    ```
    """

    vendor: ClassVar[Any] = None
    """The `VendorServer` subclass with the vendor's format."""
    lost_documents: ClassVar[Literal["error", "unscored", "sent again"]] = "error"
    """What becomes of a document that a reply leaves out: a `BadResponse`, a result with a reason in place of a score,
    or a second request for it."""

    bare_scores: ClassVar[bool] = False
    """Whether a reply is a list of scores in the order of the documents, in which no position can be wrong."""

    # Fixtures ------------------------------------------------------------------------------------------

    @pytest.fixture
    def server(self, request: pytest.FixtureRequest) -> Iterator[VendorServer]:
        """The vendor's running server. After each test it asserts that no request was refused as malformed."""
        vendor = declared(self, "vendor", request)
        assert {vendor.query_field, vendor.documents_field} <= vendor.required.keys(), (
            f"{vendor.__name__}: query_field ({vendor.query_field!r}) and documents_field ({vendor.documents_field!r}) "
            "must be keys of `required`. Set them to the vendor's names of these two fields."
        )
        with vendor() as running:
            yield running
            assert running.refused == [], "the server refused what the backend sent"

    @pytest.fixture
    def resolved(
        self, request: pytest.FixtureRequest, server: VendorServer, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, Any]:
        """The spec with the server's URL, and with a key from the environment."""
        monkeypatch.setenv(KEY_VARIABLE, server.key)
        spec = declared(self, "spec", request)
        settings = dict(spec) if isinstance(spec, Mapping) else {"use": spec}
        return {"base_url": server.url, "api_key": f"env:{KEY_VARIABLE}", **settings}

    slow_timeout: ClassVar[float] = 0.15
    """The timeout, in seconds, for a server that does not answer."""

    # Tests ---------------------------------------------------------------------------------------------------------

    def test_scores_belong_to_their_documents(self, reranker: Reranker, drive: Drive, server: VendorServer) -> None:
        """Each result has the score that the server gave to its document.

        Troubleshooting: the server answers best first. Match results by the vendor's index, never by position.
        """
        scores = raw_scores(drive(reranker, self.query, self.documents))
        assert scores == pytest.approx(scored_by(server.score, self.query, self.documents), abs=1e-6)

    @pytest.mark.parametrize("kind", FAILURES)
    def test_whatever_the_server_does(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, kind: str
    ) -> None:
        """Each failure raises the error of its class or gives a correct answer, never a wrong order or a lost document.

        Troubleshooting: `decode` returns what the vendor sent; the core checks it. An `SDKBackend` translates every
        error of its SDK, including validation errors (`error_for_status` translates HTTP statuses), and passes indexes
        and scores through `aligned`.
        """
        step, expected = FAILURES[kind]
        if self.bare_scores and kind in WRONG_POSITIONS:
            pytest.skip("the reply names no positions")
        if kind in LOSES_DOCUMENTS[self.lost_documents]:
            expected = None
        with load_reranker({**resolved, "retry": 1}) as first:
            first.warmup()
            drive(first, self.query, self.documents)  # the time to load an SDK must not count as a slow answer
        server.play(step)
        limit = {"timeout": self.slow_timeout} if kind in SLOW else {}
        with load_reranker({**resolved, "retry": 1, **limit}) as reranker:
            if expected is None:
                answer = drive(reranker, self.query, self.documents)
                unscored = [result for result in answer if result.raw_score is None]
                assert all(result.reason for result in unscored)
                assert not unscored or (self.lost_documents == "unscored" and kind in LOSES_DOCUMENTS["unscored"])
                scores = scored_by(server.score, self.query, self.documents)
                for result in unscored:
                    scores[result.index] = None
                assert raw_scores(answer) == pytest.approx(scores, abs=1e-6)
                return
            with pytest.raises(BackendError) as raised:
                drive(reranker, self.query, self.documents)
        error = raised.value
        assert type(error) is expected, f"{error!r} must be a {expected.__name__}"
        if isinstance(step, Status):
            assert error.status == step.code
        assert backend_of(reranker).name in str(error), "the message says which backend failed"

    def test_a_declined_document_is_last_with_a_reason(
        self, reranker: Reranker, drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """A document that the model declines to score has a reason and no score, and comes after all others.

        Troubleshooting: return `Unscored` in place of its score, never 0.
        """
        self._refuses(capabilities)
        server.always(Declined(2))
        answer = drive(reranker, self.query, self.documents)
        assert sorted(result.index for result in answer) == list(range(len(self.documents)))
        assert [result.raw_score is None for result in answer] == [False] * (len(self.documents) - 2) + [True] * 2
        assert all(result.reason and result.relevance_score is None for result in answer[-2:])
        assert not answer.degraded

    def test_all_declined_is_an_error_that_a_fallback_answers(
        self, resolved: Mapping[str, Any], drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """If the model declines every document, the call raises `BadResponse`, or the fallback answers."""
        self._refuses(capabilities)
        server.always(Declined(None))
        with load_reranker(resolved) as reranker, pytest.raises(BadResponse, match="no score to any of"):
            drive(reranker, self.query, self.documents)
        with load_reranker({**resolved, "fallback": ["lexical"]}) as reranker:
            answer = drive(reranker, self.query, self.documents)
        assert answer.degraded
        assert answer.model == "lexical"

    def test_a_part_comes_from_the_cache_as_a_whole(
        self, resolved: Mapping[str, Any], drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """The same call again sends nothing; with one other document its whole part is sent again (joint backends)."""
        if not capabilities.joint:
            pytest.skip("no joint backend: documents are cached one by one, or the whole call is")
        with load_reranker({**resolved, "cache": True}) as reranker:
            first = drive(reranker, self.query, self.documents)
            assert raw_scores(drive(reranker, self.query, self.documents)) == raw_scores(first)
            assert len(server.requests) == 1
            drive(reranker, self.query, [*self.documents[:-1], "another document"])
        assert [len(request.documents) for request in server.requests] == [len(self.documents)] * 2

    @pytest.mark.parametrize("code", [400, 401, 404, 413, 422])
    def test_a_refusal_is_not_sent_again(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, code: int
    ) -> None:
        """A refused request is sent once, whatever `retry` allows.

        Troubleshooting: turn off the SDK's own retries. Raise `Rejected`, not `TransientError`.
        """
        server.always(Status(code))
        with load_reranker({**resolved, "retry": 3}) as reranker, pytest.raises(Rejected):
            drive(reranker, self.query, self.documents)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("step", [Status(503), Status(429), Reset(), CutBody()], ids=["503", "429", "reset", "cut"])
    def test_a_transient_failure_is_sent_again(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, step: Step
    ) -> None:
        """A transient failure costs one more request, and `attempts` lists both.

        Troubleshooting: if there are more requests than attempts, the SDK retries on its own. Turn that off.
        """
        server.play(step)
        with load_reranker({**resolved, "retry": {"attempts": 2, "wait_initial": 0}}) as reranker:
            answer = drive(reranker, self.query, self.documents)
        assert raw_scores(answer) == pytest.approx(scored_by(server.score, self.query, self.documents), abs=1e-6)
        assert len(server.requests) == len(answer.attempts) == answer.usage.requests == 2
        assert answer.attempts[-1].outcome == "answered"

    def test_attempts_are_counted_once(self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive) -> None:
        """Three attempts send three requests.

        Troubleshooting: see `test_a_transient_failure_is_sent_again`.
        """
        server.always(Status(503))
        with (
            load_reranker({**resolved, "retry": {"attempts": 3, "wait_initial": 0}}) as reranker,
            pytest.raises(TransientError),
        ):
            drive(reranker, self.query, self.documents)
        assert len(server.requests) == 3

    @pytest.mark.parametrize("headers", [{"retry-after": "0.2"}, {"retry-after-ms": "200"}], ids=["s", "ms"])
    def test_retry_after_delays_the_next_request(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, headers: Mapping[str, str]
    ) -> None:
        """The second request is not sent before the vendor's Retry-After has passed.

        Troubleshooting: an `SDKBackend` must pass the headers of the error to `error_for_status`.
        """
        server.play(Status(429, headers))
        with load_reranker({**resolved, "retry": {"attempts": 2, "wait_initial": 0}}) as reranker:
            drive(reranker, self.query, self.documents)
        first, second = server.requests
        assert second.at - first.at >= 0.19

    @pytest.mark.parametrize("step", [Hang(), SlowHeaders(), Drip()], ids=["hang", "headers", "body"])
    def test_a_deadline_ends_everything(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, step: Step
    ) -> None:
        """A deadline ends a request at any stage, and closes its connection."""
        with load_reranker({**resolved, "deadline": 5.0}) as reranker:
            drive(reranker, self.query, self.documents)
        server.always(step)
        before, deadline = len(server.requests), self.slow_timeout
        # On a busy machine a deadline may pass before a request is sent: then try again with a longer one.
        while len(server.requests) == before and deadline < 20.0:
            with load_reranker({**resolved, "deadline": deadline}) as reranker, pytest.raises(DeadlineExceeded):
                drive(reranker, self.query, self.documents)
            deadline *= 2
        assert len(server.requests) > before
        assert server.wait_until(lambda: server.requests[-1].disconnected)

    def test_a_cancelled_call_cancels_its_requests(
        self, resolved: Mapping[str, Any], server: VendorServer, capabilities: Capabilities
    ) -> None:
        """Cancelling `arerank` closes its connections, so that the vendor can stop computing and billing.

        Troubleshooting: await the SDK's async client directly. A request in a thread cannot be cancelled.
        """
        server.always(Hang())

        async def cancel_call() -> None:
            async with load_reranker(resolved) as reranker:
                call = asyncio.create_task(reranker.arerank(self.query, self.documents))
                assert await asyncio.to_thread(server.wait_until, lambda: bool(server.requests))
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert await asyncio.to_thread(
                    server.wait_until, lambda: all(request.disconnected for request in server.requests)
                )

        asyncio.run(cancel_call())

    def test_at_the_document_limit_one_request(
        self, reranker: Reranker, drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """`capabilities.max_documents` documents are sent in one request."""
        limit = self._limit(capabilities)
        answer = drive(reranker, self.query, [f"tide number {number}" for number in range(limit)])
        assert len(answer) == limit
        assert [len(request.documents) for request in server.requests] == [limit]

    def test_over_the_document_limit_in_parts(
        self, reranker: Reranker, drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """One document over the limit is sent in a second request. A listwise backend raises `InputError` instead."""
        limit = self._limit(capabilities)
        documents = [f"tide number {number}" for number in range(limit + 1)]
        if capabilities.listwise:
            with pytest.raises(InputError):
                drive(reranker, self.query, documents)
            assert server.requests == []
            return
        answer = drive(reranker, self.query, documents)
        assert sorted(len(request.documents) for request in server.requests) == [1, limit]
        assert raw_scores(answer) == pytest.approx(scored_by(server.score, self.query, documents), abs=1e-6)

    def test_only_the_failed_part_is_sent_again(
        self, resolved: Mapping[str, Any], drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """If one of three parts gets a 429, only that part is sent again, with the same documents."""
        self._pointwise(capabilities)
        limit = self._limit(capabilities)
        documents = [f"tide number {number}" for number in range(2 * limit + 1)]
        refused = documents[limit]  # the first document of the second part
        server.play(Status(429, {"retry-after": "0"}), when=lambda request: refused in _texts(server, request.body))
        with load_reranker({**resolved, "retry": 2}) as reranker:
            answer = drive(reranker, self.query, documents)
        assert raw_scores(answer) == pytest.approx(scored_by(server.score, self.query, documents), abs=1e-6)
        assert len(server.requests) == 4
        first, second = (request.documents for request in server.requests if refused in _texts(server, request.body))
        assert first == second

    def test_a_wrong_key_is_an_authentication_error(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive
    ) -> None:
        """A key that the server refuses raises `AuthenticationFailed`.

        Troubleshooting: if the vendor answers 400 or 422 to a wrong key, override `explain` and raise by the message.
        """
        if not server.key_required:
            pytest.skip("the server needs no key")
        with load_reranker({**resolved, "api_key": "wrong-key"}) as reranker, pytest.raises(AuthenticationFailed):
            drive(reranker, self.query, self.documents)
        assert len(server.refused) == 1
        server.refused.clear()

    @pytest.mark.parametrize("kind", ["answer", "echoed in an error", "reset", "no answer"])
    def test_the_key_is_nowhere(
        self,
        resolved: Mapping[str, Any],
        server: VendorServer,
        drive: Drive,
        caplog: pytest.LogCaptureFixture,
        kind: str,
    ) -> None:
        """The key is in no log, repr, error, traceback or pickle, even if the vendor repeats it in an error.

        Troubleshooting: hold the key as a `Secret`. Do not put it into the URL, an f-string or a log line. Chain the
        SDK's error (`raise … from error`) only if its text does not show the request's headers.
        """
        caplog.set_level(logging.DEBUG)
        output = ""
        if kind != "answer":
            steps = {"reset": Reset(), "no answer": Hang()}
            server.always(steps.get(kind, Status(400, message=f"the key {server.key} may not do this")))
        settings = {
            **resolved,
            "api_key": server.key,
            "retry": 1,
            "timeout": self.slow_timeout if server._always else 5,
        }
        with load_reranker(settings) as reranker:
            try:
                answer = drive(reranker, self.query, self.documents)
                output += repr(answer)
            except BackendError as error:
                output += "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
            backend = backend_of(reranker)
            output += repr(reranker) + repr(reranker.scorer) + repr(backend) + repr(vars(backend)) + repr(reranker.spec)
            output += repr(pickle.dumps(reranker))
        output += caplog.text + "".join(repr(vars(record)) for record in caplog.records)
        # The call may end before the server has read the request.
        assert server.wait_until(lambda: bool(server.requests)), "a request was sent"
        assert server.key not in output

    def test_the_text_is_not_logged(self, reranker: Reranker, drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
        """Neither the query nor a document is in a log record of any level."""
        caplog.set_level(logging.DEBUG)
        drive(reranker, self.query, self.documents)
        logged = caplog.text + "".join(str(record.args) for record in caplog.records)
        assert self.query not in logged
        assert not [document for document in self.documents if document in logged]

    def test_usage_counts_the_requests(self, reranker: Reranker, drive: Drive, server: VendorServer) -> None:
        """`usage.requests` is the number of requests that were sent."""
        assert drive(reranker, self.query, self.documents).usage.requests == len(server.requests) == 1

    @staticmethod
    def _refuses(capabilities: Capabilities) -> None:
        if not capabilities.refuses:
            pytest.skip("the backend never declines a document")

    def _limit(self, capabilities: Capabilities) -> int:
        if capabilities.max_documents is None:
            pytest.skip("the backend declares no limit of documents")
        return capabilities.max_documents


def _texts(server: VendorServer, body: Mapping[str, Any]) -> list[Any]:
    return list(server.texts(body))

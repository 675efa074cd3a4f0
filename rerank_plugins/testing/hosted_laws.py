"""The laws of backends that send requests: whatever a server does, the right answer or the right error comes of it."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

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
"""What a server does, and what has to come of it: an error of exactly that kind, or (`None`) the right answer."""

SLOW = {"no answer", "slow headers", "slow body"}


class HostedContract(BackendContract):
    """Set `spec` (without address and key) and `vendor`; the rest is inherited."""

    vendor: ClassVar[Any] = None
    """The `VendorServer` class that speaks the vendor's format."""

    # What the laws are given ------------------------------------------------------------------------------------------

    @pytest.fixture
    def server(self, request: pytest.FixtureRequest) -> Iterator[VendorServer]:
        """The vendor's server; at the end of each test nothing of what it got may have been against the format."""
        with declared(self, "vendor", request)() as running:
            yield running
            assert running.refused == [], "the server refused what the backend sent"

    @pytest.fixture
    def resolved(
        self, request: pytest.FixtureRequest, server: VendorServer, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, Any]:
        """The spec, with the server's address and a key from the environment."""
        monkeypatch.setenv(KEY_VARIABLE, server.key)
        told = declared(self, "spec", request)
        settings = dict(told) if isinstance(told, Mapping) else {"use": told}
        return {"base_url": server.url, "api_key": f"env:{KEY_VARIABLE}", **settings}

    slow_timeout: ClassVar[float] = 0.15
    """Seconds given to a server that does not answer."""

    # The laws ---------------------------------------------------------------------------------------------------------

    def test_scores_belong_to_their_documents(self, reranker: Reranker, drive: Drive, server: VendorServer) -> None:
        """What the server scored a document is what the result says, although it answers best first.

        Troubleshooting: match results by the vendor's index, never by position.
        """
        found = raw_scores(drive(reranker, self.query, self.documents))
        assert found == pytest.approx(scored_by(server.score, self.query, self.documents), abs=1e-6)

    @pytest.mark.parametrize("kind", FAILURES)
    def test_whatever_the_server_does(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, kind: str
    ) -> None:
        """Each failure is an error of its own type, or the right answer: never a wrong order, never a lost document.

        Troubleshooting: `decode` gives what the vendor says and leaves the checks to the core; an `SDKBackend`
        translates each of the SDK's errors (status codes by `error_for_status`), its own validation errors included,
        and passes indexes and scores through `aligned`.
        """
        step, expected = FAILURES[kind]
        with load_reranker({**resolved, "retry": 1}) as first:
            first.warmup()
            drive(first, self.query, self.documents)  # what is loaded lazily must not count as slow
        server.play(step)
        limit = {"timeout": self.slow_timeout} if kind in SLOW else {}
        with load_reranker({**resolved, "retry": 1, **limit}) as reranker:
            if expected is None:
                found = raw_scores(drive(reranker, self.query, self.documents))
                assert found == pytest.approx(scored_by(server.score, self.query, self.documents), abs=1e-6)
                return
            with pytest.raises(BackendError) as raised:
                drive(reranker, self.query, self.documents)
        error = raised.value
        assert type(error) is expected, f"{error!r} is no {expected.__name__}"
        if isinstance(step, Status):
            assert error.status == step.code
        assert backend_of(reranker).name in str(error), "the message says which backend failed"

    @pytest.mark.parametrize("code", [400, 401, 404, 413, 422])
    def test_a_refusal_is_not_sent_again(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, code: int
    ) -> None:
        """What is refused once is refused again: one request, however many attempts are allowed.

        Troubleshooting: turn the SDK's own retries off; raise `Rejected`, not `TransientError`.
        """
        server.always(Status(code))
        with load_reranker({**resolved, "retry": 3}) as reranker, pytest.raises(Rejected):
            drive(reranker, self.query, self.documents)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("step", [Status(503), Status(429), Reset(), CutBody()], ids=["503", "429", "reset", "cut"])
    def test_what_may_pass_is_sent_again(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, step: Step
    ) -> None:
        """A transient failure costs one more request and nothing else; the attempts tell of both.

        Troubleshooting: if there are more requests than attempts, the SDK retries by itself: turn that off.
        """
        server.play(step)
        with load_reranker({**resolved, "retry": {"attempts": 2, "wait_initial": 0}}) as reranker:
            answer = drive(reranker, self.query, self.documents)
        assert raw_scores(answer) == pytest.approx(scored_by(server.score, self.query, self.documents), abs=1e-6)
        assert len(server.requests) == len(answer.attempts) == answer.usage.requests == 2
        assert answer.attempts[-1].outcome == "answered"

    def test_attempts_are_counted_once(self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive) -> None:
        """Three attempts are three requests on the wire.

        Troubleshooting: as above.
        """
        server.always(Status(503))
        with (
            load_reranker({**resolved, "retry": {"attempts": 3, "wait_initial": 0}}) as reranker,
            pytest.raises(TransientError),
        ):
            drive(reranker, self.query, self.documents)
        assert len(server.requests) == 3

    @pytest.mark.parametrize("headers", [{"retry-after": "0.2"}, {"retry-after-ms": "200"}], ids=["s", "ms"])
    def test_retry_after_is_obeyed(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive, headers: Mapping[str, str]
    ) -> None:
        """The second request comes no sooner than the vendor asked.

        Troubleshooting: an `SDKBackend` has to pass the error's headers on to `error_for_status`.
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
        """A deadline cuts a request however far it is, and the server sees the connection end."""
        with load_reranker({**resolved, "deadline": 5.0}) as reranker:
            drive(reranker, self.query, self.documents)
        server.always(step)
        before, deadline = len(server.requests), self.slow_timeout
        # On a busy machine a deadline may pass before anything was sent, which shows nothing.
        while len(server.requests) == before and deadline < 20.0:
            with load_reranker({**resolved, "deadline": deadline}) as reranker, pytest.raises(DeadlineExceeded):
                drive(reranker, self.query, self.documents)
            deadline *= 2
        assert len(server.requests) > before
        assert server.wait_until(lambda: server.requests[-1].disconnected)

    def test_a_cancelled_call_cancels_its_requests(
        self, resolved: Mapping[str, Any], server: VendorServer, capabilities: Capabilities
    ) -> None:
        """Cancelling `arerank` ends its connections: nobody computes, and bills, for a caller who has gone.

        Troubleshooting: await the SDK's async client directly; a request in a thread cannot be cancelled.
        """
        server.always(Hang())

        async def leave() -> None:
            async with load_reranker(resolved) as reranker:
                call = asyncio.create_task(reranker.arerank(self.query, self.documents))
                assert await asyncio.to_thread(server.wait_until, lambda: bool(server.requests))
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert await asyncio.to_thread(
                    server.wait_until, lambda: all(request.disconnected for request in server.requests)
                )

        asyncio.run(leave())

    def test_at_the_document_limit_one_request(
        self, reranker: Reranker, drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """As many documents as `capabilities.max_documents` go in one request."""
        limit = self._limit(capabilities)
        answer = drive(reranker, self.query, [f"tide number {number}" for number in range(limit)])
        assert len(answer) == limit
        assert [len(request.documents) for request in server.requests] == [limit]

    def test_over_the_document_limit_in_parts(
        self, reranker: Reranker, drive: Drive, server: VendorServer, capabilities: Capabilities
    ) -> None:
        """One document more goes in a second request, with the scores of an unsplit call; a listwise model refuses."""
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
        """A 429 on one of three parts costs one more request, with the same documents."""
        self._pointwise(capabilities)
        limit = self._limit(capabilities)
        documents = [f"tide number {number}" for number in range(2 * limit + 1)]
        unlucky = documents[limit]
        server.play(Status(429, {"retry-after": "0"}), when=lambda request: unlucky in _texts(server, request.body))
        with load_reranker({**resolved, "retry": 2}) as reranker:
            answer = drive(reranker, self.query, documents)
        assert raw_scores(answer) == pytest.approx(scored_by(server.score, self.query, documents), abs=1e-6)
        assert len(server.requests) == 4
        again = [request.documents for request in server.requests if unlucky in _texts(server, request.body)]
        assert len(again) == 2
        assert again[0] == again[1]

    def test_a_wrong_key_is_an_authentication_error(
        self, resolved: Mapping[str, Any], server: VendorServer, drive: Drive
    ) -> None:
        """The server's own refusal of a key is `AuthenticationFailed`.

        Troubleshooting: the vendor may say 400 or 422 for a wrong key; override `explain` and raise by what it says.
        """
        if not server.key_required:
            pytest.skip("the server wants no key")
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
        """The key is in no log, repr, error, traceback or pickle, even when the vendor repeats it in its message.

        Troubleshooting: hold the key as a `Secret`; do not put it into the address, an f-string or a log line; raise
        from the SDK's error only when that one does not show headers.
        """
        caplog.set_level(logging.DEBUG)
        told = ""
        if kind != "answer":
            said = {"reset": Reset(), "no answer": Hang()}
            server.always(said.get(kind, Status(400, message=f"the key {server.key} may not do this")))
        settings = {
            **resolved,
            "api_key": server.key,
            "retry": 1,
            "timeout": self.slow_timeout if server._always else 5,
        }
        with load_reranker(settings) as reranker:
            try:
                answer = drive(reranker, self.query, self.documents)
                told += repr(answer)
            except BackendError as error:
                told += "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
            backend = backend_of(reranker)
            told += repr(reranker) + repr(reranker.scorer) + repr(backend) + repr(vars(backend)) + repr(reranker.spec)
            told += repr(pickle.dumps(reranker))
        told += caplog.text + "".join(repr(vars(record)) for record in caplog.records)
        assert server.requests, "a request was sent"
        assert server.key not in told

    def test_the_text_is_not_logged(self, reranker: Reranker, drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
        """Neither query nor documents are in any log, at any level."""
        caplog.set_level(logging.DEBUG)
        drive(reranker, self.query, self.documents)
        logged = caplog.text + "".join(str(record.args) for record in caplog.records)
        assert self.query not in logged
        assert not [document for document in self.documents if document in logged]

    def test_usage_counts_the_requests(self, reranker: Reranker, drive: Drive, server: VendorServer) -> None:
        """`usage.requests` is what was sent."""
        assert drive(reranker, self.query, self.documents).usage.requests == len(server.requests) == 1

    def _limit(self, capabilities: Capabilities) -> int:
        if capabilities.max_documents is None:
            pytest.skip("the backend declares no limit of documents")
        return capabilities.max_documents


def _texts(server: VendorServer, body: Mapping[str, Any]) -> list[Any]:
    return list(server.texts(body))

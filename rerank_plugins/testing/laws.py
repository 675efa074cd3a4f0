"""The tests that every backend must pass, local or hosted; see `contract` for how to use them."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from ..config import load_reranker
from ..core.errors import InputError
from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores
from ..reranker import Reranker, RerankResponse
from .odd_texts import ODD_TEXTS

__all__ = ["BackendContract", "Drive", "backend_of", "raw_scores", "scored_by"]

Drive = Callable[..., RerankResponse]
"""A function that calls `rerank` or `arerank`: (reranker, query, documents, …) → the response."""


class BackendContract:
    """The tests of any backend. Set `spec`; everything else is inherited.

    `spec` may also be a property or a fixture, for values that are only known when the test runs (a folder, a port).

    ```python
    from rerank_plugins.testing.contract import BackendContract


    class TestLexical(BackendContract):
        spec = "lexical"
    ```

    Args:
        query: The query of the tests; it should match some of `documents` better than others.
        documents: Five documents, or more, with different scores.
    """

    spec: ClassVar[Any] = None
    """The spec of the backend, a string or a mapping."""
    query: str = "how do the tides work"
    documents: Sequence[str] = (
        "The moon's gravity raises the tides in the ocean twice a day.",
        "Bananas are yellow and grow in bunches.",
        "Tides work by the pull of the moon and the sun on the sea.",
        "A reranker scores a query and a document together.",
        "How clocks work: a spring or a battery turns the hands.",
    )
    tolerance: float = 1e-4
    """The largest difference between a document's scores in two batches. It grows in proportion to scores above 10,
    because float32 rounds relative to the value."""
    _shared: ClassVar[Reranker | None] = None

    # Fixtures ------------------------------------------------------------------------------------------

    @pytest.fixture
    def resolved(self, request: pytest.FixtureRequest) -> Any:
        """The spec: the attribute, property or fixture of the suite."""
        return declared(self, "spec", request)

    @pytest.fixture
    def reranker(self, resolved: Any) -> Iterator[Reranker]:
        """A new reranker for each test."""
        with load_reranker(resolved) as loaded:
            if not backend_of(loaded).remote and type(self)._shared is None:
                shared = type(self)._shared = load_reranker(resolved)  # keeps the model in memory between tests
                shared.warmup()
            yield loaded

    @classmethod
    def teardown_class(cls) -> None:
        """Release the model that the tests share."""
        if cls._shared is not None:
            cls._shared.close()
            cls._shared = None

    @pytest.fixture(params=["sync", "async"])
    def drive(self, request: pytest.FixtureRequest) -> Drive:
        """A function that calls `rerank`, and in a second run `arerank` on a new event loop."""

        def call_arerank(reranker: Reranker, *arguments: Any, **options: Any) -> RerankResponse:
            return asyncio.run(reranker.arerank(*arguments, **options))

        return call_arerank if request.param == "async" else Reranker.rerank

    @pytest.fixture
    def backend_requests(self, reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[RerankRequest]:
        """The requests that reach the backend, in order."""
        backend, requests = backend_of(reranker), []
        ascore = backend.ascore

        async def record_request(request: RerankRequest) -> Scores:
            requests.append(request)
            return await ascore(request)

        monkeypatch.setattr(backend, "ascore", record_request)
        return requests

    @pytest.fixture
    def capabilities(self, reranker: Reranker) -> Capabilities:
        """The capabilities that the backend declares."""
        return reranker.scorer.capabilities

    def near(self, expected: Any) -> Any:
        """Return a `pytest.approx` with the suite's tolerance.

        Args:
            expected: A score or a list of scores; `None` stands for a document without a score.
        """
        values = expected if isinstance(expected, list | tuple) else [expected]
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        return pytest.approx(expected, abs=self.tolerance * max(1.0, largest / 10))

    # Tests ---------------------------------------------------------------------------------------------------------

    def test_laws_are_not_overridden(self) -> None:
        """Every test is inherited unchanged, or marked `xfail` with a reason.

        Troubleshooting: rename a test of your own that has the same name; remove `test_… = None`.
        """
        contract = next(base for base in type(self).__mro__ if base.__module__.startswith("rerank_plugins.testing."))
        overridden = []
        for name in (name for name in dir(contract) if name.startswith("test_")):
            test = getattr(type(self), name, None)
            if test is not getattr(contract, name):
                marks = getattr(test, "pytestmark", [])
                if not any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks):
                    overridden.append(name)
        assert not overridden, f'overridden without @pytest.mark.xfail(reason="…"): {overridden}'

    def test_every_document_comes_back_once(self, reranker: Reranker, drive: Drive) -> None:
        """Each document is in the answer once, as the object that was passed in, with its own index.

        Troubleshooting: `score` must return one score for each document, in their order; do not sort,
        cut or filter in a backend.
        """
        documents = list(self.documents)
        answer = drive(reranker, self.query, documents)
        assert sorted(result.index for result in answer) == list(range(len(documents)))
        assert all(result.document is documents[result.index] for result in answer)

    def test_scores_are_finite_floats_and_order_the_answer(self, reranker: Reranker, drive: Drive) -> None:
        """Raw scores are finite Python floats, and results are sorted by them, largest first.

        Troubleshooting: return `float(score)`, not a numpy or torch scalar; larger must mean better (negate a
        distance).
        """
        raw = [result.raw_score for result in drive(reranker, self.query, self.documents)]
        if raw[0] is None:
            assert set(raw) == {None}, "either all documents have a score or none does"
            return
        assert all(type(score) is float and math.isfinite(score) for score in raw)
        assert raw == sorted(raw, key=lambda score: -(score or 0.0))

    def test_relevance_follows_the_declared_scale(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities
    ) -> None:
        """`relevance_score` is in [0, 1] and follows from `capabilities.scale`; raw scores are in that scale's range.

        Troubleshooting: declare `logit` for any real number, `cosine` for [-1, 1], `unit` for [0, 1], `ordinal` if
        only the order has a meaning.
        """
        answer = drive(reranker, self.query, self.documents)
        assert answer.scale == capabilities.scale
        for result in answer:
            if result.raw_score is None:
                assert result.relevance_score is None
                continue
            assert type(result.relevance_score) is float
            assert 0.0 <= result.relevance_score <= 1.0
            if capabilities.scale == "unit":
                assert -1e-6 <= result.raw_score <= 1.0 + 1e-6
            if capabilities.scale == "cosine":
                assert -1.0 - 1e-6 <= result.raw_score <= 1.0 + 1e-6
            if capabilities.scale != "ordinal":
                assert result.relevance_score == capabilities.relevance(result.raw_score)
        relevance = [result.relevance_score or 0.0 for result in answer]
        assert relevance == sorted(relevance, reverse=True)

    def test_permuted_documents_have_permuted_scores(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities
    ) -> None:
        """The order of the documents changes no score (pointwise backends).

        Troubleshooting: a backend that compares documents with each other must declare `listwise=True`; one that asks
        about several documents in one prompt, `joint=True`. In any other, look for results that are matched by position
        although the model sorted them.
        """
        self._independent(capabilities)
        order = [3, 0, 4, 2, 1][: len(self.documents)]
        scores = raw_scores(drive(reranker, self.query, self.documents))
        permuted = raw_scores(drive(reranker, self.query, [self.documents[index] for index in order]))
        assert permuted == self.near([scores[index] for index in order])

    def test_batch_mates_change_no_score(self, reranker: Reranker, drive: Drive, capabilities: Capabilities) -> None:
        """A document has the same score alone, in a batch, and beside a much longer one (pointwise backends).

        Troubleshooting: scores depend on the batch if padding is not masked, in half precision, and if they are
        normalised over the batch (min-max, softmax over documents).
        """
        self._independent(capabilities)
        in_batch = raw_scores(drive(reranker, self.query, self.documents))
        alone = [raw_scores(drive(reranker, self.query, [document]))[0] for document in self.documents]
        long = " ".join(self.documents) * 3
        beside_long = raw_scores(drive(reranker, self.query, [long, *self.documents]))[1:]
        assert alone == self.near(in_batch)
        assert beside_long == self.near(in_batch)

    def test_duplicates_score_the_same_and_are_sent_once(
        self, reranker: Reranker, drive: Drive, backend_requests: list[RerankRequest]
    ) -> None:
        """Identical texts are sent once, have the same score, and stay in the order of the input.

        Troubleshooting: the core does this; if it fails, the backend keeps state between documents.
        """
        first, second = self.documents[:2]
        answer = drive(reranker, self.query, [first, second, first, second, first])
        raw = raw_scores(answer)
        assert raw[0] == raw[2] == raw[4]
        assert raw[1] == raw[3]
        assert backend_requests[0].documents == (first, second)
        if raw[0] is not None and raw[0] != raw[1]:
            best = [0, 2, 4] if (raw[0] or 0.0) > (raw[1] or 0.0) else [1, 3]
            assert [result.index for result in answer][: len(best)] == best

    def test_blank_documents_come_last_and_are_never_sent(
        self, reranker: Reranker, drive: Drive, backend_requests: list[RerankRequest]
    ) -> None:
        """A blank document comes last, with a reason and without a score; the others are scored as usual.

        Troubleshooting: the core does this; a backend never sees a blank document.
        """
        blanks = ["", " ", "\n\t\u3000"]
        documents = [blanks[0], self.documents[0], blanks[1], self.documents[1], blanks[2]]
        answer = drive(reranker, self.query, documents)
        assert [result.index for result in answer][2:] == [0, 2, 4]
        assert all(result.reason and result.raw_score is None for result in answer[2:])
        assert [request.documents for request in backend_requests] == [tuple(self.documents[:2])]
        only = drive(reranker, self.query, blanks)
        assert [result.index for result in only] == [0, 1, 2]
        assert len(backend_requests) == 1

    def test_no_documents_no_call(
        self, reranker: Reranker, drive: Drive, backend_requests: list[RerankRequest]
    ) -> None:
        """An empty list gives an empty answer; the backend is not called."""
        assert list(drive(reranker, self.query, [])) == []
        assert backend_requests == []

    def test_one_document(self, reranker: Reranker, drive: Drive) -> None:
        """One document gives one result.

        Troubleshooting: a squeeze without an axis turns an array of one score into a scalar.
        """
        (result,) = drive(reranker, self.query, [self.documents[0]])
        assert result.index == 0

    @pytest.mark.parametrize("kind", ODD_TEXTS)
    def test_odd_text_is_only_text(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities, kind: str
    ) -> None:
        """Any text can be a document and does not affect the others; a text that is too long is marked `truncated`.

        Troubleshooting: cut by tokens, not by characters. Do not parse special tokens in a document. If the model
        cannot read a text, give it a low score rather than fail the batch. Declare the limit in `capabilities`
        (`max_tokens`, `max_document_tokens`).
        """
        odd = ODD_TEXTS[kind]
        answer = drive(reranker, self.query, [self.documents[0], odd, self.documents[1]])
        assert sorted(result.index for result in answer) == [0, 1, 2]
        result = next(result for result in answer if result.index == 1)
        assert result.document is odd
        if kind == "very long" and (capabilities.max_tokens or capabilities.max_document_tokens or 10**9) < 30_000:
            assert result.truncated
        if not (capabilities.listwise or capabilities.joint):
            expected = raw_scores(drive(reranker, self.query, self.documents[:2]))
            scores = raw_scores(answer)
            assert [scores[0], scores[2]] == self.near(expected)

    @pytest.mark.parametrize("kind", [kind for kind in ODD_TEXTS if "long" not in kind])
    def test_odd_text_as_the_query(self, reranker: Reranker, drive: Drive, kind: str) -> None:
        """Any text that is not blank can be a query.

        Troubleshooting: see `test_odd_text_is_only_text`. A query without any known word is valid.
        """
        answer = drive(reranker, ODD_TEXTS[kind], self.documents)
        assert sorted(result.index for result in answer) == list(range(len(self.documents)))

    def test_mappings_are_documents_too(self, reranker: Reranker, drive: Drive) -> None:
        """A mapping can be a document: it is scored, and returned as the same object.

        Troubleshooting: `request.documents` has the text of each mapping. Only a backend that declares `fields=True`
        reads `request.fields`.
        """
        documents = [{"title": "Tides", "body": self.documents[0]}, {"title": "Fruit", "year": 2026}, "plain"]
        answer = drive(reranker, self.query, documents)
        assert sorted(result.index for result in answer) == [0, 1, 2]
        assert all(result.document is documents[result.index] for result in answer)

    def test_inputs_stay_as_they_are(self, reranker: Reranker, drive: Drive) -> None:
        """The arguments are not changed.

        Troubleshooting: copy before sorting or popping.
        """
        documents: list[Any] = [*self.documents[:3], "", {"title": "Tides", "tags": ["sea", "moon"]}]
        before = copy.deepcopy(documents)
        drive(reranker, self.query, documents)
        assert documents == before

    @pytest.mark.parametrize(("top_n", "expected"), [(1, 1), (2, 2), (100, 5), (None, 5)])
    def test_top_n_cuts_the_same_answer(
        self, reranker: Reranker, drive: Drive, backend_requests: list[RerankRequest], top_n: int | None, expected: int
    ) -> None:
        """`top_n` returns the first results of the full answer; the backend always scores every document.

        Troubleshooting: a backend does not get `top_n`. If a vendor requires one, send the number of documents.
        """
        documents = list(self.documents)[:5]
        full = drive(reranker, self.query, documents)
        cut = drive(reranker, self.query, documents, top_n=top_n)
        assert [result.index for result in cut] == [result.index for result in full][:expected]
        assert len(backend_requests[-1].documents) == len(documents)

    @pytest.mark.parametrize(
        ("query", "documents", "options"),
        [
            ("   ", ["one"], {}),
            ("query", ["one"], {"top_n": 0}),
            ("query", ["one"], {"top_n": -1}),
            ("query", ["one", None], {}),
            ("query", "one text", {}),
        ],
    )
    def test_a_wrong_call_is_an_input_error(
        self,
        reranker: Reranker,
        drive: Drive,
        backend_requests: list[RerankRequest],
        query: str,
        documents: Any,
        options: Mapping[str, Any],
    ) -> None:
        """A blank query, a `top_n` below 1, or a document of a wrong type is an `InputError`; nothing is sent."""
        with pytest.raises(InputError):
            drive(reranker, query, documents, **options)
        assert backend_requests == []

    def test_an_instruction_is_followed_or_refused(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities, backend_requests: list[RerankRequest]
    ) -> None:
        """A backend that declares `instructions` gets the instruction; any other call with one is an `InputError`."""
        instruction = "Prefer passages about the sea."
        if capabilities.instructions:
            drive(reranker, self.query, self.documents, instruction=instruction)
            assert backend_requests[0].instruction == instruction
        else:
            with pytest.raises(InputError, match="instruction"):
                drive(reranker, self.query, self.documents, instruction=instruction)
            assert backend_requests == []

    def test_the_response_says_who_answered(self, reranker: Reranker, drive: Drive) -> None:
        """`model` is the label of the backend, and every attempt has the outcome `answered`."""
        answer = drive(reranker, self.query, self.documents)
        assert answer.model == backend_of(reranker).label
        assert {attempt.outcome for attempt in answer.attempts} == {"answered"}
        assert not answer.degraded
        assert answer.reason is None

    def test_the_answer_is_the_same_twice(self, reranker: Reranker, drive: Drive) -> None:
        """The same call gives the same scores.

        Troubleshooting: put the model into evaluation mode, which turns dropout off.
        """
        first, second = (raw_scores(drive(reranker, self.query, self.documents)) for _ in range(2))
        assert first == self.near(second)

    def test_sync_and_async_agree(self, reranker: Reranker) -> None:
        """`rerank` and `arerank` give the same answer."""
        sync = reranker.rerank(self.query, self.documents)
        other = asyncio.run(reranker.arerank(self.query, self.documents))
        assert [result.index for result in sync] == [result.index for result in other]
        assert raw_scores(sync) == self.near(raw_scores(other))

    def test_sync_works_inside_a_running_loop(self, reranker: Reranker) -> None:
        """`rerank` works while an event loop runs on the same thread, as in a notebook.

        Troubleshooting: never call `asyncio.run` or `loop.run_until_complete` in a backend.
        """

        async def notebook() -> RerankResponse:
            return reranker.rerank(self.query, self.documents)

        expected = raw_scores(reranker.rerank(self.query, self.documents))
        assert raw_scores(asyncio.run(notebook())) == self.near(expected)

    def test_threads_share_a_reranker(self, resolved: Any, reranker: Reranker, drive: Drive) -> None:
        """Four threads that share one reranker get the scores of a reranker of their own.

        Troubleshooting: store no state of a call on `self`. A tokenizer whose truncation is set for each call is state.
        """
        queries = [self.query, "what are bananas", "why do clocks tick", self.query]
        expected = self._scores_alone(resolved, queries)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                answers = list(pool.map(lambda query: raw_scores(drive(reranker, query, self.documents)), queries))
                for query, scores in zip(queries, answers, strict=True):
                    assert scores == self.near(expected[query])

    def test_concurrent_calls_do_not_mix(self, resolved: Any, reranker: Reranker) -> None:
        """Concurrent calls on one event loop get their own answers.

        Troubleshooting: see `test_threads_share_a_reranker`.
        """
        queries = [self.query, "what are bananas", "why do clocks tick"] * 3
        expected = self._scores_alone(resolved, queries)

        async def call_concurrently() -> list[RerankResponse]:
            return await asyncio.gather(*(reranker.arerank(query, self.documents) for query in queries))

        for query, answer in zip(queries, asyncio.run(call_concurrently()), strict=True):
            assert raw_scores(answer) == self.near(expected[query])

    def _scores_alone(self, resolved: Any, queries: Sequence[str]) -> dict[str, list[float | None]]:
        scores = {}
        for query in set(queries):
            with load_reranker(resolved) as alone:
                scores[query] = raw_scores(alone.rerank(query, self.documents))
        return scores

    def test_it_pickles(self, reranker: Reranker, drive: Drive) -> None:
        """A reranker can be pickled, and gives the same scores when it is loaded again.

        Troubleshooting: options of a backend must be plain data (strings, numbers, lists, mappings).
        """
        with pickle.loads(pickle.dumps(reranker)) as copied:  # noqa: S301 (our own)
            scores = raw_scores(drive(copied, self.query, self.documents))
        assert scores == self.near(raw_scores(drive(reranker, self.query, self.documents)))

    def test_it_can_be_used_after_close(self, reranker: Reranker, drive: Drive) -> None:
        """`close` frees all resources; the next call creates them again."""
        before = raw_scores(drive(reranker, self.query, self.documents))
        reranker.close()
        reranker.close()
        assert raw_scores(drive(reranker, self.query, self.documents)) == self.near(before)

    @classmethod
    def _independent(cls, capabilities: Capabilities) -> None:
        cls._pointwise(capabilities)
        if capabilities.joint:
            pytest.skip("joint: a score may move with the other documents of its request")

    @staticmethod
    def _pointwise(capabilities: Capabilities) -> None:
        if capabilities.listwise:
            pytest.skip("listwise: a score depends on the other documents")


def declared(suite: object, name: str, request: pytest.FixtureRequest) -> Any:
    """Return the value of the attribute, property or fixture `name` of a suite."""
    import inspect

    value = inspect.getattr_static(suite, name, None)
    if value is None:
        raise NotImplementedError(f"{type(suite).__name__} must set `{name}`.")
    is_attribute = isinstance(value, str | Mapping | property | type)
    return getattr(suite, name) if is_attribute else request.getfixturevalue(name)


def backend_of(reranker: Reranker) -> Backend:
    """Return the backend under the policies of a reranker without a fallback."""
    backends = [scorer for scorer in reranker.scorer.walk() if isinstance(scorer, Backend)]
    assert len(backends) == 1, f"{reranker!r} has several backends"
    return backends[0]


def raw_scores(answer: RerankResponse) -> list[float | None]:
    """Return the raw scores in the order of the documents."""
    return [result.raw_score for result in sorted(answer, key=lambda result: result.index)]


def scored_by(score: Callable[[str, str], float], query: str, documents: Sequence[str]) -> list[float | None]:
    """Return what a server's `score` function gives for each document."""
    return [score(query, document) for document in documents]

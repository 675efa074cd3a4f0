"""The laws that every backend keeps, local or hosted; see `contract` for how to use them."""

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

__all__ = ["BackendContract", "Drive", "backend_of", "raw_scores", "scored_by"]

Drive = Callable[..., RerankResponse]
"""(reranker, query, documents, …) → the answer, by the sync or by the async face."""

ODD_TEXTS = {
    "emoji": "🌊🌕 tides 👩‍👩‍👧‍👦 and the moon 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "right-to-left": "المد والجزر يحدثان بسبب جاذبية القمر. גאות ושפל",
    "NUL": "tides\0and\0the moon\x01\x1f",
    "lone surrogate": "tides \ud800 and the moon \udfff",
    "CJK": "潮汐是由月球的引力引起的。潮の満ち引き 조석",
    "combining": "ti\u0301\u0302\u0303\u0304des " + "\u0301" * 200,
    "byte order mark": "\ufefftides and the moon\u2028\u2029",
    "special tokens": "[CLS] tides [SEP] moon [MASK] </s> <|im_end|> <|endoftext|>",
    "braces and quotes": '{"query": "tides"} \\ "moon" \'sun\' {{x}} %s ${HOME}',
    "one letter": "a",
    "marks only": "?!… --- ***",
    "very long": "the moon pulls the sea and the tides follow it " * 4_256,  # 200,032 characters
    "one long word": "x" * 200_000,
}


class BackendContract:
    """Set `spec`; the rest is inherited.

    A property or a fixture called `spec` works as well, for what is only known when the test runs (a folder, a port).
    """

    spec: ClassVar[Any] = None
    """The spec of the backend, a text or a mapping."""
    query: str = "how do the tides work"
    documents: Sequence[str] = (
        "The moon's gravity raises the tides in the ocean twice a day.",
        "Bananas are yellow and grow in bunches.",
        "Tides work by the pull of the moon and the sun on the sea.",
        "A reranker scores a query and a document together.",
        "How clocks work: a spring or a battery turns the hands.",
    )
    tolerance: float = 1e-4
    """How far a score may move with its batch-mates; of scores above 10, a hundred-thousandth, as float32 rounds."""
    _kept: ClassVar[Reranker | None] = None

    # What the laws are given ------------------------------------------------------------------------------------------

    @pytest.fixture
    def resolved(self, request: pytest.FixtureRequest) -> Any:
        """The spec, wherever it comes from."""
        return declared(self, "spec", request)

    @pytest.fixture
    def reranker(self, resolved: Any) -> Iterator[Reranker]:
        """A reranker of its own for each test."""
        with load_reranker(resolved) as loaded:
            if not backend_of(loaded).remote and type(self)._kept is None:
                kept = type(self)._kept = load_reranker(resolved)  # so that a model stays in memory between the tests
                kept.warmup()
            yield loaded

    @classmethod
    def teardown_class(cls) -> None:
        """Let the model go."""
        if cls._kept is not None:
            cls._kept.close()
            cls._kept = None

    @pytest.fixture(params=["sync", "async"])
    def drive(self, request: pytest.FixtureRequest) -> Drive:
        """Both faces: `rerank`, and `arerank` on an event loop of its own."""

        def asynchronously(reranker: Reranker, *arguments: Any, **options: Any) -> RerankResponse:
            return asyncio.run(reranker.arerank(*arguments, **options))

        return asynchronously if request.param == "async" else Reranker.rerank

    @pytest.fixture
    def asked(self, reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[RerankRequest]:
        """What reaches the backend."""
        backend, seen = backend_of(reranker), []
        score = backend.ascore

        async def watched(request: RerankRequest) -> Scores:
            seen.append(request)
            return await score(request)

        monkeypatch.setattr(backend, "ascore", watched)
        return seen

    @pytest.fixture
    def capabilities(self, reranker: Reranker) -> Capabilities:
        """What the backend declares."""
        return reranker.scorer.capabilities

    def near(self, expected: Any) -> Any:
        """What equals scores within the `tolerance`, which grows with the largest of them, as rounding does."""
        values = expected if isinstance(expected, list | tuple) else [expected]
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        return pytest.approx(expected, abs=self.tolerance * max(1.0, largest / 10))

    # The laws ---------------------------------------------------------------------------------------------------------

    def test_laws_are_not_overridden(self) -> None:
        """Every law is inherited as it is, or marked `xfail` with a reason.

        Troubleshooting: rename a test of your own that has the name of a law; remove `test_… = None`.
        """
        ours = next(base for base in type(self).__mro__ if base.__module__.startswith("rerank_plugins.testing."))
        changed = []
        for name in (name for name in dir(ours) if name.startswith("test_")):
            mine = getattr(type(self), name, None)
            if mine is not getattr(ours, name):
                marks = getattr(mine, "pytestmark", [])
                if not any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks):
                    changed.append(name)
        assert not changed, f'overridden without @pytest.mark.xfail(reason="…"): {changed}'

    def test_every_document_comes_back_once(self, reranker: Reranker, drive: Drive) -> None:
        """Each document is in the answer once, as the very object that went in, beside its own index.

        Troubleshooting: `score` has to return as many scores as it was given documents, in their order; do not sort,
        cut or filter in a backend.
        """
        documents = list(self.documents)
        answer = drive(reranker, self.query, documents)
        assert sorted(result.index for result in answer) == list(range(len(documents)))
        assert all(result.document is documents[result.index] for result in answer)

    def test_scores_are_finite_floats_and_order_the_answer(self, reranker: Reranker, drive: Drive) -> None:
        """Raw scores are Python floats, finite, the largest first.

        Troubleshooting: return `float(score)`, not a numpy or torch scalar; larger has to mean better (negate a
        distance).
        """
        raw = [result.raw_score for result in drive(reranker, self.query, self.documents)]
        if raw[0] is None:
            assert set(raw) == {None}, "either every document has a score or none has"
            return
        assert all(type(score) is float and math.isfinite(score) for score in raw)
        assert raw == sorted(raw, key=lambda score: -(score or 0.0))

    def test_relevance_follows_the_declared_scale(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities
    ) -> None:
        """`relevance_score` is in [0, 1], by `capabilities.scale`, and raw scores lie where that scale has them.

        Troubleshooting: declare `logit` for any real number, `cosine` for [-1, 1], `unit` for [0, 1], `ordinal` where
        only the order means something.
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
        """The order of the input changes no score (pointwise backends).

        Troubleshooting: a backend that compares documents with each other declares `listwise=True`. If it does not,
        look for results matched by position where the model sorted them.
        """
        self._pointwise(capabilities)
        order = [3, 0, 4, 2, 1][: len(self.documents)]
        straight = raw_scores(drive(reranker, self.query, self.documents))
        permuted = raw_scores(drive(reranker, self.query, [self.documents[index] for index in order]))
        assert permuted == self.near([straight[index] for index in order])

    def test_batch_mates_change_no_score(self, reranker: Reranker, drive: Drive, capabilities: Capabilities) -> None:
        """A document alone, and beside a much longer one, has the score it has among the others (pointwise backends).

        Troubleshooting: padding that is not masked out, or half precision, moves scores with the batch; so does
        normalising scores over the batch (min-max, softmax over documents).
        """
        self._pointwise(capabilities)
        together = raw_scores(drive(reranker, self.query, self.documents))
        alone = [raw_scores(drive(reranker, self.query, [document]))[0] for document in self.documents]
        long = " ".join(self.documents) * 3
        beside = raw_scores(drive(reranker, self.query, [long, *self.documents]))[1:]
        assert alone == self.near(together)
        assert beside == self.near(together)

    def test_duplicates_score_the_same_and_are_sent_once(
        self, reranker: Reranker, drive: Drive, asked: list[RerankRequest]
    ) -> None:
        """Identical texts have one score, cost one, and stay in the order given.

        Troubleshooting: this is the core's work; if it fails, the backend remembers something between documents.
        """
        first, second = self.documents[:2]
        answer = drive(reranker, self.query, [first, second, first, second, first])
        raw = raw_scores(answer)
        assert raw[0] == raw[2] == raw[4]
        assert raw[1] == raw[3]
        assert asked[0].documents == (first, second)
        if raw[0] is not None and raw[0] != raw[1]:
            best = [0, 2, 4] if (raw[0] or 0.0) > (raw[1] or 0.0) else [1, 3]
            assert [result.index for result in answer][: len(best)] == best

    def test_blank_documents_come_last_and_are_never_sent(
        self, reranker: Reranker, drive: Drive, asked: list[RerankRequest]
    ) -> None:
        """A blank document is last, without a score, with a reason; its neighbours are scored as ever.

        Troubleshooting: this is the core's work; a backend never sees a blank.
        """
        blanks = ["", " ", "\n\t\u3000"]
        documents = [blanks[0], self.documents[0], blanks[1], self.documents[1], blanks[2]]
        answer = drive(reranker, self.query, documents)
        assert [result.index for result in answer][2:] == [0, 2, 4]
        assert all(result.reason and result.raw_score is None for result in answer[2:])
        assert [request.documents for request in asked] == [tuple(self.documents[:2])]
        only = drive(reranker, self.query, blanks)
        assert [result.index for result in only] == [0, 1, 2]
        assert len(asked) == 1

    def test_no_documents_no_call(self, reranker: Reranker, drive: Drive, asked: list[RerankRequest]) -> None:
        """An empty list is an empty answer, and the backend hears nothing of it."""
        assert list(drive(reranker, self.query, [])) == []
        assert asked == []

    def test_one_document(self, reranker: Reranker, drive: Drive) -> None:
        """One document is an answer of one.

        Troubleshooting: a squeeze without an axis turns an array of one score into a scalar.
        """
        (result,) = drive(reranker, self.query, [self.documents[0]])
        assert result.index == 0

    @pytest.mark.parametrize("kind", ODD_TEXTS)
    def test_odd_text_is_only_text(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities, kind: str
    ) -> None:
        """Any text can be a document, without harm to its neighbours; a text that is too long is said to be.

        Troubleshooting: cut by tokens, not characters; never parse special tokens in a document; a model that cannot
        take a text has to score it low rather than fail the batch. What a backend reads of a document at most is
        declared in `capabilities` (`max_tokens`, `max_document_tokens`).
        """
        odd = ODD_TEXTS[kind]
        answer = drive(reranker, self.query, [self.documents[0], odd, self.documents[1]])
        assert sorted(result.index for result in answer) == [0, 1, 2]
        result = next(result for result in answer if result.index == 1)
        assert result.document is odd
        if kind == "very long" and (capabilities.max_tokens or capabilities.max_document_tokens or 10**9) < 30_000:
            assert result.truncated
        if not capabilities.listwise:
            usual = raw_scores(drive(reranker, self.query, self.documents[:2]))
            found = raw_scores(answer)
            assert [found[0], found[2]] == self.near(usual)

    @pytest.mark.parametrize("kind", [kind for kind in ODD_TEXTS if "long" not in kind])
    def test_odd_text_as_the_query(self, reranker: Reranker, drive: Drive, kind: str) -> None:
        """Any text that is not blank can be a query.

        Troubleshooting: as above; a query without a single known word is still a query.
        """
        answer = drive(reranker, ODD_TEXTS[kind], self.documents)
        assert sorted(result.index for result in answer) == list(range(len(self.documents)))

    def test_mappings_are_documents_too(self, reranker: Reranker, drive: Drive) -> None:
        """A mapping of fields is scored and comes back as the same object.

        Troubleshooting: `request.documents` has its text; only a backend that declares `fields=True` looks at
        `request.fields`.
        """
        documents = [{"title": "Tides", "body": self.documents[0]}, {"title": "Fruit", "year": 2026}, "plain"]
        answer = drive(reranker, self.query, documents)
        assert sorted(result.index for result in answer) == [0, 1, 2]
        assert all(result.document is documents[result.index] for result in answer)

    def test_inputs_stay_as_they_are(self, reranker: Reranker, drive: Drive) -> None:
        """Nothing that was passed in is changed.

        Troubleshooting: copy before sorting or popping.
        """
        documents: list[Any] = [*self.documents[:3], "", {"title": "Tides", "tags": ["sea", "moon"]}]
        before = copy.deepcopy(documents)
        drive(reranker, self.query, documents)
        assert documents == before

    @pytest.mark.parametrize(("top_n", "expected"), [(1, 1), (2, 2), (100, 5), (None, 5)])
    def test_top_n_cuts_the_same_answer(
        self, reranker: Reranker, drive: Drive, asked: list[RerankRequest], top_n: int | None, expected: int
    ) -> None:
        """`top_n` gives the beginning of the whole answer; the backend scores every document whatever it is.

        Troubleshooting: a backend never knows `top_n`; where a vendor demands one, send the number of documents.
        """
        documents = list(self.documents)[:5]
        whole = drive(reranker, self.query, documents)
        cut = drive(reranker, self.query, documents, top_n=top_n)
        assert [result.index for result in cut] == [result.index for result in whole][:expected]
        assert len(asked[-1].documents) == len(documents)

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
        asked: list[RerankRequest],
        query: str,
        documents: Any,
        options: Mapping[str, Any],
    ) -> None:
        """A blank query, a `top_n` below 1, a document that is no text: `InputError`, and nothing is sent."""
        with pytest.raises(InputError):
            drive(reranker, query, documents, **options)
        assert asked == []

    def test_an_instruction_is_followed_or_refused(
        self, reranker: Reranker, drive: Drive, capabilities: Capabilities, asked: list[RerankRequest]
    ) -> None:
        """A backend that declares `instructions` is given it; for any other it is an `InputError`, never dropped."""
        instruction = "Prefer passages about the sea."
        if capabilities.instructions:
            drive(reranker, self.query, self.documents, instruction=instruction)
            assert asked[0].instruction == instruction
        else:
            with pytest.raises(InputError, match="instruction"):
                drive(reranker, self.query, self.documents, instruction=instruction)
            assert asked == []

    def test_the_response_says_who_answered(self, reranker: Reranker, drive: Drive) -> None:
        """`model` is the label of the backend, and the attempts tell of one that answered."""
        answer = drive(reranker, self.query, self.documents)
        assert answer.model == backend_of(reranker).label
        assert {attempt.outcome for attempt in answer.attempts} == {"answered"}
        assert not answer.degraded
        assert answer.reason is None

    def test_the_answer_is_the_same_twice(self, reranker: Reranker, drive: Drive) -> None:
        """Asking again gives the same scores.

        Troubleshooting: put the model into evaluation mode (dropout off).
        """
        first, second = (raw_scores(drive(reranker, self.query, self.documents)) for _ in range(2))
        assert first == self.near(second)

    def test_both_faces_agree(self, reranker: Reranker) -> None:
        """`rerank` and `arerank` give the same answer."""
        sync = reranker.rerank(self.query, self.documents)
        other = asyncio.run(reranker.arerank(self.query, self.documents))
        assert [result.index for result in sync] == [result.index for result in other]
        assert raw_scores(sync) == self.near(raw_scores(other))

    def test_the_sync_face_works_inside_a_running_loop(self, reranker: Reranker) -> None:
        """As in a notebook.

        Troubleshooting: never call `asyncio.run` or `loop.run_until_complete` in a backend.
        """

        async def notebook() -> RerankResponse:
            return reranker.rerank(self.query, self.documents)

        expected = raw_scores(reranker.rerank(self.query, self.documents))
        assert raw_scores(asyncio.run(notebook())) == self.near(expected)

    def test_threads_share_a_reranker(self, resolved: Any, reranker: Reranker, drive: Drive) -> None:
        """Four threads on one reranker get the scores that each gets from one of its own.

        Troubleshooting: keep no state of a call on `self`; a tokenizer whose truncation is set per call is state.
        """
        queries = [self.query, "what are bananas", "why do clocks tick", self.query]
        expected = self._undisturbed(resolved, queries)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                found = list(pool.map(lambda query: raw_scores(drive(reranker, query, self.documents)), queries))
                for query, mine in zip(queries, found, strict=True):
                    assert mine == self.near(expected[query])

    def test_concurrent_calls_do_not_mix(self, resolved: Any, reranker: Reranker) -> None:
        """Calls under way at the same time on one event loop get their own answers.

        Troubleshooting: as above.
        """
        queries = [self.query, "what are bananas", "why do clocks tick"] * 3
        expected = self._undisturbed(resolved, queries)

        async def together() -> list[RerankResponse]:
            return await asyncio.gather(*(reranker.arerank(query, self.documents) for query in queries))

        for query, answer in zip(queries, asyncio.run(together()), strict=True):
            assert raw_scores(answer) == self.near(expected[query])

    def _undisturbed(self, resolved: Any, queries: Sequence[str]) -> dict[str, list[float | None]]:
        found = {}
        for query in set(queries):
            with load_reranker(resolved) as alone:
                found[query] = raw_scores(alone.rerank(query, self.documents))
        return found

    def test_it_pickles(self, reranker: Reranker, drive: Drive) -> None:
        """A reranker travels as its spec and answers the same on the other side.

        Troubleshooting: options of a backend have to be plain data (texts, numbers, lists, mappings).
        """
        with pickle.loads(pickle.dumps(reranker)) as copied:  # noqa: S301 (our own)
            found = raw_scores(drive(copied, self.query, self.documents))
        assert found == self.near(raw_scores(drive(reranker, self.query, self.documents)))

    def test_it_can_be_used_after_close(self, reranker: Reranker, drive: Drive) -> None:
        """`close` gives back what is held; the next call makes it anew."""
        before = raw_scores(drive(reranker, self.query, self.documents))
        reranker.close()
        reranker.close()
        assert raw_scores(drive(reranker, self.query, self.documents)) == self.near(before)

    @staticmethod
    def _pointwise(capabilities: Capabilities) -> None:
        if capabilities.listwise:
            pytest.skip("listwise: a score depends on the other documents")


def declared(suite: object, name: str, request: pytest.FixtureRequest) -> Any:
    """Return what a suite declares under `name`: an attribute, a property, or a fixture."""
    import inspect

    found = inspect.getattr_static(suite, name, None)
    if found is None:
        raise NotImplementedError(f"{type(suite).__name__} has to set `{name}`.")
    plain = isinstance(found, str | Mapping | property | type)
    return getattr(suite, name) if plain else request.getfixturevalue(name)


def backend_of(reranker: Reranker) -> Backend:
    """Return the backend under the policies of a reranker without a fallback."""
    backends = [scorer for scorer in reranker.scorer.walk() if isinstance(scorer, Backend)]
    assert len(backends) == 1, f"{reranker!r} has several backends"
    return backends[0]


def raw_scores(answer: RerankResponse) -> list[float | None]:
    """Return the raw scores in the order of the documents."""
    return [result.raw_score for result in sorted(answer, key=lambda result: result.index)]


def scored_by(score: Callable[[str, str], float], query: str, documents: Sequence[str]) -> list[float | None]:
    """Return what a server's scorer says of each document."""
    return [score(query, document) for document in documents]

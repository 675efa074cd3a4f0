"""`compare` against local vendor servers: requests, cached answers, advice, depths and failures."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rerank_plugins import AuthenticationFailed, ConfigError, InputError, Usage, load_reranker
from rerank_plugins.backends.lexical import Lexical
from rerank_plugins.cli import main
from rerank_plugins.evaluation import Dataset, Question, compare, interval, p_value, read, runner
from rerank_plugins.evaluation.answer_cache import Answer, AnswerCache
from rerank_plugins.evaluation.data import Candidate
from rerank_plugins.evaluation.recommendation import Advice, Budget, advise
from rerank_plugins.evaluation.results import EvaluationResult, Lift
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Hang, Status
from rerank_plugins.testing.vendors import VENDORS, ChatServer

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq_qed"
CASCADE = {"cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}
FUSED = {"use": "embedded", "fuse": {"with": "retrieval"}}


def make_dataset(count: int = 60, *, gain: bool = True, candidates: int = 6) -> Dataset:
    """Return questions whose relevant document is third.

    With `gain` it contains the words of the query, else the last document does.
    """
    questions, grades = [], {}
    for number in range(count):
        texts = [f"text {at} about nothing" for at in range(candidates)]
        texts[2 if gain else -1] = f"bees and honey {number}"
        listed = tuple(Candidate(f"{number}-{at}", text) for at, text in enumerate(texts))
        questions.append(Question(str(number), f"honey {number}", listed))
        grades[str(number)] = {f"{number}-2": 1}
    return Dataset.of("made", questions, grades)


def spec(server: CohereLike, **more: object) -> dict[str, object]:
    return {"use": "http:acme", "base_url": server.url, "api_key": server.key, "retry": 1, **more}


class ServerWithModes(CohereLike):
    """A server with a field `mode` of its own."""

    optional = {**CohereLike.optional, "mode": str}  # noqa: RUF012


def count_queries(server: CohereLike) -> Counter[str]:
    return Counter(request.body["query"] for request in server.requests)


# --- everything in one command ---


@pytest.mark.slow  # twenty seconds on a busy machine: three rerankers load the embedded model
def test_compare_command_measures_every_kind_of_reranker(tmp_path, capsys, monkeypatch):
    """Passthrough, lexical, embedded, a cascade, a fusion and two vendors over real questions."""
    monkeypatch.setenv("CO_API_KEY", "key-of-cohere")
    monkeypatch.setenv("VOYAGE_API_KEY", "key-of-voyage")
    with (
        VENDORS["cohere"](key="key-of-cohere") as cohere,
        VENDORS["voyage"](key="key-of-voyage", score=lambda query, document: -len(document) / 1e5) as voyage,
    ):
        priced = {"use": "cohere:rerank-v3.5", "base_url": cohere.url, "price": {"per_search_unit": 0.002}}
        specs = ["passthrough", "lexical", "embedded", CASCADE, FUSED, priced]
        specs.append({"use": "voyage:rerank-2.5", "base_url": voyage.url, "price": {"per_million_tokens": 0.05}})
        typed = [item if isinstance(item, str) else json.dumps(item) for item in specs]
        line = ["compare", str(NQ), "--limit", "4", "--top-k", "11", "--keep", str(tmp_path / "answers.sqlite3")]
        line += ["--html", str(tmp_path / "report.html"), "--json", str(tmp_path / "figures.json")]
        for argument in typed:
            line += ["--reranker", argument]
        assert main(line) == 0
        requests = len(cohere.requests), len(voyage.requests)
        assert requests == (4, 4)
        out = capsys.readouterr().out
        assert main(line) == 0
        assert capsys.readouterr().out == out  # the same numbers, latencies included
        assert (len(cohere.requests), len(voyage.requests)) == requests  # no answer is paid for twice

    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    labels = [row["reranker"] for row in figures["rerankers"]]
    assert labels[3:5] == ["lexical → embedded", "embedded + retrieval (rrf)"]
    for label in ["BM25", *labels]:
        assert any(row.startswith(label) for row in out.splitlines())
    costs = [row["usd_per_1000"] for row in figures["rerankers"]]
    assert costs[:5] == [0.0] * 5
    assert costs[5] == pytest.approx(2.0)  # one search unit a query
    assert 0 < costs[6] < 2
    mean, depths = figures["rerankers"][0]["means"]["nDCG@10"], figures["rerankers"][0]["depths"]
    assert list(depths) == ["10", "11"]
    assert depths["11"] == mean == figures["retriever"]["means"]["nDCG@10"]
    advice = out.split("nDCG@10 by number of candidates")[1]
    assert "Keep your retriever" in advice or "Use " in advice
    assert "4 queries are few" in advice
    assert "<svg" not in (tmp_path / "report.html").read_text("utf-8")[:2000]


# --- advice ---


def test_advice_names_the_reranker_that_helps_and_its_cost():
    comparison = compare(make_dataset(), ["passthrough", "lexical"])
    assert comparison.advice.choice == "lexical"
    assert comparison.advice.lines[0].startswith("Use lexical: it adds +0.500 [+0.500, +0.500] nDCG@10")
    assert comparison.rows[1].lift.p == pytest.approx(0.0001, abs=1e-4)
    assert len(comparison.advice.lines) == 1


def test_advice_keeps_the_retriever_when_no_reranker_helps():
    comparison = compare(make_dataset(gain=False), ["passthrough", "lexical"])
    assert comparison.advice.choice is None
    assert comparison.advice.lines[0].startswith("Keep your retriever as it is: no reranker")
    assert "passthrough: +0.000 [+0.000, +0.000]" in comparison.advice.lines[1]
    assert comparison.advice.lines[2].startswith("lexical makes your retriever worse: -0.")


def test_advice_keeps_the_retriever_when_all_are_over_budget():
    comparison = compare(make_dataset(), ["lexical"], budget_ms=0)
    assert comparison.advice.choice is None
    assert comparison.advice.lines[0] == (
        "Keep your retriever as it is: what would improve it does not fit your budget."
    )
    assert "over your 0.0 ms" in comparison.advice.lines[1]


def test_budget_in_dollars_excludes_expensive_and_unpriced_rerankers():
    with VENDORS["cohere"]() as server:
        vendor = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
        priced = {**vendor, "price": {"per_search_unit": 0.002}}
        assert compare(make_dataset(), [priced], budget_usd=2.0).advice.choice == "cohere:rerank-v3.5"
        assert "$2.00 per 1,000 queries are over your $1.99" in str(
            compare(make_dataset(), [priced], budget_usd=1.99).advice
        )
        assert "(give its spec a `price`)" in str(compare(make_dataset(), [vendor], budget_usd=2.0).advice)
        dear = compare(make_dataset(), [priced, "lexical"], budget_usd=1.0)
    assert dear.advice.choice == "lexical"


def test_advice_names_a_faster_reranker_of_equal_quality():
    first, *rest = make_dataset().questions
    dataset = replace(
        make_dataset(), questions=(replace(first, text="no word of it"), *rest)
    )  # no word that lexical could match
    with CohereLike(delay=0.02, score=lambda _, text: float("bees" in text)) as server:
        advice = compare(dataset, [spec(server), "lexical"]).advice
    assert advice.choice == "http:acme"
    assert advice.lines[1].startswith("lexical is much faster, and these queries do not tell it apart")


def make_result(label: str, gains: list[float], *, ms: float = 100.0, usd: float | None = 0.0) -> EvaluationResult:
    """Return a result whose values are `gains` over a first stage of zeros."""
    lift = Lift(*interval(gains), p_value(gains))
    return EvaluationResult(label, label, {"nDCG@10": tuple(gains)}, {}, {}, lift, ms, ms, usd_per_1000=usd)


def advice_of(*rows: EvaluationResult, ms: float | None = None, usd: float | None = None) -> Advice:
    first = EvaluationResult("BM25", "first stage", {"nDCG@10": (0.0,) * len(rows[0].values["nDCG@10"])}, {}, {})
    return advise(first, rows, Budget(ms, usd), "nDCG@10")


GAIN = [0.1, 0.3] * 30


def test_advice_of_equals_prefers_the_cheapest_then_the_fastest():
    dear, slow, quick = (
        make_result("dear", GAIN, ms=90, usd=5.0),
        make_result("slow", GAIN, ms=100),
        make_result("quick", GAIN, ms=80),
    )
    for rows in ((dear, slow, quick), (quick, slow, dear)):
        advice = advice_of(*rows)
        assert advice.choice == "quick"
        assert len(advice.lines) == 1
    assert advice_of(make_result("unknown", GAIN, usd=None), dear).choice == "dear"


def test_advice_names_a_cheaper_reranker_of_equal_quality():
    best = make_result("best", [0.11, 0.29] * 30 + [0.3], ms=50, usd=2.0)
    local = make_result("local", [*GAIN, 0.1], ms=200)
    assert advice_of(best, local).choice == "best"
    assert advice_of(best, local).lines[1].startswith("local is much cheaper, and these queries do not tell it apart")
    # The price of the better one is unknown, so only a reranker without any cost is certainly cheaper.
    unpriced = make_result("best", best.values["nDCG@10"], ms=50, usd=None)
    assert "local is much cheaper" in str(advice_of(unpriced, local))
    assert "cheaper" not in str(advice_of(unpriced, make_result("other", [*GAIN, 0.1], ms=200, usd=1.0)))


def test_advice_names_a_better_reranker_over_the_budget():
    best, cheap = make_result("best", [0.4] * 60, ms=900, usd=2.0), make_result("cheap", GAIN)
    assert advice_of(best, cheap, ms=500).lines == (
        (
            "Use cheap within 500 ms: it adds +0.200 [+0.173, +0.227] nDCG@10 to the order of your retriever. "
            "95 of 100 calls take at most 100 ms, for $0.00 per 1,000 queries."
        ),
        "best adds more, +0.400 [+0.400, +0.400], but its p95 of 900 ms is over your 500 ms.",
    )
    assert advice_of(best, cheap, usd=1.0).choice == "cheap"
    assert advice_of(best, cheap, ms=50).choice is None


def test_advice_says_when_the_paired_test_finds_no_significance():
    assert "(p = 0.12)" in advice_of(make_result("lexical", [0.5] * 4)).lines[1]
    assert "1 query is few" in str(advice_of(make_result("lexical", [0.5])))
    assert "p =" not in str(advice_of(make_result("lexical", [0.5] * 8)))


def test_advice_says_when_queries_are_few():
    assert "12 queries are few" in str(compare(make_dataset(12), ["lexical"]).advice)


# --- depth ---


def test_pointwise_reranker_is_called_once_for_all_depths():
    dataset = make_dataset(5, candidates=30)
    with CohereLike() as server:
        (row,) = compare(dataset, [spec(server)], depths=(1, 2, 3, 10, 20)).rows
        assert len(server.requests) == 5
        for depth, value in row.depths.items():
            (cut,) = compare(dataset.cut(depth), [spec(server)], depths=()).rows
            assert cut.means["nDCG@10"] == value
    assert list(row.depths) == [1, 2, 3, 10, 20, 30]
    assert (row.depths[2], row.depths[3]) == (0.0, 1.0)


def test_listwise_reranker_is_called_per_depth_unless_it_is_paid():
    dataset = make_dataset(5, candidates=30)
    lexical, fused = compare(
        dataset, ["lexical", {"use": "lexical", "fuse": {"with": "retrieval"}}], depths=(10, 20)
    ).rows
    assert list(lexical.depths) == list(fused.depths) == [10, 20, 30]
    for depth, value in lexical.depths.items():
        assert compare(dataset.cut(depth), ["lexical"], depths=()).rows[0].means["nDCG@10"] == value
    with CohereLike() as server:
        paid = {"cascade": {"stages": ["lexical", spec(server)], "keep": [5]}}
        (row,) = compare(dataset, [paid], depths=(10, 20)).rows
        assert len(server.requests) == 5
    assert list(row.depths) == [30]
    assert "paid for again" in row.depths_missing


# --- cached answers ---


@pytest.mark.slow  # starts a command three times, seconds each
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_stopped_comparison_resumes_without_paying_twice(stop, tmp_path):
    """An answer that is committed late is lost with the process, and its request is paid for again."""
    rows = [
        {"query": question.text, "candidates": [one.text for one in question.candidates], "labels": [0, 0, 1, 0, 0, 0]}
        for question in make_dataset(12).questions
    ]
    data = tmp_path / "lists.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    cache_file = tmp_path / "answers.sqlite3"
    with CohereLike() as server:
        command = [sys.executable, "-m", "rerank_plugins", "compare", str(data), "--keep", str(cache_file)]
        command += ["-r", json.dumps(spec(server)), "--json", str(tmp_path / "figures.json")]
        server.always(Hang(), when=lambda request: request.body["query"] == "honey 7")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert server.wait_until(lambda: len(server.requests) == 8, 60)
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
        assert out == ""
        if stop == signal.SIGINT:
            assert process.returncode == 130
            assert err == (
                f"rerank-plugins: stopped. The answers so far are in {cache_file}: run the command again to continue.\n"
            )
        assert count_queries(server) == {f"honey {number}": 1 for number in range(8)}

        server.reset()
        assert subprocess.run(command, capture_output=True, check=True).stderr == b""
        assert count_queries(server) == {f"honey {number}": 1 for number in range(7, 12)}
        results = json.loads((tmp_path / "figures.json").read_text("utf-8"))

        server.reset()
        subprocess.run(command, capture_output=True, check=True)
        assert server.requests == []
        assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == results
    assert results["choice"] == "http:acme"


def test_changed_question_or_option_and_fresh_send_new_requests(tmp_path):
    cache_file = tmp_path / "answers.sqlite3"
    with CohereLike() as server:
        compare(make_dataset(4), [spec(server)], answer_cache=cache_file)
        compare(make_dataset(6), [spec(server)], answer_cache=cache_file)
        assert count_queries(server) == {f"honey {number}": 1 for number in range(6)}
        compare(make_dataset(4), [spec(server, http={"max_tokens": 400})], answer_cache=cache_file)
        assert sum(count_queries(server).values()) == 10
        compare(make_dataset(4, candidates=7), [spec(server)], answer_cache=cache_file)
        assert sum(count_queries(server).values()) == 14
        compare(make_dataset(4), [spec(server)], answer_cache=cache_file, fresh=True)
        assert sum(count_queries(server).values()) == 18


def test_new_price_applies_to_cached_answers(tmp_path):
    def cost(server: CohereLike, **price: float) -> float | None:
        vendor = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
        priced = {**vendor, "price": price} if price else vendor
        cascade = {"cascade": {"stages": ["lexical", priced], "keep": [3]}}
        one, two = compare(make_dataset(5), [priced, cascade], answer_cache=tmp_path / "answers.sqlite3").rows
        assert one.usd_per_1000 == two.usd_per_1000
        return one.usd_per_1000

    with VENDORS["cohere"]() as server:
        assert cost(server) is None
        assert len(server.requests) == 10
        assert cost(server, per_search_unit=0.002) == pytest.approx(2.0)
        assert cost(server, per_search_unit=0.001) == pytest.approx(1.0)
        assert len(server.requests) == 10


def test_cost_counts_cached_and_output_tokens_of_language_models(tmp_path):
    price = {"per_million_tokens": 1.0, "per_million_cached_tokens": 0.5, "per_million_output_tokens": 10.0}
    with VENDORS["openai"]() as decisions, ChatServer() as chat:
        specs = [
            {"use": "openai", "base_url": decisions.url, "api_key": decisions.key, "price": price},
            {"use": "chat:m", "base_url": chat.url, "api_key": chat.key, "price": price},
        ]
        rows = compare(make_dataset(1), specs, answer_cache=tmp_path / "answers.sqlite3").rows
        usages = [
            server.answer(server.requests[0].body, [(index, 0.5) for index in range(6)])["usage"]
            for server in (decisions, chat)
        ]
        again = compare(make_dataset(1), specs, answer_cache=tmp_path / "answers.sqlite3").rows
        assert len(decisions.requests) == len(chat.requests) == 1
    read, written = usages[0]["input_tokens"], 0
    cached = usages[0]["input_tokens_details"]["cached_tokens"]
    assert rows[0].usd_per_1000 == pytest.approx(((read - cached) * 1.0 + cached * 0.5 + written * 10.0) / 1000)
    read, written = usages[1]["prompt_tokens"], usages[1]["completion_tokens"]
    cached = usages[1]["prompt_tokens_details"]["cached_tokens"]
    assert rows[1].usd_per_1000 == pytest.approx(((read - cached) * 1.0 + cached * 0.5 + written * 10.0) / 1000)
    assert [row.usd_per_1000 for row in again] == [row.usd_per_1000 for row in rows]


def test_cascade_and_fusion_with_a_decision_model_show_their_cost():
    """`embedded` leaves the best 20 of 30 to the decision model, so a call costs two thirds of one over all."""
    dataset = make_dataset(2, candidates=30)
    with VENDORS["openai"](score=lambda _, document: 0.9 if "honey" in document else 0.1) as server:
        model = {"use": "openai", "base_url": server.url, "api_key": server.key, "price": {"per_million_tokens": 1.0}}
        cascade = {"cascade": {"stages": ["embedded", model], "keep": 20}}
        fused = {**model, "fuse": {"with": "retrieval"}}
        alone, cascaded, fusion = compare(dataset, [model, cascade, fused], depths=()).rows
        asked_about = [len(request.body["questions"]) for request in server.requests]
    assert asked_about == [30, 30, 20, 20, 30, 30]
    assert alone.usd_per_1000 > 0
    assert fusion.usd_per_1000 == pytest.approx(alone.usd_per_1000)
    assert 0.55 < cascaded.usd_per_1000 / alone.usd_per_1000 < 0.8
    assert alone.means["MRR@10"] == cascaded.means["MRR@10"] == 1.0
    assert fusion.means["MRR@10"] > compare(dataset, ["passthrough"], depths=()).rows[0].means["MRR@10"]


def test_answers_of_older_versions_keep_their_usage(tmp_path):
    """They stored (model, input tokens, search units)."""
    cache = AnswerCache(tmp_path / "answers.sqlite3")
    answer = Answer((0,), (0.5,), 1.0, "m", used=(("m", Usage(requests=1, input_tokens=7, search_units=2.0)),))
    cache.put(b"new", answer)
    cache._connection.execute(
        "INSERT INTO answers SELECT ?, json_set(answer, '$.used', json('[[\"m\", 7, 2.0]]')) FROM answers", (b"old",)
    )
    assert cache.get(b"old") == cache.get(b"new") == answer


def test_cached_answer_of_another_revision_is_not_used(tmp_path, monkeypatch):
    def latencies() -> list[float]:
        return [compare(make_dataset(3), ["lexical"], answer_cache=tmp_path / "answers.sqlite3").rows[0].p50_ms]

    before = latencies()
    assert latencies() == before  # from the cache
    monkeypatch.setattr(Lexical, "revision", "another")
    assert latencies() != before


def test_answer_cache_holds_no_text_and_no_key(tmp_path):
    cache_file = tmp_path / "answers.sqlite3"
    with CohereLike(key="a-secret-key") as server:
        compare(make_dataset(3), [spec(server)], answer_cache=cache_file)
    for file in tmp_path.iterdir():
        assert b"honey" not in file.read_bytes()
        assert b"a-secret-key" not in file.read_bytes()


def test_strings_of_a_body_or_header_tell_kept_answers_apart(tmp_path):
    """The spec of a reranker holds a mask for them, so it is the same for both."""
    cache_file = tmp_path / "answers.sqlite3"
    with ServerWithModes() as server:
        for table in ({"body": {"mode": "a-secret"}}, {"body": {"mode": "down"}}, {"headers": {"X-Mode": "a-secret"}}):
            for _ in range(2):  # the second time from the cache
                compare(make_dataset(3), [spec(server, http=table)], answer_cache=cache_file)
        assert [request.body.get("mode") for request in server.requests] == ["a-secret"] * 3 + ["down"] * 3 + [None] * 3
        stages = [["lexical", spec(server, http={"body": {"mode": mode}})] for mode in "xy"]
        cascades = [{"cascade": {"stages": each, "keep": [6]}} for each in stages]
        compare(make_dataset(3), cascades, answer_cache=cache_file)
        assert {request.body["mode"] for request in server.requests[9:]} == {"x", "y"}
    for file in tmp_path.iterdir():
        assert b"a-secret" not in file.read_bytes()


def test_answers_of_another_version_are_not_used(tmp_path, monkeypatch):
    with CohereLike() as server:
        compare(make_dataset(3), [spec(server)], answer_cache=tmp_path / "answers.sqlite3")
        monkeypatch.setattr(runner, "__version__", "another")
        compare(make_dataset(3), [spec(server)], answer_cache=tmp_path / "answers.sqlite3")
        assert len(server.requests) == 6


def test_vendor_limits_hold_during_a_comparison(tmp_path):
    with CohereLike(max_documents=4) as server:
        compare(make_dataset(3, candidates=10), [spec(server, http={"max_documents": 4}, max_in_flight=1)])
        assert server.refused == []
        assert len(server.requests) == 9
        assert server.most_concurrent == 1


def test_at_once_bounds_the_concurrent_questions():
    with CohereLike(delay=0.05) as server:
        (row,) = compare(make_dataset(12), [spec(server)], at_once=4).rows
        assert 1 < server.most_concurrent <= 4
    assert row.lift.mean == pytest.approx(0.5)


# --- failures ---


def test_degraded_answers_are_counted():
    with CohereLike() as server:
        server.always(Status(503), when=lambda request: request.body["query"].endswith("1"))
        (row,) = compare(make_dataset(20), [spec(server, fallback=["passthrough"])]).rows
    assert row.degraded == pytest.approx(0.1)
    assert row.failed == 0


def test_degraded_answers_and_vendor_messages_are_not_cached(tmp_path):
    cache_file = tmp_path / "answers.sqlite3"
    with CohereLike() as server:
        server.always(Status(503, message="the document 'bees and honey' is too sweet"))
        (row,) = compare(make_dataset(20), [spec(server, fallback=["passthrough"])], answer_cache=cache_file).rows
        assert row.degraded == 1.0
    for file in tmp_path.iterdir():
        assert b"sweet" not in file.read_bytes()
    with CohereLike() as server:
        (row,) = compare(make_dataset(20), [spec(server, fallback=["passthrough"])], answer_cache=cache_file).rows
        assert len(server.requests) == 20
    assert row.degraded == 0


@pytest.mark.parametrize(
    "damage", ["", "nonsense", "[]", '{"used": 7}', '{"order": [0, 0], "scores": [1, 2], "used": []}']
)
def test_damaged_cached_answer_is_requested_again(damage, tmp_path):
    cache_file = tmp_path / "answers.sqlite3"
    expected = compare(make_dataset(3), ["lexical"], answer_cache=cache_file).rows[0].values
    with sqlite3.connect(cache_file) as connection:
        assert (
            connection.execute("UPDATE answers SET answer = ?", (damage,)).rowcount == 6
        )  # with and without the relevant
    connection.close()
    assert compare(make_dataset(3), ["lexical"], answer_cache=cache_file).rows[0].values == expected


def test_failed_query_counts_with_the_first_stage_order_and_is_retried(tmp_path):
    cache_file = tmp_path / "answers.sqlite3"
    with CohereLike() as server:
        server.play(Status(503), Status(503))
        comparison = compare(make_dataset(60), [spec(server)], answer_cache=cache_file)
        (row,) = comparison.rows
        assert (row.failed, row.degraded) == (2, pytest.approx(2 / 60))
        assert row.values["MRR@10"][:3] == (1 / 3, 1 / 3, 1.0)
        assert "3% of the answers of it were degraded" in str(comparison.advice)
        (row,) = compare(make_dataset(60), [spec(server)], answer_cache=cache_file).rows
        assert row.failed == 0
        assert sum(count_queries(server).values()) == 62


def test_reranker_that_is_down_is_given_up_and_others_are_measured(tmp_path, capsys):
    data = tmp_path / "lists.jsonl"
    data.write_text(json.dumps({"query": "honey", "candidates": ["wax", "honey"], "labels": [0, 1]}), "utf-8")
    with CohereLike() as server, CohereLike() as closed:
        server.always(Status(503))
        comparison = compare(make_dataset(20), [spec(server), spec(closed, api_key="wrong"), "lexical"])
        assert len(server.requests) == 3
        assert len(closed.requests) == 1
        assert main(["compare", str(data), "-r", json.dumps(spec(closed, api_key="wrong")), "-r", "lexical"]) == 1
    assert "http:acme was given up" in capsys.readouterr().out
    assert [row.error is None for row in comparison.rows] == [False, False, True]
    assert comparison.advice.choice == "lexical"
    assert "http:acme (2) was given up and not measured: " in str(comparison.advice)


def test_compare_raises_the_vendor_error_when_no_reranker_answers():
    with CohereLike() as server, pytest.raises(AuthenticationFailed):
        compare(make_dataset(3), [spec(server, api_key="wrong")])


def test_compare_rejects_wrong_arguments():
    with pytest.raises(InputError, match="at least one reranker"):
        compare(make_dataset(3), [])
    with pytest.raises(InputError, match="budget_ms"):
        compare(make_dataset(3), ["lexical"], budget_ms=-1)
    with pytest.raises(ConfigError, match="lexcial"):
        compare(make_dataset(3), ["lexcial"])
    with pytest.raises(InputError, match="at least 1"):
        compare(make_dataset(3), ["lexical"], k=0)


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_unwritable_output_file_fails_before_any_request(option, tmp_path, capsys):
    data = tmp_path / "lists.jsonl"
    data.write_text(json.dumps({"query": "honey", "candidates": ["wax", "honey"], "labels": [0, 1]}), "utf-8")
    with CohereLike() as server:
        for file, message in ((tmp_path / "none" / "it", "folder that does not exist"), (tmp_path, "is a folder")):
            assert main(["compare", str(data), "-r", json.dumps(spec(server)), option, str(file)]) == 2
            assert f"{option} {file}" in (err := capsys.readouterr().err)
            assert message in err
        assert server.requests == []


def test_compare_takes_ready_and_named_rerankers(tmp_path):
    (tmp_path / "rerank.toml").write_text('[rerankers.production]\nuse = "lexical"\ntop_n = 1\n', "utf-8")
    with load_reranker("lexical", top_n=2, score_threshold=0.99) as ready:
        rows = compare(make_dataset(5), [ready, "production", "lexical"], config=str(tmp_path / "rerank.toml")).rows
        assert [row.label for row in rows] == ["lexical", "production", "lexical (2)"]
        assert len({row.rankings["0"] for row in rows}) == 1  # metrics are over whole orders, not over the cut ones
        assert ready.rerank("honey", ["honey"]).results == ()  # not closed, and it still has its threshold


def test_progress_bar_is_shown_on_a_terminal_only(monkeypatch, capsys):
    from rerank_plugins.cli.terminal import progress_bars

    with progress_bars() as show:
        assert show is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bars() as show:
        show("lexical", 1, 10)
        show("lexical", 5, 10)
    err = capsys.readouterr().err
    assert "5/10 lexical" in err
    *_, last, after = err.split("\r")
    assert (last.strip(), after) == ("", "")  # the line is cleared


def test_answer_cache_path_that_is_a_folder_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be kept"):
        compare(make_dataset(3), ["lexical"], answer_cache=tmp_path)


def test_read_retrieves_candidates_with_bm25():
    assert read(NQ, top_k=5, limit=3).first_stage == "BM25"


def test_full_file_of_kept_answers_is_an_error_and_keeps_what_was_stored(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite3")
    cache._connection.execute("PRAGMA max_page_count = 6")
    cache.put(b"first", Answer((0,), (1.0,), 1.0, "m"))
    long = Answer(tuple(range(9_000)), (1.0,) * 9_000, 1.0, "m")
    with pytest.raises(ConfigError, match=r"cannot be used \(database or disk is full\).*free space.*--keep"):
        cache.put(b"second", long)
    assert cache.get(b"first") is not None
    cache.close()


def test_full_file_of_kept_answers_is_one_message_of_the_command(tmp_path, monkeypatch, capsys):
    """The file cannot grow past the pages that it has when it is opened. A traceback of a group came before."""

    def open_full(cache: AnswerCache, path: Path | None = None) -> None:
        open_file(cache, path)
        (pages,) = cache._connection.execute("PRAGMA page_count").fetchone()
        cache._connection.execute(f"PRAGMA max_page_count = {pages}")

    open_file = AnswerCache.__init__
    monkeypatch.setattr(AnswerCache, "__init__", open_full)
    rows = [
        {"query": f"bees {at}", "candidates": [f"{at} {place}" for place in range(99)], "labels": [1] * 99}
        for at in range(20)
    ]
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    line = ["compare", str(tmp_path / "lists.jsonl"), "-r", "lexical", "--keep", str(tmp_path / "answers.sqlite3")]
    assert main(line) == 2
    assert "database or disk is full" in (err := capsys.readouterr().err)
    assert "--keep" in err


def test_home_folder_in_the_path_of_kept_answers(tmp_path, monkeypatch):
    """A shell does not replace `~` in `--keep=~/…`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    row = {"query": "honey", "candidates": ["wax", "honey"], "labels": [0, 1]}
    (tmp_path / "lists.jsonl").write_text(json.dumps(row), "utf-8")
    assert main(["compare", "lists.jsonl", "-r", "lexical", "--keep=~/one/answers.sqlite3"]) == 0
    compare(make_dataset(3), ["lexical"], answer_cache="~/two/answers.sqlite3")
    assert {path.parent.name for path in (tmp_path / "home").glob("*/answers.sqlite3")} == {"one", "two"}
    assert not (tmp_path / "~").exists()


def test_repeated_id_and_blank_query_of_a_data_set_are_named():
    question = make_dataset(1).questions[0]
    with pytest.raises(InputError, match="made has two queries with the id '0'"):
        Dataset.of("made", [question, question], {"0": {"0-2": 1}})
    with pytest.raises(InputError, match="made, query '0': the query is blank"):
        Dataset.of("made", [replace(question, text=" ")], {"0": {"0-2": 1}})

"""`rerank-plugins compare`: what it asks, keeps, tells and advises; against local vendors that count."""

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

from rerank_plugins import AuthenticationFailed, ConfigError, InputError, load_reranker
from rerank_plugins.backends.lexical import Lexical
from rerank_plugins.cli import main
from rerank_plugins.evaluation import Dataset, Question, compare, interval, p_value, read
from rerank_plugins.evaluation.advice import Advice, Budget, advised
from rerank_plugins.evaluation.data import Candidate
from rerank_plugins.evaluation.figures import Figures, Lift
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Hang, Status
from rerank_plugins.testing.vendors import VENDORS

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq_qed"
CASCADE = {"cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}
FUSED = {"use": "embedded", "fuse": {"with": "retrieval"}}


def made(count: int = 60, *, gain: bool = True, candidates: int = 6) -> Dataset:
    """Return questions whose answer stands third; with `gain` it holds the query's words, else the last one does."""
    questions, grades = [], {}
    for number in range(count):
        texts = [f"text {at} about nothing" for at in range(candidates)]
        texts[2 if gain else -1] = f"bees and honey {number}"
        found = tuple(Candidate(f"{number}-{at}", text) for at, text in enumerate(texts))
        questions.append(Question(str(number), f"honey {number}", found))
        grades[str(number)] = {f"{number}-2": 1}
    return Dataset.of("made", questions, grades)


def spec(server: CohereLike, **more: object) -> dict[str, object]:
    return {"use": "http:acme", "base_url": server.url, "api_key": server.key, "retry": 1, **more}


def asked(server: CohereLike) -> Counter[str]:
    return Counter(request.body["query"] for request in server.requests)


# --- the whole of it ---


@pytest.mark.slow  # twenty seconds on a busy machine: the embedded model, three times over
def test_every_kind_of_reranker_in_one_command(tmp_path, capsys, monkeypatch):
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
        typed = [each if isinstance(each, str) else json.dumps(each) for each in specs]
        line = ["compare", str(NQ), "--limit", "4", "--top-k", "11", "--keep", str(tmp_path / "kept.sqlite3")]
        line += ["--html", str(tmp_path / "report.html"), "--json", str(tmp_path / "figures.json")]
        for each in typed:
            line += ["--reranker", each]
        assert main(line) == 0
        requests = len(cohere.requests), len(voyage.requests)
        assert requests == (4, 4)
        out = capsys.readouterr().out
        assert main(line) == 0
        assert capsys.readouterr().out == out  # the same numbers, latencies among them
        assert (len(cohere.requests), len(voyage.requests)) == requests  # nothing is paid for twice

    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    labels = [row["reranker"] for row in figures["rerankers"]]
    assert labels[3:5] == ["lexical → embedded", "embedded + retrieval (rrf)"]
    for label in ["BM25", *labels]:
        assert any(row.startswith(label) for row in out.splitlines())
    costs = [row["usd_per_1000"] for row in figures["rerankers"]]
    assert costs[:5] == [0.0] * 5
    assert costs[5] == pytest.approx(2.0)  # one search unit a query
    assert 0 < costs[6] < 2
    whole, depth = figures["rerankers"][0]["means"]["nDCG@10"], figures["rerankers"][0]["depths"]
    assert list(depth) == ["10", "11"]
    assert depth["11"] == whole == figures["retriever"]["means"]["nDCG@10"]
    words = out.split("nDCG@10 by number of candidates")[1]
    assert "Keep your retriever" in words or "Use " in words
    assert "4 queries are few" in words
    assert "<svg" not in (tmp_path / "report.html").read_text("utf-8")[:2000]


# --- the words ---


def test_what_helps_is_named_with_what_it_takes():
    comparison = compare(made(), ["passthrough", "lexical"])
    assert comparison.advice.choice == "lexical"
    assert comparison.advice.lines[0].startswith("Use lexical: it adds +0.500 [+0.500, +0.500] nDCG@10")
    assert comparison.rows[1].lift.p == pytest.approx(0.0001, abs=1e-4)
    assert len(comparison.advice.lines) == 1


def test_keep_your_retriever_where_nothing_helps():
    comparison = compare(made(gain=False), ["passthrough", "lexical"])
    assert comparison.advice.choice is None
    assert comparison.advice.lines[0].startswith("Keep your retriever as it is: no reranker")
    assert "passthrough: +0.000 [+0.000, +0.000]" in comparison.advice.lines[1]
    assert comparison.advice.lines[2].startswith("lexical makes your retriever worse: -0.")


def test_keep_your_retriever_where_what_helps_does_not_fit():
    comparison = compare(made(), ["lexical"], budget_ms=0)
    assert comparison.advice.choice is None
    assert comparison.advice.lines[0] == (
        "Keep your retriever as it is: what would improve it does not fit your budget."
    )
    assert "over your 0.0 ms" in comparison.advice.lines[1]


def test_a_budget_in_dollars():
    with VENDORS["cohere"]() as server:
        vendor = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
        priced = {**vendor, "price": {"per_search_unit": 0.002}}
        assert compare(made(), [priced], budget_usd=2.0).advice.choice == "cohere:rerank-v3.5"
        assert "$2.00 per 1,000 queries are over your $1.99" in str(compare(made(), [priced], budget_usd=1.99).advice)
        assert "(give its spec a `price`)" in str(compare(made(), [vendor], budget_usd=2.0).advice)
        dear = compare(made(), [priced, "lexical"], budget_usd=1.0)
    assert dear.advice.choice == "lexical"


def test_a_faster_one_that_is_as_good_is_told():
    first, *rest = made().questions
    dataset = replace(made(), questions=(replace(first, text="no word of it"), *rest))  # which lexical cannot find
    with CohereLike(delay=0.02, score=lambda _, text: float("bees" in text)) as server:
        advice = compare(dataset, [spec(server), "lexical"]).advice
    assert advice.choice == "http:acme"
    assert advice.lines[1].startswith("lexical is much faster, and these queries do not tell it apart")


def figures(label: str, gains: list[float], *, ms: float = 100.0, usd: float | None = 0.0) -> Figures:
    """Return a row whose values are `gains` over a first stage of zeros."""
    lift = Lift(*interval(gains), p_value(gains))
    return Figures(label, label, {"nDCG@10": tuple(gains)}, {}, {}, lift, ms, ms, usd_per_1000=usd)


def advice_of(*rows: Figures, ms: float | None = None, usd: float | None = None) -> Advice:
    first = Figures("BM25", "first stage", {"nDCG@10": (0.0,) * len(rows[0].values["nDCG@10"])}, {}, {})
    return advised(first, rows, Budget(ms, usd), "nDCG@10")


GAIN = [0.1, 0.3] * 30


def test_of_equals_the_cheapest_then_the_fastest_is_named():
    dear, slow, quick = (
        figures("dear", GAIN, ms=90, usd=5.0),
        figures("slow", GAIN, ms=100),
        figures("quick", GAIN, ms=80),
    )
    for rows in ((dear, slow, quick), (quick, slow, dear)):
        advice = advice_of(*rows)
        assert advice.choice == "quick"
        assert len(advice.lines) == 1
    assert advice_of(figures("unknown", GAIN, usd=None), dear).choice == "dear"


def test_a_cheaper_one_that_is_as_good_is_told():
    best = figures("best", [0.11, 0.29] * 30 + [0.3], ms=50, usd=2.0)
    local = figures("local", [*GAIN, 0.1], ms=200)
    assert advice_of(best, local).choice == "best"
    assert advice_of(best, local).lines[1].startswith("local is much cheaper, and these queries do not tell it apart")
    # What the dearer one costs is not known: only what costs nothing is surely cheaper.
    unpriced = figures("best", best.values["nDCG@10"], ms=50, usd=None)
    assert "local is much cheaper" in str(advice_of(unpriced, local))
    assert "cheaper" not in str(advice_of(unpriced, figures("other", [*GAIN, 0.1], ms=200, usd=1.0)))


def test_a_better_one_over_the_budget_is_told():
    best, cheap = figures("best", [0.4] * 60, ms=900, usd=2.0), figures("cheap", GAIN)
    assert advice_of(best, cheap, ms=500).lines == (
        (
            "Use cheap within 500 ms: it adds +0.200 [+0.173, +0.227] nDCG@10 to the order of your retriever. "
            "95 of 100 calls take at most 100 ms, for $0.00 per 1,000 queries."
        ),
        "best adds more, +0.400 [+0.400, +0.400], but its p95 of 900 ms is over your 500 ms.",
    )
    assert advice_of(best, cheap, usd=1.0).choice == "cheap"
    assert advice_of(best, cheap, ms=50).choice is None


def test_a_lift_that_the_paired_test_does_not_bear_out_is_told():
    assert "(p = 0.12)" in advice_of(figures("lexical", [0.5] * 4)).lines[1]
    assert "1 query is few" in str(advice_of(figures("lexical", [0.5])))
    assert "p =" not in str(advice_of(figures("lexical", [0.5] * 8)))


def test_few_queries_are_told():
    assert "12 queries are few" in str(compare(made(12), ["lexical"]).advice)


# --- depth ---


def test_one_scoring_of_a_pointwise_reranker_tells_every_depth():
    dataset = made(5, candidates=30)
    with CohereLike() as server:
        (row,) = compare(dataset, [spec(server)], depths=(1, 2, 3, 10, 20)).rows
        assert len(server.requests) == 5
        for depth, value in row.depths.items():
            (anew,) = compare(dataset.cut(depth), [spec(server)], depths=()).rows
            assert anew.means["nDCG@10"] == value
    assert list(row.depths) == [1, 2, 3, 10, 20, 30]
    assert (row.depths[2], row.depths[3]) == (0.0, 1.0)


def test_a_listwise_one_is_asked_anew_unless_that_is_paid_for():
    dataset = made(5, candidates=30)
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


# --- stopped and started again ---


@pytest.mark.slow  # a command that is started twice, seconds each
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_a_stopped_run_goes_on_and_pays_for_nothing_twice(stop, tmp_path):
    rows = [
        {"query": each.text, "candidates": [one.text for one in each.candidates], "labels": [0, 0, 1, 0, 0, 0]}
        for each in made(12).questions
    ]
    data = tmp_path / "lists.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    kept = tmp_path / "kept.sqlite3"
    with CohereLike() as server:
        command = [sys.executable, "-m", "rerank_plugins", "compare", str(data), "--keep", str(kept)]
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
                f"rerank-plugins: stopped. Every answer so far is kept in {kept}: the same command goes on from there.\n"
            )
        assert asked(server) == {f"honey {number}": 1 for number in range(8)}

        server.reset()
        assert subprocess.run(command, capture_output=True, check=True).stderr == b""
        assert asked(server) == {f"honey {number}": 1 for number in range(7, 12)}
        whole = json.loads((tmp_path / "figures.json").read_text("utf-8"))

        server.reset()
        subprocess.run(command, capture_output=True, check=True)
        assert server.requests == []
        assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == whole
    assert whole["choice"] == "http:acme"


def test_another_question_or_option_is_asked_anew_and_fresh_asks_all(tmp_path):
    kept = tmp_path / "kept.sqlite3"
    with CohereLike() as server:
        compare(made(4), [spec(server)], kept=kept)
        compare(made(6), [spec(server)], kept=kept)
        assert asked(server) == {f"honey {number}": 1 for number in range(6)}
        compare(made(4), [spec(server, http={"max_tokens": 400})], kept=kept)
        assert sum(asked(server).values()) == 10
        compare(made(4, candidates=7), [spec(server)], kept=kept)
        assert sum(asked(server).values()) == 14
        compare(made(4), [spec(server)], kept=kept, fresh=True)
        assert sum(asked(server).values()) == 18


def test_a_price_that_is_given_later_pays_for_nothing_again(tmp_path):
    def cost(server: CohereLike, **price: float) -> float | None:
        vendor = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
        priced = {**vendor, "price": price} if price else vendor
        cascade = {"cascade": {"stages": ["lexical", priced], "keep": [3]}}
        one, two = compare(made(5), [priced, cascade], kept=tmp_path / "kept.sqlite3").rows
        assert one.usd_per_1000 == two.usd_per_1000
        return one.usd_per_1000

    with VENDORS["cohere"]() as server:
        assert cost(server) is None
        assert len(server.requests) == 10
        assert cost(server, per_search_unit=0.002) == pytest.approx(2.0)
        assert cost(server, per_search_unit=0.001) == pytest.approx(1.0)
        assert len(server.requests) == 10


def test_what_another_formula_of_lexical_said_is_not_taken_for_this_ones(tmp_path, monkeypatch):
    def latencies() -> list[float]:
        return [compare(made(3), ["lexical"], kept=tmp_path / "kept.sqlite3").rows[0].p50_ms]

    before = latencies()
    assert latencies() == before  # kept
    monkeypatch.setattr(Lexical, "revision", "another")
    assert latencies() != before


def test_no_text_and_no_key_is_kept(tmp_path):
    kept = tmp_path / "kept.sqlite3"
    with CohereLike(key="a-secret-key") as server:
        compare(made(3), [spec(server)], kept=kept)
    for file in tmp_path.iterdir():
        assert b"honey" not in file.read_bytes()
        assert b"a-secret-key" not in file.read_bytes()


def test_a_vendors_limits_hold(tmp_path):
    with CohereLike(max_documents=4) as server:
        compare(made(3, candidates=10), [spec(server, http={"max_documents": 4}, max_in_flight=1)])
        assert server.refused == []
        assert len(server.requests) == 9
        assert server.most_concurrent == 1


def test_questions_at_once():
    with CohereLike(delay=0.05) as server:
        (row,) = compare(made(12), [spec(server)], at_once=4).rows
        assert 1 < server.most_concurrent <= 4
    assert row.lift.mean == pytest.approx(0.5)


# --- when something fails ---


def test_degraded_answers_are_counted():
    with CohereLike() as server:
        server.always(Status(503), when=lambda request: request.body["query"].endswith("1"))
        (row,) = compare(made(20), [spec(server, fallback=["passthrough"])]).rows
    assert row.degraded == pytest.approx(0.1)
    assert row.failed == 0


def test_degraded_answers_and_a_vendors_words_are_not_kept(tmp_path):
    kept = tmp_path / "kept.sqlite3"
    with CohereLike() as server:
        words = Status(503, message="the document 'bees and honey' is too sweet")
        server.always(words)
        (row,) = compare(made(20), [spec(server, fallback=["passthrough"])], kept=kept).rows
        assert row.degraded == 1.0
    for file in tmp_path.iterdir():
        assert b"sweet" not in file.read_bytes()
    with CohereLike() as server:
        (row,) = compare(made(20), [spec(server, fallback=["passthrough"])], kept=kept).rows
        assert len(server.requests) == 20
    assert row.degraded == 0


@pytest.mark.parametrize(
    "damage", ["", "nonsense", "[]", '{"used": 7}', '{"order": [0, 0], "scores": [1, 2], "used": []}']
)
def test_a_damaged_answer_is_asked_for_again(damage, tmp_path):
    kept = tmp_path / "kept.sqlite3"
    expected = compare(made(3), ["lexical"], kept=kept).rows[0].values
    with sqlite3.connect(kept) as connection:
        assert connection.execute("UPDATE answers SET answer = ?", (damage,)).rowcount == 3
    connection.close()
    assert compare(made(3), ["lexical"], kept=kept).rows[0].values == expected


def test_a_query_that_nobody_answered_counts_as_the_order_given_and_is_asked_again(tmp_path):
    kept = tmp_path / "kept.sqlite3"
    with CohereLike() as server:
        server.play(Status(503), Status(503))
        comparison = compare(made(60), [spec(server)], kept=kept)
        (row,) = comparison.rows
        assert (row.failed, row.degraded) == (2, pytest.approx(2 / 60))
        assert row.values["MRR@10"][:3] == (1 / 3, 1 / 3, 1.0)
        assert "3% of the answers of it were degraded" in str(comparison.advice)
        (row,) = compare(made(60), [spec(server)], kept=kept).rows
        assert row.failed == 0
        assert sum(asked(server).values()) == 62


def test_one_that_is_down_is_given_up_and_the_others_are_measured(tmp_path, capsys):
    data = tmp_path / "lists.jsonl"
    data.write_text(json.dumps({"query": "honey", "candidates": ["wax", "honey"], "labels": [0, 1]}), "utf-8")
    with CohereLike() as server, CohereLike() as closed:
        server.always(Status(503))
        comparison = compare(made(20), [spec(server), spec(closed, api_key="wrong"), "lexical"])
        assert len(server.requests) == 3
        assert len(closed.requests) == 1
        assert main(["compare", str(data), "-r", json.dumps(spec(closed, api_key="wrong")), "-r", "lexical"]) == 1
    assert "http:acme was given up" in capsys.readouterr().out
    assert [row.error is None for row in comparison.rows] == [False, False, True]
    assert comparison.advice.choice == "lexical"
    assert "http:acme (2) was given up, and says nothing here: " in str(comparison.advice)


def test_where_nothing_could_be_measured_the_error_is_the_vendors():
    with CohereLike() as server, pytest.raises(AuthenticationFailed):
        compare(made(3), [spec(server, api_key="wrong")])


def test_wrong_calls():
    with pytest.raises(InputError, match="at least one reranker"):
        compare(made(3), [])
    with pytest.raises(InputError, match="budget_ms"):
        compare(made(3), ["lexical"], budget_ms=-1)
    with pytest.raises(ConfigError, match="lexcial"):
        compare(made(3), ["lexcial"])
    with pytest.raises(InputError, match="at least 1"):
        compare(made(3), ["lexical"], k=0)


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_where_no_file_can_be_written_nothing_is_asked(option, tmp_path, capsys):
    data = tmp_path / "lists.jsonl"
    data.write_text(json.dumps({"query": "honey", "candidates": ["wax", "honey"], "labels": [0, 1]}), "utf-8")
    with CohereLike() as server:
        for file, told in ((tmp_path / "none" / "it", "folder that is not there"), (tmp_path, "is a folder")):
            assert main(["compare", str(data), "-r", json.dumps(spec(server)), option, str(file)]) == 2
            assert f"{option} {file}" in (err := capsys.readouterr().err)
            assert told in err
        assert server.requests == []


def test_ready_rerankers_and_named_ones(tmp_path):
    (tmp_path / "rerank.toml").write_text('[rerankers.production]\nuse = "lexical"\ntop_n = 1\n', "utf-8")
    with load_reranker("lexical", top_n=2, score_threshold=0.99) as ready:
        rows = compare(made(5), [ready, "production", "lexical"], config=str(tmp_path / "rerank.toml")).rows
        assert [row.label for row in rows] == ["lexical", "production", "lexical (2)"]
        assert len({row.rankings["0"] for row in rows}) == 1  # cuts are the program's; whole orders are measured
        assert ready.rerank("honey", ["honey"]).results == ()  # not closed, and its threshold is still its own


def test_a_bar_for_a_person_only(monkeypatch, capsys):
    from rerank_plugins.cli.terminal import counted

    with counted() as show:
        assert show is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with counted() as show:
        show("lexical", 1, 10)
        show("lexical", 5, 10)
    err = capsys.readouterr().err
    assert "5/10 lexical" in err
    *_, last, after = err.split("\r")
    assert (last.strip(), after) == ("", "")  # the line is cleared


def test_a_folder_that_cannot_hold_answers(tmp_path):
    with pytest.raises(ConfigError, match="cannot be kept"):
        compare(made(3), ["lexical"], kept=tmp_path)


def test_reading_is_part_of_the_package():
    assert read(NQ, top_k=5, limit=3).first_stage == "BM25"

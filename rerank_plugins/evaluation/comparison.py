"""Compare rerankers over one data set: collect their answers, measure them, and give advice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ..core.errors import InputError, MissingExtra
from ..core.file_paths import expand_user
from ..reranker import Reranker
from .agreement import measure_agreement
from .answer_cache import AnswerCache
from .baseline import query_hashes
from .comparison_data import ComparisonData
from .data import Dataset
from .judging import CHECKED_QUERIES, judge_unlabelled
from .recommendation import Budget, advise
from .report import render_report, render_summary
from .results import evaluate_run, first_stage_result
from .runner import Progress, collect_answers, prepare_runs
from .statistics_packages import require_statistics
from .table import format_table, result_rows

if TYPE_CHECKING:
    from .ray_pool import RayPool

__all__ = ["DEPTHS", "Comparison", "compare"]

DEPTHS = (10, 20, 50, 100, 200)
"""Default numbers of candidates at which quality is measured. Those above the longest list are skipped."""
NOTEBOOK_HEIGHT = 900
"""Pixels of the report in a notebook. The frame scrolls, because a sandboxed page cannot resize its frame."""

# The functional syntax keeps the former name a string, which the rules for names in this package do not cover.
_RenamedArguments = TypedDict("_RenamedArguments", {"kept": str | Path | None}, total=False)  # noqa: UP013


@dataclass(frozen=True, slots=True)
class Comparison(ComparisonData):
    """The results of `compare`, with the advice that follows from them.

    A notebook shows the whole report as the value of a cell. `print(comparison)` prints the table and the advice.

    Args:
        dataset: The data set.
        main: The main metric, such as nDCG@10. Lifts are differences of this metric from the first stage.
        k: The rank cutoff of nDCG, MRR and recall.
        first: The result of the first stage: the retriever's order, without a reranker.
        rows: One result per reranker, in the order of the call: `label`, `means`, `lift`, `p95_ms`, `usd_per_1000` …
        budget: The limits on latency and cost.
        advice: `choice`, the label of the reranker to use or `None`, and `lines`, the sentences.
        depths: Numbers of candidates at which quality was measured, ascending.
        agreement: How much each pair of rerankers agrees, the first stage among them.
        judgements: What a model judged, where people did not; else `None`.

    >>> from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
    >>> texts = ("A bank raised its rates.", "Bees make honey.")
    >>> candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
    >>> dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
    >>> comparison = compare(dataset, ["lexical"])
    >>> comparison.rows[0].means["nDCG@10"]
    1.0
    """

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps` takes: settings, results with every query's values, and the advice.

        Returns:
            `dataset`, `protocol`, `first_stage`, `queries` (ids), `hashes` (of each query, its candidates and grades),
            `unjudged`, `judgements` (of a model, or `None`), `candidates` and `depths`. Also `main`, `budget`,
            `retriever` (the first stage's result), `rerankers` (one result each), `agreement`, `choice` and `advice`.
            It holds no text of queries or documents.

        >>> from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
        >>> texts = ("A bank raised its rates.", "Bees make honey.")
        >>> candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
        >>> dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
        >>> compare(dataset, ["lexical"]).to_dict()["rerankers"][0]["means"]["MRR@10"]
        1.0
        """
        return {
            "dataset": self.dataset.name,
            "protocol": self.dataset.protocol,
            "first_stage": self.dataset.first_stage,
            "queries": [question.id for question in self.dataset.questions],
            "hashes": query_hashes(self.dataset),
            "unjudged": self.dataset.unjudged,
            "judgements": None if self.judgements is None else self.judgements.to_dict(),
            "candidates": self.dataset.depth,
            "depths": list(self.depths),
            "main": self.main,
            "budget": {"ms": self.budget.ms, "usd_per_1000": self.budget.usd},
            "retriever": self.first.to_dict(),
            "rerankers": [row.to_dict() for row in self.rows],
            "agreement": [pair.to_dict() for pair in self.agreement],
            "choice": self.advice.choice,
            "advice": list(self.advice.lines),
        }

    def table(self) -> str:
        """Return the results as a text table: one line per reranker below the first stage's, columns aligned.

        >>> from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
        >>> texts = ("A bank raised its rates.", "Bees make honey.")
        >>> candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
        >>> dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
        >>> header, *rows = compare(dataset, ["lexical"]).table().splitlines()
        >>> header.split()[:2]
        ['reranker', 'nDCG@10']
        >>> rows[-1].split()[:2]
        ['lexical', '1.000']
        """
        return format_table(result_rows(self))

    def to_html(self) -> str:
        """Return the report as one HTML page that needs no network: advice, table, charts, and every query's change.

        The page is 1 MB or more, because it contains the library that draws the charts. It contains the beginnings of
        queries and documents, escaped.

        Returns:
            The page. Write it to a file with the encoding UTF-8.

        Raises:
            MissingExtra: vl-convert-python, which contains the charts' library, is not installed.

        >>> from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
        >>> texts = ("A bank raised its rates.", "Bees make honey.")
        >>> candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
        >>> dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
        >>> compare(dataset, ["lexical"]).to_html()[:15]
        '<!doctype html>'
        """
        return render_report(self)

    def _repr_html_(self) -> str:
        """Return the report as a frame inside a notebook's cell; the advice and the table without vl-convert-python.

        The frame is sandboxed, so that its styles and scripts cannot reach the notebook.
        """
        try:
            report = self.to_html()
        except MissingExtra:
            return render_summary(self)
        title = escape(f"Comparison over {self.dataset.name}")
        return (
            f'<iframe title="{title}" sandbox="allow-scripts" srcdoc="{escape(report)}" '
            f'style="width: 100%; height: {NOTEBOOK_HEIGHT}px; border: 0"></iframe>'
        )

    def __str__(self) -> str:
        """Return the table and the advice."""
        return f"{self.table()}\n\n{self.advice}"


def compare(
    dataset: Dataset,
    rerankers: Sequence[str | Mapping[str, Any] | Reranker],
    *,
    k: int = 10,
    budget_ms: float | None = None,
    budget_usd: float | None = None,
    depths: Sequence[int] = DEPTHS,
    answer_cache: str | Path | None = None,
    fresh: bool = False,
    at_once: int = 1,
    abstention: bool = False,
    judge: str | Mapping[str, Any] | Reranker | None = None,
    judge_check: int = CHECKED_QUERIES,
    judge_sample: str | Path | None = None,
    ray: RayPool | None = None,
    config: str | None = None,
    progress: Progress | None = None,
    **renamed: Unpack[_RenamedArguments],
) -> Comparison:
    """Run every reranker over every question, and say which one is worth its time and price.

    Args:
        dataset: From `read` or `from_retriever`.
        rerankers: Specs, names of rerankers in `config`, or rerankers made by `load_reranker` from a spec.
        k: The rank cutoff of nDCG, MRR and recall, at least 1.
        budget_ms: Milliseconds that 95 of 100 calls may take, at least 0; `None` for any.
        budget_usd: US dollars that 1,000 queries may cost, at least 0; `None` for any.
        depths: Numbers of candidates, each at least 1, at which quality is measured in addition to the full lists.
        answer_cache: Path of a SQLite file of answers. Answers are written as they arrive, and a later call sends only
            the questions that are not in it. `None` caches nothing.
        fresh: Delete the cached answers of these rerankers and questions first.
        at_once: Questions in flight at the same time, at least 1.
        abstention: Measure abstention even where each list has to be sent and paid for again, without its relevant
            documents.
        judge: A decision or chat model that judges the candidates of the queries without judgements, of a data set from
            `read(…, unlabelled=True)`. Figures are then marked as resting on it.
        judge_check: Queries with judgements that it also judges, to measure how far it agrees with people.
        judge_sample: JSONL file of judged documents to check by hand. Once it has labels by hand, the next run measures
            how far the judge agrees with them.
        ray: A pool of Ray actors that rerank, instead of this process.
        config: Path of a TOML file of named rerankers.
        progress: Function called after each answer with the reranker's label, the number of its answers so far, and how
            many there will be.
        **renamed: `kept`, the former name of `answer_cache`.

    Returns:
        The results. The same answers give the same results in every run.

    Raises:
        ConfigError: A spec is wrong or a key is missing. No question was sent.
        MissingExtra: ir-measures or scikit-learn is not installed.
        InputError: There is no reranker, or a number is out of its range, or nothing is judged, or `judge_sample` has
            no `judge`.
        BackendError: Every reranker failed. This is the error of the first one.

    >>> from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
    >>> texts = ("A bank raised its rates.", "Bees make honey.")
    >>> candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
    >>> dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
    >>> compare(dataset, ["lexical", "passthrough"]).rows[1].label
    'passthrough'
    """
    if "kept" in renamed:
        warnings.warn("compare(kept=…) is now compare(answer_cache=…): rename it.", DeprecationWarning, stacklevel=2)
        answer_cache = renamed.pop("kept")
    if renamed:
        raise TypeError(f"compare() got an unexpected keyword argument {next(iter(renamed))!r}")
    if not rerankers:
        raise InputError("There is nothing to compare: name at least one reranker.")
    if k < 1 or at_once < 1 or any(depth < 1 for depth in depths):
        raise InputError(
            f"k, at_once and depths must be numbers of at least 1, got k={k}, at_once={at_once}, depths={list(depths)}."
        )
    if ray is not None and at_once > 1 and judge is None:
        raise InputError("Each actor of Ray reranks one question at a time: leave out at_once (--at-once) with ray.")
    if judge_check < 0:
        raise InputError(f"judge_check must be a number of queries of at least 0, got {judge_check}.")
    if judge_sample is not None and judge is None:
        raise InputError("judge_sample has no effect without judge: name a judge, or leave out judge_sample.")
    require_statistics()
    budget = Budget(budget_ms, budget_usd)
    runs = prepare_runs(rerankers, config, reserved_labels=[dataset.first_stage])
    cache = AnswerCache(None if answer_cache is None else expand_user(answer_cache, "answer_cache"))
    judgements = None
    rows = []
    try:
        if judge is not None:
            dataset, judgements = judge_unlabelled(
                dataset,
                judge,
                cache,
                check=judge_check,
                sample=None if judge_sample is None else expand_user(judge_sample, "judge_sample"),
                config=config,
                at_once=at_once,
                fresh=fresh,
                progress=progress,
            )
        depth = _depth(dataset)
        measured_depths = (*sorted({number for number in depths if number < depth}), depth)
        first = first_stage_result(dataset, k)
        for run in runs:
            collect_answers(
                run,
                dataset,
                measured_depths,
                cache,
                at_once=at_once,
                fresh=fresh,
                abstention=abstention,
                pool=ray,
                progress=progress,
            )
            rows.append(evaluate_run(run, dataset, measured_depths, k, first))
            run.answers.clear()
            run.without_relevant.clear()
    finally:
        cache.close()
        for run, reranker in zip(runs, rerankers, strict=True):
            if not isinstance(reranker, Reranker):  # the caller closes a reranker that the caller made
                run.reranker.close()
    if all(run.error is not None for run in runs):
        raise next(run.error for run in runs if run.error is not None)
    main = next(iter(first.means))
    advice = advise(first, rows, budget, main, judgements)
    agreement = measure_agreement([first, *rows], main, k)
    return Comparison(dataset, main, k, first, tuple(rows), budget, advice, measured_depths, agreement, judgements)


def _depth(dataset: Dataset) -> int:
    """Return the length of the longest list of candidates.

    Raises:
        InputError: There is no judged query, or no candidate.
    """
    if not dataset.questions:
        raise InputError(f"No query of {dataset.name} has a judgement: name a judge, or add judgements (qrels).")
    depth = dataset.depth
    if depth < 1:
        raise InputError(
            f"The first stage of {dataset.name} returned no candidate for any query: there is nothing to rerank. Check "
            "the retriever or the run."
        )
    return depth

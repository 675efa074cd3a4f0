"""Judgements by a model, for queries that nobody has judged.

A judge is a reranker whose score says how relevant a document is: a decision model (`openai`, `decisions`) or a chat
model (`chat`). Its judgements are marked wherever figures rest on them, because a model is no person: how far it agrees
with people is measured on the queries that people have judged, or on a sample that is checked by hand.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, InputError
from ..jsonl import read_rows
from ..reranker import Reranker
from .answer_cache import Answer, AnswerCache
from .data import Dataset, LazyQuestions, Question, sample_evenly
from .runner import Progress, RerankerRun, collect_answers, prepare_runs

__all__ = ["CHECKED_QUERIES", "SAMPLE_SIZE", "Judgements", "judge_unlabelled", "kappa"]

RELEVANT = 0.5
"""The `relevance_score` from which the judge's answer counts as relevant."""
CHECKED_QUERIES = 50
"""Judged queries that the judge judges too by default, to compare it with people."""
SAMPLE_SIZE = 50
"""Documents in the sample to check by hand."""
SNIPPET = 2_000
"""Characters of a document in that sample."""


@dataclass(frozen=True, slots=True)
class Judgements:
    """What a judge did, and how far people agree with it."""

    judge: str
    """The judge's label."""
    queries: int
    """Queries that nobody else has judged."""
    documents: int
    """Documents of these queries that the judge judged."""
    relevant: int
    """Of them, how many are relevant."""
    unscored: int
    """Documents that the judge did not score. They count as not relevant."""
    failed: int
    """Queries whose request failed, or that a fallback answered. They have no judgements and are left out."""
    cost_usd: float | None
    """What the judge cost, at the spec's price or the list price; `None` where that is unknown. Answers from the cache
    count too."""
    kappa: float | None = None
    """Cohen's kappa between judge and people over the documents that both have judged: 1 is agreement, 0 is chance.
    `None` where there are too few, or all labels are the same."""
    compared: int = 0
    """Documents that kappa counts."""
    assumed: bool = False
    """Whether the people's data hold relevant documents only, so that all others counted as not relevant."""
    hand_kappa: float | None = None
    """Kappa between judge and the sample that was checked by hand."""
    hand_checked: int = 0
    """Documents of the sample with a label by hand."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps` takes."""
        return asdict(self)


def kappa(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Return Cohen's kappa of two lists of labels; `None` for fewer than two, or where all labels are the same."""
    if len(first) < 2 or len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(first, second))


def judge_unlabelled(
    dataset: Dataset,
    judge: str | Mapping[str, Any] | Reranker,
    cache: AnswerCache,
    *,
    check: int = CHECKED_QUERIES,
    sample: Path | None = None,
    config: str | None = None,
    at_once: int = 1,
    fresh: bool = False,
    progress: Progress | None = None,
) -> tuple[Dataset, Judgements]:
    """Let a model judge all candidates of the queries without judgements.

    Args:
        dataset: From `read(…, unlabelled=True)`.
        judge: The spec of the judge, or a reranker. Its scale must not be `ordinal`.
        cache: Its answers are stored there, as those of the rerankers.
        check: Judged queries that it also judges, to measure how far it agrees with people.
        sample: JSONL file of judged documents to check by hand. If it exists, its labels by hand are read; else it is
            written.
        config: As in `compare`.
        at_once: As in `compare`.
        fresh: As in `compare`.
        progress: As in `compare`.

    Returns:
        The data set with the judged queries, and what the judge did.

    Raises:
        ConfigError: The judge's scores are only an order, or its spec is wrong.
        InputError: There is no query without judgements, or the sample cannot be read.
        BackendError: The judge failed.
    """
    if not dataset.unlabelled:
        raise InputError(f"{dataset.name} has no query without a judgement: leave out the judge.")
    (run,) = prepare_runs([judge], config)
    try:
        if run.reranker.scorer.capabilities.scale == "ordinal":
            raise ConfigError(f"{run.label} only orders documents: as a judge, name a decision or a chat model.")
        checked = sample_evenly(range(len(dataset.questions)), check) if check else []
        human = _chosen(dataset.questions, checked)
        questions = _joined(dataset.unlabelled, human)
        depth = _longest(questions)
        to_judge = replace(dataset, questions=questions, grades={}, groups={}, unlabelled=(), longest=depth)
        if depth:
            collect_answers(run, to_judge, [depth], cache, at_once=at_once, fresh=fresh, progress=progress)
        if run.error is not None:
            raise run.error
        answers = run.answers.get(depth, {})
        labels: dict[str, dict[str, int]] = {}
        judged_positions = []
        for at, question in enumerate(questions):
            labels[question.id] = _labels(run, question, answers)
            if at < len(dataset.unlabelled) and labels[question.id]:
                judged_positions.append(at)
    finally:
        if not isinstance(judge, Reranker):
            run.reranker.close()
    new = _chosen(dataset.unlabelled, judged_positions)
    new_ids = [question.id for question in new]
    grades = {**dataset.grades, **{name: dict(labels[name]) for name in new_ids}}
    compared, assumed = _compared(dataset, human, labels)
    by_hand = _hand_labels(sample) if sample is not None and sample.exists() else {}
    if sample is not None and new_ids and not sample.exists():  # an empty file would never be filled
        _write_sample(sample, new, labels, answers, run)
    hand = [
        (label, labels[query][document])
        for (query, document), label in by_hand.items()
        if document in labels.get(query, {})
    ]
    judged = [label for name in new_ids for label in labels[name].values()]
    costs = [answer.cost_usd for answer in answers.values() if answer.order]
    known = [cost for cost in costs if cost is not None]
    judgements = Judgements(
        judge=run.label,
        queries=len(new),
        documents=len(judged),
        relevant=sum(judged),
        unscored=sum(score is None for name in new_ids for score in answers[name].scores),
        failed=sum(_is_failed(answers.get(question.id)) for question in dataset.unlabelled if question.candidates),
        cost_usd=math.fsum(known) if len(known) == len(costs) else None,
        kappa=kappa(*_columns(compared)),
        compared=len(compared),
        assumed=assumed,
        hand_kappa=kappa(*_columns(hand)),
        hand_checked=len(hand),
    )
    questions = _joined(dataset.questions, new)
    dataset = replace(dataset, questions=questions, grades=grades, unlabelled=(), longest=_longest(questions))
    return dataset, judgements


def _chosen(questions: Sequence[Question], positions: Sequence[int]) -> LazyQuestions:
    """Return the questions at these positions. Their texts are read when they are used."""
    return LazyQuestions(len(positions), lambda at: questions[positions[at]])


def _joined(first: Sequence[Question], second: Sequence[Question]) -> LazyQuestions:
    return LazyQuestions(len(first) + len(second), lambda at: first[at] if at < len(first) else second[at - len(first)])


def _longest(questions: Sequence[Question]) -> int:
    """Return the number of candidates in the longest list. `Dataset.depth` may read all questions each time."""
    return max((len(question.candidates) - question.added for question in questions), default=0)


def _is_failed(answer: Answer | None) -> bool:
    return answer is None or answer.failed or answer.degraded


def _labels(run: RerankerRun, question: Question, answers: Mapping[str, Answer]) -> dict[str, int]:
    """Return document id → 1 or 0, for the candidates of a question."""
    relevance = run.reranker.scorer.capabilities.relevance
    answer = answers.get(question.id)
    if answer is None or _is_failed(answer):
        return {}
    return {
        candidate.id: int(score is not None and relevance(score) >= RELEVANT)
        for candidate, score in zip(question.candidates, answer.scores, strict=True)
    }


def _compared(
    dataset: Dataset, questions: Sequence[Question], labels: Mapping[str, Mapping[str, int]]
) -> tuple[list[tuple[int, int]], bool]:
    """Return (people's label, judge's label) of each document, and whether documents without a grade counted as 0."""
    assumed = not any(grade == 0 for question in questions for grade in dataset.grades[question.id].values())
    pairs = []
    for question in questions:
        grades = dataset.grades[question.id]
        for document, label in labels[question.id].items():
            if document in grades or assumed:
                pairs.append((int(grades.get(document, 0) > 0), label))
    return pairs, assumed and bool(pairs)


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _write_sample(
    file: Path,
    questions: Sequence[Question],
    labels: Mapping[str, Mapping[str, int]],
    answers: Mapping[str, Answer],
    run: RerankerRun,
) -> None:
    """Write documents to check by hand: half of them relevant by the judge, drawn with a fixed seed."""
    every = [
        (number, at, labels[question.id][candidate.id])
        for number, question in enumerate(questions)
        for at, candidate in enumerate(question.candidates)
    ]
    generator = random.Random(0)  # noqa: S311 (a sample)
    chosen = []
    for wanted in (1, 0):
        of_label = [entry for entry in every if entry[2] == wanted]
        chosen += generator.sample(of_label, min(len(of_label), SAMPLE_SIZE // 2))
    generator.shuffle(chosen)
    relevance = run.reranker.scorer.capabilities.relevance

    def lines() -> Iterator[str]:
        for number, at, label in chosen:
            question = questions[number]
            candidate, score = question.candidates[at], answers[question.id].scores[at]
            row = {
                "query_id": question.id,
                "document_id": candidate.id,
                "query": question.text,
                "document": candidate.text[:SNIPPET],
                "judge": label,
                "relevance_score": None if score is None else round(relevance(score), 4),
                "human": None,
            }
            yield json.dumps(row, ensure_ascii=False)

    try:
        file.write_text("".join(f"{line}\n" for line in lines()), "utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}. Name another file for the sample.") from error


def _hand_labels(file: Path) -> dict[tuple[str, str], int]:
    """Return (query id, document id) → label, for the rows with a label by hand."""
    labels = {}
    for row in read_rows(str(file), jsonl=True):
        value = row.value if isinstance(row.value, dict) else {}
        human = value.get("human")
        if human is None:
            continue
        if human not in (0, 1):
            raise InputError(f"{file}, line {row.line}: human must be 1 (relevant), 0 or null, got {human!r}.")
        labels[str(value.get("query_id")), str(value.get("document_id"))] = int(human)
    return labels

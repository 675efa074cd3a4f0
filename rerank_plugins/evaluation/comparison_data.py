"""The data that a comparison consists of. Tables, charts and the report read it; `Comparison` adds them as methods."""

from __future__ import annotations

from dataclasses import dataclass, field

from .agreement import PairAgreement
from .data import Dataset
from .judging import Judgements
from .recommendation import Advice, Budget
from .results import EvaluationResult

__all__ = ["ComparisonData"]


@dataclass(frozen=True, slots=True)
class ComparisonData:
    """Results of several rerankers over one data set, and the advice that follows from them."""

    dataset: Dataset
    main: str
    """The main metric, such as nDCG@10. Lifts are differences of this metric from the first stage."""
    k: int
    """The rank cutoff of nDCG, MRR and recall."""
    first: EvaluationResult
    """The result of the first stage: the retriever's order, without a reranker."""
    rows: tuple[EvaluationResult, ...]
    """One result per reranker, in the order of the call."""
    budget: Budget
    """The limits on latency and cost."""
    advice: Advice
    """Which reranker to use, and why."""
    depths: tuple[int, ...] = field(default=())
    """Numbers of candidates at which quality was measured, ascending."""
    agreement: tuple[PairAgreement, ...] = field(default=())
    """How much each pair of rerankers agrees, the first stage among them."""
    judgements: Judgements | None = None
    """What a model judged, where people did not; `None` where all judgements are the data set's."""

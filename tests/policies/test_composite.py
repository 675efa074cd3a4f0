"""The tree of scorers: walk, leaves, and that warm-up, close and state reach every scorer."""

from __future__ import annotations

import asyncio

from support.scripted import Scripted

from rerank_plugins.core import Capabilities, Scorer
from rerank_plugins.core.calibration_curve import Curve
from rerank_plugins.policies.calibrate import Calibrate
from rerank_plugins.policies.cascade import Cascade
from rerank_plugins.policies.circuit_breaker import CircuitBreaker
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.fallback import Fallback
from rerank_plugins.policies.fusion import Fusion
from rerank_plugins.policies.retry import Retry


class Recorded(Scripted):
    """Records what is asked of it beside scores."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.calls: list[str] = []

    async def awarmup(self) -> None:
        self.calls.append("warmup")

    async def aclose(self) -> None:
        self.calls.append("close")


def labels(scorers: object) -> list[str]:
    return [scorer.label for scorer in scorers if isinstance(scorer, Scripted)]  # type: ignore[attr-defined]


def test_walk_warmup_and_close_reach_every_backend_once():
    backends = [Recorded(name) for name in "abcde"]
    a, b, c, d, e = backends
    cascade = Cascade([Retry(a), Fallback([b, c])], keep=[2])
    tree = Deadline(Fallback([Fusion([cascade, d], retrieval=False), e]), 5.0)
    assert labels(tree.walk()) == ["a", "b", "c", "d", "e"]
    kinds = [type(scorer) for scorer in tree.walk() if not isinstance(scorer, Scripted)]
    assert kinds == [Deadline, Fallback, Fusion, Cascade, Retry, Fallback]  # each before its children
    asyncio.run(tree.awarmup())
    asyncio.run(tree.aclose())
    assert [backend.calls for backend in backends] == [["warmup", "close"]] * 5


def test_leaves_are_the_scorers_whose_own_scores_may_be_the_answer():
    a, b, c, d = (Scripted(name=name) for name in "abcd")
    cascade = Cascade([a, Retry(b)], keep=[2])
    assert list(Fallback([cascade, c]).leaves()) == [b, c]
    assert list(Cascade([a, Retry(b)], keep=[2], gate=0.5).leaves()) == [a, b]
    fuse = Fusion([a, b], retrieval=False)
    assert list(Deadline(fuse, 1.0).leaves()) == [fuse]
    calibrated = Calibrate(Retry(d), Curve(method="platt", slope=1.0), lambda: True)
    assert list(Fallback([calibrated, a]).leaves()) == [calibrated, a]


def test_states_of_two_children_with_one_label_are_separate():
    def guarded(account: str) -> Scorer:
        return Retry(CircuitBreaker(Scripted(name="server"), account))

    tree = Cascade([guarded("one"), Fallback([guarded("two"), Scripted(name="other")])], keep=[2])
    assert tree.state() == {"server": {"breaker": "closed"}, "server (2)": {"breaker": "closed"}}


def test_a_fallback_has_the_capabilities_of_its_first_entry():
    first = Scripted(name="first", capabilities=Capabilities(scale="logit", max_documents=7))
    fallback = Fallback([first, Scripted(name="second")])
    assert fallback.capabilities is first.capabilities
    assert fallback.keeps_deadline
    assert fallback.label == "first"

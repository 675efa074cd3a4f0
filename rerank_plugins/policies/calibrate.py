"""Scores that mean the same under every reranker: the probability that a document is relevant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..calibration.file import read
from ..calibration.identity import difference, pending
from ..core.curve import Curve
from ..core.errors import ConfigError
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..options import FilePath
from .stack import PolicyOptions, Stack

__all__ = ["Calibrate", "CalibrationOptions"]


class CalibrationOptions(PolicyOptions):
    """A fitted curve, which makes scores of one backend probabilities."""

    path: FilePath
    """The file that `rerank-plugins calibrate` wrote. In a configuration file a relative path counts from its folder."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` with the relevance that the file makes of its raw scores."""
        label = stack.backend.label
        if scorer.instant or scorer.capabilities.scale == "ordinal":
            raise ConfigError(f"{label} only orders documents: there are no scores to calibrate. Leave it out.")
        fitted = read(self.path)

        def check() -> bool:
            current = stack.scored()
            what = difference(fitted.of, current)
            if what is not None:
                of = ":".join(dict.fromkeys(str(each) for each in (fitted.of["backend"], fitted.of["model"]) if each))
                raise ConfigError(
                    f"The calibration {self.path} was fitted to the scores of {of}, and this is {stack.backend.label}: "
                    f"{what}. Leave `calibration` out, or make one for this reranker with `rerank-plugins calibrate`."
                )
            return not pending(fitted.of, current)

        check()
        return Calibrate(scorer, fitted.curve, check)


class Calibrate(Wrapper):
    """Gives the answers of one backend a fitted curve for their `relevance_score`; raw scores, and the order, stay.

    It stands above the cache, which keeps raw scores: a new calibration asks the backend nothing again. Spans keep the
    backend's own score.
    """

    def __init__(self, inner: Scorer, curve: Curve, check: Callable[[], bool]) -> None:
        """Wrap `inner`.

        Args:
            inner: Whose raw scores the curve was fitted to.
            curve: From raw score to probability.
            check: Raises `ConfigError` where the model turns out to be another; returns whether all of it is known by now.
                Called after every answer until it is.
        """
        super().__init__(inner)
        self.curve = curve
        self.capabilities = replace(inner.capabilities, curve=curve)
        self._check: Callable[[], bool] | None = check

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """None: the curve makes the scores this one's own."""
        return ()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer; its answer's relevance is the curve's."""
        scores = await self.inner.ascore(request)
        self._checked()
        if scores.degraded:
            return scores
        if scores.model != self.label:  # a backend of somebody else's may let another answer
            reason = f"{scores.model} answered in place of {self.label}, whose calibration is not for it"
            return replace(scores, degraded=True, reason=reason)
        return replace(scores, capabilities=replace(scores.capabilities, curve=self.curve))

    async def awarmup(self) -> None:
        """Load the model, and see that it is the one that the curve was fitted to."""
        await super().awarmup()
        self._checked()

    def _checked(self) -> None:
        if self._check is not None and self._check():
            self._check = None

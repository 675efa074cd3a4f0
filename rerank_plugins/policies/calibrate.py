"""Calibration: turns raw scores into the probability that a document is relevant, comparable between rerankers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..calibration.file import load_calibration
from ..calibration.identity import describe_difference, is_incomplete
from ..core.calibration_curve import Curve
from ..core.errors import ConfigError
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..options import FilePath
from .policy_options import PolicyOptions
from .stack import Stack

__all__ = ["Calibrate", "CalibrationOptions"]


class CalibrationOptions(PolicyOptions):
    """The calibration of one backend: a fitted curve that turns its scores into probabilities."""

    path: FilePath
    """Path of the file that `rerank-plugins calibrate` wrote. In a configuration file a relative path is relative to
    that file's folder."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside the calibration of the file.

        Raises:
            ConfigError: The file cannot be read or belongs to another model, or the backend has no scores.
        """
        label = stack.backend.label
        if scorer.instant or scorer.capabilities.scale == "ordinal":
            raise ConfigError(
                f"{label} only orders documents: there are no scores to calibrate. Leave `calibration` out."
            )
        fitted = load_calibration(self.path)

        def check() -> bool:
            current = stack.score_identity()
            mismatch = describe_difference(fitted.of, current)
            if mismatch is not None:
                of = ":".join(dict.fromkeys(str(each) for each in (fitted.of["backend"], fitted.of["model"]) if each))
                raise ConfigError(
                    f"The calibration {self.path} was fitted to the scores of {of}, and this is {stack.backend.label}: "
                    f"{mismatch}. Leave `calibration` out, or fit one for this reranker: `rerank-plugins calibrate`."
                )
            return not is_incomplete(fitted.of, current)

        check()
        return Calibrate(scorer, fitted.curve, check)


class Calibrate(Wrapper):
    """Compute `relevance_score` from one backend's raw scores by a fitted curve. Raw scores and order do not change.

    The calibration is outside the cache, which stores raw scores: after a new calibration nothing is scored again.
    Spans keep the backend's own score.
    """

    def __init__(self, inner: Scorer, curve: Curve, check: Callable[[], bool]) -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer to whose raw scores the curve was fitted.
            curve: The function from raw score to probability.
            check: Function that raises `ConfigError` if the model is not the fitted one. It returns whether the model's
                identity is complete, and is called after every answer until it is.
        """
        super().__init__(inner)
        self.curve = curve
        self.capabilities = replace(inner.capabilities, curve=curve)
        self._check: Callable[[], bool] | None = check

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """Empty: the calibrated scores belong to this scorer."""
        return ()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return the inner scorer's scores with the curve."""
        scores = await self.inner.ascore(request)
        self._checked()
        if scores.degraded:
            return scores
        if scores.model != self.label:  # a third party's backend may return scores of another model
            reason = f"{scores.model} answered in place of {self.label}, whose calibration is not for it"
            return replace(scores, degraded=True, reason=reason)
        return replace(scores, capabilities=replace(scores.capabilities, curve=self.curve))

    async def awarmup(self) -> None:
        """Load the model, and check that the curve was fitted to it."""
        await super().awarmup()
        self._checked()

    def _checked(self) -> None:
        if self._check is not None and self._check():
            self._check = None

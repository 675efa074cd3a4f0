"""The base of the options of policies around one backend."""

from __future__ import annotations

from abc import abstractmethod

from ..core.scorer import Scorer
from ..options import Options
from .stack import Stack

__all__ = ["PolicyOptions"]


class PolicyOptions(Options):
    """Base of the options of a policy around one backend."""

    @abstractmethod
    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside the policy, or `scorer` itself if the policy would have no effect.

        Args:
            scorer: The backend with the policies that come before this one.
            stack: The backend and the identity of its scores.
        """

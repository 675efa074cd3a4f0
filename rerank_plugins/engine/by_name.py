"""A local backend by name: a folder is there at once, a hub's model when it is first needed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.model_id import ModelId
from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores
from .archive import Archive
from .fetching import Fetches
from .hub import Repository

__all__ = ["ByName", "is_path", "is_repository"]

_fetches = Fetches()
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_path(name: str) -> bool:
    """Tell whether a model's name means a folder: it is one (or a file, which an error then tells), or is written like one."""
    path = Path(name).expanduser()
    return (
        path.exists()
        or path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") > 1
        or os.sep == "\\" in name
    )


def is_repository(name: str) -> bool:
    """Tell whether a name is written like a hub's `org/name`."""
    return _REPOSITORY.fullmatch(name) is not None


class ByName(Backend):
    """What stands in front of an engine: finds the model's folder, then is the engine's backend in every way.

    Making one fetches nothing. A model that was fetched before is found at once; any other at the first call or
    warm-up, on a thread of its own.
    """

    def __init__(
        self,
        model: str,
        where: Path | Repository | Archive,
        make: Callable[[Path], Backend],
        declared: Capabilities,
    ) -> None:
        """Look for the folder.

        Args:
            model: Its name in specs.
            where: The folder, or where to get it.
            make: From the folder to the backend that runs it.
            declared: What is known before the model is at hand.

        Raises:
            ConfigError: As `make`, for a folder that is there.
        """
        super().__init__(model)
        self.capabilities = declared
        self._make, self._where = make, where
        self._inner: Backend | None = None
        folder = where if isinstance(where, Path) else where.at_hand()
        if folder is not None:
            self._placed(folder)

    def _placed(self, folder: Path) -> Backend:
        inner = self._make(folder)
        inner.name, inner.model = self.name, self.model
        self._inner, self.capabilities = inner, inner.capabilities
        return inner

    @property
    def inner(self) -> Backend | None:
        """The engine's backend, once the folder is there."""
        return self._inner

    @property
    def model_id(self) -> ModelId:
        """The engine's."""
        return self._inner.model_id if self._inner else super().model_id

    @property
    def fingerprint(self) -> str:
        """The engine's."""
        return self._inner.fingerprint if self._inner else super().fingerprint

    async def afingerprint(self) -> str:
        """The engine's, once the folder is there."""
        return await (await self._found()).afingerprint()

    @property
    def revision(self) -> str | None:
        """The engine's."""
        return self._inner.revision if self._inner else None

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Ask the engine; `None` as long as the model is not at hand."""
        return self._inner.tokens(text) if self._inner else None

    def fetch(self) -> Path:
        """Bring the model to this machine and return its folder; blocks."""
        return self._where if isinstance(self._where, Path) else self._where.fetch()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score on the engine."""
        inner = await self._found()
        scores = await inner.ascore(request)
        return scores if scores.capabilities is self.capabilities else replace(scores, capabilities=self.capabilities)

    async def awarmup(self) -> None:
        """Fetch what is missing and load the model."""
        await (await self._found()).awarmup()

    async def aclose(self) -> None:
        """Let the model go."""
        if self._inner is not None:
            await self._inner.aclose()

    async def _found(self) -> Backend:
        if self._inner is not None:
            return self._inner
        folder = await _fetches.run(id(self), self.fetch)
        return self._inner or self._placed(folder)

"""A local backend by name: a folder is there at once, a hub's model when it is first needed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.model_id import ModelId
from ..core.scorer import Backend, Wrapper
from ..core.types import Capabilities, RerankRequest, Scores
from .archive import Archive
from .downloads import Fetches
from .hub import Repository

__all__ = ["UNKNOWN_LENGTH", "LazyBackend", "is_path", "is_repository", "located", "needed"]

UNKNOWN_LENGTH = 512
"""Tokens that a model is taken to read as long as nobody has looked into its folder."""
_fetches = Fetches()
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_path(name: str) -> bool:
    """Tell whether a model's name means a folder: it is one (or a file, which an error then says), or is written like one."""
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


def needed(model: str | None, name: str) -> str:
    """Return the model that a spec names.

    Raises:
        ConfigError: It names none.
    """
    if not model:
        raise ConfigError(f"{name} needs a model: write {name}:/path/to/folder, or {name}:org/name.")
    return model


def located(
    name: str,
    spec: str,
    choose: Any,
    revision: str | None,
    local_files_only: bool,
    more: Mapping[str, Any] | None = None,
) -> Path | Repository:
    """Return the folder that a model's name means, or where on the hub it is.

    Args:
        name: A folder, or `org/name`.
        spec: What fetches it.
        choose: See `Repository`.
        revision: See `Repository`.
        local_files_only: See `Repository`.
        more: See `Repository`.

    Raises:
        ConfigError: It is written like neither.
    """
    if is_path(name):
        return Path(name).expanduser()
    if not is_repository(name):
        raise ConfigError(
            f"{name!r} is neither a folder nor a hub's org/name: write {spec.partition(':')[0]}:/path/to/folder."
        )
    return Repository(name, spec, choose, revision, local_files_only, more=more or {})


class _Absent(Backend):
    """Stands for the engine's backend until the model's folder is there."""

    async def ascore(self, request: RerankRequest) -> Scores:
        """Never called: `LazyBackend` fetches the model first."""
        raise NotImplementedError


class LazyBackend(Wrapper, Backend):
    """A wrapper around an engine's backend, which it makes when the model's folder is there.

    Making one fetches nothing. A model that was fetched before is there at once; any other at the first call or
    warm-up, on a thread of its own. It is the backend of the spec, and `walk` does not go inside.
    """

    inner: Backend

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
            declared: What is known before the model is there.

        Raises:
            ConfigError: As `make`, for a folder that is there.
        """
        self.model = model
        self._make, self._where = make, where
        absent = _Absent(model)
        absent.capabilities = declared
        self._wrap(absent)
        folder = where if isinstance(where, Path) else where.at_hand()
        if folder is not None:
            self._wrap(make(folder))

    def _wrap(self, backend: Backend) -> None:
        backend.name, backend.model = self.name or type(self).__name__, self.model
        Wrapper.__init__(self, backend)
        self.children = ()

    @property
    def is_here(self) -> bool:
        """Whether the model's folder is there, so that `inner` is the engine's backend."""
        return not isinstance(self.inner, _Absent)

    @property
    def label(self) -> str:
        """The engine's, whichever that is by now."""
        return self.inner.label

    @property
    def model_id(self) -> ModelId:
        """The engine's."""
        return self.inner.model_id

    @property
    def fingerprint(self) -> str:
        """The engine's."""
        return self.inner.fingerprint

    async def afingerprint(self) -> str:
        """The engine's, once the folder is there."""
        return await (await self._fetched()).afingerprint()

    @property
    def revision(self) -> str | None:
        """The engine's."""
        return self.inner.revision

    def fetch(self) -> Path:
        """Bring the model to this machine and return its folder; blocks."""
        return self._where if isinstance(self._where, Path) else self._where.fetch()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score on the engine."""
        scores = await (await self._fetched()).ascore(request)
        return scores if scores.capabilities is self.capabilities else replace(scores, capabilities=self.capabilities)

    async def awarmup(self) -> None:
        """Fetch what is missing and load the model."""
        await (await self._fetched()).awarmup()

    async def aclose(self) -> None:
        """Let the model go."""
        await self.inner.aclose()

    async def _fetched(self) -> Backend:
        if not self.is_here:
            folder = await _fetches.run(id(self), self.fetch)
            if not self.is_here:  # another call may have come first
                self._wrap(self._make(folder))
        return self.inner

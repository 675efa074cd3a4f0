"""Readiness of a server: the report of a check that runs beside the requests, at most every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.health import CheckReport
from ..reranker import Reranker
from .public_names import public_label

__all__ = ["Readiness", "StartReport"]


@dataclass(frozen=True, slots=True)
class StartReport:
    """The report of a check before the server started. It is pickled for worker processes."""

    report: CheckReport
    started: float
    """When that check started, by `time.monotonic`. All processes of a machine share that clock, so a worker that is
    started again later knows how old the report is."""


class Readiness:
    """Runs `Reranker.acheck` when a readiness probe asks and the last report is old. Probes never wait for a check."""

    def __init__(
        self,
        reranker: Reranker,
        check_every: float | None,
        public_message: Callable[[str], str],
        report: StartReport | None = None,
    ) -> None:
        """Take over nothing.

        Args:
            reranker: What is checked.
            check_every: Seconds between two checks; `None` checks nothing.
            public_message: Returns an error's text without paths and addresses.
            report: That of an earlier check. It takes the place of the first one unless it is older than `check_every`.
        """
        self._reranker = reranker
        self._check_every = check_every
        self._public_message = public_message
        self._report = report.report if report is not None and check_every is not None else None
        self._checked = 0.0 if report is None else report.started
        """When the last check started, by the monotonic clock."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the first check, so that the first probe has a report that is not old."""
        if self._check_every is not None and (self._report is None or self._is_old(self._check_every)):
            await self._check()

    def _is_old(self, check_every: float) -> bool:
        return time.monotonic() - self._checked >= check_every

    async def _check(self) -> None:
        self._checked = time.monotonic()
        self._report = await self._reranker.acheck()

    def state(self) -> tuple[bool, dict[str, Any], dict[str, Any]]:
        """Return whether a request would be answered, the body that says so, and the report to add for the operator."""
        is_old = self._check_every is not None and self._is_old(self._check_every)
        if is_old and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._check())
        report = self._report
        is_ready = report is None or report.available
        details = {} if report is None else {"check": self._public(report)}
        return is_ready, {"status": "ready" if is_ready else "not ready"}, details

    def _public(self, report: CheckReport) -> dict[str, Any]:
        """Return the report without paths and addresses."""
        data = report.to_dict()
        for check in data["backends"]:
            del check["server"]
            check["model"] = public_label(check["model"])
            check["reason"] = None if check["reason"] is None else self._public_message(check["reason"])
        return data

    async def stop(self) -> None:
        """Cancel a check that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

"""Answers on disk as they come, so that a comparison that was stopped goes on and pays for nothing twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, clause
from ..core.types import is_score
from .data import Question

__all__ = ["Answer", "Kept"]

_TABLE = "CREATE TABLE IF NOT EXISTS answers (name BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one reranker said to one question: numbers and names, no text of query or documents."""

    order: tuple[int, ...]
    """Positions of the candidates, best first."""
    scores: tuple[float | None, ...]
    """The raw score of each candidate, in the order given."""
    latency_ms: float
    model: str
    requests: int = 0
    """Sent to a vendor or server, failed attempts included."""
    used: tuple[tuple[str, int | None, float | None], ...] = ()
    """Of each request that was answered: by whom, and the tokens and search units that it took."""
    cost_usd: float | None = None
    """At the prices of the spec of this run: kept is what was used, so that a new price pays for nothing again."""
    degraded: bool = False
    """A stand-in answered, or the order stayed. Not kept: the next run asks again."""
    at_once: int = 1
    """How many questions were under way at the same time."""
    failed: bool = False
    """Nobody answered, and `order` is the order given. Not kept: the next run asks again."""

    @property
    def whole(self) -> bool:
        """Whether order and scores are of one list of candidates: what a damaged file holds may be anything."""
        return sorted(self.order) == list(range(len(self.scores))) and all(
            score is None or is_score(score) for score in self.scores
        )

    def cut(self, depth: int) -> tuple[int, ...]:
        """Return the order of the first `depth` candidates, by the scores that they have among all.

        That is what a pointwise reranker says to them alone.
        """
        known = {at: score for at, score in enumerate(self.scores[:depth]) if score is not None}
        if not known:
            return tuple(at for at in self.order if at < depth)
        return tuple(
            sorted(range(min(depth, len(self.scores))), key=lambda at: (at not in known, -known.get(at, 0.0), at))
        )


class Kept:
    """A SQLite file of answers, by a hash of the spec without keys, the query and the candidates.

    Each answer is committed when it comes: a process that is killed leaves the file whole. Several may use one file.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open a file, which is made when it is not there; `None` keeps answers as long as the process lives.

        Raises:
            ConfigError: It cannot be made, or is something else.
        """
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # The comparison's own thread uses it, whichever that is; never two at a time.
            self._file = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10.0
            )
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"The answers cannot be kept in {path} ({clause(error)}): name another file.") from error

    @staticmethod
    def name(identity: str, question: Question) -> bytes:
        """Return what an answer is filed under; `identity` is all that it depends on beside the question."""
        texts = [each.text for each in question.candidates]
        told = json.dumps([2, identity, question.text, texts, question.scores()], ensure_ascii=True)
        return hashlib.sha256(told.encode()).digest()

    def get(self, name: bytes) -> Answer | None:
        """Return the answer filed under `name`; none for what is damaged, or was a stand-in's (older versions kept those)."""
        found = self._file.execute("SELECT answer FROM answers WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        try:
            stored: dict[str, Any] = json.loads(found[0])
            if stored.get("degraded"):
                return None
            stored.pop("reason", None)  # older versions kept a vendor's words there
            used = tuple((model, tokens, units) for model, tokens, units in stored["used"])
            answer = Answer(
                **{**stored, "order": tuple(stored["order"]), "scores": tuple(stored["scores"]), "used": used}
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return answer if answer.whole else None

    def put(self, name: bytes, answer: Answer) -> None:
        """File an answer."""
        self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (name, json.dumps(asdict(answer))))

    def forget(self, name: bytes) -> None:
        """Drop the answer filed under `name`, if there is one."""
        self._file.execute("DELETE FROM answers WHERE name = ?", (name,))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

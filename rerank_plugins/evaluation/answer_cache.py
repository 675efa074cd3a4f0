"""Cache of reranker answers in a SQLite file: a comparison that was stopped resumes and pays for no answer twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, clause
from ..core.types import Usage, is_score
from .data import Question, kept_positions

__all__ = ["Answer", "AnswerCache"]

_TABLE = "CREATE TABLE IF NOT EXISTS answers (name BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
_KEY_FORMAT = 2
"""Part of every key. Raise it when stored answers can no longer be used."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one reranker to one question: numbers and names, no text of the query or the documents.

    The names of the fields are the keys of the JSON in the cache file.
    """

    order: tuple[int, ...]
    """Positions of the candidates, best first."""
    scores: tuple[float | None, ...]
    """The raw score of each candidate, in the first stage's order."""
    latency_ms: float
    model: str
    requests: int = 0
    """Requests sent to a vendor or server, failed attempts included."""
    used: tuple[tuple[str, Usage], ...] = ()
    """(model, usage) of each request that was answered; the usage without a cost."""
    cost_usd: float | None = None
    """Cost at the prices of the current spec. Computed from `used`, so that a new price costs no new request."""
    degraded: bool = False
    """A fallback answered, or the order did not change. Not cached: the next run sends the question again."""
    at_once: int = 1
    """Number of questions in flight at the same time."""
    failed: bool = False
    """No backend answered, and `order` is the first stage's. Not cached: the next run sends the question again."""

    @property
    def is_consistent(self) -> bool:
        """Whether order and scores belong to one list of candidates. A damaged file may hold anything."""
        return sorted(self.order) == list(range(len(self.scores))) and all(
            score is None or is_score(score) for score in self.scores
        )

    def at_depth(self, depth: int, added: int = 0) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
        """Return order and scores of the first `depth` candidates and the last `added`, by their scores among all.

        A pointwise reranker would return the same order for these candidates alone.
        """
        positions = kept_positions(len(self.scores), added, depth)
        scores = tuple(self.scores[at] for at in positions)
        scored = {at: score for at, score in enumerate(scores) if score is not None}
        if not scored:
            new = {at: place for place, at in enumerate(positions)}
            return tuple(new[at] for at in self.order if at in new), scores
        order = sorted(range(len(scores)), key=lambda at: (at not in scored, -scored.get(at, 0.0), at))
        return tuple(order), scores


class AnswerCache:
    """Answers in a SQLite file. The key is a hash of the spec without keys, the query and the candidates.

    Each answer is committed when it arrives, so the file stays valid when the process is killed. Several processes may
    use one file.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the file, or create it. `None` keeps the answers in memory only.

        Raises:
            ConfigError: The file cannot be created, or is not a SQLite file.
        """
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # One thread at a time uses the connection: the one that runs the comparison, which may not be this one.
            self._connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10.0
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"The answers cannot be kept in {path} ({clause(error)}): name another file with --keep (answer_cache)."
            ) from error

    @staticmethod
    def key(identity: str, question: Question) -> bytes:
        """Return the key of an answer. `identity` is everything that the answer depends on beside the question."""
        texts = [candidate.text for candidate in question.candidates]
        content = json.dumps([_KEY_FORMAT, identity, question.text, texts, question.scores()], ensure_ascii=True)
        return hashlib.sha256(content.encode()).digest()

    def get(self, key: bytes) -> Answer | None:
        """Return the answer stored under `key`. `None` if there is none, if it is damaged, or if it is degraded.

        Older versions stored degraded answers.

        Raises:
            ConfigError: The file cannot be read now.
        """
        row = self._execute("SELECT answer FROM answers WHERE name = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            stored: dict[str, Any] = json.loads(row[0])
            if stored.get("degraded"):
                return None
            stored.pop("reason", None)  # older versions stored the vendor's error message
            used = tuple(_used(*row) for row in stored["used"])
            answer = Answer(
                **{**stored, "order": tuple(stored["order"]), "scores": tuple(stored["scores"]), "used": used}
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return answer if answer.is_consistent else None

    def put(self, key: bytes, answer: Answer) -> None:
        """Store an answer.

        Raises:
            ConfigError: The file cannot be written now.
        """
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(answer))))

    def delete(self, key: bytes) -> None:
        """Delete the answer stored under `key`, if there is one."""
        self._execute("DELETE FROM answers WHERE name = ?", (key,))

    def _execute(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:  # a full disk, or another process holds the lock
            raise ConfigError(
                f"The file of kept answers cannot be used ({clause(error)}). It holds the answers before this one: "
                "free space on its disk, copy it to another one and name it with --keep (answer_cache), or wait for "
                "the process that uses it, and run the command again."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _used(model: str, usage: Any, units: Any = None) -> tuple[str, Usage]:
    """Return model and usage of a stored request. Older versions stored input tokens and search units alone."""
    if isinstance(usage, dict):
        return model, Usage(**usage)
    return model, Usage(requests=1, input_tokens=usage, search_units=units)

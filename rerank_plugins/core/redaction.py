"""Remove credentials and control characters from texts that came from outside."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from urllib.parse import quote, quote_plus

from ._runtime.context_vars import set_context
from .errors import BackendError

__all__ = [
    "MASK",
    "UUID",
    "holds",
    "one_line",
    "redact",
    "redact_key_like",
    "redact_logs_of",
    "redacting_logs",
    "summary",
]

MASK = "**********"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SHORTEST = 6
"""Characters of the shortest credential that is masked: a shorter one could occur inside ordinary words."""


def one_line(text: str) -> str:
    """Return `text` on one line and without control characters, so that it cannot forge a line of a log."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split())).rstrip()


def redact(text: str, credentials: Iterable[str]) -> str:
    """Return `text` with all `credentials` masked: as they are, and as they are escaped in URLs and JSON."""
    for credential in sorted(credentials, key=len, reverse=True):  # one may contain another
        if len(credential) < SHORTEST:
            continue
        for written in {credential, quote(credential), quote(credential, safe=""), quote_plus(credential)}:
            text = text.replace(written, MASK)
        for escaped in (json.dumps(credential), json.dumps(credential, ensure_ascii=False), repr(credential)):
            text = text.replace(escaped[1:-1], MASK)
    return text


_KEY_LIKE = re.compile(r"[A-Za-z0-9_+/=.~-]{12,}")


def redact_key_like(text: str, public: str) -> str:
    """Return `text` with every word masked that could be a credential: 12 or more characters with a digit.

    It is for replies to a client of the user whose credentials cannot be read. It rather masks too much. Words in
    `public` (the model's name) stay, and so do UUIDs, which name requests: RFC 9562, section 8, says not to use them as
    credentials.
    """

    def masked(match: re.Match[str]) -> str:
        word = match[0]
        harmless = not any(map(str.isdigit, word)) or word.strip(".") in public or UUID.fullmatch(word)
        return word if harmless else MASK

    return _KEY_LIKE.sub(masked, text)


def holds(error: BaseException, credentials: Iterable[str]) -> bool:
    """Return whether a traceback of `error`, with its causes, would show one of `credentials`."""
    seen: set[int] = set()
    texts = ["".join(traceback.format_exception(error))]
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        texts.append(
            f"{cause!r} {cause.args!r} {getattr(cause, 'doc', '')}"
        )  # a JSONDecodeError holds the whole text in `doc`
        cause = cause.__cause__ or cause.__context__
    text = " ".join(texts)
    return redact(text, credentials) != text


def holds_key_like(error: BaseException, public: str) -> bool:
    """Return whether the cause of `error` would show a word that `redact_key_like` masks."""
    text = f"{error.__cause__!r} {error.__cause__}"
    return redact_key_like(text, public) != text


def summary(error: BaseException) -> str:
    """Return class and HTTP status of an error, for logs and counters.

    The message is left out: it quotes the vendor, who may quote a document.
    """
    status = error.status if isinstance(error, BackendError) else None
    return type(error).__name__ if status is None else f"{type(error).__name__} (HTTP {status})"


_credentials: ContextVar[tuple[str, ...]] = ContextVar("rerank_plugins_credentials", default=())
"""The credentials of the current call."""


def redacting_logs(credentials: tuple[str, ...]) -> AbstractContextManager[None]:
    """Mask `credentials` in records of the loggers in `redact_logs_of`, inside the block."""
    return set_context(_credentials, credentials)


class _Redacting(logging.Filter):
    """Masks the credentials of the current call. Records outside a call stay as they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        if credentials := _credentials.get():
            text = record.getMessage()
            if (clean := redact(text, credentials)) != text:
                record.msg, record.args = clean, None
        return True


_redacting = _Redacting()


def redact_logs_of(*names: str) -> None:
    """Make the loggers with these names mask the credentials of the current call. Repeated calls change nothing.

    A filter applies to its own logger only, not to its children, so every logger must be named.
    """
    for name in names:
        logging.getLogger(name).addFilter(_redacting)

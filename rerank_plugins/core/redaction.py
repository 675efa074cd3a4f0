"""Keep credentials, and what steers a log or a terminal, out of texts that came from outside."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from urllib.parse import quote, quote_plus

from .context import holding
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
"""Characters: a shorter credential is not masked, since it would be found inside of ordinary words."""


def one_line(text: str) -> str:
    """Return `text` on one line and without control characters, so that nobody forges a line of a log."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split())).rstrip()


def redact(text: str, credentials: Iterable[str]) -> str:
    """Return `text` with each of `credentials` masked: as it is, as a URL has it, and as JSON has it."""
    for credential in sorted(credentials, key=len, reverse=True):  # one may be a part of another
        if len(credential) < SHORTEST:
            continue
        for written in {credential, quote(credential), quote(credential, safe=""), quote_plus(credential)}:
            text = text.replace(written, MASK)
        for escaped in (json.dumps(credential), json.dumps(credential, ensure_ascii=False), repr(credential)):
            text = text.replace(escaped[1:-1], MASK)
    return text


_KEY_LIKE = re.compile(r"[A-Za-z0-9_+/=.~-]{12,}")


def redact_key_like(text: str, public: str) -> str:
    """Return `text` with every word masked that could be a credential: 12 characters or more, a digit among them.

    For what came in reply to a client whose credentials nobody can read. It masks too much rather than too little; what
    stands in `public` (the model's name) stays, and so does a UUID, which names a request (RFC 9562, section 8: no
    credential).
    """

    def masked(match: re.Match[str]) -> str:
        word = match[0]
        harmless = not any(map(str.isdigit, word)) or word.strip(".") in public or UUID.fullmatch(word)
        return word if harmless else MASK

    return _KEY_LIKE.sub(masked, text)


def holds(error: BaseException, credentials: Iterable[str]) -> bool:
    """Tell whether a traceback of `error`, its causes included, would show one of `credentials`."""
    seen: set[int] = set()
    texts = ["".join(traceback.format_exception(error))]
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        texts.append(f"{cause!r} {cause.args!r} {getattr(cause, 'doc', '')}")  # a JSONDecodeError has the whole text
        cause = cause.__cause__ or cause.__context__
    text = " ".join(texts)
    return redact(text, credentials) != text


def holds_key_like(error: BaseException, public: str) -> bool:
    """Tell whether the cause of `error` would show a word of which `redact_key_like` is not sure."""
    text = f"{error.__cause__!r} {error.__cause__}"
    return redact_key_like(text, public) != text


def summary(error: BaseException) -> str:
    """Return class and HTTP status of an error: what a log or a counter may hold.

    Its message may not be there: it quotes the vendor, who may quote the text that was sent.
    """
    status = error.status if isinstance(error, BackendError) else None
    return type(error).__name__ if status is None else f"{type(error).__name__} (HTTP {status})"


_credentials: ContextVar[tuple[str, ...]] = ContextVar("rerank_plugins_credentials", default=())
"""The credentials of the call under way."""


def redacting_logs(credentials: tuple[str, ...]) -> AbstractContextManager[None]:
    """Mask `credentials` in what the loggers of `redact_logs_of` write inside."""
    return holding(_credentials, credentials)


class _Redacting(logging.Filter):
    """Masks the credentials of a call of ours; every other record stays as it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        if credentials := _credentials.get():
            text = record.getMessage()
            if (clean := redact(text, credentials)) != text:
                record.msg, record.args = clean, None
        return True


_redacting = _Redacting()


def redact_logs_of(*names: str) -> None:
    """Let the loggers of these names mask the credentials of calls of ours; a second time changes nothing.

    A filter counts for its own logger only, not for those below it, so each one has to be named.
    """
    for name in names:
        logging.getLogger(name).addFilter(_redacting)

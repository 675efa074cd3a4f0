"""What the hub's client raises → this package's errors, which say what to do."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, RateLimited, RerankError, TransientError
from ..core.wire import retry_after

__all__ = ["told"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def told(
    error: Exception, name: str, *, spec: str, command: str, revision: str | None, recorded: tuple[str, Path] | None
) -> RerankError:
    """Return the error to raise for one of the hub's client, or of its HTTP library.

    Args:
        error: What was raised.
        name: The repository.
        spec: Who wanted it.
        command: What fetches it.
        revision: The one asked for; `None` is main.
        recorded: The commit of the first use and where that is written down, where there is one.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # which it does not tell
    if isinstance(error, RevisionNotFoundError) and recorded:
        return ConfigError(
            f"The hub no longer has the commit of {name} that was used first ({recorded[0][:12]}). To take what it has "
            f"now, delete {recorded[1]}."
        )
    if isinstance(error, RevisionNotFoundError):
        return ConfigError(f"{name} has no revision {revision or 'main'!r} on the hub: check its commits and tags.")
    response: Any = getattr(error, "response", None)
    status: int | None = getattr(response, "status_code", None)
    if isinstance(error, GatedRepoError):
        return ConfigError(
            f"{name} is gated ({status}): accept its terms on the hub, and set HF_TOKEN to a token of the account that did."
        )
    if isinstance(error, HFValidationError):
        return ConfigError(f"{name} is no name that a hub can have: {error}")
    if status == 401 and "Invalid credentials" in response.headers.get("X-Error-Message", ""):
        return ConfigError(  # of every model, be it public
            f"The hub refuses the token that is set ({status}): renew HF_TOKEN or log in again, or unset it for a public "
            "model."
        )
    if status in (401, 403, 404):
        return ConfigError(
            f"The hub has no {name}, or does not show it to everybody ({status}): check the name; for a private or gated "
            "model set HF_TOKEN."
        )
    if isinstance(error, OSError) and (error.filename or error.errno in _NO_ROOM):
        where = f": {error.filename}" if error.filename else ""
        return ConfigError(
            f"{name} cannot be had in the hub's cache ({error.strerror}{where}): make room, or set HF_HOME to a folder "
            "that can be written."
        )
    why = (
        f"{name} could not be fetched ({type(error).__name__}: {' '.join(str(error).split())}). Try again, or fetch it "
    )
    if status == 429:
        return RateLimited(
            f"{why}beforehand: {command}", backend=spec, status=status, retry_after=retry_after(response.headers)
        )
    return TransientError(f"{why}beforehand: {command}", backend=spec, status=status)

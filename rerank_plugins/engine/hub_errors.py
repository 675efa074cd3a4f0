"""Translates the exceptions of the hub's client to this package's errors, which say what to do next."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, RateLimited, RerankError, TransientError, clause
from ..core.wire import retry_after

__all__ = ["translate_error"]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def translate_error(
    error: Exception, name: str, *, spec: str, command: str, revision: str | None, recorded: tuple[str, Path] | None
) -> RerankError:
    """Return the error to raise for an exception of the hub's client or of its HTTP library.

    Args:
        error: The exception.
        name: The repository.
        spec: The spec that needs the repository.
        command: The command that fetches the repository.
        revision: The revision in the spec; `None` is main.
        recorded: The commit of the first use and the file that records it, or `None` before the first use.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # its own message leaves the cause out
    if isinstance(error, RevisionNotFoundError) and recorded:
        return ConfigError(
            f"The hub no longer has the commit of {name} that was used first ({recorded[0][:12]}). To use what it has "
            f"now, delete {recorded[1]}."
        )
    if isinstance(error, RevisionNotFoundError):
        return ConfigError(f"{name} has no revision {revision or 'main'!r} on the hub: check its commits and tags.")
    response: Any = getattr(error, "response", None)
    status: int | None = getattr(response, "status_code", None)
    if isinstance(error, GatedRepoError):
        return ConfigError(
            f"{name} is gated ({status}): accept its terms on the hub, and set HF_TOKEN to a token of the account that "
            f"did."
        )
    if isinstance(error, HFValidationError):
        return ConfigError(f"{name} is not a valid name on the hub: {clause(error)}. Write it as org/name.")
    if status == 401 and "Invalid credentials" in response.headers.get("X-Error-Message", ""):
        return ConfigError(  # a wrong token fails for every model, public ones too
            f"The hub refuses the token that is set ({status}): renew HF_TOKEN or log in again, or unset it for a "
            "public model."
        )
    if status in (401, 403, 404):
        return ConfigError(
            f"The hub has no {name}, or does not show it without permission ({status}): check the name; for a private "
            f"or gated "
            "model set HF_TOKEN."
        )
    if isinstance(error, OSError) and (error.filename or error.errno in _DISK_FULL):
        where = f": {error.filename}" if error.filename else ""
        return ConfigError(
            f"{name} cannot be stored in the hub's cache ({error.strerror}{where}): make room, or set HF_HOME to a "
            "writable folder."
        )
    why = (
        f"{name} could not be fetched ({type(error).__name__}: {' '.join(str(error).split())}). Try again, or fetch it "
    )
    if status == 429:
        return RateLimited(
            f"{why}beforehand: {command}", backend=spec, status=status, retry_after=retry_after(response.headers)
        )
    return TransientError(f"{why}beforehand: {command}", backend=spec, status=status)

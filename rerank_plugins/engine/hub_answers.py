"""Checks the responses of a hub or a mirror before huggingface_hub turns parts of them into paths in its cache.

huggingface_hub names a file in the cache after the ETag, and a folder after the commit, exactly as the response has
them: with the ETag "../../../x" it writes the mirror's bytes there (1.33.0: `_hf_hub_download_to_cache_dir` in
file_download.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import ConfigError

__all__ = ["checked_answers", "is_commit", "refuse_commit", "refuse_names", "stays_inside"]

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_ETAG = re.compile(r"[0-9a-fA-F]{40,64}")
_ADVICE = "Set HF_ENDPOINT to a hub that you trust, or unset it."


def is_commit(value: str) -> bool:
    """Tell whether a commit is hexadecimal, so that it is safe as the name of a folder."""
    return _COMMIT.fullmatch(value) is not None


def stays_inside(name: str) -> bool:
    """Tell whether the name of a file is a path inside its repository."""
    path = PureWindowsPath(name)  # accepts both kinds of slashes
    return bool(name) and not path.anchor and ".." not in path.parts and "\0" not in name


def refuse_commit(commit: str, name: str) -> str:
    """Return a commit.

    Raises:
        ConfigError: The commit is not hexadecimal.
    """
    if not is_commit(commit):
        raise ConfigError(
            f"The hub answered with {commit!r} as the commit of {name}, which is not hexadecimal. {_ADVICE}"
        )
    return commit


def refuse_names(names: Sequence[str], name: str) -> list[str]:
    """Return the names of a repository's files.

    Raises:
        ConfigError: A name is a path outside the repository.
    """
    for file in names:
        if not stays_inside(file):
            raise ConfigError(f"The hub lists {file!r} as a file of {name}, which leads out of it. {_ADVICE}")
    return list(names)


@contextlib.contextmanager
def checked_answers(name: str) -> Iterator[None]:
    """Inside the block, check every response to huggingface_hub before it uses the headers that become paths.

    A request of our own beforehand would not help: a mirror may answer the second request differently. huggingface_hub
    has one HTTP client per process, so responses to other callers are checked too; those of a real hub pass.

    Args:
        name: The repository, for errors.
    """
    import huggingface_hub.utils

    hub: Any = huggingface_hub.utils  # `get_session` is documented but missing in the type stubs

    def check(response: Any, *_: object, **__: object) -> None:
        _refuse_paths(response, name)

    session: Any = hub.get_session()  # httpx.Client; before 1.0 requests.Session
    hooks = session.event_hooks["response"] if hasattr(session, "event_hooks") else session.hooks["response"]
    hooks.append(check)
    try:
        yield
    finally:
        hooks.remove(check)


def _refuse_paths(response: Any, name: str) -> None:
    """Raise `ConfigError` for a response to HEAD whose commit or ETag is not hexadecimal."""
    if response.request.method != "HEAD":
        return
    commit = response.headers.get("X-Repo-Commit")
    if commit is not None:
        refuse_commit(commit, name)
    location = response.headers.get("Location")
    if location is not None and not urlsplit(location).netloc:
        return  # a relative redirect is followed, and only the next response is used
    etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag")
    if etag is not None and response.status_code < 400 and not _ETAG.fullmatch(etag.lstrip("W/").strip('"')):
        raise ConfigError(
            f"The hub answered with the ETag {etag!r} for a file of {name}, which is not a hash of 40 to 64 "
            f"hexadecimal digits. {_ADVICE}"
        )

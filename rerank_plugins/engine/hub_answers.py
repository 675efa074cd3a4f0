"""What a hub or a mirror answers becomes paths in the cache of huggingface_hub: it is checked before anything is written.

huggingface_hub names the file of the cache after the ETag, and a folder after the commit, as the answer has them: an ETag
"../../../x" makes it write the mirror's bytes there (1.33.0: `_hf_hub_download_to_cache_dir` of file_download.py).
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
_ADVICE = "Set HF_ENDPOINT to a hub that you trust, or leave it out."


def is_commit(value: str) -> bool:
    """Tell whether a commit is hexadecimal, so that it can be nothing but the name of a folder."""
    return _COMMIT.fullmatch(value) is not None


def stays_inside(name: str) -> bool:
    """Tell whether a file's name leads to a place inside its repository."""
    path = PureWindowsPath(name)  # which knows both kinds of slashes
    return bool(name) and not path.anchor and ".." not in path.parts and "\0" not in name


def refuse_commit(commit: str, name: str) -> str:
    """Return a commit.

    Raises:
        ConfigError: It is not hexadecimal.
    """
    if not is_commit(commit):
        raise ConfigError(
            f"The hub answered with {commit!r} as the commit of {name}, which is not hexadecimal. {_ADVICE}"
        )
    return commit


def refuse_names(names: Sequence[str], name: str) -> list[str]:
    """Return the names of a repository's files.

    Raises:
        ConfigError: One leads out of the repository.
    """
    for each in names:
        if not stays_inside(each):
            raise ConfigError(f"The hub lists {each!r} as a file of {name}, which leads out of it. {_ADVICE}")
    return list(names)


@contextlib.contextmanager
def checked_answers(name: str) -> Iterator[None]:
    """Check the headers that become paths in every answer that huggingface_hub gets meanwhile, before it uses them.

    Asking for them beforehand would not do: a mirror can answer the second time otherwise. The client is the process's, so
    that others' requests are looked at too; of those, a hub's answers pass as well.
    """
    from huggingface_hub import utils

    hub: Any = utils  # its `get_session` is documented, and not in its stubs

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
    """Raise `ConfigError` for an answer to HEAD whose commit or ETag is not hexadecimal."""
    if response.request.method != "HEAD":
        return
    commit = response.headers.get("X-Repo-Commit")
    if commit is not None:
        refuse_commit(commit, name)
    location = response.headers.get("Location")
    if location is not None and not urlsplit(location).netloc:
        return  # a relative redirect is followed, and the next answer is the one that is used
    etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag")
    if etag is not None and response.status_code < 400 and not _ETAG.fullmatch(etag.lstrip("W/").strip('"')):
        raise ConfigError(
            f"The hub answered with the ETag {etag!r} for a file of {name}, which is not a hash of 40 to 64 hexadecimal "
            f"digits. {_ADVICE}"
        )

"""Remove paths and addresses from labels and messages before clients of the server see them.

Clients see names of backends and models, never the path of a model on the disk or the address of a vendor.
"""

from __future__ import annotations

import re

__all__ = ["public_label", "without_addresses"]

_BACKEND = re.compile(r"(?P<name>[\w.-]+):(?P<model>.*?)(?P<rest>(?: \[[^\[\]]*\])?(?: \([a-z]+\))?)")
_SEPARATORS = re.compile(r"( → | \+ )")
_PATH = re.compile(r"[~/\\.]|[A-Za-z]:[\\/]|.*\\|[^/]*/[^/]*/")
"""The start of a path: absolute, in the home directory, relative with a dot, of Windows, or of more parts than the
`org/name` of a model hub."""


def public_label(label: str) -> str:
    """Return a scorer's label with only the last part of each path, and without addresses.

    The `org/name` of a model hub stays as it is.

    >>> public_label("onnx:/srv/models/tiny [float32]")
    'onnx:tiny [float32]'
    >>> public_label("bge:BAAI/bge-reranker-base")
    'bge:BAAI/bge-reranker-base'
    """
    # `split` returns the separators too, at the odd positions.
    return "".join(
        part if position % 2 else _public_backend(part) for position, part in enumerate(_SEPARATORS.split(label))
    )


def _public_backend(part: str) -> str:
    match = _BACKEND.fullmatch(part)
    # Without a backend's name it is a label of the user's own, or a bare path. A single letter is a drive of Windows.
    if match is None or re.fullmatch("[A-Za-z]", match["name"]):
        return _last_part(part)
    model = "" if "://" in part else _last_part(match["model"])
    return f"{match['name']}:{model}{match['rest']}" if model else f"{match['name']}{match['rest']}"


def _last_part(model: str) -> str:
    """Return the last part of a path; a name that is no path stays as it is."""
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1] if _PATH.match(model) else model


_ADDRESS_OR_PATH = re.compile(
    r"""(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s"'<>)\]]*[^\s"'<>)\].,;:])"""
    r"""|(?P<host>(?<![\w.-])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]{2,45}\](?::[0-9]{1,5})?"""
    r"""|(?:localhost|[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}):[0-9]{1,5})(?![\w.-]*\w))"""
    r"""|(?<![\w/\\.~])(?:~|[A-Za-z]:|\.{1,2})?[/\\](?:[^\s/\\"'<>:;,]++[/\\])++(?P<last>[^\s/\\"'<>:;,)\]]*+)"""
)
_MAX_LENGTH = 4_000


def without_addresses(text: str) -> str:
    """Return a message with `(address)` for each URL and host, and with only the last part of each absolute path.

    Errors of backends name addresses and paths for the operator of the server; its clients must not see them. Control
    characters become spaces. A message is cut at 4,000 characters.

    >>> without_addresses("No file /srv/models/tiny/model.onnx; the hub is at https://hub.internal:8080/x.")
    'No file model.onnx; the hub is at (address).'
    """
    text = "".join(character if character.isprintable() else " " for character in text[:_MAX_LENGTH])
    return _ADDRESS_OR_PATH.sub(lambda match: match["last"] if match["last"] is not None else "(address)", text)

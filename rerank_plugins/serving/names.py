"""What clients may see of who answers: names, never where a model lies on the disk or at which address a vendor is."""

from __future__ import annotations

import re

__all__ = ["public_label", "without_addresses"]

_BACKEND = re.compile(r"(?P<name>[\w.-]+):(?P<model>.*?)(?P<rest>(?: \[[^\[\]]*\])?(?: \([a-z]+\))?)")
_JOINTS = re.compile(r"( → | \+ )")
_PATH = re.compile(r"[~/\\.]|[A-Za-z]:[\\/]|.*\\|[^/]*/[^/]*/")
"""How a path begins: absolute, of the home, relative with a dot, of Windows, or of more parts than a hub's `org/name`."""


def public_label(label: str) -> str:
    """Return a scorer's label with the last part of each path: `onnx:/srv/models/tiny [float32]` is `onnx:tiny [float32]`.

    A hub's `org/name` stays as it is; of an address nothing stays.
    """
    return "".join(part if position % 2 else _public(part) for position, part in enumerate(_JOINTS.split(label)))


def _public(part: str) -> str:
    match = _BACKEND.fullmatch(part)
    if match is None or re.fullmatch("[A-Za-z]", match["name"]):  # a name of its own, or a bare path (of Windows too)
        return _last(part)
    model = "" if "://" in part else _last(match["model"])
    return f"{match['name']}:{model}{match['rest']}" if model else f"{match['name']}{match['rest']}"


def _last(model: str) -> str:
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1] if _PATH.match(model) else model


_HIDDEN = re.compile(
    r"""(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s"'<>)\]]*[^\s"'<>)\].,;:])"""
    r"""|(?P<host>(?<![\w.-])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]{2,45}\](?::[0-9]{1,5})?"""
    r"""|(?:localhost|[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}):[0-9]{1,5})(?![\w.-]*\w))"""
    r"""|(?<![\w/\\.~])(?:~|[A-Za-z]:|\.{1,2})?[/\\](?:[^\s/\\"'<>:;,]++[/\\])++(?P<last>[^\s/\\"'<>:;,)\]]*+)"""
)
_LONGEST = 4_000


def without_addresses(text: str) -> str:
    """Return a message with `(address)` for each URL and host, and with only the last part of each absolute path.

    Messages of backends hold them for whoever runs the process, and clients are somebody else. Control characters become
    spaces, and what is longer than 4,000 characters is cut.
    """
    text = "".join(character if character.isprintable() else " " for character in text[:_LONGEST])
    return _HIDDEN.sub(lambda match: match["last"] if match["last"] is not None else "(address)", text)

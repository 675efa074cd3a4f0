"""Parse a `base_url` and separate its credentials: they are sent, but never shown or stored."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlsplit, urlunsplit

from .errors import ConfigError, clause
from .redaction import MASK, UUID
from .secret import Secret, refuse_mask

__all__ = [
    "SECRET_NAME",
    "Address",
    "PathURL",
    "check_address",
    "looks_secret",
    "proxy_credentials",
    "proxy_variable",
    "storable_url",
]

SECRET_NAME = re.compile(
    r"auth|key|token|secret|cookie|password|passwd|jwt|credential|signature|session", re.IGNORECASE
)
"""Names of headers and fields that hold credentials."""
_PUBLIC = re.compile(r"api[-_]?version|version", re.IGNORECASE)
_PUBLIC_VALUE = re.compile(r"[\w.-]{1,24}")


_RUN = re.compile(r"[A-Za-z0-9]{16,}")


def looks_secret(segment: str) -> bool:
    """Return whether a segment of a path looks like a key: a long run of letters and digits in random order.

    Names of models and routes rarely alternate between letters and digits, or have separators. A UUID is not a key: RFC
    9562, section 8, says not to use one as a credential, and many paths name deployments by UUIDs.
    """
    if UUID.fullmatch(segment):
        return False
    for run in _RUN.findall(segment):
        kinds = ["0" if character.isdigit() else "A" if character.isupper() else "a" for character in run]
        changes = sum(first != second for first, second in itertools.pairwise(kinds))
        if kinds.count("0") >= 2 and changes >= len(run) / 4:
            return True
    return False


class PathURL(str):
    """A URL without user and query. It is sent as it is; `repr` masks what looks like a key in its path."""

    __slots__ = ("secrets",)

    secrets: tuple[str, ...]
    """Segments of the path that came from `env:NAME` or look like keys."""

    def __new__(cls, url: str, secrets: tuple[str, ...] = ()) -> PathURL:
        """Create a URL whose path segments `secrets` are masked by `repr`."""
        path_url = super().__new__(cls, url)
        path_url.secrets = secrets
        return path_url

    def __repr__(self) -> str:
        """Return the masked URL."""
        return repr(self.public(MASK))

    def public(self, mask: str | None = None) -> str:
        """Return the URL with `mask` in place of secret segments; without a mask, with digests that tell keys apart."""
        parts = urlsplit(str(self))
        shown = [
            (mask or hashlib.sha256(segment.encode()).hexdigest()[:16]) if unquote(segment) in self.secrets else segment
            for segment in parts.path.split("/")
        ]
        return urlunsplit((*parts[:2], "/".join(shown), *parts[3:]))


@dataclass(frozen=True, slots=True)
class Address:
    """The address that a backend sends its requests to."""

    url: PathURL = field(default_factory=lambda: PathURL(""))
    """Scheme, host, port and path."""
    query: Secret | None = None
    """The query as it is sent, without the question mark."""
    user: Secret | None = None
    """`user:password`."""

    @classmethod
    def of(cls, base_url: str) -> Address:
        """Parse a `base_url`, and replace `env:NAME` in the password, in path segments and in values of the query.

        Raises:
            ConfigError: It is not a URL, or a variable in it is not set.
        """
        parts = _split(check_address(base_url, "base_url"), "base_url")
        userinfo, _, host = parts.netloc.rpartition("@")
        user, _, password = userinfo.partition(":")
        segments = [unquote(part) for part in parts.path.split("/")]
        resolved = [Secret(part).resolved().reveal() if part.startswith("env:") else part for part in segments]
        path = "/".join(
            part if new == old else quote(new, safe="")
            for part, old, new in zip(parts.path.split("/"), segments, resolved, strict=True)
        )
        secrets = {new for old, new in zip(segments, resolved, strict=True) if new != old or looks_secret(new)}
        return cls(
            PathURL(urlunsplit((parts.scheme, host, path, "", "")), tuple(sorted(secrets))),
            Secret("&".join(map(_resolved_pair, parts.query.split("&")))) if parts.query else None,
            Secret(f"{unquote(user)}:{Secret(unquote(password)).resolved().reveal()}") if userinfo else None,
        )

    def full(self, url: str) -> str:
        """Return `url`, an address below this one, with the query of this address."""
        if self.query is None:
            return url
        return f"{url}{'&' if '?' in url else '?'}{self.query.reveal()}"

    def authorization(self) -> str | None:
        """Return the header of basic authentication (RFC 7617). `None` if the address has no user."""
        if self.user is None:
            return None
        return f"Basic {base64.b64encode(self.user.reveal().encode()).decode()}"

    def credentials(self) -> tuple[str, ...]:
        """Return all texts in the address that may be credentials."""
        credentials = [*self.url.secrets]
        if self.user is not None:
            credentials += [self.user.reveal(), self.user.reveal().partition(":")[2], (self.authorization() or "")[6:]]
        if self.query is not None:
            for name, value in _pairs(self.query.reveal()):
                credentials += [] if _is_public(name, value) else [unquote_plus(value or name)]
        return tuple(credentials)

    @property
    def public(self) -> str:
        """The URL, masked, with the public part of its query. It identifies the server."""
        pairs = _pairs(self.query.reveal()) if self.query is not None else []
        public = [f"{name}={value}" for name, value in pairs if _is_public(name, value)]
        url = self.url.public()
        return f"{url}?{'&'.join(public)}" if public else url


def check_address(value: Any, name: str) -> str:
    """Return `value` if it is an http or https URL with a host, or an empty string. `env:NAME` in it is not replaced.

    Raises:
        ConfigError: It is neither, or a stored URL with masked parts. The message does not quote it: it may hold a
            password.
    """
    if not isinstance(value, str) or (value and not value.startswith(("http://", "https://"))):
        raise ConfigError(f"{name} must start with http:// or https://, and this address does not.")
    if not value.isprintable() or " " in value:  # urlsplit drops tabs and line breaks, also in the middle
        raise ConfigError(f"{name} has a space, a line break or a control character. Remove it, or write it as %20.")
    parts = _split(value, name)
    if value and not parts.hostname:
        raise ConfigError(f"{name} names no host: write it like http://127.0.0.1:8000.")
    refuse_mask(unquote_plus(value), name)
    return value


def proxy_credentials() -> Iterator[str]:
    """Yield the passwords of proxies in environment variables, and their headers: a proxy may repeat them in errors."""
    for name, value in os.environ.items():
        if name.lower().endswith("_proxy") and "@" in value:
            userinfo = value.rpartition("://")[2].rpartition("@")[0]
            user = Secret(unquote(userinfo))
            yield from Address(user=user).credentials()


def proxy_variable(url: str, *, for_all: bool = True) -> str:
    """Return the name of the environment variable that sets the proxy for requests to `url`; "" without a proxy.

    Args:
        url: The address of the request.
        for_all: Whether the client reads ALL_PROXY. httpx does, aiohttp does not.
    """
    import urllib.request  # imported here: it loads http.client, and only errors need it

    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    for scheme in (parts.scheme, "all") if for_all else (parts.scheme,):
        if proxies.get(scheme):
            if urllib.request.proxy_bypass(parts.hostname or ""):
                return ""
            names = [name for name, value in os.environ.items() if name.lower() == f"{scheme}_proxy" and value]
            return max(names, default="the system's settings")  # lower case wins, and sorts last
    return ""


def storable_url(base_url: str) -> str:
    """Return `base_url` without secrets, to store it. `env:NAME` and the version of the API stay.

    Parameters whose name is that of a credential are removed: the environment has them, or the server will miss them.
    All other values, and what looks like a key in the path, are masked, so that loading the URL fails with a clear
    error rather than send an incomplete request.
    """
    parts = _split(base_url, "base_url")
    userinfo, _, host = parts.netloc.rpartition("@")
    netloc = parts.netloc if unquote(userinfo.partition(":")[2]).startswith("env:") else host
    stored = []
    for parameter in parts.query.split("&") if parts.query else ():
        name, equals, value = parameter.partition("=")
        if _is_public(name, value) or unquote_plus(value).startswith("env:"):
            stored.append(parameter)
        elif equals and not SECRET_NAME.search(name):
            stored.append(f"{name}={MASK}")
    path = "/".join(MASK if looks_secret(unquote(segment)) else segment for segment in parts.path.split("/"))
    return urlunsplit((parts.scheme, netloc, path, "&".join(stored), ""))


def _split(base_url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise ConfigError(f"{name} is not a URL ({clause(error)}): write it like http://127.0.0.1:8000.") from error
    try:
        parts.port  # noqa: B018 (reading the attribute parses it)
    except ValueError:  # not quoted: it may show a password, if the @ is missing in the URL
        raise ConfigError(f"{name} has a port that is not a number from 0 to 65535.") from None
    return parts


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))]


def _resolved_pair(pair: str) -> str:
    """Return a `name=value` pair of a query with `env:NAME` replaced."""
    name, _, value = pair.partition("=")
    value = unquote_plus(value or name)
    resolved = Secret(value).resolved().reveal()
    return f"{name}={quote(resolved, safe='')}" if resolved != value else pair


def _is_public(name: str, value: str) -> bool:
    return _PUBLIC.fullmatch(name) is not None and _PUBLIC_VALUE.fullmatch(value) is not None

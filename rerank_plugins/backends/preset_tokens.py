"""Presets whose requests carry an access token: of Google, by google-auth; of IBM Cloud, for an API key."""

from __future__ import annotations

import datetime as dt
import functools
import json
import math
import os
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from ..core._runtime.context_vars import set_context
from ..core.address import Address, check_address, proxy_credentials
from ..core.errors import AuthenticationFailed, BackendError, BadResponse, MissingExtra, TransientError, clause
from ..core.redaction import one_line, redact, redacting_logs
from ..core.reply import explanation
from ..core.secret import Secret
from ..core.types import RerankRequest, Scores
from ..core.wire import error_for_status
from ..transport import post_form
from .access_tokens import AccessToken, AccessTokens
from .preset_backend import PresetBackend
from .preset_options import PresetOptions

__all__ = ["GoogleBackend", "IBMBackend"]

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
IBM_TOKENS = "https://iam.cloud.ibm.com/identity/token"
"""https://cloud.ibm.com/docs/account?topic=account-iamtoken_from_apikey (read on 2026-11-30)."""

_BEARER: ContextVar[tuple[TokenBackend, Secret] | None] = ContextVar("rerank_plugins_bearer", default=None)
"""The backend and the token of the current call. Calls at the same time may have different tokens."""


class TokenBackend(PresetBackend):
    """A preset whose requests carry a token that expires."""

    _last_bearer: Secret | None = None
    """The token of the last call, which is masked outside of calls too. Concurrent calls may each set it."""

    @property
    def _bearer(self) -> Secret | None:
        """The token of the current call; outside of a call, the last one."""
        bearer = _BEARER.get()
        return bearer[1] if bearer is not None and bearer[0] is self else self._last_bearer

    @abstractmethod
    def _access_tokens(self) -> AccessTokens:
        """Return the tokens of the account."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers with the token in place of the key."""
        token = {} if self._bearer is None else {"authorization": f"Bearer {self._bearer.reveal()}"}
        return {**super().headers(), **token}

    def credentials(self) -> tuple[str, ...]:
        """Return the key and the token."""
        return (*super().credentials(), *(() if self._bearer is None else (self._bearer.reveal(),)))

    async def _redacting(self, request: RerankRequest) -> Scores:
        """Send one request with a valid token. One that is refused is fetched anew for the next call."""
        tokens = self._access_tokens()  # here and not earlier, since the key may come from a function
        bearer = self._last_bearer = await self._in_time(tokens.current(), f"{self.label}: the server of its tokens")
        try:
            with set_context(_BEARER, (self, bearer)):
                return await super()._redacting(request)
        except AuthenticationFailed:
            tokens.forget(bearer)
            raise


class IBMBackend(TokenBackend):
    """A preset on IBM Cloud: the API key is exchanged for a token."""

    def __init__(self, model: str | None = None, options: PresetOptions | None = None) -> None:
        """Read the options."""
        super().__init__(model, options)
        variable = check_address(os.environ.get("WATSONX_IAM_URL", "").strip(), "WATSONX_IAM_URL")
        self._token_address = Address.of(getattr(options, "token_url", None) or variable or IBM_TOKENS)

    def _access_tokens(self) -> AccessTokens:
        assert self._key is not None, "the row requires a key"
        return _ibm_tokens(self._token_address, self._key, self.label, self.key_advice())

    def credentials(self) -> tuple[str, ...]:
        """Return the key, the token, and the secret parts of the address of the tokens."""
        return (*super().credentials(), *self._token_address.credentials())


@functools.lru_cache(maxsize=64)
def _ibm_tokens(address: Address, key: Secret, label: str, key_advice: str) -> AccessTokens:
    """Return the tokens of a key: the same for all backends that use it."""
    url = address.public

    def fetch() -> AccessToken:
        form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key.reveal()}
        secrets = (key.reveal(), *address.credentials(), *proxy_credentials())
        with redacting_logs(secrets):
            reply = post_form(address, form)
        try:
            body: Any = json.loads(reply.body)
        except ValueError:
            body = None
        if reply.status != 200:
            # IBM answers 400 to a wrong key.
            status = 401 if reply.status == 400 else reply.status
            raise error_for_status(
                status,
                reply.headers,
                backend=label,
                # Masked before it is cut: a part of a key is not found any more.
                explanation=f"no access token from {url}: {redact(one_line(explanation(body)), secrets)[:200]}",
                key_advice=key_advice,
                url=url,
                address_option="token_url",
            )
        try:
            value, lifetime = str(body["access_token"]), float(body["expires_in"])
        except (KeyError, TypeError, ValueError, OverflowError):
            lifetime = math.nan
        if not math.isfinite(lifetime):
            raise BadResponse(
                f"{label}: {url} answered without `access_token`, or without `expires_in`, a finite number of seconds. "
                "Check `token_url`.",
                backend=label,
            )
        return AccessToken.of(value, time.time() + lifetime)

    return AccessTokens(fetch)


class GoogleBackend(TokenBackend):
    """A preset on Google Cloud: the token is that of the application's default credentials, or `api_key`."""

    finds_credentials = True

    def _access_tokens(self) -> AccessTokens:
        return _google_tokens(self.label) if self._key is None else _fixed_token(self._key)

    def key_advice(self) -> str:
        """Return where the credentials come from that were refused."""
        if self._key is not None:
            return "Check the access token (`api_key`): it expires, and is not renewed here."
        return (
            "Check the credentials of Google Cloud: those of GOOGLE_APPLICATION_CREDENTIALS, of `gcloud auth "
            "application-default login`, or of the machine."
        )


@functools.lru_cache(maxsize=64)
def _fixed_token(key: Secret) -> AccessTokens:
    return AccessTokens(lambda: AccessToken(key, math.inf, math.inf))


@functools.lru_cache(maxsize=64)
def _google_tokens(label: str) -> AccessTokens:
    return AccessTokens(lambda: _google_token(label))


def _google_token(label: str) -> AccessToken:
    """Fetch a token for the application's default credentials. Blocks."""
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
    except ImportError as error:
        raise MissingExtra(label, extra="google", package="google-auth") from error
    try:
        credentials: Any = google.auth.default(scopes=[SCOPE])[0]
        credentials.refresh(Request())
    except GoogleAuthError as error:
        raise _google_error(label, error) from None  # its text and its attributes may hold parts of a credential
    expiry = getattr(credentials, "expiry", None)
    expires_at = time.time() + 3600 if expiry is None else expiry.replace(tzinfo=dt.UTC).timestamp()
    return AccessToken.of(str(credentials.token), expires_at)


def _google_error(label: str, error: Exception) -> BackendError:
    from google.auth.exceptions import TransportError

    reason = clause(str(error.args[0]) if error.args else type(error).__name__)[:300]
    if isinstance(error, TransportError) or getattr(error, "retryable", False):
        return TransientError(
            f"{label}: Google gave no access token ({reason}). It may pass: raise `retry`, or name a `fallback`.",
            backend=label,
        )
    return AuthenticationFailed(
        f"{label} needs credentials of Google Cloud ({reason}): set GOOGLE_APPLICATION_CREDENTIALS to the file of a "
        "service account, run `gcloud auth application-default login`, or set `api_key` to an access token.",
        backend=label,
    )

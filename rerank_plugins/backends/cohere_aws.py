"""The clients for Amazon Bedrock and SageMaker in Cohere's SDK.

They are blocking, and sign requests with the credentials that boto3 finds. They send `{"query", "documents",
"api_version": 2}` and optional fields to `/model/MODEL/invoke` or `/endpoints/MODEL/invocations` (`aws_client.py` of
cohere 7.3.1, https://github.com/cohere-ai/cohere-python). Before cohere 5.21 they use a wrong host.
"""

from __future__ import annotations

import os
import re
import threading
from typing import Any, Literal

from ..core._runtime.fork_hooks import reset_after_fork
from ..core.call import record_response
from ..core.errors import AuthenticationFailed, ConfigError, MissingExtra, clause
from ..transport import proxy_error

__all__ = ["REGION", "AWSClient"]

HOSTS = {
    "bedrock": "https://bedrock-runtime.{}.amazonaws.com",
    "sagemaker": "https://runtime.sagemaker.{}.amazonaws.com",
}
EXAMPLES = {"bedrock": "cohere:cohere.rerank-v3-5:0", "sagemaker": "cohere:name-of-the-endpoint"}
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
"""The form of a region. It is checked because the region becomes a part of the host."""


class AWSClient:
    """The SDK's client for one platform, shared by all event loops. Created at the first call and after a fork."""

    def __init__(
        self, platform: Literal["bedrock", "sagemaker"], region: str | None, model: str | None, timeout: float
    ) -> None:
        """Determine the region. The SDK is imported later, at the first call.

        Args:
            platform: The platform that runs the model.
            region: The region; `None` reads AWS_REGION, then AWS_DEFAULT_REGION.
            model: The name of the model or of the endpoint.
            timeout: Seconds for one request.

        Raises:
            ConfigError: There is no region or no model.
        """
        region = region or next(filter(None, map(os.environ.get, REGIONS)), "")
        if not REGION.fullmatch(region):
            raise ConfigError(
                f"cohere on {platform} needs a region: set cohere.region, for example to 'eu-west-1', or the "
                f"environment variable {' or '.join(REGIONS)}."
            )
        if model is None:
            raise ConfigError(
                f"cohere on {platform} needs the name of a model: use a spec such as {EXAMPLES[platform]!r}."
            )
        self.address = HOSTS[platform].format(region)
        self.advice = f"It is sent to {platform} in {region}, signed with the credentials that boto3 finds."
        self._platform = platform
        self._region = region
        self._timeout = timeout
        self._lock = threading.Lock()  # guards `_client`
        self._client: Any = None
        reset_after_fork(self)

    def rerank(self, **arguments: Any) -> Any:
        """Send a request and return the SDK's object. Blocks.

        Args:
            **arguments: Those of the SDK's `rerank`.
        """
        reply = self.get().with_raw_response.rerank(**arguments)
        record_response(reply.status_code, reply.headers.items())
        return reply.data

    def get(self) -> Any:
        """Return the SDK's client, after creating it if there is none. Blocks.

        Raises:
            AuthenticationFailed: boto3 finds no credentials.
            ConfigError: A proxy of the environment cannot be used.
            MissingExtra: boto3 is not installed.
        """
        with self._lock:
            if self._client is None:
                self._client = self._create()
            return self._client

    def _create(self) -> Any:
        self._check_credentials()
        import cohere

        client_class = cohere.BedrockClientV2 if self._platform == "bedrock" else cohere.SagemakerClientV2
        default_region = os.environ.get("AWS_DEFAULT_REGION")
        try:
            return client_class(aws_region=self._region, timeout=self._timeout + 1)
        except Exception as error:  # the credentials exist, so only the proxies of the HTTP client can be wrong
            raise proxy_error(error) from None  # the text of `error` may show the proxy's password
        finally:
            if default_region is None:  # SagemakerClientV2 sets it for the whole process
                os.environ.pop("AWS_DEFAULT_REGION", None)

    def _check_credentials(self) -> None:
        """Raise an error if boto3 finds no credentials; the SDK does not report that."""
        try:
            import boto3
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise MissingExtra(f"cohere on {self._platform}", extra="cohere-aws", package="boto3") from error
        try:
            if boto3.Session(region_name=self._region).get_credentials() is not None:
                return
            reason = "boto3 finds none"
        except BotoCoreError as error:
            reason = clause(error)
        raise AuthenticationFailed(
            f"cohere on {self._platform} needs AWS credentials ({reason}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE, or give the machine a role.",
            backend="cohere",
        )

    def close(self) -> None:
        """Close the client's connections. The next call creates a new client."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._client = None

"""The cohere SDK's own clients of Amazon Bedrock and SageMaker: blocking ones, signed with the credentials that boto3 finds.

They send `{"query", "documents", "api_version": 2}` and what else is asked for to `/model/MODEL/invoke` or
`/endpoints/MODEL/invocations` (`aws_client.py` of cohere 7.3.1). Before cohere 5.21 they name the wrong host.
"""

from __future__ import annotations

import os
import re
import threading
from typing import Any, Literal

from ..core.call import record_response
from ..core.errors import AuthenticationFailed, ConfigError, MissingExtra, clause
from ..core.fork import forgets_after_fork
from ..transport import proxy_error

__all__ = ["REGION", "AWSClient"]

HOSTS = {
    "bedrock": "https://bedrock-runtime.{}.amazonaws.com",
    "sagemaker": "https://runtime.sagemaker.{}.amazonaws.com",
}
EXAMPLES = {"bedrock": "cohere:cohere.rerank-v3-5:0", "sagemaker": "cohere:name-of-the-endpoint"}
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
"""What a region may look like: it becomes a part of the host."""


class AWSClient:
    """The SDK's client of one platform, for all event loops; made at the first call, and again after a fork."""

    def __init__(
        self, platform: Literal["bedrock", "sagemaker"], region: str | None, model: str | None, timeout: float
    ) -> None:
        """Find the region; nothing is imported yet.

        Raises:
            ConfigError: There is no region, or no model.
        """
        region = region or next(filter(None, map(os.environ.get, REGIONS)), "")
        if not REGION.fullmatch(region):
            raise ConfigError(
                f"cohere on {platform} needs a region: give cohere.region, such as 'eu-west-1', or set the environment "
                f"variable {' or '.join(REGIONS)} to one."
            )
        if model is None:
            raise ConfigError(f"cohere on {platform} needs the name of a model there, such as {EXAMPLES[platform]!r}.")
        self.address = HOSTS[platform].format(region)
        self.advice = f"It goes to {platform} in {region}, signed with the credentials that boto3 finds."
        self._platform = platform
        self._region = region
        self._timeout = timeout
        self._lock = threading.Lock()  # guards `_client`
        self._client: Any = None
        forgets_after_fork(self)

    def rerank(self, **arguments: Any) -> Any:
        """Call the SDK and return its object; blocks."""
        reply = self.get().with_raw_response.rerank(**arguments)
        record_response(reply.status_code, reply.headers.items())
        return reply.data

    def get(self) -> Any:
        """Return the SDK's client; blocks.

        Raises:
            AuthenticationFailed: boto3 finds no credentials.
            ConfigError: A proxy of the environment cannot be used.
            MissingExtra: boto3 is not installed.
        """
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        self._check_credentials()
        import cohere

        make = cohere.BedrockClientV2 if self._platform == "bedrock" else cohere.SagemakerClientV2
        default_region = os.environ.get("AWS_DEFAULT_REGION")
        try:
            return make(aws_region=self._region, timeout=self._timeout + 1)
        except Exception as error:  # credentials and certificates are good: this leaves the HTTP client's proxies
            raise proxy_error(error) from None  # its text may show the proxy's password
        finally:
            if default_region is None:  # SagemakerClientV2 sets it, for all that runs in this process
                os.environ.pop("AWS_DEFAULT_REGION", None)

    def _check_credentials(self) -> None:
        """Find the credentials as the SDK will, which says nothing where there are none."""
        try:
            import boto3
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise MissingExtra(f"cohere on {self._platform}", extra="cohere-aws", package="boto3") from error
        try:
            if boto3.Session(region_name=self._region).get_credentials() is not None:
                return
            reason = "there are none"
        except BotoCoreError as error:
            reason = clause(error)
        raise AuthenticationFailed(
            f"cohere on {self._platform} needs credentials of AWS ({reason}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE, or give the machine a role.",
            backend="cohere",
        )

    def close(self) -> None:
        """Close its connections; the next call makes it anew."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._client = None

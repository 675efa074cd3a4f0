"""The preset `bedrock-agent`: the rerank route of Bedrock's agent runtime, whose requests are signed by botocore.

Sends `{"queries": [{"type": "TEXT", "textQuery": {"text"}}], "sources": [{"type": "INLINE", "inlineDocumentSource":
{"type": "TEXT", "textDocument": {"text"}}}], "rerankingConfiguration": {…}}`; reads `{"results": [{"index",
"relevanceScore"}]}` (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_Rerank.html, and
the service description in botocore 1.44.8; read in November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core._runtime.background_loop import Workers
from ..core._runtime.fork_hooks import reset_after_fork
from ..core._runtime.shared_work import SharedWork
from ..core._runtime.text_work import MAX_INLINE_SIZE, approximate_size, run_text_work
from ..core.call import record_response
from ..core.errors import AuthenticationFailed, BackendError, ConfigError, clause
from ..core.json_text import encode_json
from ..core.types import RerankRequest
from ..core.wire import HTTPResponse
from .preset_backend import PresetBackend
from .preset_options import BedrockOptions

__all__ = ["AWSBackend"]


class AWSBackend(PresetBackend):
    """A preset on AWS: requests are signed with the credentials that botocore finds."""

    _key_is_unknown = True
    finds_credentials = True

    def __init__(self, model: str | None = None, options: BedrockOptions | None = None) -> None:
        """Read the options. Credentials are looked for at the first call, and renewed by botocore."""
        super().__init__(model, options)
        if options is not None and options.api_key is not None:
            raise ConfigError(
                f"{self.name} takes no api_key: its requests are signed with credentials of AWS. Leave api_key out, or "
                "use `bedrock`, which takes an API key of Bedrock."
            )
        self._region = self._setting_values["region"]
        self._workers = Workers(1, "rerank-aws-signature")
        self._frozen = SharedWork(self._workers, self._frozen_credentials)  # they may come from another server
        self._credentials: Any = None
        """Those that botocore found. Only the worker thread writes it."""
        reset_after_fork(self)

    def key_advice(self) -> str:
        """Return what to check if the signature is refused."""
        return "Check the credentials of AWS (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)."

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the body of the agent runtime."""
        arn = self.model
        if not arn.startswith("arn:"):
            arn = f"arn:aws:bedrock:{self._region}::foundation-model/{self.model}"
        return self._path, self._with_own_fields(
            {
                "queries": [{"type": "TEXT", "textQuery": {"text": request.query}}],
                "sources": [
                    {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}
                    for text in request.documents
                ],
                "rerankingConfiguration": {
                    "type": "BEDROCK_RERANKING_MODEL",
                    "bedrockRerankingConfiguration": {
                        "numberOfResults": len(request.documents),
                        "modelConfiguration": {"modelArn": arn},
                    },
                },
            }
        )

    async def _post(self, url: str, payload: Mapping[str, Any], limit: int) -> HTTPResponse:
        assert self.transport is not None, "load_reranker sets it"
        size = approximate_size(payload, MAX_INLINE_SIZE)
        content = await run_text_work(size, encode_json, payload, size)
        frozen = await self._frozen.run()
        headers = await self._workers.run(self._signed, self._base.full(url), content, frozen)
        try:
            reply = await self.transport.post(self._base.full(url), content, headers, limit=limit)
        except BackendError as error:
            raise self._named(error) from error.__cause__
        record_response(reply.status, ())
        return reply

    def _frozen_credentials(self) -> Any:
        """Return the credentials of now. Blocks, if they have to be fetched."""
        try:
            if self._credentials is None:
                self._credentials = _credentials()
            frozen = self._credentials and self._credentials.get_frozen_credentials()
            reason = "botocore finds none"
        except Exception as error:  # BotoCoreError; ClientError of a role; RuntimeError if they have expired
            frozen, reason = None, self._redacted(clause(error))
        if not frozen:
            raise AuthenticationFailed(
                f"{self.label} needs AWS credentials ({reason}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name "
                "a profile in AWS_PROFILE, or give the machine a role. With an API key of Bedrock, use `bedrock`.",
                backend=self.label,
            )
        return frozen

    def _signed(self, url: str, content: bytes, frozen: Any) -> dict[str, str]:
        """Return the headers of a request, signature included."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("POST", url, {"content-type": "application/json", **self.headers()}, content)
        SigV4Auth(frozen, "bedrock", self._region).add_auth(request)
        return dict(request.headers.items())

    def _reset(self) -> None:
        self._credentials = None


def _credentials() -> Any:
    import botocore.session

    return botocore.session.get_session().get_credentials()

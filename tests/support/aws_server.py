"""Local endpoints of Bedrock and SageMaker, behind a proxy that terminates TLS, since the SDK's URLs cannot be changed.

`aws/authority.pem` is the certificate of an authority whose key was deleted; `aws/server.pem` is the certificate of
both hosts in eu-west-1, with its key (`openssl x509 -text` prints them). Both are used only in tests.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rerank_plugins.testing.script import Pairs
from rerank_plugins.testing.server import Reply, VendorServer

REGION = "eu-west-1"
AUTHORITY = Path(__file__).parent / "aws" / "authority.pem"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE012345678",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY1",
    "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLE/TOKEN+0123456789abcdef==",
}


class AWSServer(VendorServer):
    """Base of both platforms: the body of Cohere's API v2 without the model, and a signature of AWS."""

    signing_name: str
    host: str
    required = {"query": str, "documents": list, "api_version": int}  # noqa: RUF012
    optional = {"max_tokens_per_doc": int}  # noqa: RUF012
    max_documents = 1000
    unauthorized = 403

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Sign the request again and compare: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html."""
        credentials = Credentials(*CREDENTIALS.values())
        signer = SigV4Auth(credentials, self.signing_name, REGION)
        scheme, _, fields = headers["authorization"].partition(" ")
        parts = dict(field.strip().split("=", 1) for field in fields.split(","))
        body = self.requests[-1].body
        request = AWSRequest(
            "POST",
            f"https://{self.host}{self.paths[0]}",
            {name: headers[name] for name in parts["SignedHeaders"].split(";")},
            json.dumps(body).encode(),
        )
        request.context["timestamp"] = headers["x-amz-date"]
        canonical = signer.canonical_request(request)
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        return (
            scheme == "AWS4-HMAC-SHA256"
            and parts["Signature"] == signature
            and headers["host"] == self.host
            and headers["x-amz-security-token"] == credentials.token
        )

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Return the body without `meta`: AWS sends the usage in headers."""
        return {"id": "0d9f", **super().answer(body, pairs)}

    def refuse(self, status: int, message: str) -> Reply:
        return Reply(status, {"message": message})


class BedrockServer(AWSServer):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html (November 2026)."""

    signing_name = "bedrock"
    host = f"bedrock-runtime.{REGION}.amazonaws.com"
    model = "cohere.rerank-v3-5:0"
    paths = (f"/model/{model}/invoke",)


class SageMakerServer(AWSServer):
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html (November 2026)."""

    signing_name = "sagemaker"
    host = f"runtime.sagemaker.{REGION}.amazonaws.com"
    model = "my-endpoint"
    paths = (f"/endpoints/{model}/invocations",)


class _Tunnel(socketserver.BaseRequestHandler):
    server: TLSProxy

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := self.request.recv(4096)):
                return
            head += chunk
        self.server.targets.append(head.split()[1].decode())
        self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with (
            contextlib.suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as client,
            socket.create_connection(("127.0.0.1", self.server.port)) as server,
        ):
            while True:
                ready = [client] if client.pending() else select.select([client, server], [], [])[0]
                for source in ready:
                    if not (chunk := source.recv(65536)):
                        return
                    (server if source is client else client).sendall(chunk)


class TLSProxy(socketserver.ThreadingTCPServer):
    """A proxy for `CONNECT host:443` that terminates TLS as that host and forwards to the local server on `port`."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.port = port
        self.targets: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(AUTHORITY.with_name("server.pem"))
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> TLSProxy:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()

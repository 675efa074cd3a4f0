"""Send one rerank request with a vendor's own package to the address on standard input.

Input is JSON: {"sdk": NAME, "url": URL, "model": MODEL, "query": QUERY, "documents": […]}.
"""

import functools
import io
import json
import os
import sys
import urllib.request
from urllib.parse import urlsplit


def send_requests_to(address):
    """Let the package `requests` replace scheme and host of every URL: some packages know https and their host only."""
    import requests

    send = requests.adapters.HTTPAdapter.send

    def redirected(self, request, **options):
        parts = urlsplit(request.url)
        request.url = address + parts.path + (f"?{parts.query}" if parts.query else "")
        return send(self, request, **options)

    requests.adapters.HTTPAdapter.send = redirected


def send_httpx_to(address):
    """Let the package `httpx` replace scheme and host of every URL."""
    import httpx

    handle = httpx.HTTPTransport.handle_request

    def redirected(self, request):
        request.url = httpx.URL(address).copy_with(raw_path=request.url.raw_path)
        return handle(self, request)

    httpx.HTTPTransport.handle_request = redirected


def forward_boto(address, request, **_):
    """Send a request of boto3 to `address`, and return the reply: boto3 sends a bearer token over https only."""
    from botocore.awsrequest import AWSResponse

    parts = urlsplit(request.url)
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
    sent = urllib.request.Request(address + parts.path, request.body, headers, method="POST")
    with urllib.request.urlopen(sent) as reply:
        body = io.BytesIO(reply.read())
        body.stream = lambda **options: iter([body.getvalue()])
        return AWSResponse(request.url, reply.status, dict(reply.headers.items()), body)


def pinecone(call):
    from pinecone import Pinecone

    Pinecone(api_key="KEY", host=call["url"]).inference.rerank(
        model=call["model"],
        query=call["query"],
        documents=call["documents"],
        return_documents=False,
        parameters={"truncate": "END"},
    )


def contextual(call):
    from contextual import ContextualAI

    ContextualAI(api_key="KEY", base_url=call["url"] + "/v1", max_retries=0).rerank.create(
        model=call["model"], query=call["query"], documents=call["documents"]
    )


def isaacus(call):
    from isaacus import Isaacus

    Isaacus(api_key="KEY", base_url=call["url"] + "/v1", max_retries=0).rerankings.create(
        model=call["model"], query=call["query"], texts=call["documents"]
    )


def dashscope(call):
    import dashscope

    dashscope.base_http_api_url = call["url"] + "/api/v1"
    reply = dashscope.TextReRank.call(
        model=call["model"],
        query=call["query"],
        documents=call["documents"],
        return_documents=False,
        api_key="KEY",
    )
    assert reply.status_code == 200, reply


def together(call):
    from together import Together

    Together(api_key="KEY", base_url=call["url"], max_retries=0).rerank.create(
        model=call["model"], query=call["query"], documents=call["documents"], return_documents=False
    )


def fireworks(call):
    from langchain_fireworks.rerank import FireworksRerank

    reranker = FireworksRerank(model=call["model"], fireworks_api_key="KEY", base_url=call["url"] + "/inference/v1")
    reranker.rerank(call["documents"], call["query"], top_n=None)


def openrouter(call):
    from openai import OpenAI

    OpenAI(api_key="KEY", base_url=call["url"] + "/api/v1", max_retries=0).post(
        "/rerank",
        body={"model": call["model"], "query": call["query"], "documents": call["documents"]},
        cast_to=dict[str, object],
    )


def nvidia(call):
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    send_requests_to(call["url"])
    reranker = NVIDIARerank(model=call["model"], api_key="KEY", truncate="END", usage_telemetry_enabled=False)
    reranker.compress_documents([Document(page_content=text) for text in call["documents"]], call["query"])


def nvidia_nim(call):
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    reranker = NVIDIARerank(
        model=call["model"], base_url=call["url"] + "/v1", api_key="KEY", truncate="END", usage_telemetry_enabled=False
    )
    reranker.compress_documents([Document(page_content=text) for text in call["documents"]], call["query"])


def google_token():
    from google.auth.credentials import Credentials

    class Token(Credentials):
        def __init__(self):
            super().__init__()
            self.token = "KEY"

        def refresh(self, request):
            """Keep the token."""

        @property
        def valid(self):
            return True

    return Token()


def google(call):
    from google.cloud import discoveryengine_v1 as api
    from google.cloud.discoveryengine_v1.services.rank_service.transports.rest import RankServiceRestTransport

    transport = RankServiceRestTransport(
        host=call["url"].removeprefix("http://"), credentials=google_token(), url_scheme="http"
    )
    api.RankServiceClient(transport=transport).rank(
        api.RankRequest(
            ranking_config="projects/my-project/locations/global/rankingConfigs/default_ranking_config",
            model=call["model"],
            query=call["query"],
            top_n=len(call["documents"]),
            records=[api.RankingRecord(id=str(n), content=text) for n, text in enumerate(call["documents"])],
            ignore_record_details_in_response=True,
        )
    )


def google_langchain(call):
    from google.cloud import discoveryengine_v1alpha as api
    from google.cloud.discoveryengine_v1alpha.services.rank_service.transports.rest import RankServiceRestTransport
    from langchain_core.documents import Document
    from langchain_google_community.vertex_rank import VertexAIRank

    # It would speak gRPC: the client is the same, with the transport that a recording server understands.
    transport = RankServiceRestTransport(
        host=call["url"].removeprefix("http://"), credentials=google_token(), url_scheme="http"
    )
    reranker = VertexAIRank(
        project_id="my-project",
        ranking_config="default_ranking_config",
        model=call["model"],
        top_n=len(call["documents"]),
        ignore_record_details_in_response=True,
        client=api.RankServiceClient(transport=transport),
    )
    reranker.compress_documents([Document(page_content=text) for text in call["documents"]], call["query"])


def watsonx_client(call):
    from ibm_watsonx_ai import APIClient, Credentials

    send_httpx_to(call["url"])
    return APIClient(
        Credentials(url="https://us-south.ml.cloud.ibm.com", api_key="an-api-key-of-ibm"), project_id="my-project"
    )


def watsonx_langchain(call):
    from langchain_ibm import WatsonxRerank

    reranker = WatsonxRerank(model_id=call["model"], watsonx_client=watsonx_client(call), project_id="my-project")
    reranker.rerank(call["documents"], call["query"])


def watsonx(call):
    from ibm_watsonx_ai.foundation_models import Rerank

    client = watsonx_client(call)
    rerank = Rerank(model_id=call["model"], api_client=client, project_id="my-project")
    rerank.generate(query=call["query"], inputs=call["documents"])


def bedrock(call):
    import boto3

    os.environ["AWS_BEARER_TOKEN_BEDROCK"] = "KEY"
    client = boto3.client("bedrock-runtime", region_name="us-west-2")
    client.meta.events.register("before-send.bedrock-runtime", functools.partial(forward_boto, call["url"]))
    body = {
        "query": call["query"],
        "documents": call["documents"],
        "top_n": len(call["documents"]),
        "api_version": 2,
    }
    client.invoke_model(
        modelId=call["model"], body=json.dumps(body), contentType="application/json", accept="application/json"
    )


def bedrock_agent(call):
    import boto3

    client = boto3.client(
        "bedrock-agent-runtime",
        region_name="us-west-2",
        endpoint_url=call["url"],
        aws_access_key_id="an-access-key-id",
        aws_secret_access_key="a-secret-access-key-0123456789",
    )
    client.rerank(
        queries=[{"type": "TEXT", "textQuery": {"text": call["query"]}}],
        sources=[
            {
                "type": "INLINE",
                "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}},
            }
            for text in call["documents"]
        ],
        rerankingConfiguration={
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": {
                "numberOfResults": len(call["documents"]),
                "modelConfiguration": {"modelArn": f"arn:aws:bedrock:us-west-2::foundation-model/{call['model']}"},
            },
        },
    )


if __name__ == "__main__":
    call = json.load(sys.stdin)
    globals()[call["sdk"].replace("-", "_")](call)

"""Vendors whose requests carry an access token or a signature in place of the key."""

from __future__ import annotations

from ...core.types import Capabilities
from .row import Format, Preset, Setting

__all__ = ["CLOUDS"]

READ = "2026-11-30"

CLOUDS = (
    Preset(
        name="bedrock-agent",
        title="rerankers on Amazon Bedrock's agent runtime, with credentials of AWS",
        base_url="https://bedrock-agent-runtime.{region}.amazonaws.com",
        model="amazon.rerank-v1:0",
        key_required=False,
        authentication="aws",
        extra="aws",
        packages=("botocore",),
        options="BedrockOptions",
        settings={"region": Setting(variables=("AWS_REGION", "AWS_DEFAULT_REGION"), needed_by="request")},
        format=Format(path="/rerank", model_field=None, score_field="relevanceScore"),
        # "sources: Minimum 1, maximum 1000 items"; 32,000 characters of a text.
        limits=Capabilities(scale="unit", max_documents=1000),
        source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_Rerank.html",
        read=READ,
        confirmed="sdk",
        confirmed_by="boto3 1.44.8",
        price="https://aws.amazon.com/bedrock/pricing/",
        notes="Take this with credentials of IAM: keys, a profile, a role. Take `bedrock` with an API key of Bedrock. "
        "`amazon.rerank-v1:0` is not in us-east-1.",
    ),
    Preset(
        name="google",
        title="Google Cloud's ranking API (Vertex AI, Discovery Engine)",
        base_url="https://discoveryengine.googleapis.com/v1",
        model="semantic-ranker-default-004",
        key_required=False,
        authentication="google",
        extra="google",
        packages=("google.auth",),
        options="GoogleOptions",
        settings={
            "project": Setting(variables=("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"), needed_by="request"),
            "location": Setting(default="global"),
            "ranking_config": Setting(default="default_ranking_config"),
        },
        format=Format(
            path="/projects/{project}/locations/{location}/rankingConfigs/{ranking_config}:rank",
            headers={"x-goog-user-project": "{project}"},
            body={"ignoreRecordDetailsInResponse": True},
            documents_field="records",
            document_text_field="content",
            document_id_field="id",
            top_n_field="topN",
            results_field="records",
            index_field="id",
            score_field="score",
        ),
        limits=Capabilities(scale="unit", max_documents=200, max_document_tokens=1024),
        models={
            "semantic-ranker-default-003": Capabilities(scale="unit", max_documents=200, max_document_tokens=512),
            "semantic-ranker-default-002": Capabilities(scale="unit", max_documents=200, max_document_tokens=512),
        },
        source="https://cloud.google.com/generative-ai-app-builder/docs/ranking",
        read=READ,
        confirmed="sdk",
        confirmed_by="google-cloud-discoveryengine 0.20.5",
        price="https://cloud.google.com/generative-ai-app-builder/pricing",
        notes="`api_key` may be an access token, such as `gcloud auth print-access-token` prints; it is not renewed. "
        "Without one, the application's default credentials are used and renewed.",
    ),
    Preset(
        name="watsonx",
        title="IBM watsonx.ai",
        base_url="https://{region}.ml.cloud.ibm.com",
        base_url_variables=("WATSONX_URL",),
        key_variables=("WATSONX_API_KEY", "WATSONX_APIKEY"),
        model="cross-encoder/ms-marco-minilm-l-12-v2",
        authentication="ibm",
        options="WatsonxOptions",
        settings={
            "region": Setting(variables=("WATSONX_REGION",), default="us-south"),
            "version": Setting(default="2026-10-14"),
            "project_id": Setting(variables=("WATSONX_PROJECT_ID",), needed_by="nothing"),
            "space_id": Setting(variables=("WATSONX_SPACE_ID", "WATSONX_DEPLOYMENT_SPACE_ID"), needed_by="nothing"),
        },
        one_of=("project_id", "space_id"),
        format=Format(
            path="/ml/v1/text/rerank?version={version}",
            body={"project_id": "{project_id}", "space_id": "{space_id}"},
            model_field="model_id",
            documents_field="inputs",
            document_text_field="text",
            score_field="score",
            usage_field="input_token_count",
        ),
        # Raw scores: https://ibm.github.io/watsonx-ai-java-sdk/services/rerank-service shows 2.9 and -0.9.
        limits=Capabilities(scale="logit", max_documents=1000, max_tokens=512, cuts=False),
        source="https://cloud.ibm.com/apidocs/watsonx-ai#text-rerank",
        read=READ,
        confirmed="sdk",
        confirmed_by="ibm-watsonx-ai 1.8.1",
        price="https://www.ibm.com/products/watsonx-ai/pricing",
        notes="The API key of IBM Cloud is exchanged for an access token, which is renewed before it expires.",
    ),
)
"""One row for each vendor."""

"""The contract suite for every backend that sends requests, with real SDKs and real sockets."""

import pytest

from rerank_plugins.testing.contract import HostedContract
from rerank_plugins.testing.vendors import (
    ChatServer,
    CohereServer,
    InfinityServer,
    JinaServer,
    MixedbreadServer,
    OpenAIDecisionsServer,
    TEIServer,
    TypeSafeServer,
    VLLMServer,
    VoyageServer,
    ZeroEntropyServer,
)


@pytest.mark.thorough
class TestCohere(HostedContract):
    spec = "cohere:rerank-v3.5"
    vendor = CohereServer


@pytest.mark.thorough
class TestVoyage(HostedContract):
    spec = "voyage:rerank-2.5"
    vendor = VoyageServer


@pytest.mark.thorough
class TestJina(HostedContract):
    spec = "jina-api:jina-reranker-v2-base-multilingual"
    vendor = JinaServer


@pytest.mark.thorough
class TestJinaListwise(HostedContract):
    spec = "jina-api:jina-reranker-v3.5"
    vendor = JinaServer


@pytest.mark.thorough
class TestMixedbread(HostedContract):
    spec = "mixedbread"
    vendor = MixedbreadServer


@pytest.mark.thorough
class TestZeroEntropy(HostedContract):
    spec = "zeroentropy"
    vendor = ZeroEntropyServer


class TestTEI(HostedContract):
    spec = "tei"
    vendor = TEIServer


@pytest.mark.thorough
class TestVLLM(HostedContract):
    spec = "vllm:BAAI/bge-reranker-base"
    vendor = VLLMServer


@pytest.mark.thorough
class TestInfinity(HostedContract):
    spec = "infinity:mixedbread-ai/mxbai-rerank-base-v1"
    vendor = InfinityServer


@pytest.mark.thorough
class TestOpenAIDecisions(HostedContract):
    spec = "openai"
    vendor = OpenAIDecisionsServer


@pytest.mark.thorough
class TestTypeSafe(HostedContract):
    spec = "typesafe"
    vendor = TypeSafeServer


@pytest.mark.slow  # TestTypeSafe sends the same requests
class TestDecisionsOfAGateway(HostedContract):
    """System One behind a gateway, which leaves out the answers that the model declined."""

    spec = "decisions:jev-latest"
    vendor = TypeSafeServer
    lost_documents = "unscored"


@pytest.mark.slow  # TestOpenAIDecisions reads the same replies
class TestDecisionsInOpenAIsFormat(HostedContract):
    spec = {"use": "decisions:gpt-6-luna", "decisions": {"format": "openai"}}  # noqa: RUF012
    vendor = OpenAIDecisionsServer


@pytest.mark.thorough
class TestChat(HostedContract):
    spec = "chat:any-model"
    vendor = ChatServer
    lost_documents = "sent again"

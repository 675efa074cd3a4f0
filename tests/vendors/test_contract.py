"""The contract, over every backend that sends requests: real SDKs, real sockets."""

from rerank_plugins.testing.contract import HostedContract
from rerank_plugins.testing.vendors import (
    CohereServer,
    InfinityServer,
    JinaServer,
    MixedbreadServer,
    TEIServer,
    VLLMServer,
    VoyageServer,
    ZeroEntropyServer,
)


class TestCohere(HostedContract):
    spec = "cohere:rerank-v3.5"
    vendor = CohereServer


class TestVoyage(HostedContract):
    spec = "voyage:rerank-2.5"
    vendor = VoyageServer


class TestJina(HostedContract):
    spec = "jina-api:jina-reranker-v2-base-multilingual"
    vendor = JinaServer


class TestJinaListwise(HostedContract):
    spec = "jina-api:jina-reranker-v3.5"
    vendor = JinaServer


class TestMixedbread(HostedContract):
    spec = "mixedbread"
    vendor = MixedbreadServer


class TestZeroEntropy(HostedContract):
    spec = "zeroentropy"
    vendor = ZeroEntropyServer


class TestTEI(HostedContract):
    spec = "tei"
    vendor = TEIServer


class TestVLLM(HostedContract):
    spec = "vllm:BAAI/bge-reranker-base"
    vendor = VLLMServer


class TestInfinity(HostedContract):
    spec = "infinity:mixedbread-ai/mxbai-rerank-base-v1"
    vendor = InfinityServer

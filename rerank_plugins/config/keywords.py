"""The options of a spec as keyword arguments, for type checkers and editors.

Generated from the option models by `python -m rerank_plugins.config.generate`: to change it, edit those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

__all__ = ["KnownReranker", "RerankerKeywords"]

KnownReranker = Literal[
    "azure-ai",
    "bedrock",
    "bedrock-agent",
    "bge",
    "bge:bge-reranker-base",
    "bge:bge-reranker-large",
    "bge:bge-reranker-v2-gemma",
    "bge:bge-reranker-v2-m3",
    "causal-lm",
    "chat",
    "cohere",
    "colbert",
    "colbert:GTE-ModernColBERT-v1",
    "colbert:LFM2-ColBERT-350M",
    "colbert:LateOn",
    "colbert:answerai-colbert-small-v1",
    "colbert:colbertv2.0",
    "colbert:jina-colbert-v2",
    "colbert:mLateOn",
    "colbert:mxbai-edge-colbert-v0-17m",
    "colbert:mxbai-edge-colbert-v0-32m",
    "contextual",
    "cross-encoder",
    "cross-encoder:cross-encoder-russian-msmarco",
    "cross-encoder:granite-embedding-reranker-english-r2",
    "cross-encoder:gte-reranker-modernbert-base",
    "cross-encoder:japanese-reranker-cross-encoder-xsmall-v1",
    "cross-encoder:japanese-reranker-xsmall-v2",
    "cross-encoder:mist-reranker-150m",
    "cross-encoder:ruri-v3-reranker-310m",
    "ctxl",
    "ctxl:ctxl-rerank-v2-instruct-multilingual-1b",
    "ctxl:ctxl-rerank-v2-instruct-multilingual-2b",
    "dashscope",
    "decisions",
    "deepinfra",
    "embedded",
    "ettin",
    "ettin:ettin-reranker-150m-v1",
    "ettin:ettin-reranker-17m-v1",
    "ettin:ettin-reranker-1b-v1",
    "ettin:ettin-reranker-32m-v1",
    "ettin:ettin-reranker-400m-v1",
    "ettin:ettin-reranker-68m-v1",
    "fireworks",
    "flashrank",
    "flashrank:ce-esci-MiniLM-L12-v2",
    "flashrank:miniReranker_arabic_v1",
    "flashrank:ms-marco-MiniLM-L-12-v2",
    "flashrank:ms-marco-MultiBERT-L-12",
    "flashrank:ms-marco-TinyBERT-L-2-v2",
    "google",
    "gpustack",
    "hf-endpoint",
    "http",
    "infinity",
    "isaacus",
    "jina",
    "jina-api",
    "jina:jina-reranker-v1-tiny-en",
    "jina:jina-reranker-v1-turbo-en",
    "jina:jina-reranker-v2-base-multilingual",
    "jina:jina-reranker-v3",
    "jina:jina-reranker-v3.5",
    "lexical",
    "litellm",
    "llama-cpp",
    "localai",
    "mixedbread",
    "ms-marco",
    "ms-marco:mmarco-mMiniLMv2-L12-H384-v1",
    "ms-marco:ms-marco-MiniLM-L12-v2",
    "ms-marco:ms-marco-MiniLM-L2-v2",
    "ms-marco:ms-marco-MiniLM-L4-v2",
    "ms-marco:ms-marco-MiniLM-L6-v2",
    "ms-marco:ms-marco-TinyBERT-L2-v2",
    "mxbai",
    "mxbai:mxbai-rerank-base-v1",
    "mxbai:mxbai-rerank-base-v2",
    "mxbai:mxbai-rerank-large-v1",
    "mxbai:mxbai-rerank-large-v2",
    "mxbai:mxbai-rerank-xsmall-v1",
    "novita",
    "nvidia",
    "nvidia-nim",
    "onnx",
    "openai",
    "openrouter",
    "passthrough",
    "pinecone",
    "prime-intellect",
    "qianfan",
    "qwen3",
    "qwen3:Qwen3-Reranker-0.6B",
    "qwen3:Qwen3-Reranker-0.6B-seq-cls",
    "qwen3:Qwen3-Reranker-4B",
    "qwen3:Qwen3-Reranker-4B-seq-cls",
    "qwen3:Qwen3-Reranker-8B",
    "qwen3:Qwen3-Reranker-8B-seq-cls",
    "scaleway",
    "sentence-transformers",
    "sglang",
    "siliconflow",
    "tei",
    "together",
    "typesafe",
    "vercel",
    "vllm",
    "voyage",
    "watsonx",
    "xinference",
    "zerank",
    "zerank:zerank-1",
    "zerank:zerank-1-small",
    "zerank:zerank-2",
    "zeroentropy",
    "zhipu",
]
"""Backends, and local models with a name. Other strings may be specs too."""


class FallbackKeywords(TypedDict, total=False):
    """The rerankers that answer if the main one fails, and the errors after which they do."""

    specs: Sequence[str | Mapping[str, Any]]
    """Specs that are tried in order. A string inherits `retry`, `timeout`, `limit`, `breaker` and `cache` from the spec
    around it; a mapping and a named reranker inherit nothing."""
    on: Sequence[Literal["transient", "bad_response", "deadline", "rejected"]]
    """Kinds of errors after which the next spec is tried: `transient` errors, a `bad_response`, an exceeded `deadline`,
    a `rejected` request."""


class RetryKeywords(TypedDict, total=False):
    """How often a request is sent, and how long the waits between attempts are."""

    attempts: int
    """Maximum number of attempts, including the first one."""
    wait_initial: float
    """Maximum wait before the second attempt in seconds. It doubles with each further attempt."""
    wait_max: float
    """Maximum wait before any attempt in seconds, unless the vendor asks for a longer one."""


class LimitKeywords(TypedDict, total=False):
    """The rate limit of the account, shared by all rerankers of the process with one backend, address and key."""

    requests_per_minute: int | None
    """Maximum number of requests per minute, including retries and the parts of a split call. By default unlimited."""
    tokens_per_minute: int | None
    """Maximum number of tokens per minute. A request counts with an upper estimate until the vendor reports its tokens.
    By default unlimited."""


class BreakerKeywords(TypedDict, total=False):
    """The circuit breaker: when requests to a vendor that keeps failing stop, and when they start again."""

    failures: int
    """Number of consecutive failed calls after which no requests are sent."""
    reset_s: float
    """Time in seconds after which one trial call is sent."""


class CacheKeywords(TypedDict, total=False):
    """The cache of scores: where it is, and how many scores it holds for how long."""

    kind: Literal["memory", "disk"]
    """`memory` caches in this process. `disk` caches in a SQLite file that processes on one machine can share."""
    max_entries: int
    """Maximum number of scores in the cache; for a listwise backend, of lists. The memory cache drops the entries
    unused for longest, the disk cache the oldest ones."""
    path: str | os.PathLike[str] | None
    """Path of the file of a `disk` cache. By default it is in the user's cache folder. In a configuration file a
    relative path is relative to that file's folder."""
    ttl_s: float | None
    """Lifetime of an entry in seconds. By default entries do not expire."""


class LongDocumentsKeywords(TypedDict, total=False):
    """How documents longer than the backend's limit are handled."""

    mode: Literal["truncate", "head_tail", "error", "chunk"]
    """`truncate` cuts off the end, `head_tail` removes the middle, `error` refuses the call. `chunk` scores the whole
    document in overlapping pieces and combines their scores."""
    tokens: int | None
    """Size of one piece in tokens; only with `chunk`. By default as many as the model reads beside the query."""
    overlap: int | None
    """Number of tokens that a piece repeats from the one before, below `tokens`; only with `chunk`. By default an
    eighth of a piece."""
    aggregate: Literal["max", "mean_top_k", "first_plus_max"]
    """How the scores of the pieces are combined: the highest one, the mean of the three highest, or the mean of the
    first and the highest one; only with `chunk`."""


class CalibrationKeywords(TypedDict, total=False):
    """The calibration of one backend: a fitted curve that turns its scores into probabilities."""

    path: str | os.PathLike[str]
    """Path of the file that `rerank-plugins calibrate` wrote. In a configuration file a relative path is relative to
    that file's folder."""


class CascadeKeywords(TypedDict, total=False):
    """Rerankers in sequence: a cheap one scores all documents, each next one the best documents of the one before."""

    stages: Sequence[str | Mapping[str, Any]]
    """At least two specs, the cheapest first."""
    keep: Literal["auto"] | int | Sequence[int]
    """Number of documents that each stage passes to the next one: an integer for two stages, else a list with one
    number for each stage except the last. `auto`, for two stages: as many as the second stage has to read, chosen for
    each query from the scores of both."""
    miss: float | None
    """Share of the relevance in the first `for_top` results that may be lost on average; only with `keep = "auto"`. By
    default 0.01."""
    for_top: int | None
    """Number of first results that are protected; only with `keep = "auto"`. By default 10."""
    gate: float | None
    """Lead in `relevance_score` of a stage's first document over its second at which the later stages are skipped. By
    default no stage is skipped."""


FuseKeywords = TypedDict(
    "FuseKeywords",
    {
        "with": 'Literal["retrieval"] | Sequence[str | Mapping[str, Any]]',
        "method": 'Literal["rrf", "weighted"]',
        "weights": "Sequence[float] | None",
        "k": "float | None",
    },
    total=False,
)
"""Rank fusion: the orders of this reranker and of others are combined into one."""


DiversifyKeywords = TypedDict(
    "DiversifyKeywords",
    {
        "lambda": "float",
        "top_n": "int",
        "similarity": "Any",
    },
    total=False,
)
"""The diversity of the first results: how many are chosen, and how much difference counts against relevance."""


class PriceKeywords(TypedDict, total=False):
    """The vendor's prices in US dollars, from which `usage.cost_usd` is computed."""

    per_million_tokens: float | None
    """US dollars for one million input tokens."""
    per_million_output_tokens: float | None
    """US dollars for one million output tokens, where the vendor charges for them: chat models."""
    per_million_cached_tokens: float | None
    """US dollars for one million input tokens that the vendor read from its prompt cache. Without it they cost
    `per_million_tokens`."""
    per_search_unit: float | None
    """US dollars for one search unit (Cohere: one query with up to 100 documents)."""


class BalancedKeywords(TypedDict, total=False):
    """How many documents `embedded:balanced` reads."""

    for_top: int
    """Number of first results that are protected."""
    miss: float
    """Share of the relevance in these results that may be lost on average."""


class EmbeddedKeywords(TypedDict, total=False):
    """Options of the models in the wheel."""

    balanced: BalancedKeywords | None
    """How many documents `embedded:balanced` reads; no effect on the other models."""
    cache_mb: float
    """Megabytes of document vectors to cache for later queries (about 0.3 for a passage of 200 tokens); 0 turns the
    cache off. `fast` does not use it."""
    max_tokens: int | None
    """Tokens that are read of a document, special tokens included; 256 by default, 512 at most."""
    batch_tokens: int | None
    """Tokens of one batch."""
    device: Literal["cpu", "auto"] | None
    """`cpu`."""
    runtime: Literal["onnxruntime", "auto"] | None
    """`onnxruntime`; with `dtype = "bfloat16"` OpenVINO. `fast` runs no network."""
    dtype: Literal["float32", "auto", "bfloat16"] | None
    """`float32`, exact, also for `auto`; `bfloat16` on OpenVINO where the CPU computes it, and else float32."""


class LexicalKeywords(TypedDict, total=False):
    """BM25 over the candidates has no options."""


class PassthroughKeywords(TypedDict, total=False):
    """Passthrough has no options."""


class FamilyKeywords(TypedDict, total=False):
    """Options of a family of models."""

    device: str | Sequence[str] | None
    """Device that runs the model: `cpu`, `cuda`, `cuda:1`, `mps`, `auto`, or a list of GPUs of one kind. By default an
    NVIDIA GPU if torch runs the model and finds one, else the CPU."""
    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] | None
    """`torch` selects the torch engine; `onnxruntime` or `openvino` runs the ONNX file, if there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16", "int8"] | None
    """`bfloat16` and `float16` select torch, unless the runtime is `openvino`; `int8` selects OpenVINO."""
    max_tokens: int | None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: int | None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool
    """Whether to use only files that are on this machine, and send no request to the hub."""


class ColBERTKeywords(TypedDict, total=False):
    """Options of a late-interaction model."""

    device: str | Sequence[str] | None
    """Device that runs the model: `cpu`, `cuda`, `cuda:1`, `mps`, `auto`, or a list of GPUs of one kind. By default an
    NVIDIA GPU if torch runs the model and finds one, else the CPU."""
    runtime: Literal["auto", "onnxruntime", "torch"] | None
    """`onnxruntime` runs the model's ONNX file, `torch` its safetensors. By default the ONNX file, if there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None
    """Number format of the weights. `bfloat16` and `float16` select torch."""
    max_tokens: int | None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: int | None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool
    """Whether to use only files that are on this machine, and send no request to the hub."""
    query_tokens: int | None
    """Tokens that are read of a query, marker and special tokens included. By default what the model's settings say,
    often 32."""
    cache_mb: float
    """Megabytes of document vectors to cache in memory for later queries; 0 turns the cache off."""
    cache_path: str | os.PathLike[str] | None
    """Path of a SQLite file that caches document vectors for other processes and later starts. By default there is
    none. It holds no text, but vectors tell much about their text: protect it like the documents. In a configuration
    file a relative path is relative to that file's folder."""
    cache_disk_mb: float
    """Megabytes of document vectors in the file of `cache_path`, about; at least 1."""
    vectors: Literal["float32", "float16", "int8"]
    """Number format of document vectors, cached or not: `float16` halves the cache and moves scores by less than 0.001;
    `int8` needs a quarter, and may change the order of close scores."""


class OnnxKeywords(TypedDict, total=False):
    """Options of a cross-encoder in ONNX form."""

    device: Literal["cpu", "auto"] | None
    """`cpu`."""
    runtime: Literal["auto", "onnxruntime", "openvino"] | None
    """`onnxruntime`, or `openvino`; the default is onnxruntime, unless `dtype` needs OpenVINO."""
    dtype: Literal["float32", "auto", "bfloat16", "int8"] | None
    """`float32`, exact; `auto`, the fastest that keeps the order; on OpenVINO also `bfloat16` and `int8`."""
    max_tokens: int | None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: int | None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool
    """Whether to use only files that are on this machine, and send no request to the hub."""


class SentenceTransformersKeywords(TypedDict, total=False):
    """Options of a cross-encoder on torch."""

    device: str | Sequence[str] | None
    """Device that runs the model: `cpu`, `cuda`, `cuda:1`, `mps`, `auto`, or a list of GPUs of one kind. By default an
    NVIDIA GPU if torch runs the model and finds one, else the CPU."""
    runtime: Literal["torch", "auto"] | None
    """Library that runs the model. It is always torch here."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None
    """Number format of the weights. By default float32 on a CPU, and bfloat16 on a GPU that supports it."""
    max_tokens: int | None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: int | None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool
    """Whether to use only files that are on this machine, and send no request to the hub."""
    trust_remote_code: bool
    """Run Python code from the repository. It needs a model on the hub, and a commit of 40 digits as `revision`."""


class CausalLMKeywords(TypedDict, total=False):
    """Options of a language model that answers yes or no."""

    device: str | Sequence[str] | None
    """Device that runs the model: `cpu`, `cuda`, `cuda:1`, `mps`, `auto`, or a list of GPUs of one kind. By default an
    NVIDIA GPU if torch runs the model and finds one, else the CPU."""
    runtime: Literal["torch", "auto"] | None
    """Library that runs the model. It is always torch here."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None
    """Number format of the weights. By default float32 on a CPU, and bfloat16 on a GPU that supports it."""
    max_tokens: int | None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: int | None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool
    """Whether to use only files that are on this machine, and send no request to the hub."""
    template: Literal["qwen3", "mxbai", "zerank", "bge-gemma", "ctxl"] | None
    """The prompt template that the model was trained with. Required."""


class SpansKeywords(TypedDict, total=False):
    """Which passages of a document Cohere returns."""

    mode: Literal["enabled", "disabled"]
    """Whether passages are returned."""
    threshold: float | None
    """Minimum score of a returned passage."""
    max_spans: int | None
    """Maximum number of passages of one document."""


class CohereKeywords(TypedDict, total=False):
    """Options of Cohere's API."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    platform: Literal["bedrock", "sagemaker"] | None
    """The AWS service that runs the model. Requests are signed with the credentials that boto3 finds (extra
    `cohere-aws`). The model is then a Bedrock model ID (`cohere:cohere.rerank-v3-5:0`) or the name of a SageMaker
    endpoint."""
    region: str | None
    """The AWS region. By default that of `AWS_REGION` or `AWS_DEFAULT_REGION`."""
    max_tokens_per_doc: int | None
    """Number of tokens at which Cohere cuts a document. Without it none is sent, and Cohere cuts at 4,096 tokens."""
    priority: int | None
    """Priority of requests under load: 0 is served first and refused last."""
    relevant_spans: bool | SpansKeywords | None
    """Ask for the best passages (Rerank 5 and later): `true`, or a mapping with `threshold` and `max_spans`."""
    client: Any
    """A `cohere.AsyncClientV2`, or a blocking client (`ClientV2`, `BedrockClientV2`, `SagemakerClientV2`), which runs
    on worker threads."""


class VoyageKeywords(TypedDict, total=False):
    """Options of Voyage's API."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    client: Any
    """A `voyageai.AsyncClient`, or a blocking `Client`, which runs on threads of this backend's own."""


class JinaKeywords(TypedDict, total=False):
    """Options of Jina's API."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""


class MixedbreadKeywords(TypedDict, total=False):
    """Options of Mixedbread's API."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    rank_fields: Sequence[str] | None
    """The fields of mappings that are read; without it, all of them."""


class ZeroEntropyKeywords(TypedDict, total=False):
    """Options of ZeroEntropy's API."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    latency: Literal["fast", "slow"]
    """`slow` has much higher rate limits, and takes ten seconds or more."""


class DecisionKeywords(TypedDict, total=False):
    """Options of a decision model."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    max_documents: int | None
    """The largest number of documents in one request. By default 100 for `openai`, whose limit is 400, and 30 for
    `typesafe` and `decisions`."""


class ChatKeywords(TypedDict, total=False):
    """Options of a chat model."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    mode: Literal["graded", "logprobs"]
    """`graded`: several documents in one request, with a grade for each. `logprobs`: one request for each document,
    whose score is the probability of yes; for servers that return log probabilities."""
    block: int
    """Number of documents in one request of mode `graded`, anchors included."""
    anchors: int
    """Number of documents that every block of a call holds, so that the grades of the blocks can be put on one
    scale."""
    max_tokens: int
    """The largest number of tokens of the query and one document. A longer document is cut before it is sent, and
    marked `truncated`."""
    reasoning_effort: str | None
    """How much the model reasons before it answers. `none` turns reasoning off where the server can. Any other value is
    sent as it is, and then the length of the reply is not limited. `None` sends nothing."""


class TEIKeywords(TypedDict, total=False):
    """Options of a TEI server."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    raw_scores: bool
    """Request the model's logits instead of their sigmoid."""
    max_documents: int
    """The server's `--max-client-batch-size`, which is 32 by default. Without it, a warm-up takes what the server
    says."""
    max_tokens: int | None
    """The model's length in tokens, query and document together. Without it, `truncated` is reported after a warm-up
    only, which asks the server."""


class VLLMKeywords(TypedDict, total=False):
    """Options of a vLLM server."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    max_tokens_per_doc: int | None
    """The number of tokens at which the server cuts a document. Leave a part of its `--max-model-len` to the query and
    the chat template."""
    max_tokens_per_query: int | None
    """The number of tokens at which the server cuts the query."""
    truncate_prompt_tokens: int | Literal[False] | None
    """The number of tokens at which the server cuts the rendered prompt (query, document and chat template); -1 is the
    model's length. Use it only for models without a chat template, whose end would be cut too. `false` and 0 are the
    same as leaving it out: nothing is sent."""
    truncation_side: Literal["left", "right"] | None
    """The side at which `truncate_prompt_tokens` cuts; without it, the server chooses (mostly `right`)."""
    use_activation: bool | None
    """`false` requests logits instead of their sigmoid; without it, the server chooses."""
    scale: Literal["unit", "logit", "cosine", "ordinal"] | None
    """The scale of the scores. The default is `unit`, or `logit` with `use_activation = false`. An embedding model that
    is served for scoring gives `cosine`."""
    max_documents: int | None
    """The largest number of documents in one request; vLLM has no limit of its own."""
    max_tokens: int | None
    """The largest number of tokens of the query and a document, without those of the chat template (about 90 for
    Qwen3-Reranker). A longer document is cut before it is sent, and marked `truncated`. Without it, a warm-up takes the
    server's own length from `GET /v1/models`, unless an option above makes the server cut."""


class InfinityKeywords(TypedDict, total=False):
    """Options of an Infinity server."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    raw_scores: bool
    """Request the model's logits instead of their sigmoid."""
    max_tokens: int | None
    """The model's length in tokens, query and document together. Without it, `truncated` is not reported."""
    lengths_via_tokenize: bool
    """The server was started with `--lengths-via-tokenize`: its `usage` counts tokens. Otherwise it counts characters,
    and the answer's `usage.input_tokens` is `None`."""


class DecisionServerKeywords(TypedDict, total=False):
    """Options of any server or gateway with a decision model."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    max_documents: int | None
    """The largest number of documents in one request. By default 100 for `openai`, whose limit is 400, and 30 for
    `typesafe` and `decisions`."""
    format: Literal["typesafe", "openai"]
    """The format of requests: `typesafe` (`/v1/systemone`: most gateways and self-hosted servers) or `openai`
    (`/v1/decisions`)."""
    path: str | None
    """The path of the route, such as `/alpha/decisions`; added to `base_url` unless that ends in it, so `""` adds
    nothing. By default `/v1/systemone` or `/v1/decisions`, by the format."""
    max_tokens: int
    """The largest number of tokens of query and documents in one request. A longer document is cut before it is sent,
    and marked `truncated`."""


class HTTPKeywords(TypedDict, total=False):
    """Options of a server with a route like Cohere's."""

    path: str
    """The path of the route; added to `base_url` unless that ends in it, so `""` adds nothing. `{model}` in it is the
    model's name with its slashes; in `{model_id}` they are quoted, and in `{model_path}` dots are underscores."""
    key_header: str | None
    """The header that holds the key, such as `Api-Key`; without it, `Authorization: Bearer KEY` is sent."""
    model_field: str | None
    """The field of the model in the body; `""` or `None` if the body has none."""
    query_field: str
    """The field of the query in the body."""
    query_text_field: str | None
    """For a server that takes the query as an object: the field of its text in that object."""
    query_per_document: bool
    """Whether the query is sent as a list that repeats it for each document."""
    documents_field: str
    """The field of the documents in the body."""
    document_text_field: str | None
    """For a server that takes documents as objects: the field of a document's text in its object."""
    document_id_field: str | None
    """The field of such an object that holds the document's position as a string; the server repeats that string in
    `index_field`."""
    instruction_field: str | None
    """The field of the instruction in the body, for a server that follows one."""
    top_n_field: str | None
    """The field of the number of results, for a server that requires one. The number of documents is sent; `top_n` is
    applied here."""
    results_field: str | None
    """The field of the reply that has the list of results; `""` or `None` if the reply is that list, as SGLang's is."""
    index_field: str | None
    """The field of a result that has the document's position; `""` or `None` if results come in the order of the
    documents."""
    score_field: str | None
    """The field of a result that has the score; `""` or `None` if the results are the scores, in the order of the
    documents."""
    usage_field: str | None
    """The field of the reply that has the number of tokens; without it, the usual places are read."""
    units_field: str | None
    """The field of the reply that has the number of search units."""
    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    headers: Mapping[str, str] | None
    """More headers. A value may be `"env:NAME"`; any other value is a secret, and left out where the spec is stored."""
    body: Mapping[str, Any] | None
    """More fields of the body. A string in it may be `"env:NAME"`, as in `headers`."""
    max_documents: int | None
    """The largest number of documents in one request."""
    max_tokens: int | None
    """The largest number of tokens of the query and one document; a longer document is cut before it is sent."""
    scale: Literal["unit", "logit", "cosine", "ordinal"]
    """The scale of the scores: `unit`, `logit`, `cosine` or `ordinal`."""
    max_query_tokens: int | None
    """The largest number of tokens of the query."""
    max_document_tokens: int | None
    """The largest number of tokens of one document, for a server that counts it apart from the query."""
    max_total_tokens: int | None
    """The largest number of tokens in one request."""
    max_bytes: int | None
    """The largest number of bytes in one request."""
    listwise: bool
    """Whether a document's score depends on the other documents; such requests are never split."""


class PresetKeywords(TypedDict, total=False):
    """Options of a vendor or server whose format is a preset."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    headers: Mapping[str, str] | None
    """More headers. A value may be `"env:NAME"`; any other value is a secret, and left out where the spec is stored."""
    body: Mapping[str, Any] | None
    """More fields of the body. A string in it may be `"env:NAME"`, as in `headers`."""
    max_documents: int | None
    """The largest number of documents in one request."""
    max_tokens: int | None
    """The largest number of tokens of the query and one document; a longer document is cut before it is sent."""
    path: str | None
    """The whole path of the route after the host, such as `/v1/rerank`, in place of the preset's; added to `base_url`
    unless that ends in it. `{model}` in it is the model's name, as in `http`."""
    scale: Literal["unit", "logit", "cosine", "ordinal"] | None
    """The scale of the scores, if the model's differs from the preset's: `unit`, `logit`, `cosine` or `ordinal`."""


class BedrockKeywords(TypedDict, total=False):
    """Options of Amazon Bedrock."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    headers: Mapping[str, str] | None
    """More headers. A value may be `"env:NAME"`; any other value is a secret, and left out where the spec is stored."""
    body: Mapping[str, Any] | None
    """More fields of the body. A string in it may be `"env:NAME"`, as in `headers`."""
    max_documents: int | None
    """The largest number of documents in one request."""
    max_tokens: int | None
    """The largest number of tokens of the query and one document; a longer document is cut before it is sent."""
    path: str | None
    """The whole path of the route after the host, such as `/v1/rerank`, in place of the preset's; added to `base_url`
    unless that ends in it. `{model}` in it is the model's name, as in `http`."""
    scale: Literal["unit", "logit", "cosine", "ordinal"] | None
    """The scale of the scores, if the model's differs from the preset's: `unit`, `logit`, `cosine` or `ordinal`."""
    region: str | None
    """The region of AWS, such as `us-west-2`; without it, AWS_REGION or AWS_DEFAULT_REGION."""


class GoogleKeywords(TypedDict, total=False):
    """Options of Google's ranking API."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    headers: Mapping[str, str] | None
    """More headers. A value may be `"env:NAME"`; any other value is a secret, and left out where the spec is stored."""
    body: Mapping[str, Any] | None
    """More fields of the body. A string in it may be `"env:NAME"`, as in `headers`."""
    max_documents: int | None
    """The largest number of documents in one request."""
    max_tokens: int | None
    """The largest number of tokens of the query and one document; a longer document is cut before it is sent."""
    path: str | None
    """The whole path of the route after the host, such as `/v1/rerank`, in place of the preset's; added to `base_url`
    unless that ends in it. `{model}` in it is the model's name, as in `http`."""
    scale: Literal["unit", "logit", "cosine", "ordinal"] | None
    """The scale of the scores, if the model's differs from the preset's: `unit`, `logit`, `cosine` or `ordinal`."""
    project: str | None
    """The project's id; without it, GOOGLE_CLOUD_PROJECT or GCLOUD_PROJECT."""
    location: str | None
    """The location in the path; `global` without it."""
    ranking_config: str | None
    """The name of the ranking configuration; `default_ranking_config` without it."""


class WatsonxKeywords(TypedDict, total=False):
    """Options of IBM watsonx.ai."""

    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    headers: Mapping[str, str] | None
    """More headers. A value may be `"env:NAME"`; any other value is a secret, and left out where the spec is stored."""
    body: Mapping[str, Any] | None
    """More fields of the body. A string in it may be `"env:NAME"`, as in `headers`."""
    max_documents: int | None
    """The largest number of documents in one request."""
    max_tokens: int | None
    """The largest number of tokens of the query and one document; a longer document is cut before it is sent."""
    path: str | None
    """The whole path of the route after the host, such as `/v1/rerank`, in place of the preset's; added to `base_url`
    unless that ends in it. `{model}` in it is the model's name, as in `http`."""
    scale: Literal["unit", "logit", "cosine", "ordinal"] | None
    """The scale of the scores, if the model's differs from the preset's: `unit`, `logit`, `cosine` or `ordinal`."""
    region: str | None
    """The region in the address, such as `us-south` or `eu-de`; without it, WATSONX_REGION. WATSONX_URL replaces the
    address."""
    project_id: str | None
    """The project that is billed; without it, WATSONX_PROJECT_ID. Set this or `space_id`."""
    space_id: str | None
    """The deployment space that is billed; without it, WATSONX_SPACE_ID."""
    version: str | None
    """The date of the API's version, YYYY-MM-DD."""
    token_url: str | None
    """The address of the access tokens; without it, WATSONX_IAM_URL, else that of IBM Cloud."""


class RerankerKeywords(TypedDict, total=False):
    """A reranker: one backend or a cascade, and the policies around it."""

    use: str
    """Backend, or backend and model, such as `"embedded"`, `"cohere:rerank-v4.0-fast"` or `"onnx:./folder"`. Needed
    unless there is a `cascade`."""
    top_n: int | None
    """Maximum number of results. By default all documents come back."""
    instruction: str | None
    """Text that tells the model what counts as relevant. The backend must be one that can follow an instruction."""
    score_threshold: float | None
    """Lowest `relevance_score` of a result; documents below it are left out. It is not applied to a degraded answer. By
    default nothing is left out."""
    fields: Sequence[str] | None
    """Names of the fields that are read from documents that are mappings, in this order. By default all text and number
    fields are read."""
    deadline: float | None
    """Time limit of the whole call in seconds, including retries and fallbacks. By default there is none."""
    fallback: Sequence[str | Mapping[str, Any]] | FallbackKeywords | None
    """Rerankers that answer if this one fails: a list of specs, tried in order, or a mapping. By default the error is
    raised."""
    on_error: Literal["raise", "degrade"]
    """`raise` raises the error of a failed call. `degrade` adds `passthrough` as the last fallback, which keeps the
    retriever's order."""
    retry: int | RetryKeywords | None
    """Number of attempts, including the first one, or a mapping. By default 3 for hosted backends and 1 for local
    ones."""
    limit: LimitKeywords | None
    """Rate limit of the account. By default there is none."""
    breaker: bool | BreakerKeywords | None
    """Circuit breaker, which stops requests to a vendor that keeps failing: `true` or a mapping. By default off."""
    cache: bool | CacheKeywords | None
    """Cache of scores: `true` or a mapping. By default off."""
    long_documents: Literal["truncate", "head_tail", "error", "chunk"] | LongDocumentsKeywords | None
    """How documents longer than the backend's limit are handled: a mode or a mapping."""
    calibration: str | os.PathLike[str] | CalibrationKeywords | None
    """Path of a calibration file, which turns scores into probabilities. By default the backend's own scale is used."""
    cascade: CascadeKeywords | None
    """Several rerankers in sequence, each over the best documents of the one before. It replaces `use`."""
    fuse: FuseKeywords | None
    """Rank fusion of this reranker with other rerankers or with the retriever's order. By default off."""
    diversify: bool | DiversifyKeywords | None
    """Reordering of the first results so that they differ from each other: `true` or a mapping. By default off."""
    api_key: str | Callable[[], Any] | None
    """The vendor's API key: its text, `"env:NAME"` or `"file:PATH"`; in Python also a function that returns the key. By
    default the vendor's environment variables are read."""
    base_url: str | None
    """URL that replaces the vendor's scheme and host; the vendor's path stays. It starts with http:// or https://."""
    timeout: float
    """Time limit of one attempt in seconds, from sending the request to the last byte of the reply."""
    max_in_flight: int
    """Number of requests sent concurrently for one call, where the call is split because it is too large for one
    request."""
    price: Literal["list"] | PriceKeywords | None
    """The vendor's prices, from which `usage.cost_usd` is computed: a mapping of what you pay, or `list` for the
    published price of a known model, which may be out of date. Without it the cost is unknown."""
    device: str | Sequence[str] | None
    """Device that runs the model: `cpu`, `cuda`, `cuda:1`, `mps`, `auto`, or a list of GPUs of one kind. By default an
    NVIDIA GPU if torch runs the model and finds one, else the CPU."""
    runtime: str | None
    """Library that runs the model: `onnxruntime`, `openvino`, `torch` or `auto`. By default the model's files
    decide."""
    dtype: str | None
    """Number format of the weights: `float32`, `bfloat16`, `float16`, `int8`, or `auto` for the fastest that keeps the
    order. By default the backend decides; on a CPU it is float32."""
    max_tokens: int | None
    """Limit of query and document together, in tokens. By default the limit in the model's files."""
    batch_tokens: int | None
    """Size of one batch in tokens. By default it depends on the device."""
    revision: str | None
    """Branch, tag or commit of the model on the Hugging Face hub. By default `main`; its commit is pinned at the first
    use."""
    local_files_only: bool
    """Whether to use only files that are on this machine, and send no request to the hub."""
    embedded: EmbeddedKeywords
    """Options of embedded: the model in the wheel: late interaction, English; `embedded:balanced`, `embedded:fast`."""
    lexical: LexicalKeywords
    """Options of lexical: BM25 over the candidates."""
    passthrough: PassthroughKeywords
    """Options of passthrough: the retriever's order, unchanged."""
    bge: FamilyKeywords
    """Options of bge: BAAI's rerankers, Chinese and English or multilingual."""
    mxbai: FamilyKeywords
    """Options of mxbai: Mixedbread's open rerankers: v1, English; v2, multilingual language models."""
    jina: FamilyKeywords
    """Options of jina: Jina's open rerankers: v1, v2 from their ONNX files; v3 reads all documents at once."""
    qwen3: FamilyKeywords
    """Options of qwen3: Qwen3 rerankers: language models, 0.6 to 8 B, 100+ languages."""
    zerank: FamilyKeywords
    """Options of zerank: ZeroEntropy's open rerankers: language models, 1.7 and 4 B."""
    ctxl: FamilyKeywords
    """Options of ctxl: Contextual's open rerankers v2: language models, 1 and 2 B, 100+ languages, not for commercial
    use."""
    ettin: FamilyKeywords
    """Options of ettin: Ettin rerankers: ModernBERT, 17 M to 1 B, English."""
    flashrank: FamilyKeywords
    """Options of flashrank: the small encoders of the flashrank package, which need not be installed; English, Arabic,
    multilingual."""
    colbert: ColBERTKeywords
    """Options of colbert: late-interaction models (ColBERT): document vectors are kept for later queries."""
    onnx: OnnxKeywords
    """Options of onnx: any cross-encoder's ONNX file, on onnxruntime."""
    cohere: CohereKeywords
    """Options of cohere: Cohere Rerank, through the cohere SDK."""
    voyage: VoyageKeywords
    """Options of voyage: Voyage AI (MongoDB), through the voyageai SDK."""
    mixedbread: MixedbreadKeywords
    """Options of mixedbread: Mixedbread's hosted rerankers."""
    zeroentropy: ZeroEntropyKeywords
    """Options of zeroentropy: ZeroEntropy's zerank models."""
    openai: DecisionKeywords
    """Options of openai: OpenAI's decision models."""
    chat: ChatKeywords
    """Options of chat: any chat model: OpenAI's, or a server's at base_url."""
    typesafe: DecisionKeywords
    """Options of typesafe: TypeSafe's decision models."""
    tei: TEIKeywords
    """Options of tei: a Text Embeddings Inference server, at base_url."""
    vllm: VLLMKeywords
    """Options of vllm: a vLLM server, at base_url."""
    infinity: InfinityKeywords
    """Options of infinity: an Infinity server, at base_url."""
    decisions: DecisionServerKeywords
    """Options of decisions: a decision model on any server, at base_url."""
    http: HTTPKeywords
    """Options of http: any server with a /rerank route, at base_url."""
    bedrock: BedrockKeywords
    """Options of bedrock: rerankers on Amazon Bedrock's runtime, with a Bedrock API key."""
    nvidia: PresetKeywords
    """Options of nvidia: NVIDIA's rerankers, hosted."""
    pinecone: PresetKeywords
    """Options of pinecone: Pinecone Inference."""
    dashscope: PresetKeywords
    """Options of dashscope: Alibaba Cloud Model Studio (DashScope)."""
    siliconflow: PresetKeywords
    """Options of siliconflow: SiliconFlow."""
    openrouter: PresetKeywords
    """Options of openrouter: OpenRouter, a gateway to rerankers of several vendors."""
    vercel: PresetKeywords
    """Options of vercel: Vercel's AI Gateway, to rerankers of several vendors."""
    together: PresetKeywords
    """Options of together: Together AI."""
    fireworks: PresetKeywords
    """Options of fireworks: Fireworks AI."""
    deepinfra: PresetKeywords
    """Options of deepinfra: DeepInfra."""
    contextual: PresetKeywords
    """Options of contextual: Contextual AI's rerankers, which follow an instruction."""
    isaacus: PresetKeywords
    """Options of isaacus: Isaacus, rerankers for law."""
    scaleway: PresetKeywords
    """Options of scaleway: Scaleway's Generative APIs."""
    novita: PresetKeywords
    """Options of novita: Novita AI."""
    qianfan: PresetKeywords
    """Options of qianfan: Baidu AI Cloud Qianfan."""
    zhipu: PresetKeywords
    """Options of zhipu: Zhipu AI (BigModel)."""
    google: GoogleKeywords
    """Options of google: Google Cloud's ranking API (Vertex AI, Discovery Engine)."""
    watsonx: WatsonxKeywords
    """Options of watsonx: IBM watsonx.ai."""
    xinference: PresetKeywords
    """Options of xinference: a Xinference server."""
    sglang: PresetKeywords
    """Options of sglang: an SGLang server."""
    localai: PresetKeywords
    """Options of localai: a LocalAI server."""
    gpustack: PresetKeywords
    """Options of gpustack: a GPUStack server."""
    litellm: PresetKeywords
    """Options of litellm: a LiteLLM proxy."""

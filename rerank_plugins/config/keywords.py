"""The options of a spec as keywords, for type checkers and editors.

Made of the option models by `python -m rerank_plugins.config.generate`: edit those, not this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

__all__ = ["KnownReranker", "RerankerKeywords"]

KnownReranker = Literal[
    "bge",
    "bge:bge-reranker-base",
    "bge:bge-reranker-large",
    "bge:bge-reranker-v2-gemma",
    "bge:bge-reranker-v2-m3",
    "causal-lm",
    "cohere",
    "embedded",
    "ettin",
    "ettin:ettin-reranker-150m-v1",
    "ettin:ettin-reranker-17m-v1",
    "ettin:ettin-reranker-1b-v1",
    "ettin:ettin-reranker-32m-v1",
    "ettin:ettin-reranker-400m-v1",
    "ettin:ettin-reranker-68m-v1",
    "flashrank",
    "flashrank:ce-esci-MiniLM-L12-v2",
    "flashrank:miniReranker_arabic_v1",
    "flashrank:ms-marco-MiniLM-L-12-v2",
    "flashrank:ms-marco-MultiBERT-L-12",
    "flashrank:ms-marco-TinyBERT-L-2-v2",
    "http",
    "infinity",
    "jina",
    "jina-api",
    "jina:jina-reranker-v1-tiny-en",
    "jina:jina-reranker-v1-turbo-en",
    "jina:jina-reranker-v2-base-multilingual",
    "jina:jina-reranker-v3",
    "jina:jina-reranker-v3.5",
    "lexical",
    "mixedbread",
    "ms-marco",
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
    "onnx",
    "passthrough",
    "qwen3",
    "qwen3:Qwen3-Reranker-0.6B",
    "qwen3:Qwen3-Reranker-4B",
    "qwen3:Qwen3-Reranker-8B",
    "sentence-transformers",
    "tei",
    "vllm",
    "voyage",
    "zerank",
    "zerank:zerank-1",
    "zerank:zerank-1-small",
    "zerank:zerank-2",
    "zeroentropy",
]
"""Backends, and models that are known by name; any other string may be a spec too."""


class FallbackKeywords(TypedDict, total=False):
    """What answers where the reranker cannot."""

    specs: Sequence[str | Mapping[str, Any]]
    """Specs, tried in order. A string takes `retry`, `timeout`, `limit`, `breaker` and `cache` from the spec around it;
    a mapping and a named reranker stand alone."""
    on: Sequence[Literal["transient", "bad_response", "deadline", "rejected"]]
    """After which errors the next one is asked."""


class RetryKeywords(TypedDict, total=False):
    """When a request is sent again."""

    attempts: int
    """Attempts in all, the first one included."""
    wait_initial: float
    """Seconds before the second attempt, at most; the bound doubles with each attempt."""
    wait_max: float
    """Seconds before any attempt, at most."""


class LimitKeywords(TypedDict, total=False):
    """What the account may send in a minute."""

    requests_per_minute: int | None
    """Requests, retries and the parts of a split call included."""
    tokens_per_minute: int | None
    """Tokens, estimated from above until the vendor says how many it counted."""


class BreakerKeywords(TypedDict, total=False):
    """When a vendor that keeps failing is left alone."""

    failures: int
    """Failed calls in a row, after which it is not asked."""
    reset_s: float
    """Seconds after which one call is sent again, to see."""


class CacheKeywords(TypedDict, total=False):
    """Where scores that were paid for once are kept."""

    kind: Literal["memory", "disk"]
    """`memory`: of this process. `disk`: in a SQLite file that processes of one machine share."""
    max_entries: int
    """Scores that are kept (of a listwise backend: lists); the oldest are dropped first."""
    path: str | os.PathLike[str] | None
    """The file of a `disk` cache; without it, one in the user's cache folder. In a configuration file a relative path
    counts from that file's folder."""
    ttl_s: float | None
    """Seconds that a score is kept; `None` is for ever."""


class LongDocumentsKeywords(TypedDict, total=False):
    """What happens to a document that is longer than the backend reads."""

    mode: Literal["truncate", "head_tail", "error", "chunk"]
    """`truncate`: the end is cut. `head_tail`: the middle is taken out. `error`: the call is refused. `chunk`: all of
    it is read, in pieces whose scores are joined."""
    tokens: int | None
    """Of `chunk`: tokens of one piece; `None` is what the model reads beside the query."""
    overlap: int | None
    """Of `chunk`: tokens that a piece repeats of the one before; `None` is an eighth of a piece."""
    aggregate: Literal["max", "mean_top_k", "first_plus_max"]
    """Of `chunk`: how the scores of the pieces are joined."""


class CalibrationKeywords(TypedDict, total=False):
    """A fitted curve, which makes scores of one backend probabilities."""

    path: str | os.PathLike[str]
    """The file that `rerank-plugins calibrate` wrote. In a configuration file a relative path counts from its
    folder."""


class CascadeKeywords(TypedDict, total=False):
    """Rerankers in turn: a cheap one over all documents, the next one over the best of them."""

    stages: Sequence[str | Mapping[str, Any]]
    """Two specs or more, the cheapest first."""
    keep: int | Sequence[int]
    """How many documents go on after each stage but the last."""
    gate: float | None
    """Where a stage's best document leads the second by at least so much `relevance_score`, the later stages are
    spared."""


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
"""Several orders that are joined into one."""


DiversifyKeywords = TypedDict(
    "DiversifyKeywords",
    {
        "lambda": "float",
        "top_n": "int",
        "similarity": "Any",
    },
    total=False,
)
"""How the first documents are spread out, so that they do not all say the same."""


class PriceKeywords(TypedDict, total=False):
    """What a vendor costs, in US dollars."""

    per_million_tokens: float | None
    """For one million input tokens."""
    per_search_unit: float | None
    """For one search unit (Cohere: a query with up to 100 documents)."""


class EmbeddedKeywords(TypedDict, total=False):
    """Options of the models in the wheel."""

    cache_mb: float
    """Megabytes of document vectors to keep for later queries (about 0.3 a passage of 200 tokens); 0 turns it off.
    `fast` needs none."""
    max_tokens: int | None
    """Tokens of a document that are read, special ones included; 256 unless given, 512 at most."""
    batch_tokens: int | None
    """Tokens of one batch."""
    device: Literal["cpu", "auto"] | None
    """`cpu`."""
    runtime: Literal["onnxruntime", "auto"] | None
    """`onnxruntime`; `fast` takes none."""
    dtype: Literal["float32", "auto"] | None
    """`float32`."""


class LexicalKeywords(TypedDict, total=False):
    """BM25 over the candidates has no options."""


class PassthroughKeywords(TypedDict, total=False):
    """The order given has no options."""


class FamilyKeywords(TypedDict, total=False):
    """Options of the families of models: which engine runs one depends on the model, and on these."""

    device: str | Sequence[str] | None
    """`cpu`, `cuda`, `cuda:1`, `mps`; or a list of GPUs."""
    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] | None
    """`torch` asks for the torch engine; `onnxruntime` or `openvino` runs the ONNX file, where there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16", "int8"] | None
    """`bfloat16` and `float16` ask for torch, unless the runtime is `openvino`; `int8` is OpenVINO's."""
    max_tokens: int | None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: int | None
    """Tokens of one batch."""
    revision: str | None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool
    """Ask no network."""


class OnnxKeywords(TypedDict, total=False):
    """Options of a cross-encoder in ONNX form."""

    device: Literal["cpu", "auto"] | None
    """`cpu`."""
    runtime: Literal["auto", "onnxruntime", "openvino"] | None
    """`onnxruntime`, or `openvino`; without it onnxruntime, unless `dtype` calls for OpenVINO."""
    dtype: Literal["float32", "auto", "bfloat16", "int8"] | None
    """`float32`, exact; `auto` for the fastest that keeps the order; on OpenVINO `bfloat16` and `int8`."""
    max_tokens: int | None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: int | None
    """Tokens of one batch."""
    revision: str | None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool
    """Ask no network."""


class TorchByNameKeywords(TypedDict, total=False):
    """Options of a cross-encoder on torch, by name."""

    device: str | Sequence[str] | None
    """`cpu`, `cuda`, `cuda:1`, `mps`; or a list of GPUs."""
    runtime: Literal["torch", "auto"] | None
    """`torch`."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None
    """`float32`, `bfloat16`, `float16`, `auto`; `None` is float32 on a CPU, bfloat16 on a GPU that has it."""
    max_tokens: int | None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: int | None
    """Tokens of one batch."""
    revision: str | None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool
    """Ask no network."""
    trust_remote_code: bool
    """Run the repository's own code: only of a model on the hub, at a commit (40 digits)."""


class CausalLMKeywords(TypedDict, total=False):
    """Options of a language model that answers yes or no."""

    device: str | Sequence[str] | None
    """`cpu`, `cuda`, `cuda:1`, `mps`; or a list of GPUs."""
    runtime: Literal["torch", "auto"] | None
    """`torch`."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None
    """`float32`, `bfloat16`, `float16`, `auto`; `None` is float32 on a CPU, bfloat16 on a GPU that has it."""
    max_tokens: int | None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: int | None
    """Tokens of one batch."""
    revision: str | None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool
    """Ask no network."""
    template: Literal["qwen3", "mxbai", "zerank", "bge-gemma"] | None
    """Whose prompt it was trained with; needed."""


class SpansKeywords(TypedDict, total=False):
    """Which passages are asked for."""

    mode: Literal["enabled", "disabled"]
    """Whether any are."""
    threshold: float | None
    """The lowest score of a passage."""
    max_spans: int | None
    """Passages of one document."""


class CohereKeywords(TypedDict, total=False):
    """Options of Cohere's API."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    platform: Literal["bedrock", "sagemaker"] | None
    """Where on AWS the model runs, called with the credentials that boto3 finds (extra `cohere-aws`). The model is then
    an identifier of Bedrock's (`cohere:cohere.rerank-v3-5:0`) or the name of a SageMaker endpoint."""
    region: str | None
    """The platform's region; without it `AWS_REGION` and `AWS_DEFAULT_REGION` are read."""
    max_tokens_per_doc: int
    """Where Cohere cuts a document."""
    priority: int | None
    """0 is served first and dropped last."""
    relevant_spans: bool | SpansKeywords | None
    """Ask for the best passages (Rerank 5 and later): `true`, or a mapping with `threshold` and `max_spans`."""
    client: Any
    """A `cohere.AsyncClientV2`, or a blocking one (`ClientV2`, `BedrockClientV2`, `SagemakerClientV2`), which runs on
    threads of this backend's own."""


class VoyageKeywords(TypedDict, total=False):
    """Options of Voyage's API."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    client: Any
    """A `voyageai.AsyncClient`, or a blocking `Client`, which runs on threads of this backend's own."""


class JinaKeywords(TypedDict, total=False):
    """Options of Jina's API."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""


class MixedbreadKeywords(TypedDict, total=False):
    """Options of Mixedbread's API."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    rank_fields: Sequence[str] | None
    """The fields of mappings to rank by; without it, all of them."""


class ZeroEntropyKeywords(TypedDict, total=False):
    """Options of ZeroEntropy's API."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    latency: Literal["fast", "slow"]
    """`slow` has much higher rate limits and takes ten seconds and more."""


class TEIKeywords(TypedDict, total=False):
    """Options of a Text Embeddings Inference server."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    raw_scores: bool
    """Ask for the model's logits instead of their sigmoid."""
    max_documents: int
    """The server's `--max-client-batch-size`; 32 unless it was started with another."""
    max_tokens: int | None
    """What the model reads of query and document together; without it, cuts are not reported."""


class VLLMKeywords(TypedDict, total=False):
    """Options of a vLLM server."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    truncate_prompt_tokens: int | Literal[False] | None
    """Where query and document together are cut; -1 is the model's own length; `false` or 0 sends nothing (a longer
    pair then fails the request)."""
    use_activation: bool | None
    """`false` asks for logits instead of their sigmoid; without it, the server chooses."""
    scale: Literal["unit", "logit", "cosine", "ordinal"] | None
    """What the score means; `unit`, or `logit` with `use_activation = false`. An embedding model served for scoring
    gives `cosine`."""
    max_documents: int | None
    """Documents in one request; vLLM has no limit of its own."""
    max_tokens: int | None
    """What the model reads of query and document together; without it, cuts are not reported."""


class InfinityKeywords(TypedDict, total=False):
    """Options of an Infinity server."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    raw_scores: bool
    """Ask for the model's logits instead of their sigmoid."""
    max_tokens: int | None
    """What the model reads of query and document together; without it, cuts are not reported."""


class HTTPKeywords(TypedDict, total=False):
    """Options of any server with a Cohere-shaped `/rerank`."""

    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    path: str
    """Added to `base_url`, unless that ends in it."""
    headers: Mapping[str, str] | None
    """Sent along; a value may be `"env:NAME"`. Written out, it is left out where the spec is stored."""
    body: Mapping[str, Any] | None
    """More fields of the body; a text in it may be `"env:NAME"`, as in `headers`."""
    query_field: str
    """The name of the query in the body."""
    documents_field: str
    """The name of the documents."""
    instruction_field: str | None
    """The name of the instruction, for a server that follows one."""
    top_n_field: str | None
    """The name of the number of results, for a server that demands one (the count is sent: cutting is done here)."""
    results_field: str | None
    """Where the reply has its list; `None` if it is the list."""
    index_field: str
    """The name of a result's position."""
    score_field: str
    """The name of its score."""
    scale: Literal["unit", "logit", "cosine", "ordinal"]
    """What the score means: `unit`, `logit`, `cosine` or `ordinal`."""
    max_documents: int | None
    """Documents in one request."""
    max_tokens: int | None
    """Tokens of the query and one document; a longer document is cut before it is sent."""
    max_total_tokens: int | None
    """Tokens of one request."""
    max_bytes: int | None
    """Bytes of one request."""
    listwise: bool
    """A document's score depends on the others."""


class RerankerKeywords(TypedDict, total=False):
    """A reranker: one backend or a cascade, and the policies around it."""

    use: str
    """The backend, or backend and model: `"embedded"`, `"cohere:rerank-v4.0-fast"`, `"onnx:./folder"`."""
    top_n: int | None
    """How many results come back; without it all."""
    instruction: str | None
    """What relevant means, for models that follow such a text."""
    score_threshold: float | None
    """Leave out what has a `relevance_score` below it; never applied to a degraded answer."""
    fields: Sequence[str] | None
    """Of documents that are mappings, the fields that are read, in this order; without it all text and number
    fields."""
    deadline: float | None
    """Seconds for the whole call, retries and fallbacks included."""
    fallback: Sequence[str | Mapping[str, Any]] | FallbackKeywords | None
    """What answers where this reranker cannot: a list of specs, or a mapping."""
    on_error: Literal["raise", "degrade"]
    """`degrade`: the last fallback is `passthrough`, the order given."""
    retry: int | RetryKeywords | None
    """Attempts in all, or a mapping; 3 for hosted backends, 1 for local ones."""
    limit: LimitKeywords | None
    """What the account may send in a minute."""
    breaker: bool | BreakerKeywords | None
    """Leave a vendor alone that keeps failing: `true`, or a mapping."""
    cache: bool | CacheKeywords | None
    """Keep scores that were paid for: `true`, or a mapping."""
    long_documents: Literal["truncate", "head_tail", "error", "chunk"] | LongDocumentsKeywords | None
    """What happens to a document that is longer than the backend reads: a mode (`"truncate"` unless written), or a
    mapping."""
    calibration: str | os.PathLike[str] | CalibrationKeywords | None
    """The file of a calibration, which makes scores probabilities."""
    cascade: CascadeKeywords | None
    """Several rerankers in turn, instead of `use`."""
    fuse: FuseKeywords | None
    """Join this reranker's order with others."""
    diversify: bool | DiversifyKeywords | None
    """Spread out the first documents: `true`, or a mapping."""
    api_key: str | None
    """The key, `"env:NAME"` or `"file:PATH"`; without it the vendor's own environment variables are read."""
    base_url: str | None
    """Replaces the vendor's scheme and host; the vendor's own path stays."""
    timeout: float
    """Seconds for one attempt, from sending to the last byte."""
    max_in_flight: int
    """Parts of one call that are sent at once, where a call is too large for one request."""
    price: PriceKeywords | None
    """What you pay, for `usage.cost_usd`."""
    device: str | Sequence[str] | None
    """`cpu`, `cuda`, `cuda:1`, `mps`; or a list of GPUs."""
    runtime: str | None
    """What runs the model: `onnxruntime`, `openvino`, `torch`."""
    dtype: str | None
    """`float32`, `auto`, `bfloat16`, `float16`, `int8`."""
    max_tokens: int | None
    """Tokens of query and document together; `None` is what the model's files say."""
    batch_tokens: int | None
    """Tokens of one batch."""
    revision: str | None
    """Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then."""
    local_files_only: bool
    """Ask no network."""
    embedded: EmbeddedKeywords
    """Options of embedded: the model in the wheel: late interaction, English; `embedded:fast`."""
    lexical: LexicalKeywords
    """Options of lexical: BM25 over the candidates."""
    passthrough: PassthroughKeywords
    """Options of passthrough: the order given."""
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
    ettin: FamilyKeywords
    """Options of ettin: Ettin rerankers: ModernBERT, 17 M to 1 B, English."""
    flashrank: FamilyKeywords
    """Options of flashrank: the small encoders of the flashrank package, which is not needed; English, Arabic,
    multilingual."""
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
    tei: TEIKeywords
    """Options of tei: a Text Embeddings Inference server, at base_url."""
    vllm: VLLMKeywords
    """Options of vllm: a vLLM server, at base_url."""
    infinity: InfinityKeywords
    """Options of infinity: an Infinity server, at base_url."""
    http: HTTPKeywords
    """Options of http: any Cohere-shaped /rerank, at base_url."""

"""Published prices of hosted rerankers, as data for `price = "list"` and `rerank-plugins list --prices`.

Vendors change prices without notice, so a row names the page that was read and the day. To renew a row, read the page
again and change price and date together. Where the vendor's own page names no price for a model, the row names a list
of another party: its source shows that. A price in US dollars before tax, without free quotas and discounts.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.price import ListPrice, Price

__all__ = ["PRICES"]

_LITELLM = "https://github.com/BerriAI/litellm/tree/v1.110.2"
"""LiteLLM's list: `model_prices_and_context_window_backup.json` in its wheel. Mostly it names the vendor's page."""
_MIXEDBREAD = "https://www.mixedbread.com/docs/reranking/models"
_DEEPINFRA = "https://deepinfra.com/Qwen"
_READ = "2026-11-30"


def _per_million(tokens: float, source: str = _LITELLM, date: str = _READ) -> ListPrice:
    """Return a price of so many US dollars for a million input tokens."""
    return ListPrice(Price(per_million_tokens=tokens), source, date)


def _per_million_of_each(tokens: float, cached: float, output: float | None = None) -> ListPrice:
    """Return a price of input tokens, of cached ones among them, and of output tokens where these are charged."""
    price = Price(per_million_tokens=tokens, per_million_cached_tokens=cached, per_million_output_tokens=output)
    return ListPrice(price, _LITELLM, _READ)


def _per_search(dollars: float, source: str = _LITELLM) -> ListPrice:
    """Return a price of so many US dollars for one search: a query with up to 100 documents."""
    return ListPrice(Price(per_search_unit=dollars), source, _READ)


PRICES: Mapping[str, Mapping[str, ListPrice]] = {
    # Version 5 by https://cohere.com/blog/rerank-5, version 4 by https://cohere.com/pricing. That page named no price
    # of a search on 2026-10-18, only hourly rates of dedicated instances. The last row is a model ID of Amazon Bedrock.
    "cohere": {
        "rerank-v5.0-pro": _per_million(0.05),
        "rerank-v5.0-fast": _per_million(0.02),
        "rerank-v4.0-pro": _per_search(0.0025),
        "rerank-v4.0-fast": _per_search(0.002),
        "rerank-v3.5": _per_search(0.002),
        "rerank-english-v3.0": _per_search(0.002),
        "rerank-multilingual-v3.0": _per_search(0.002),
        "cohere.rerank-v3-5:0": _per_search(0.002),
    },
    # By https://docs.voyageai.com/docs/pricing.
    "voyage": {
        "rerank-3": _per_million(0.05),
        "rerank-3-lite": _per_million(0.02),
        "rerank-2.5": _per_million(0.05),
        "rerank-2.5-lite": _per_million(0.02),
        "rerank-2": _per_million(0.05),
        "rerank-2-lite": _per_million(0.02),
    },
    # By https://api.jina.ai/v1/models, which has no price of jina-reranker-v3.
    "jina-api": {
        "jina-reranker-v3.5": _per_million(0.05),
        "jina-reranker-m0": _per_million(0.05),
        "jina-reranker-v2-base-multilingual": _per_million(0.05),
    },
    "mixedbread": {
        f"{owner}{model}": _per_million(0.15, f"{_MIXEDBREAD}/{model}")
        for owner in ("mixedbread-ai/", "")
        for model in ("mxbai-rerank-large-v2", "mxbai-rerank-base-v2")
    },
    "zeroentropy": {
        # zeroentropy.dev/pricing as another party copied it; the vendor has announced the end of its API.
        "zerank-2": _per_million(
            0.025,
            "https://github.com/api-evangelist/zeroentropy/blob/main/plans/zeroentropy-plans-pricing.yml",
            "2026-10-07",
        ),
    },
    # Of `openai`, only the decisions; `chat` has the price of the same model's text. Both by
    # https://developers.openai.com/api/docs/pricing, below 272,000 tokens a request.
    "openai": {
        "gpt-6-luna": _per_million_of_each(0.10, 0.01),
    },
    "chat": {
        "gpt-6-luna": _per_million_of_each(0.10, 0.01, 0.50),
        "gpt-5.6-luna": _per_million_of_each(0.20, 0.02, 1.20),
        "gpt-5.4-mini": _per_million_of_each(0.75, 0.075, 4.50),
        "gpt-5.4-nano": _per_million_of_each(0.20, 0.02, 1.25),
    },
    # By https://docs.typesafe.ai/models.
    "typesafe": {
        "jev-latest": _per_million(0.042),
        "jev-1.14.0": _per_million(0.042),
    },
    # Presets whose replies say what was billed. Fireworks takes both names of its model.
    "fireworks": {
        "fireworks/qwen3-reranker-8b": _per_million(0.20),
        "accounts/fireworks/models/qwen3-reranker-8b": _per_million(0.20),
    },
    "azure-ai": {
        "rerank-v4.0-pro": _per_search(0.0025),
        "rerank-v4.0-fast": _per_search(0.002),
    },
    "novita": {
        "baai/bge-reranker-v2-m3": _per_million(0.01),
        "qwen/qwen3-reranker-8b": _per_million(0.05),
    },
    "deepinfra": {
        "Qwen/Qwen3-Reranker-8B": _per_million(0.05, f"{_DEEPINFRA}/Qwen3-Reranker-8B/api"),
        "Qwen/Qwen3-Reranker-0.6B": _per_million(0.01, f"{_DEEPINFRA}/Qwen3-Reranker-0.6B/api"),
    },
    "prime-intellect": {
        "qwen/qwen3-reranker-0.6b": _per_million(0.20, "https://docs.primeintellect.ai/api-reference/inference-rerank"),
    },
}
"""Backend → the model's name at the vendor → its price."""

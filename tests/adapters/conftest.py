"""A local server for the `http` backend, and a spec with a key in every place where a key can be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.bees import SECRET

from rerank_plugins.testing.cohere_like import CohereLike


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike(key=SECRET) as running:
        yield running


@pytest.fixture
def spec(server: CohereLike, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setenv("TENANT", "acme")
    return {
        "use": "http",
        "base_url": server.url,
        "api_key": SECRET,
        "retry": 1,
        "http": {"headers": {"x-api-key": SECRET, "x-tenant": "env:TENANT"}},
        "fallback": [
            {"use": "http", "base_url": f"http://user:{SECRET}@127.0.0.1:9", "api_key": SECRET, "retry": 1},
            "passthrough",
        ],
    }

"""A query, texts that `lexical` reorders, a spec that fails, and a key."""

from __future__ import annotations

QUERY = "how do bees make honey"
TEXTS = [
    "The bank raised its rates.",
    "A honey badger digs.",
    "Bees dance.",
    "Bees make honey from nectar.",
]
"""The best text is last: for QUERY, `lexical` ranks 3 first and 0 last."""

DEGRADED = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1, "fallback": ["passthrough"]}
"""No server listens on port 9."""

SECRET = "sk-do-not-tell-4711"

"""A question, passages that `lexical` turns round, and specs that fail."""

from __future__ import annotations

QUERY = "how do bees make honey"
TEXTS = [
    "The bank raised its rates.",
    "A honey badger digs.",
    "Bees dance.",
    "Bees make honey from nectar.",
]
"""Best last: for QUERY, `lexical` gives 3, 1 or 2, and 0 at the end."""

DEGRADED = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1, "fallback": ["passthrough"]}
"""Nothing listens on port 9."""

SECRET = "sk-do-not-tell-4711"

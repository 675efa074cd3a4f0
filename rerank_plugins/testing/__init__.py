"""Tests and servers for authors of backends.

- `contract`: a test suite to inherit. It needs pytest.
- `server`: a local HTTP server; subclass it with the format of a vendor.
- `script`: the failures that such a server can play.
- `cohere_like`: the smallest server of that kind.
"""

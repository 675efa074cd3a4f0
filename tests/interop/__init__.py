"""Real servers and real clients against this package: `make interop`, and tests that replay what it recorded."""

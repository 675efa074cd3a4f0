"""Scorers made of scorers, one idea a file. `rerank_plugins.config` knows their order."""

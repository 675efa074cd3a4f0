"""One vendor or one engine a file; found by name in `rerank_plugins.registry`, imported when used."""

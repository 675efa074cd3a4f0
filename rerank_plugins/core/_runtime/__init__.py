"""Machinery behind the contract that a reader can skip: the background loop, fork hooks, queues and bounded tables."""

"""Policies: scorers that wrap scorers, one per file. `config.build` defines their order."""

"""The `embedded` models, whose weights ship in the wheel: late interaction (MaxSim) plus lexical matching."""

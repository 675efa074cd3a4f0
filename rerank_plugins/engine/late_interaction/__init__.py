"""Token vectors of query and document, made apart and compared with MaxSim, and lexical evidence: the models in the wheel."""

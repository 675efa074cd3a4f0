"""For authors of backends: a contract suite to inherit (`contract`), and local servers that speak a vendor's format.

`server` is the server to subclass, `script` the failures it can play, `cohere_like` the smallest of the servers. Only
`contract` needs pytest.
"""

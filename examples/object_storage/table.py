"""The LanceDB table in the bucket: made of the documents that lie there, with an index for vectors and one for words."""

import os
from collections.abc import Callable
from datetime import timedelta

os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of a coming change of its own defaults at every search

import lancedb
import pyarrow as pa
from lancedb.index import FTS, IvfPq
from storage import Storage

# 24 numbers of 4 bits: 12 bytes a vector, 128 times less than its floats, as for a table of hundreds of millions.
VECTOR_INDEX = IvfPq(distance_type="cosine", num_partitions=1, num_sub_vectors=24, num_bits=4)
# LanceDB's own patience is three minutes; a search has a person waiting.
PATIENCE = {"client_max_retries": "1", "download_retry_count": "1", "connect_timeout": "2s", "timeout": "10s"}
DEADLINE = timedelta(seconds=10)  # of a whole search: one that hangs is many requests, and each is sent again


def connect(storage: Storage) -> lancedb.DBConnection:
    options = PATIENCE | {"allow_http": str((storage.endpoint or "").startswith("http://")).lower()}
    return lancedb.connect(f"s3://{storage.folder}/lancedb", storage_options=options)


def build(storage: Storage, embed_documents: Callable[[list[str]], list[list[float]]]) -> lancedb.table.Table:
    """Read every document of the bucket, and write the table and its indexes back to it."""
    names, texts = zip(*storage.read(), strict=True)
    vectors = embed_documents(list(texts))
    columns = {"id": names, "text": texts, "vector": pa.array(vectors, pa.list_(pa.float32(), len(vectors[0])))}
    table = connect(storage).create_table("passages", pa.table(columns), mode="overwrite")
    table.create_index("text", config=FTS())
    table.create_index("vector", config=VECTOR_INDEX)
    return table

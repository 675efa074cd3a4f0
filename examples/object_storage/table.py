"""The LanceDB table in the bucket, made from its documents, with an index for vectors and one for words."""

import os
from collections.abc import Callable
from datetime import timedelta

os.environ.setdefault("LANCEDB_LOG", "error")  # it logs a warning about its defaults at every search

import lancedb
import pyarrow as pa
from lancedb.index import FTS, IvfPq
from storage import Storage

# 24 numbers of 4 bits are 12 bytes per vector, 128 times less than its floats, as for hundreds of millions of rows.
VECTOR_INDEX = IvfPq(distance_type="cosine", num_partitions=1, num_sub_vectors=24, num_bits=4)
# LanceDB's defaults add up to three minutes, too long for a search while a person waits.
TIMEOUTS = {"client_max_retries": "1", "download_retry_count": "1", "connect_timeout": "2s", "timeout": "10s"}
DEADLINE = timedelta(seconds=10)  # for a whole search, which is many requests, each with retries


def connect(storage: Storage) -> lancedb.DBConnection:
    options = TIMEOUTS | {"allow_http": str((storage.endpoint or "").startswith("http://")).lower()}
    return lancedb.connect(f"s3://{storage.folder}/lancedb", storage_options=options)


def build(storage: Storage, embed_documents: Callable[[list[str]], list[list[float]]]) -> lancedb.table.Table:
    """Read all documents of the bucket, and write the table with its indexes to it."""
    names, texts = zip(*storage.read(), strict=True)
    vectors = embed_documents(list(texts))
    columns = {"id": names, "text": texts, "vector": pa.array(vectors, pa.list_(pa.float32(), len(vectors[0])))}
    table = connect(storage).create_table("passages", pa.table(columns), mode="overwrite")
    table.create_index("text", config=FTS())
    table.create_index("vector", config=VECTOR_INDEX)
    return table

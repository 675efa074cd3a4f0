"""Reranking in LanceDB: a hybrid search of one table, with the reranker in place of one of LanceDB's.

pip install 'rerank-plugins[object-storage]'
"""

import os
import tempfile

os.environ.setdefault("LANCEDB_LOG", "error")

import lancedb
from lancedb.index import FTS

from rerank_plugins.lancedb import LanceDBReranker

texts = [
    "A refund takes five working days once the parcel is back.",
    "Parcels are sent from our warehouse in Ghent.",
    "Gift cards cannot be returned.",
]
with tempfile.TemporaryDirectory() as folder:  # or s3://bucket/folder
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]]  # your embeddings go here
    rows = [{"text": text, "vector": vector} for text, vector in zip(texts, vectors, strict=True)]
    table = lancedb.connect(folder).create_table("handbook", rows)
    table.create_index("text", config=FTS())

    search = table.search(query_type="hybrid").vector([0.6, 0.8]).text("how long does a refund take?")
    for row in search.rerank(LanceDBReranker("embedded", top_n=2)).limit(100).to_list():
        print(f"{row['_relevance_score']:.3f} {row['text']}")

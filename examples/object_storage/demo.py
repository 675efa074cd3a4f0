"""Two-stage retrieval over object storage: `make demo-s3`, or `python demo.py [FOLDER] [--queries 250]`.

FOLDER holds corpus.jsonl, queries.tsv and qrels.txt; without one, real questions over Wikipedia. README names the
variables that put it on S3.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", category=DeprecationWarning)
sys.path.insert(0, str(Path(__file__).parent.parent))

import langchain_search
import llama_index_search
from collection import DATA, Collection
from figures import quality, times
from minilm import MiniLM
from passages import Passages
from storage import Storage, opened
from table import build


def loaded(storage: Storage, collection: Collection) -> Passages:
    """Put the collection into the bucket, make the table there, and open it."""
    embeddings, started = MiniLM(), time.perf_counter()
    storage.put(zip(collection.ids, collection.texts, strict=True))
    written = time.perf_counter()
    build(storage, embeddings.embed_documents)
    print(f"{storage.endpoint or 'AWS S3'}: {len(collection.ids):,} documents written in {written - started:.1f} s,")
    print(f"read back, embedded, and written as a table with two indexes in {time.perf_counter() - written:.1f} s.")
    return Passages(storage, embeddings.embed_query)


def show(passages: Passages, question: str) -> None:
    """Ask both frameworks."""
    documents = langchain_search.two_stages(passages).invoke(question)
    nodes = llama_index_search.two_stages(passages).query(question).source_nodes
    print(f"\n{question}?")
    for place, (document, node) in enumerate(zip(documents, nodes, strict=True), 1):
        was, score = document.metadata["retrieval_rank"] + 1, document.metadata["relevance_score"]
        text = " ".join(document.page_content.split())[:60]
        print(f"  {place}. {score:.3f} (was {was:3}) {text:60} | LlamaIndex: {node.node_id} {node.score:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    parser.add_argument("--queries", type=int, default=250)
    given = parser.parse_args()
    collection = Collection(given.folder)
    names = list(collection.queries)[:: max(1, len(collection.queries) // given.queries)][: given.queries]
    with opened() as storage:
        passages = loaded(storage, collection)
        show(passages, collection.queries[names[0]])
        quality(passages, collection, names)
        times(passages, [collection.queries[name] for name in names])

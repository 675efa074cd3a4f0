"""Two-stage retrieval over object storage: `make demo-s3`, or `python demo.py [FOLDER] [--queries 250]`.

FOLDER holds corpus.jsonl, queries.tsv and qrels.txt; the default is real questions over Wikipedia. README lists the
variables for a bucket on S3.
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
from figures import print_quality, print_times
from minilm import MiniLM
from passages import Passages
from storage import Storage, open_storage
from table import build


def load(storage: Storage, collection: Collection) -> Passages:
    """Write the collection and its table to the bucket, and open the table."""
    embeddings, started = MiniLM(), time.perf_counter()
    storage.put(zip(collection.ids, collection.texts, strict=True))
    written = time.perf_counter()
    build(storage, embeddings.embed_documents)
    print(f"{storage.endpoint or 'AWS S3'}: {len(collection.ids):,} documents written in {written - started:.1f} s,")
    print(f"read back, embedded, and written as a table with two indexes in {time.perf_counter() - written:.1f} s.")
    return Passages(storage, embeddings.embed_query)


def print_answers(passages: Passages, question: str) -> None:
    documents = langchain_search.two_stages(passages).invoke(question)
    nodes = llama_index_search.two_stages(passages).query(question).source_nodes
    print(f"\n{question}?")
    for rank, (document, node) in enumerate(zip(documents, nodes, strict=True), 1):
        was, score = document.metadata["retrieval_rank"] + 1, document.metadata["relevance_score"]
        text = " ".join(document.page_content.split())[:60]
        print(f"  {rank}. {score:.3f} (was {was:3}) {text:60} | LlamaIndex: {node.node_id} {node.score:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    parser.add_argument("--queries", type=int, default=250)
    arguments = parser.parse_args()
    collection = Collection(arguments.folder)
    names = list(collection.queries)
    names = names[:: max(1, len(names) // arguments.queries)][: arguments.queries]
    with open_storage() as storage:
        passages = load(storage, collection)
        print_answers(passages, collection.queries[names[0]])
        print_quality(passages, collection, names)
        print_times(passages, [collection.queries[name] for name in names])

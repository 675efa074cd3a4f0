"""Run `before` and `after` of a migration on the same documents, and fail if the order differs.

A `before` whose package is not installed is skipped, with the reason. The vendors are local servers with the same wire
formats: no key, no cost. Local models are read from the folder in the command line.
"""

import sys
import warnings

from rerank_plugins.testing.vendors import CohereServer

warnings.filterwarnings("ignore", category=DeprecationWarning)

QUESTION = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "How do clocks work?"]
KEY = "a-key-of-this-example"


class Cohere(CohereServer):
    """A server that also accepts null for a number, which langchain-cohere sends."""

    optional = CohereServer.optional | {"max_tokens_per_doc": (int, type(None))}


def folder() -> str:
    """Return the folder of a cross-encoder with PyTorch weights."""
    if len(sys.argv) != 2:
        raise SystemExit(f"Name the folder of a cross-encoder: python {sys.argv[0]} FOLDER")
    return sys.argv[1]


def langchain(compressor) -> list[str]:
    from langchain_core.documents import Document

    documents = [Document(text, metadata={"n": number}) for number, text in enumerate(TEXTS)]
    return [document.page_content for document in compressor.compress_documents(documents, QUESTION)]


def llama_index(postprocessor) -> list[str]:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
    return [item.node.get_content() for item in postprocessor.postprocess_nodes(nodes, query_str=QUESTION)]


def compare(before, after, run) -> None:
    """Print both orders. `run` takes what `before` or `after` returned, and returns the texts, best first."""
    new = run(after())
    print("after: ", new)
    try:
        old = run(before())
    except ImportError as error:
        print(f"before: not run: {error}")
        return
    print("before:", old)
    if old != new:
        raise SystemExit("The orders differ.")

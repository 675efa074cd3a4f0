"""Runs the `before` and the `after` of a migration on the same documents, and fails where the order differs.

A `before` whose package is not installed is left out, with the reason. Vendors are played by servers on this machine
that speak their formats: no key, no bill. Local models come from the folder named on the command line.
"""

import sys
import warnings

from rerank_plugins.testing.vendors import CohereServer

warnings.filterwarnings("ignore", category=DeprecationWarning)

QUESTION = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "How do clocks work?"]
KEY = "a-key-of-this-example"


class Cohere(CohereServer):
    """Takes a null in place of a number too, as langchain-cohere sends it."""

    optional = CohereServer.optional | {"max_tokens_per_doc": (int, type(None))}


def folder() -> str:
    """Return the folder of a cross-encoder, PyTorch weights and all."""
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
    return [found.node.get_content() for found in postprocessor.postprocess_nodes(nodes, query_str=QUESTION)]


def compare(before, after, run) -> None:
    """Print both orders; `run` gives the texts that came back, best first, of what `before` and `after` return."""
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

"""What the recipes share: passages, and an embedding that needs no download. Your embedding model goes in its place."""

import math
import re
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore", category=DeprecationWarning)

from langchain_core.embeddings import Embeddings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from rerank_plugins.evaluation import Collection

DIMENSIONS = 256
collection = Collection(Path(__file__).parents[1] / "data" / "nq_qed")
TEXTS = list(collection.documents.values())[:600]  # paragraphs of Wikipedia, with their titles
TITLES = {text: collection.titles[name] for name, text in collection.documents.items()}
NODES = [TextNode(text=text) for text in TEXTS]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


texts_with = Counter(word for text in TEXTS for word in set(words(text)))


def embed(text: str) -> list[float]:
    """Return a vector of length 1. Each word adds its inverse document frequency to one of 256 numbers."""
    vector = np.zeros(DIMENSIONS)
    for word in words(text):
        code = zlib.crc32(word.encode())
        vector[code % DIMENSIONS] += math.copysign(math.log(len(TEXTS) / (1 + texts_with[word])), code - 2**31)
    return (vector / (np.linalg.norm(vector) or 1)).tolist()


class LangChainEmbedding(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [embed(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return embed(text)


class LlamaIndexEmbedding(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return embed(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return embed(query)

"""Embeddings without a download: MiniLM, from the model of the `embedded` reranker. Replace it by your embeddings."""

import asyncio
import threading
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings

import rerank_plugins
from rerank_plugins.engine.onnx.cross_encoder import BATCH_TOKENS, OnnxModel


class MiniLM(Embeddings):
    """The normalised mean of the last layer's token vectors: 384 numbers for the first 256 tokens of a text."""

    def __init__(self) -> None:
        self.model = OnnxModel.shared(Path(rerank_plugins.__file__).parent / "backends" / "embedded_model")

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        rows = await self.model.workers.run(lambda: self.model.tokenizer.singles(texts, 256))
        vectors = np.zeros((len(rows), 384), dtype=np.float32)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for line, position in enumerate(positions):
                mean = output[line, : len(rows[position].ids)].mean(axis=0)
                vectors[position] = mean / np.linalg.norm(mean)

        await self.model.run_rows(rows, BATCH_TOKENS, keep)
        return vectors.tolist()

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors = []  # in another thread, since the caller's thread may run an event loop
        thread = threading.Thread(target=lambda: vectors.append(asyncio.run(self.aembed_documents(texts))))
        thread.start()
        thread.join()
        return vectors[0]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

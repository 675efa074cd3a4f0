"""The first stage: search vectors and words in the bucket, fuse the results, and fetch the texts of the candidates."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from storage import Storage
from table import DEADLINE, connect


class StorageUnavailable(RuntimeError):
    """The bucket did not answer. The same objects work again when it does."""


class Passages:
    """Searches with the embedding of any framework: LangChain's `embed_query`, LlamaIndex's `get_query_embedding`."""

    def __init__(self, storage: Storage, embed_query: Callable[[str], list[float]]) -> None:
        self.storage, self.embed_query = storage, embed_query
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        with self._stage("open"):
            self.table = connect(storage).open_table("passages")

    def candidates(self, query: str, k: int = 100, how: str = "hybrid") -> list[dict[str, Any]]:
        """Return the k best rows (`id`, `text`), best first; `how` is hybrid, vectors, exact or keywords."""
        with self._stage("embed"):
            vector = [] if how == "keywords" else self.embed_query(query)
        with self._stage("search"):
            search = self._search(query, vector, how).with_row_id(True).limit(k)
            row_ids = search.to_arrow(timeout=DEADLINE)["_rowid"].to_pylist()
        with self._stage("fetch"):
            texts = self.table.take_row_ids(row_ids).select(["id", "text"]).with_row_id()
            rows = {row["_rowid"]: row for row in (texts.to_list(timeout=DEADLINE) if row_ids else [])}
        return [rows[row_id] for row_id in row_ids]

    def _search(self, query: str, vector: list[float], how: str) -> Any:
        if how == "keywords":
            return self.table.search(query, query_type="fts").select(["id", "_score"])
        if how == "hybrid":  # reciprocal rank fusion, LanceDB's default
            both = self.table.search(query_type="hybrid").vector(vector).text(query)
            return both.distance_type("cosine").select(["id"])
        search = self.table.search(vector).distance_type("cosine").select(["id", "_distance"])
        return search.bypass_vector_index() if how == "exact" else search

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # LanceDB raises any of them
            if name == "embed":  # an error of the embedding model, not of the bucket
                raise
            raise StorageUnavailable(
                f"{name}: the table in s3://{self.storage.folder} at {self.storage.endpoint or 'AWS'} cannot be read. "
                f"Is the server up, and are AWS_ENDPOINT_URL and the keys right? Then ask again. ({str(error)[:200]})"
            ) from error
        self.milliseconds[name].append((time.perf_counter() - started) * 1000)

"""One bucket: of a server on loopback; of S3, or what speaks it, where RERANK_PLUGINS_BUCKET and AWS's usual variables say so."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, unquote

from pyarrow.fs import FileSelector, S3FileSystem
from s3_server import KEYS, S3Server

BUCKET = "RERANK_PLUGINS_BUCKET"
PREFIX = "rerank-plugins-example"  # nothing is read, written or deleted anywhere else in the bucket


class Storage:
    """The documents, one object each, and the folder of the LanceDB database beside them."""

    def __init__(self, bucket: str) -> None:
        self.folder = f"{bucket}/{PREFIX}"
        self.endpoint, region = os.environ.get("AWS_ENDPOINT_URL"), os.environ.get("AWS_REGION")
        self.files = S3FileSystem(region=region, endpoint_override=self.endpoint, allow_bucket_creation=True)

    def put(self, documents: Iterable[tuple[str, str]]) -> None:
        """Write (name, text) pairs, sixteen at a time, in place of the documents that lie there."""

        def write(document: tuple[str, str]) -> None:
            with self.files.open_output_stream(f"{self.folder}/documents/{quote(document[0], safe='')}") as stream:
                stream.write(document[1].encode())

        self.files.delete_dir_contents(f"{self.folder}/documents", missing_dir_ok=True)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(write, documents))

    def read(self) -> list[tuple[str, str]]:
        """Return the (name, text) pairs of all documents, in the order of their names."""
        found = self.files.get_file_info(FileSelector(f"{self.folder}/documents"))
        with ThreadPoolExecutor(16) as pool:
            texts = pool.map(lambda each: self.files.open_input_stream(each.path).read().decode(), found)
            return sorted(zip([unquote(each.base_name) for each in found], texts, strict=True))


@contextlib.contextmanager
def opened() -> Iterator[Storage]:
    """Give the bucket that the environment names; without one, a bucket of a server that is started here."""
    if os.environ.get(BUCKET):
        yield Storage(os.environ[BUCKET])
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = S3Server(Path(folder)).start()
        os.environ |= KEYS | {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}
        try:
            storage = Storage("demo")
            storage.files.create_dir("demo")
            yield storage
        finally:
            server.kill()

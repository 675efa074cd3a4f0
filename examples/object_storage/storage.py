"""One bucket: of a local server, or the one that RERANK_PLUGINS_BUCKET and the usual variables of AWS name."""

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
PREFIX = "rerank-plugins-example"  # nothing else in the bucket is read, written or deleted


class Storage:
    """The documents, one object each, in a folder of the bucket. The LanceDB database is in the same folder."""

    def __init__(self, bucket: str) -> None:
        self.folder = f"{bucket}/{PREFIX}"
        self.endpoint, region = os.environ.get("AWS_ENDPOINT_URL"), os.environ.get("AWS_REGION")
        self.files = S3FileSystem(region=region, endpoint_override=self.endpoint, allow_bucket_creation=True)

    def put(self, documents: Iterable[tuple[str, str]]) -> None:
        """Replace all documents by these (name, text) pairs, sixteen at a time."""

        def write(document: tuple[str, str]) -> None:
            with self.files.open_output_stream(f"{self.folder}/documents/{quote(document[0], safe='')}") as stream:
                stream.write(document[1].encode())

        self.files.delete_dir_contents(f"{self.folder}/documents", missing_dir_ok=True)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(write, documents))

    def read(self) -> list[tuple[str, str]]:
        """Return the (name, text) pairs of all documents, in the order of their names."""
        files = self.files.get_file_info(FileSelector(f"{self.folder}/documents"))
        with ThreadPoolExecutor(16) as pool:
            texts = pool.map(lambda file: self.files.open_input_stream(file.path).read().decode(), files)
            return sorted(zip([unquote(file.base_name) for file in files], texts, strict=True))


@contextlib.contextmanager
def open_storage() -> Iterator[Storage]:
    """Yield the bucket that the environment names, else a bucket of a local server that is started and killed."""
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

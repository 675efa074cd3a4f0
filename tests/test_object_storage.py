"""The example over object storage, against a real S3 server process: searches, and outages of the server."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from support.bounds import near

EXAMPLE = Path(__file__).parent.parent / "examples" / "object_storage"
sys.path.insert(0, str(EXAMPLE))

import langchain_search  # noqa: E402
import llama_index_search  # noqa: E402
from minilm import MiniLM  # noqa: E402
from passages import Passages, StorageUnavailable  # noqa: E402
from s3_server import KEYS, S3Server  # noqa: E402
from storage import BUCKET, Storage, open_storage  # noqa: E402
from table import build  # noqa: E402

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin" and not shutil.which("weed"), reason="no wheel for macOS: brew install seaweedfs"
)

QUESTION = "how does the moon raise the tides?"
DOCUMENTS = {
    "moon.txt": "The moon's gravity raises the tides in the ocean twice a day.",
    "bananas.txt": "Bananas are yellow and grow in bunches.",
    "sea.txt": "The sea has tides.",
    "rerank.txt": "A reranker scores a query and a document together.",
    **{f"clock-{number}.txt": f"Clock number {number} has a spring that turns its hands." for number in range(20)},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = S3Server(tmp_path_factory.mktemp("seaweedfs")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def storage(server):
    """Yield the bucket, configured by environment variables as a remote S3 is."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}).items():
            environment.setenv(name, value)
        environment.setenv(BUCKET, "mine")
        with open_storage() as storage:
            storage.files.create_dir("mine")
            storage.put(DOCUMENTS.items())
            build(storage, MiniLM().embed_documents)
            yield storage


@pytest.fixture
def passages(storage):
    return Passages(storage, MiniLM().embed_query)


def test_all_objects_are_in_one_folder_of_the_bucket(storage):
    assert dict(storage.read()) == DOCUMENTS
    assert storage.folder == "mine/rerank-plugins-example"
    import pyarrow.fs

    (only,) = storage.files.get_file_info(pyarrow.fs.FileSelector("mine"))
    assert only.path == storage.folder


@pytest.mark.parametrize("how", ["keywords", "vectors", "exact", "hybrid"])
def test_first_stage_finds_matching_documents(passages, how):
    ids = [row["id"] for row in passages.candidates(QUESTION, k=5, how=how)]
    assert {"moon.txt", "sea.txt"} <= set(ids)
    assert len(ids) == (2 if how == "keywords" else 5)


def test_unknown_words_find_no_documents(passages):
    assert passages.candidates("qwertyuiop", how="keywords") == []
    assert langchain_search.two_stages(passages, how="keywords").invoke("qwertyuiop") == []


def test_both_frameworks_return_the_reranked_order(passages):
    documents = langchain_search.two_stages(passages).invoke(QUESTION)
    nodes = llama_index_search.two_stages(passages).query(QUESTION).source_nodes
    assert [each.id for each in documents] == [each.node_id for each in nodes]
    assert [each.id for each in documents][:1] == ["moon.txt"]
    assert len(documents) == 5
    assert nodes[0].score == near(documents[0].metadata["relevance_score"])


async def test_search_works_in_a_running_event_loop(passages):
    documents = await langchain_search.two_stages(passages).ainvoke(QUESTION)
    assert documents[0].id == "moon.txt"


def test_wrong_key_raises_storage_unavailable(storage, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-key")
    with pytest.raises(StorageUnavailable, match=r"s3://mine.*are AWS_ENDPOINT_URL and the keys right"):
        Passages(storage, MiniLM().embed_query)


def test_put_keeps_all_names_and_replaces_old_documents(storage):
    """A second collection is not mixed with the first one; ids may be URLs."""
    other = Storage("other")
    other.files.create_dir("other")
    other.put([("first", "of an earlier collection")])
    named = {"a/b": "one", "https://x.example/y?q=1#z": "two", "a%2Fb": "three", "d + é": "four"}
    other.put(named.items())
    assert dict(other.read()) == named
    assert dict(storage.read()) == DOCUMENTS


def test_error_of_the_embedding_is_raised(storage):
    def broken(query):
        raise ValueError("no such embedding model")

    passages = Passages(storage, broken)
    with pytest.raises(ValueError, match="no such embedding model"):
        passages.candidates(QUESTION)


@pytest.mark.parametrize("how", ["keywords", "vectors", "hybrid"])
def test_hanging_server_raises_after_the_deadline(server, passages, monkeypatch, how):
    """The server accepts the connection and does not answer. LanceDB's default retries would wait five minutes."""
    monkeypatch.setattr("passages.DEADLINE", timedelta(milliseconds=300))
    process = psutil.Process(server.process.pid)
    process.suspend()
    try:
        with pytest.raises(StorageUnavailable, match=r"search: .*Is the server up.*[Tt]imeout"):
            passages.candidates("a query that is not cached", how=how)
    finally:
        process.resume()
    assert call_until_available(passages.candidates, QUESTION)


def call_until_available(search, question, attempts=50):
    """Call again after `StorageUnavailable`, as the error says: a server that has just started may answer 500."""
    for _ in range(attempts - 1):
        with contextlib.suppress(StorageUnavailable):
            return search(question)
    return search(question)


@pytest.mark.slow
def test_search_works_again_after_an_outage(server, passages):
    """The same retriever and engine answer, raise a clear error during the outage, and answer again."""
    retriever = langchain_search.two_stages(passages)
    engine = llama_index_search.two_stages(passages)
    before = [each.id for each in retriever.invoke(QUESTION)]
    assert [each.node_id for each in engine.query(QUESTION).source_nodes] == before

    server.kill()
    for search in (retriever.invoke, engine.query):
        with pytest.raises(StorageUnavailable, match=f"at {server.url} cannot be read. Is the server up") as caught:
            search("another question about tides")
        assert caught.value.__cause__ is not None

    server.start()
    assert [each.id for each in call_until_available(retriever.invoke, QUESTION)] == before
    assert [each.node_id for each in engine.query(QUESTION).source_nodes] == before
    assert retriever.invoke("another question about tides")


def test_without_a_bucket_a_server_is_started_and_killed(monkeypatch):
    monkeypatch.delenv(BUCKET, raising=False)
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", *KEYS):
        monkeypatch.delenv(name, raising=False)
    with open_storage() as storage:
        assert isinstance(storage, Storage)
        assert storage.endpoint.startswith("http://127.0.0.1:")
        storage.put([("a.txt", "text")])
        assert storage.read() == [("a.txt", "text")]
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", *KEYS):
        os.environ.pop(name, None)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        storage.read()

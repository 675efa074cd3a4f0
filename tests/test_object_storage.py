"""The example over object storage, against a real S3 server process: what it finds, and what an outage does to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from bounds import near

EXAMPLE = Path(__file__).parent.parent / "examples" / "object_storage"
sys.path.insert(0, str(EXAMPLE))

import langchain_search  # noqa: E402
import llama_index_search  # noqa: E402
from minilm import MiniLM  # noqa: E402
from passages import Passages, StorageUnavailable  # noqa: E402
from s3_server import KEYS, S3Server  # noqa: E402
from storage import BUCKET, Storage, opened  # noqa: E402
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
    """The bucket as somebody else's S3 is reached: by the usual variables."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}).items():
            environment.setenv(name, value)
        environment.setenv(BUCKET, "mine")
        with opened() as storage:
            storage.files.create_dir("mine")
            storage.put(DOCUMENTS.items())
            build(storage, MiniLM().embed_documents)
            yield storage


@pytest.fixture
def passages(storage):
    return Passages(storage, MiniLM().embed_query)


def test_everything_lies_in_the_bucket_below_one_folder(storage):
    assert dict(storage.read()) == DOCUMENTS
    assert storage.folder == "mine/rerank-plugins-example"
    import pyarrow.fs

    (only,) = storage.files.get_file_info(pyarrow.fs.FileSelector("mine"))
    assert only.path == storage.folder


@pytest.mark.parametrize("how", ["keywords", "vectors", "exact", "hybrid"])
def test_the_first_stage_finds(passages, how):
    found = [row["id"] for row in passages.candidates(QUESTION, k=5, how=how)]
    assert {"moon.txt", "sea.txt"} <= set(found)
    assert len(found) == (2 if how == "keywords" else 5)


def test_words_that_no_document_has_find_nothing_and_fail_nothing(passages):
    assert passages.candidates("qwertyuiop", how="keywords") == []
    assert langchain_search.two_stages(passages, how="keywords").invoke("qwertyuiop") == []


def test_both_frameworks_give_the_reranked_order(passages):
    documents = langchain_search.two_stages(passages).invoke(QUESTION)
    nodes = llama_index_search.two_stages(passages).query(QUESTION).source_nodes
    assert [each.id for each in documents] == [each.node_id for each in nodes]
    assert [each.id for each in documents][:1] == ["moon.txt"]
    assert len(documents) == 5
    assert nodes[0].score == near(documents[0].metadata["relevance_score"])


async def test_inside_a_running_event_loop(passages):
    found = await langchain_search.two_stages(passages).ainvoke(QUESTION)
    assert found[0].id == "moon.txt"


def test_a_wrong_key_is_told_as_such(storage, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody-else's")
    with pytest.raises(StorageUnavailable, match=r"s3://mine.*are AWS_ENDPOINT_URL and the keys right"):
        Passages(storage, MiniLM().embed_query)


def test_any_name_is_kept_and_what_lay_there_before_is_not(storage):
    """A second collection in the same bucket is not mixed with the first; an id may be an address."""
    other = Storage("other")
    other.files.create_dir("other")
    other.put([("first", "of an earlier collection")])
    named = {"a/b": "one", "https://x.example/y?q=1#z": "two", "a%2Fb": "three", "d + é": "four"}
    other.put(named.items())
    assert dict(other.read()) == named
    assert dict(storage.read()) == DOCUMENTS


def test_an_embedding_that_fails_is_no_outage(storage):
    def broken(query):
        raise ValueError("no such embedding model")

    passages = Passages(storage, broken)
    with pytest.raises(ValueError, match="no such embedding model"):
        passages.candidates(QUESTION)


@pytest.mark.parametrize("how", ["keywords", "vectors", "hybrid"])
def test_a_server_that_hangs_is_not_waited_for(server, passages, monkeypatch, how):
    """It takes the connection and says nothing: left to LanceDB's retries this was five minutes."""
    monkeypatch.setattr("passages.DEADLINE", timedelta(milliseconds=300))
    process = psutil.Process(server.process.pid)
    process.suspend()
    try:
        with pytest.raises(StorageUnavailable, match=r"search: .*Is the server up.*[Tt]imeout"):
            passages.candidates("what nobody has asked yet", how=how)
    finally:
        process.resume()
    assert until_answered(passages.candidates, QUESTION)


def until_answered(ask, question, tries=50):
    """Ask as its user does who is told to ask again: a server that has just come back may say 500 for a moment."""
    for _ in range(tries - 1):
        with contextlib.suppress(StorageUnavailable):
            return ask(question)
    return ask(question)


@pytest.mark.slow
def test_the_server_goes_away_and_comes_back(server, passages):
    """The same retriever and engine: answers, a clear error in each framework, and answers again."""
    retriever = langchain_search.two_stages(passages)
    engine = llama_index_search.two_stages(passages)
    before = [each.id for each in retriever.invoke(QUESTION)]
    assert [each.node_id for each in engine.query(QUESTION).source_nodes] == before

    server.kill()
    for ask in (retriever.invoke, engine.query):
        with pytest.raises(StorageUnavailable, match=f"at {server.url} cannot be read. Is the server up") as caught:
            ask("another question about tides")
        assert caught.value.__cause__ is not None

    server.start()
    assert [each.id for each in until_answered(retriever.invoke, QUESTION)] == before
    assert [each.node_id for each in engine.query(QUESTION).source_nodes] == before
    assert retriever.invoke("another question about tides")


def test_without_a_bucket_of_ones_own_a_server_is_started_and_ended(monkeypatch):
    monkeypatch.delenv(BUCKET, raising=False)
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", *KEYS):
        monkeypatch.delenv(name, raising=False)
    with opened() as storage:
        assert isinstance(storage, Storage)
        assert storage.endpoint.startswith("http://127.0.0.1:")
        storage.put([("a.txt", "text")])
        assert storage.read() == [("a.txt", "text")]
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", *KEYS):
        os.environ.pop(name, None)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        storage.read()

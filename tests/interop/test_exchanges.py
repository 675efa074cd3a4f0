"""Replay what `make interop` recorded: servers' replies to our backends, and clients' requests to our server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.local_server import served

from interop.checkpoints import MODEL, QUERIES, cross_encoder
from rerank_plugins import load_reranker

RECORDINGS = {
    file.stem: json.loads(file.read_text("utf-8"))
    for file in sorted(Path(__file__).with_name("exchanges").glob("*.json"))
}
SERVERS = [name for name in RECORDINGS if name.startswith("server-")]
CLIENTS = [name for name in RECORDINGS if name.startswith("client-")]
RUN_AGAIN = "Run `make interop` if the change is meant."
MEANING = ("query", "documents", "texts", "model", "messages", "response_format")
"""The fields of a request that say what to rerank; backends may come to send more options than they did."""
FLOAT32 = 1e-5


def ids_of(body: dict[str, Any]) -> list[str]:
    """Return the ids of the documents in a request to a chat model: they are made for each request."""
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return list(schema.get("properties", ()))


def meaning(body: dict[str, Any]) -> Any:
    """Return what a request asks for, with the ids of documents numbered."""
    text = json.dumps([body.get(field) for field in MEANING])
    for number, name in enumerate(ids_of(body)):
        text = text.replace(name, f"document {number}")
    return json.loads(text)


@contextmanager
def replay(exchanges: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Answer each request as the recorded one; yields the address and a list of the requests without a record."""
    left, problems = list(exchanges), []

    class Replay(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            for exchange in left:
                request = exchange["request"]
                same = meaning(request["body"]) == meaning(body)
                if (request["method"], request["path"]) == (self.command, self.path) and same:
                    left.remove(exchange)
                    break
            else:
                problems.append(f"{self.command} {self.path} {body}")
                self.send_error(404)
                return
            text = json.dumps(exchange["response"]["body"])
            for recorded, sent in zip(ids_of(exchange["request"]["body"]), ids_of(body), strict=True):
                text = text.replace(recorded, sent)
            content = text.encode()
            self.send_response(exchange["response"]["status"])
            for name, value in exchange["response"]["headers"].items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Replay) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", problems
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", SERVERS)
def test_backend_reads_what_the_real_server_answered(name: str) -> None:
    recording = RECORDINGS[name]
    spec = recording["spec"]
    with (
        replay(recording["exchanges"]) as (address, problems),
        load_reranker({**spec, "base_url": address + spec.get("base_url", ""), "retry": 1}) as reranker,
    ):
        for (query, documents), scored in zip(QUERIES, recording["scored"], strict=True):
            results = reranker.rerank(query, documents)
            assert [[result.index, result.relevance_score] for result in results] == scored, RUN_AGAIN
            assert not results.degraded
    assert problems == [], f"these requests are not the recorded ones. {RUN_AGAIN}"


def test_preset_reads_what_xinference_answered_to_http() -> None:
    """The preset `xinference` sends to the path that `http` was recorded with, and reads the same reply."""
    recording = RECORDINGS["server-xinference-http"]
    with (
        replay(recording["exchanges"]) as (address, problems),
        load_reranker({"use": f"xinference:{MODEL}", "base_url": address, "retry": 1}) as reranker,
    ):
        for (query, documents), scored in zip(QUERIES, recording["scored"], strict=True):
            results = reranker.rerank(query, documents)
            assert [[result.index, result.relevance_score] for result in results] == scored
    assert problems == []


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of our server with the checkpoint of the recordings; one for all, as each loads the certificates."""
    checkpoint = cross_encoder(tmp_path_factory.mktemp("models") / MODEL)
    with (
        served(f"sentence-transformers:{checkpoint}", models=[MODEL]) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as ours,
    ):
        yield ours


@pytest.mark.parametrize("name", CLIENTS)
def test_server_answers_a_real_client_as_recorded(name: str, client: httpx.Client) -> None:
    """All that a client may have read is there, with the same order and scores; new fields may be added."""
    exchanges = RECORDINGS[name]["exchanges"]
    assert exchanges
    for exchange in exchanges:
        request, recorded = exchange["request"], exchange["response"]
        body = None if request["body"] == "" else json.dumps(request["body"])
        reply = client.request(request["method"], request["path"], headers=request["headers"], content=body)
        assert reply.status_code == recorded["status"], f"{reply.text[:500]} {RUN_AGAIN}"
        assert reply.headers["content-type"] == recorded["headers"]["content-type"]
        if recorded["status"] == 200:
            assert missing(recorded["body"], reply.json()) == [], RUN_AGAIN


def missing(recorded: Any, now: Any, place: str = "body") -> list[str]:
    """Return the places where a reply lacks what the recorded one had: fields, order, types, scores."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        return [
            problem
            for field, value in recorded.items()
            for problem in (
                missing(value, now[field], f"{place}.{field}") if field in now else [f"{place}.{field} is not there"]
            )
        ]
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        return [
            problem
            for position, (before, after) in enumerate(zip(recorded, now, strict=True))
            for problem in missing(before, after, f"{place}[{position}]")
        ]
    if isinstance(recorded, float) and isinstance(now, float):
        return [] if now == pytest.approx(recorded, abs=FLOAT32) else [f"{place} is {now}, it was {recorded}"]
    if isinstance(recorded, str) and isinstance(now, str) and place.rpartition(".")[2] in ("id", "model"):
        return []  # an identifier is another one each time, and a model's name may hold a folder
    if isinstance(recorded, int) and isinstance(now, int) and place == "body.created":
        return []
    return [] if type(recorded) is type(now) and recorded == now else [f"{place} is {now!r}, it was {recorded!r}"]


def test_recordings_hold_no_key_and_no_folder_of_the_machine_they_were_made_on() -> None:
    for name, recording in RECORDINGS.items():
        text = json.dumps(recording)
        assert "/root/" not in text, name
        assert "/home/" not in text, name
        headers = [exchange["request"]["headers"] for exchange in recording["exchanges"]]
        assert {entry["authorization"] for entry in headers if "authorization" in entry} <= {"Bearer KEY"}, name

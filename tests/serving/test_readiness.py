"""`serve --check` refuses to start with a wrong backend; `/readyz` says whether a request would be answered."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from support.local_server import served

from rerank_plugins import ConfigError
from rerank_plugins.cli import main
from rerank_plugins.serving.app import application
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Hang, Status

KEY = "serve-key-0123456789"


def spec_of(vendor: Any, **options: Any) -> dict[str, Any]:
    return {"use": "http", "base_url": vendor.url, "api_key": vendor.key, "retry": 1, **options}


def get(url: str, path: str = "/readyz", **headers: str) -> httpx.Response:
    return httpx.get(f"{url}{path}", trust_env=False, headers=headers, timeout=30)


def test_without_checks_a_started_server_is_ready_and_sends_nothing():
    with CohereLike() as vendor, served(spec_of(vendor)) as url:
        answer = get(url)
        assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
        assert vendor.requests == []
        assert "/readyz" in get(url, "/openapi.json").json()["paths"]
        assert "/readyz" in get(url, "/nothing").json()["message"]


def test_the_report_is_for_clients_with_the_key_and_shows_no_address():
    with CohereLike() as vendor:
        vendor.always(Status(503))
        spec = spec_of(vendor, use="http:/srv/models/tiny", fallback=["lexical"])
        with served(spec, api_key=KEY, check_every=3600) as url:
            assert get(url).json() == {"status": "ready"}
            body = get(url, authorization=f"Bearer {KEY}").json()
            get(url)
        assert len(vendor.requests) == 1, "one check at the start, whatever asks"
    assert (body["status"], body["check"]["ok"], body["check"]["available"]) == ("ready", False, True)
    failed, right = body["check"]["backends"]
    assert (failed["model"], failed["error"], failed["status"]) == ("http:tiny", "TransientError", 503)
    assert (right["model"], right["ok"]) == ("lexical", True)
    assert "/srv" not in json.dumps(body)
    assert "127.0.0.1" not in json.dumps(body)


def test_readiness_follows_the_vendor_without_waiting_for_it():
    """Each probe gets the last report at once, and starts the next check."""
    with CohereLike() as vendor, served(spec_of(vendor, timeout=60), check_every=1e-6) as url:
        assert get(url).status_code == 200
        vendor.always(Status(401))
        assert any(get(url).status_code == 503 for _ in range(1_000))
        assert get(url).json()["status"] == "not ready"
        vendor.reset()
        assert any(get(url).status_code == 200 for _ in range(1_000))
        vendor.always(Hang())
        sent = len(vendor.requests)
        while len(vendor.requests) == sent:
            assert get(url).status_code == 200
        assert get(url).status_code == 200, "the vendor hangs"


def test_wrong_intervals_are_refused():
    with pytest.raises(ConfigError, match="check_every"):
        application("lexical", check_every=0)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_with_check_refuses_to_start_with_a_wrong_key(workers, capsys):
    with CohereLike() as vendor:
        spec = spec_of(vendor, api_key="wrong-key-0123456789", fallback=["lexical"], on_error="degrade")
        assert main(["serve", json.dumps(spec), "--port", "0", "--workers", workers, "--check"]) == 1
        assert len(vendor.requests) == 1
    error = capsys.readouterr().err
    assert "http answered 401" in error
    assert "serving at" not in error
    assert "wrong-key" not in error


def test_serve_with_check_and_check_every_checks_once_at_the_start(monkeypatch):
    """The report of `--check` is that of the first probe."""
    reports = []

    def run(factory, **_):
        app = factory()
        with TestClient(app) as client:
            reports.append(client.get("/readyz").json()["check"])

    monkeypatch.setattr("rerank_plugins.serving.server.run", run)
    with CohereLike() as vendor:
        spec = json.dumps(spec_of(vendor))
        assert main(["serve", spec, "--port", "0", "--check", "--check-every", "3600"]) == 0
        assert len(vendor.requests) == 1
        assert main(["serve", spec, "--port", "0", "--check-every", "3600"]) == 0
        assert len(vendor.requests) == 2
    assert [report["ok"] for report in reports] == [True, True]


def test_a_worker_that_is_started_again_later_checks_anew(monkeypatch):
    """The supervisor pickles one factory for every worker, also for one that replaces a dead worker hours later."""
    factories = []
    monkeypatch.setattr("rerank_plugins.serving.server.run", lambda factory, **_: factories.append(factory))
    with CohereLike() as vendor:
        spec = json.dumps(spec_of(vendor))
        line = ["serve", spec, "--port", "0", "--workers", "2", "--check", "--check-every", "3600"]
        assert main(line) == 0
        (factory,) = factories
        vendor.always(Status(401))
        with TestClient(pickle.loads(pickle.dumps(factory))()) as client:
            assert client.get("/readyz").status_code == 200  # the report is not old
        assert len(vendor.requests) == 1
        two_hours_later = replace(factory, report=replace(factory.report, started=factory.report.started - 7200))
        with TestClient(pickle.loads(pickle.dumps(two_hours_later))()) as client:
            assert client.get("/readyz").status_code == 503
        assert len(vendor.requests) == 2


def test_the_key_of_clients_may_be_in_a_file(tmp_path, capsys):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", "utf-8")
    with served("lexical", api_key=f"file:{file}") as url:
        assert get(url, "/info").status_code == 401
        assert get(url, "/info", authorization=f"Bearer file:{file}").status_code == 401
        assert get(url, "/info", authorization=f"Bearer {KEY}").status_code == 200
    assert main(["serve", "lexical", "--port", "0", "--api-key", f"file:{tmp_path}/none"]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_model_that_a_client_names_reads_no_key_of_the_program(monkeypatch):
    monkeypatch.setenv("PROGRAM_SECRET", "the-program's-secret-1")
    with CohereLike() as vendor, served("lexical") as url:
        attack = json.dumps(spec_of(vendor, api_key="env:PROGRAM_SECRET"))
        for model in (attack, "env:PROGRAM_SECRET", "file:/etc/hostname", f"http:{vendor.url}"):
            body = {"query": "q", "documents": ["a"], "model": model}
            answer = httpx.post(f"{url}/v2/rerank", json=body, trust_env=False)
            assert answer.status_code == 404
            assert "secret" not in answer.text
        assert vendor.requests == []

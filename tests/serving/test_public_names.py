"""Clients of the server see the names of models, never their paths or the addresses of vendors."""

from __future__ import annotations

import json
import re
import shutil

import httpx
import pytest
from support.local_server import served
from support.pages import TEXTS

from rerank_plugins import load_reranker
from rerank_plugins.serving.limits import Limits
from rerank_plugins.serving.public_names import public_label, without_addresses

BODY = {"query": "cat", "documents": ["a cat", "a dog"]}
GETS = ["/healthz", "/readyz", "/health", "/info", "/v1/models", "/metrics", "/openapi.json", "/docs"]
KEY = "serve-key-0123456789"


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("lexical", "lexical"),
        ("embedded:fast [numpy float32]", "embedded:fast [numpy float32]"),
        ("onnx:/srv/models/tiny [onnxruntime float32]", "onnx:tiny [onnxruntime float32]"),
        ("onnx:/srv/my models/tiny v2/", "onnx:tiny v2"),
        ("onnx:~/tiny", "onnx:tiny"),
        ("onnx:../secret/tiny", "onnx:tiny"),
        (r"onnx:C:\models\tiny", "onnx:tiny"),
        (r"C:\models\tiny", "tiny"),
        ("/srv/models/tiny", "tiny"),
        ("bge:BAAI/bge-reranker-base", "bge:BAAI/bge-reranker-base"),
        ("cohere:rerank-v4.0-fast", "cohere:rerank-v4.0-fast"),
        ("embedded:fast [numpy float32] + onnx:/a/b/c [x] (rrf)", "embedded:fast [numpy float32] + onnx:c [x] (rrf)"),
        ("onnx:/a/b → http:http://10.0.0.1/x", "onnx:b → http"),
    ],
)
def test_public_label_keeps_the_model_name(label, shown):
    assert public_label(label) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("No answer from http://u:p@10.0.0.5:8080/rerank (X). Go", "No answer from (address) (X). Go"),
        ("Cannot connect to host inner.example:443 ssl", "Cannot connect to host (address) ssl"),
        ("localhost:80, [::1]:80 and 10.1.2.3 refused.", "(address), (address) and (address) refused."),
        ("/srv/models/x/tokenizer.json cannot be read.", "tokenizer.json cannot be read."),
        ("onnx:/srv/a/b [x] cannot follow", "onnx:b [x] cannot follow"),
        ("line\nbreak \x1b[31m", "line break  [31m"),
        ("scores 0.5, 1.25; version 1.2.3. A/B and/or text/plain", None),
        ("x" * 5_000, "x" * 4_000),
    ],
)
def test_message_without_addresses_keeps_its_words(message, shown):
    assert without_addresses(message) == (message if shown is None else shown)


def test_model_path_is_never_shown_to_clients(cross_encoder_folder):
    path = str(cross_encoder_folder)
    with served(f"onnx:{path}") as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        answers = [client.post(each, json=BODY) for each in ("/v2/rerank", "/rerank")]
        answers += [client.post("/v2/rerank", json=BODY | {"model": f"onnx:{path}"})]  # the operator's own word
        assert {answer.status_code for answer in answers} == {200}
        answers += [client.post("/v2/rerank", json=BODY | {"model": "another"})]
        answers += [client.post("/v2/rerank", json=BODY | {"instruction": "prefer cats"})]
        answers += [client.get(each) for each in GETS]
    name = cross_encoder_folder.name
    assert answers[0].json()["model"].startswith(f"onnx:{name} [")
    assert f"has 'onnx:{name}'" in answers[3].json()["message"]
    for answer in answers:
        shown = answer.text + json.dumps(dict(answer.headers))
        assert path not in shown
        assert str(cross_encoder_folder.parent) not in shown


def test_fallback_path_is_never_shown_to_clients(cross_encoder_folder, tmp_path):
    """A path may have spaces, so its end is known only from the label of the backend, whichever one answered."""
    folder = shutil.copytree(cross_encoder_folder, tmp_path / "secret models of acme" / "tiny")
    spec = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1, "fallback": [f"onnx:{folder}"]}
    with load_reranker(spec) as reranker, served(reranker) as url:
        answer = httpx.post(f"{url}/v2/rerank", json=BODY, trust_env=False, timeout=30)
    (warning,) = answer.json()["meta"]["warnings"]
    assert warning.startswith("degraded: onnx:tiny [onnxruntime float32] answered in place of http: ")
    assert "acme" not in answer.text + json.dumps(dict(answer.headers))


def test_vendor_address_is_never_shown_to_clients():
    spec = {"use": "http", "base_url": "http://127.0.0.1:9/inner", "retry": 1}
    with load_reranker(spec) as failing, load_reranker(spec | {"fallback": ["lexical"]}) as degraded:
        for reranker, status in ((failing, 503), (degraded, 200)):
            with served(reranker) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                answers = [client.post("/v2/rerank", json=BODY), *map(client.get, GETS)]
            assert answers[0].status_code == status
            for answer in answers:
                assert "127.0.0.1" not in answer.text
                assert "inner" not in answer.text
            assert "No answer from (address)" in answers[0].text


def test_server_log_names_the_backend_and_status(caplog):
    with (
        load_reranker({"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1}) as reranker,
        served(reranker) as url,
    ):
        for _ in range(3):
            httpx.post(f"{url}/v2/rerank", json=BODY, trust_env=False, timeout=30)
    messages = [record.getMessage() for record in caplog.records if "A request failed" in record.getMessage()]
    assert messages == ["A request failed with 503 (TransientError of http; logged at most once a minute)"]


# --- what clients of other servers ask first ---


def test_info_has_the_fields_of_tei(cross_encoder_folder):
    with served(f"onnx:{cross_encoder_folder}", limits=Limits(max_documents=32)) as url:
        info = httpx.get(f"{url}/info", trust_env=False).json()
    assert list(info["model_type"]) == ["reranker"]
    assert info["model_id"] == f"onnx:{cross_encoder_folder.name}"
    assert info["model_dtype"] == "float32"
    assert isinstance(info["max_input_length"], int)
    assert info["max_client_batch_size"] == 32
    with served("lexical") as url:
        assert httpx.get(f"{url}/info", trust_env=False).json()["max_input_length"] == 8_000_000


def test_models_are_listed_in_openai_format():
    with served("embedded:fast", models=["mine"]) as url:
        listed = httpx.get(f"{url}/v1/models", trust_env=False).json()
        assert (listed["object"], {each["object"] for each in listed["data"]}) == ("list", {"model"})
        names = [each["id"] for each in listed["data"]]
        assert {"embedded:fast", "fast", "mine"} <= set(names)
        for name in names:
            answer = httpx.post(f"{url}/v1/rerank", json=BODY | {"model": name}, trust_env=False)
            assert answer.status_code == 200


def test_health_needs_no_key_but_names_of_models_do():
    with served("lexical", api_key=KEY) as url:
        for path in ("/health", "/healthz"):
            assert httpx.get(f"{url}{path}", trust_env=False).json().keys() == {"status", "version"}
            assert httpx.head(f"{url}{path}", trust_env=False).status_code == 200
        for path in ("/info", "/v1/models"):
            assert httpx.get(f"{url}{path}", trust_env=False).status_code == 401
            known = httpx.get(f"{url}{path}", headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
            assert known.status_code == 200


def test_the_guide_says_which_paths_need_the_key():
    rows = re.findall(r"^\| (`/.*?) \| .* \| (yes|no) \|$", TEXTS["docs/guides/serving.md"], re.MULTILINE)
    key_needed = {path: needed == "yes" for paths, needed in rows for path in re.findall(r"`(.*?)`", paths)}
    assert len(key_needed) == 8
    with served("lexical", api_key=KEY) as url:
        statuses = {path: httpx.get(f"{url}{path}", trust_env=False).status_code for path in key_needed}
    assert statuses == {path: 401 if needed else 200 for path, needed in key_needed.items()}

"""What errors advise names the option or the variable that is read, and no other."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.token_server import API_KEY, token_server

from rerank_plugins import AuthenticationFailed, BackendError, Rejected, TransientError, load_reranker

QUERY, DOCUMENTS = "how do the tides work", ["The moon pulls the tides.", "Bananas are yellow."]
KEY = "Check the key (`api_key`"
AWS = {"AWS_ACCESS_KEY_ID": "an-access-key-id", "AWS_SECRET_ACCESS_KEY": "a-secret-access-key-0123456789"}


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ({"use": "chat:m"}, f"{KEY})."),
        ({"use": "chat:m", "api_key": "a-wrong-key-0123456789"}, f"{KEY})."),
        ({"use": "http:m"}, f"{KEY})."),
        ({"use": "decisions:m"}, f"{KEY})."),
        ({"use": "vllm:m"}, f"{KEY}, or the environment variable VLLM_API_KEY)."),
        ({"use": "vllm:m", "user": "me:a-password@"}, "Check user and password in `base_url`."),
        ({"use": "vllm:m", "user": "me:a-password@", "api_key": "a-wrong-key-0123456789"}, f"{KEY})."),
        (
            {"use": "voyage", "api_key": "a-wrong-key-0123456789"},
            f"{KEY}, or the environment variable VOYAGE_API_KEY).",
        ),
        (
            {"use": "bedrock-agent", "bedrock-agent": {"region": "us-west-2"}},
            "Check the credentials of AWS (AWS_ACCESS",
        ),
    ],
    ids=str,
)
def test_refused_key_names_only_what_the_key_is_read_from(
    spec: dict[str, Any], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    with token_server("none") as server:
        server.status = 401
        spec = dict(spec)
        address = server.url.removesuffix("/identity/token").replace("://", f"://{spec.pop('user', '')}")
        with (
            load_reranker({"base_url": address, "retry": 1, **spec}) as reranker,
            pytest.raises(AuthenticationFailed) as raised,
        ):
            reranker.rerank(QUERY, DOCUMENTS)
    assert f"{advice}" in str(raised.value)
    assert "OPENAI_API_KEY" not in str(raised.value)
    assert "backend's environment variable" not in str(raised.value)


def watsonx(token_url: str, **options: Any) -> dict[str, Any]:
    own = {"project_id": "my-project", "token_url": token_url}
    return {
        "use": "watsonx",
        "base_url": "http://127.0.0.1:9",
        "api_key": API_KEY,
        "retry": 1,
        "watsonx": own,
        **options,
    }


@pytest.mark.parametrize(
    ("status", "kind"), [(404, Rejected), (301, Rejected), (501, TransientError), (None, TransientError)], ids=str
)
def test_error_of_a_token_server_names_token_url(status: int | None, kind: type[BackendError]) -> None:
    with token_server("none") as tokens:
        tokens.status = status or 200
        if status is not None:
            with load_reranker(watsonx(tokens.url)) as reranker, pytest.raises(kind) as raised:
                reranker.rerank(QUERY, DOCUMENTS)
    if status is None:  # nothing listens any more
        with load_reranker(watsonx(tokens.url)) as reranker, pytest.raises(kind) as raised:
            reranker.rerank(QUERY, DOCUMENTS)
    assert "`token_url`" in str(raised.value)
    assert "base_url" not in str(raised.value)


def test_token_server_that_hangs_is_named() -> None:
    """It is not the vendor that did not answer."""
    released = threading.Event()
    with token_server("none") as tokens:
        answer = tokens.answer

        def hang(form: dict[str, list[str]]) -> tuple[int, Any]:
            released.wait(30)
            return answer(form)

        tokens.answer = hang  # type: ignore[method-assign]
        try:
            spec = watsonx(tokens.url, api_key="a-key-of-its-own-0123456789", timeout=0.1)
            with (
                load_reranker(spec) as reranker,
                pytest.raises(TransientError, match="the server of its tokens did not"),
            ):
                reranker.rerank(QUERY, DOCUMENTS)
        finally:
            released.set()

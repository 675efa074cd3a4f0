"""Cohere's models on AWS, set up by configuration: the SDK's clients and boto3 with local endpoints."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import pytest
from support.aws_server import AUTHORITY, CREDENTIALS, REGION, AWSServer, BedrockServer, SageMakerServer, TLSProxy

from rerank_plugins import load_reranker, transport
from rerank_plugins.core import (
    AuthenticationFailed,
    BadResponse,
    ConfigError,
    MissingExtra,
    RateLimited,
    Rejected,
    TransientError,
)
from rerank_plugins.testing.script import HTML, Hang, Status, Step
from rerank_plugins.testing.server import Exchange

pytestmark = pytest.mark.thorough

QUERY = "how do the tides work"
DOCUMENTS = ["Bananas are yellow.", "The tides work by the pull of the moon."]
SERVERS: dict[str, type[AWSServer]] = {"bedrock": BedrockServer, "sagemaker": SageMakerServer}


class Counted(Step):
    """An answer with Bedrock's header of billed tokens."""

    def play(self, exchange: Exchange) -> None:
        exchange.send(200, exchange.answer(exchange.pairs()), {"x-amzn-bedrock-input-token-count": "17"})


@pytest.fixture(autouse=True)
def _aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the AWS settings of this machine: files, roles, regions."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CO_API_KEY", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[AWSServer]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    transport._ssl_context.cache_clear()
    transport._prepared.clear()
    with SERVERS[request.param]() as running, TLSProxy(running.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield running
        assert set(proxy.targets) <= {f"{running.host}:443"}
    transport._ssl_context.cache_clear()
    transport._prepared.clear()


def spec(server: AWSServer, **options: Any) -> dict[str, Any]:
    return {
        "use": f"cohere:{server.model}",  # type: ignore[attr-defined]
        "retry": 1,
        "cohere": {"platform": server.signing_name, "region": REGION, **options.pop("cohere", {})},
        **options,
    }


def test_platform_and_region_are_enough(server: AWSServer) -> None:
    with load_reranker(spec(server)) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
        again = asyncio.run(reranker.arerank(QUERY, DOCUMENTS))
    assert server.refused == []
    assert [result.index for result in answer] == [1, 0] == [result.index for result in again]
    assert answer[0].raw_score == pytest.approx(server.score(QUERY, DOCUMENTS[1]))
    assert answer.model == f"cohere:{server.model}"  # type: ignore[attr-defined]
    assert [attempt.status for attempt in answer.attempts] == [200]
    assert server.requests[0].body == {"query": QUERY, "documents": DOCUMENTS, "api_version": 2}


def test_token_count_in_aws_header_is_the_usage(server: AWSServer) -> None:
    server.play(Counted(), Step())
    with load_reranker(spec(server)) as reranker:
        assert reranker.rerank(QUERY, DOCUMENTS).usage.input_tokens == 17
        assert reranker.rerank(QUERY, DOCUMENTS).usage.input_tokens is None


def test_options_that_are_set_are_sent(server: AWSServer) -> None:
    with load_reranker(spec(server, cohere={"max_tokens_per_doc": 512})) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
    assert server.refused == []
    assert server.requests[0].body["max_tokens_per_doc"] == 512


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_region_comes_from_the_environment(server: AWSServer, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, REGION)
    settings = spec(server)
    del settings["cohere"]["region"]
    with load_reranker(settings) as reranker:
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == 2
    assert server.refused == []


def test_calls_share_a_connection_and_leave_the_environment_unchanged(server: AWSServer) -> None:
    with load_reranker(spec(server)) as reranker:
        for _ in range(4):
            reranker.rerank(QUERY, DOCUMENTS)
            assert server.connections == 1
    assert server.wait_until(lambda: server.connections == 0), "a connection outlived its reranker"
    assert "AWS_DEFAULT_REGION" not in os.environ


def test_call_after_close_creates_a_new_client(server: AWSServer) -> None:
    reranker = load_reranker(spec(server))
    for _ in range(2):
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == 2
        reranker.close()
    assert len(server.requests) == 2


def test_forked_process_creates_its_own_client(server: AWSServer) -> None:
    with load_reranker(spec(server)) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
        child = multiprocessing.get_context("fork").Process(target=reranker.rerank, args=(QUERY, DOCUMENTS))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == 2
    assert server.refused == []
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, AuthenticationFailed), (400, Rejected), (404, Rejected), (429, RateLimited), (503, TransientError)],
)
def test_refusals_are_typed_and_name_the_region(server: AWSServer, status: int, kind: type[Exception]) -> None:
    server.play(Status(status, {"retry-after": "3"}, message="The model may not be used."))
    with load_reranker(spec(server)) as reranker, pytest.raises(kind, match="The model may not be used") as raised:
        reranker.rerank(QUERY, DOCUMENTS)
    assert raised.value.status == status  # type: ignore[attr-defined]
    assert f"{server.signing_name} in {REGION}" in str(raised.value)
    if kind is RateLimited:
        assert raised.value.retry_after == 3.0  # type: ignore[attr-defined]


def test_a_transient_error_is_retried(server: AWSServer) -> None:
    server.play(Status(503, {"retry-after": "0"}))
    with load_reranker(spec(server, retry=2)) as reranker:
        assert [attempt.status for attempt in reranker.rerank(QUERY, DOCUMENTS).attempts] == [503, 200]


def test_no_credential_is_shown(server: AWSServer) -> None:
    """AWS's error for a wrong signature quotes the signed headers, which include the session token."""
    words = " ".join(f"{name}: {value}" for name, value in CREDENTIALS.items())
    server.play(Status(403, message=f"The signature does not match. {words}"))
    with load_reranker(spec(server)) as reranker:
        with pytest.raises(AuthenticationFailed, match="does not match") as raised:
            reranker.rerank(QUERY, DOCUMENTS)
        error = raised.value
        shown = f"{error!r} {error.__cause__!r} {error.__cause__} {error.__context__!r} {reranker!r}"
    for value in CREDENTIALS.values():
        assert value not in shown


def test_answer_that_is_not_json_is_a_bad_response(server: AWSServer) -> None:
    server.play(HTML())
    with load_reranker(spec(server)) as reranker, pytest.raises(BadResponse, match=REGION):
        reranker.rerank(QUERY, DOCUMENTS)


def test_attempt_times_out(server: AWSServer) -> None:
    server.always(Hang())
    with (
        load_reranker(spec(server, timeout=0.5)) as reranker,
        pytest.raises(TransientError, match=r"within 0\.5 s"),
    ):
        reranker.rerank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("platform", SERVERS)
def test_missing_region_is_refused_when_loaded(platform: str) -> None:
    with pytest.raises(ConfigError, match=r"needs a region: set cohere\.region.*AWS_REGION or AWS_DEFAULT_REGION"):
        load_reranker({"use": "cohere:model", "cohere": {"platform": platform}})


@pytest.mark.parametrize("platform", SERVERS)
def test_missing_model_is_refused_when_loaded(platform: str) -> None:
    with pytest.raises(ConfigError, match=rf"cohere on {platform} needs the name of a model"):
        load_reranker({"use": "cohere", "cohere": {"platform": platform, "region": REGION}})


@pytest.mark.parametrize("platform", SERVERS)
@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "boto3 finds none.*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE012345678"}, "missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "nobody"}, "profile.*nobody"),
    ],
)
def test_missing_credentials_name_the_variables(
    platform: str, environment: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = {"use": "cohere:model", "cohere": {"platform": platform, "region": REGION}}
    with load_reranker(settings) as reranker:
        with pytest.raises(AuthenticationFailed, match=named):
            reranker.warmup()
        with pytest.raises(AuthenticationFailed, match=named):
            reranker.rerank(QUERY, DOCUMENTS)


def test_unreachable_proxy_is_transient(server: AWSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with load_reranker(spec(server)) as reranker, pytest.raises(TransientError, match=f"HTTPS_PROXY.*{REGION}"):
        reranker.rerank(QUERY, DOCUMENTS)


def test_invalid_proxy_is_a_config_error_without_password(server: AWSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:pa55word@127.0.0.1:9")
    with load_reranker(spec(server)) as reranker, pytest.raises(ConfigError, match="HTTPS_PROXY") as raised:
        reranker.rerank(QUERY, DOCUMENTS)
    assert "pa55word" not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_missing_boto3_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    settings = {"use": "cohere:model", "cohere": {"platform": "bedrock", "region": REGION}}
    with (
        load_reranker(settings) as reranker,
        pytest.raises(MissingExtra, match=r"pip install 'rerank-plugins\[cohere-aws\]'"),
    ):
        reranker.rerank(QUERY, DOCUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"platform": "azure"}, r"cohere\.platform must be one of bedrock or sagemaker"),
        ({"platform": "bedrock", "api_key": "k"}, r"cohere\.platform cannot be 'bedrock' if `api_key` is set"),
        ({"platform": "bedrock", "base_url": "http://h"}, r"cohere\.platform cannot be 'bedrock' if `base_url` is set"),
        ({"platform": "bedrock", "client": cohere.AsyncClientV2("k")}, r"cannot be 'bedrock' if `client` is set"),
        ({"region": REGION}, r"cohere\.region needs `platform`"),
        ({"platform": "bedrock", "region": "eu.evil/"}, r"cohere\.region must be the name of an AWS region"),
    ],
)
def test_incompatible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "cohere:model", "cohere": options})


def test_keys_of_cohere_are_neither_needed_nor_sent(server: AWSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CO_API_KEY", "key-of-cohere-0123456789")
    monkeypatch.setenv("CO_API_URL", "http://127.0.0.1:9")
    with load_reranker(spec(server)) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
    assert server.refused == []
    assert "key-of-cohere" not in str(server.requests[0])

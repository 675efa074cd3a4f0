"""Presets with a token or a signature: what is fetched, how often, and what errors say."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import logging
import pickle
import re
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from support.token_server import API_KEY, TokenServer, token_server

from rerank_plugins import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    RateLimited,
    Rejected,
    TransientError,
    load_reranker,
)
from rerank_plugins.backends import preset_signed, preset_tokens
from rerank_plugins.backends.access_tokens import AccessToken, AccessTokens
from rerank_plugins.config import identity
from rerank_plugins.config.call_specs import refuse_key_references
from rerank_plugins.core.secret import Secret
from rerank_plugins.testing.documented import DocumentedServer, documented_server
from rerank_plugins.testing.script import Status

FOLDER = Path(__file__).with_name("exchanges")
QUERY, TEXTS = "how do bees make honey", ["The bank raised its rates.", "Bees make honey from nectar."]
SECRET = "a-secret-access-key-0123456789"


def server_of(name: str, **attributes: Any) -> DocumentedServer:
    server = documented_server(json.loads((FOLDER / f"{name}.json").read_text("utf-8")))
    return server(**attributes)


# --- IBM: an API key becomes a token ---


@pytest.fixture
def watsonx() -> Iterator[DocumentedServer]:
    with server_of("watsonx") as running:
        yield running


def watsonx_spec(server: DocumentedServer, tokens: TokenServer, **more: Any) -> dict[str, Any]:
    own = {"project_id": "my-project", "token_url": tokens.url}
    return {"use": "watsonx", "base_url": server.url, "api_key": API_KEY, "retry": 1, "watsonx": own, **more}


async def test_token_is_fetched_once_for_all_callers(watsonx: DocumentedServer) -> None:
    """Two rerankers and ten concurrent calls need one token."""
    with token_server(watsonx.key) as tokens:
        spec = watsonx_spec(watsonx, tokens)
        async with load_reranker(spec) as first, load_reranker(spec) as second:
            calls = [reranker.arerank(QUERY, TEXTS) for reranker in (first, second) for _ in range(5)]
            answers = await asyncio.gather(*calls)
            first.rerank(QUERY, TEXTS)  # on another event loop
    assert {answer[0].index for answer in answers} == {1}
    assert len(tokens.requests) == 1
    grant = {"grant_type": ["urn:ibm:params:oauth:grant-type:apikey"], "apikey": [API_KEY]}
    assert tokens.requests[0] == grant
    assert watsonx.refused == []


def test_token_is_renewed_before_it_expires(watsonx: DocumentedServer) -> None:
    """A token that is valid for no time is fetched for each call."""
    with token_server(watsonx.key, seconds=0.0) as tokens, load_reranker(watsonx_spec(watsonx, tokens)) as reranker:
        for _ in range(3):
            reranker.rerank(QUERY, TEXTS)
    assert len(tokens.requests) == 3
    assert watsonx.refused == []


def test_token_that_is_refused_is_fetched_anew(watsonx: DocumentedServer) -> None:
    with (
        token_server("a-token-that-was-revoked", watsonx.key) as tokens,
        load_reranker(watsonx_spec(watsonx, tokens)) as reranker,
    ):
        with pytest.raises(AuthenticationFailed, match="WATSONX_API_KEY") as raised:
            reranker.rerank(QUERY, TEXTS)
        assert "a-token-that-was-revoked" not in str(raised.value)
        assert reranker.rerank(QUERY, TEXTS)[0].index == 1
    assert len(tokens.requests) == 2


async def test_calls_at_the_same_time_mask_and_drop_their_own_tokens(
    watsonx: DocumentedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call has a token of its own here. A vendor quotes the first one where the text is cut."""
    dropped: list[str] = []
    names = [letter * 60 for letter in "abcdefgh"]

    class Distinct(AccessTokens):
        async def current(self) -> Secret:
            return Secret(next(unused))

        def forget(self, secret: Secret) -> None:
            dropped.append(secret.reveal())

    unused, tokens = iter(names), Distinct(lambda: AccessToken.of("none", time.time() + 60))
    monkeypatch.setattr(preset_tokens, "_ibm_tokens", lambda *arguments: tokens)
    monkeypatch.setattr(type(watsonx), "key_required", False)
    watsonx.play(*[Status(401, message=f"{'x' * 280} {names[0]}")] * len(names))
    with token_server("unused") as server:
        async with load_reranker(watsonx_spec(watsonx, server)) as reranker:
            calls = [reranker.arerank(QUERY, TEXTS) for _ in names]
            errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {AuthenticationFailed}
    assert sum("aaa" not in str(error) for error in errors) == 1, "only the call that sent the token knows it"
    sent = [request.headers["authorization"].removeprefix("Bearer ") for request in watsonx.requests]
    assert sorted(sent) == sorted(dropped) == names


def test_wrong_key_of_ibm_names_the_variable(watsonx: DocumentedServer) -> None:
    with token_server(watsonx.key) as tokens:
        spec = watsonx_spec(watsonx, tokens, api_key="a-wrong-key-0123456789")
        with (
            load_reranker(spec) as reranker,
            pytest.raises(AuthenticationFailed, match="WATSONX_API_KEY") as raised,
        ):
            reranker.rerank(QUERY, TEXTS)
    assert "Provided API key could not be found" in str(raised.value)
    assert "a-wrong-key-0123456789" not in str(raised.value)
    assert watsonx.requests == []


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, TransientError)])
def test_failure_of_the_token_server_may_pass(status: int, kind: type[Exception], watsonx: DocumentedServer) -> None:
    with token_server(watsonx.key) as tokens, load_reranker(watsonx_spec(watsonx, tokens)) as reranker:
        tokens.status = status
        with pytest.raises(kind, match="no access token"):
            reranker.rerank(QUERY, TEXTS)
        tokens.status = 200
        assert reranker.rerank(QUERY, TEXTS)[0].index == 1


def test_key_of_ibm_may_come_from_a_function(watsonx: DocumentedServer) -> None:
    keys = ["a-key-that-was-rotated-away", API_KEY]
    with token_server(watsonx.key) as tokens:
        spec = watsonx_spec(watsonx, tokens, api_key=lambda: keys.pop(0) if len(keys) > 1 else keys[0])
        with load_reranker(spec) as reranker:
            assert reranker.rerank(QUERY, TEXTS)[0].index == 1
    assert [request["apikey"] for request in tokens.requests] == [["a-key-that-was-rotated-away"], [API_KEY]]


def test_wrong_token_address_says_so(watsonx: DocumentedServer) -> None:
    with token_server(watsonx.key) as tokens:
        spec = watsonx_spec(watsonx, tokens)
    with load_reranker(spec) as reranker, pytest.raises(TransientError, match="Nothing listens there"):
        reranker.rerank(QUERY, TEXTS)


def test_secrets_of_the_token_address_are_sent_and_shown_nowhere(
    watsonx: DocumentedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    password, signature = "a-password-0123456789", "a-signature-0123456789"
    monkeypatch.setenv("TOKEN_PASSWORD", password)
    monkeypatch.setenv("TOKEN_SIGNATURE", signature)
    caplog.set_level(logging.DEBUG)
    shown: list[Any] = []
    with token_server(watsonx.key) as tokens:
        url = tokens.url.replace("://", "://me:env:TOKEN_PASSWORD@") + "?sig=env:TOKEN_SIGNATURE"
        own = {"project_id": "my-project", "token_url": url}
        with load_reranker(watsonx_spec(watsonx, tokens, watsonx=own)) as reranker:
            for tokens.status, tokens.message in ((503, f"refused {password}"), (404, f"nothing at ?sig={signature}")):
                with pytest.raises(BackendError, match="no access token") as raised:
                    reranker.rerank(QUERY, TEXTS)
                shown.append("".join(traceback.format_exception(raised.value)))
            tokens.status = 200
            assert reranker.rerank(QUERY, TEXTS)[0].index == 1
            (backend,) = reranker.scorer.leaves()
            shown += [reranker, reranker.spec, vars(backend), pickle.dumps(reranker)]
    with load_reranker(watsonx_spec(watsonx, tokens, watsonx=own, api_key="another-key")) as reranker:
        with pytest.raises(TransientError, match="Nothing listens there") as raised:
            reranker.rerank(QUERY, TEXTS)
        shown.append("".join(traceback.format_exception(raised.value)))
    basic = base64.b64encode(f"me:{password}".encode()).decode()
    assert tokens.received[-1] == (f"/identity/token?sig={signature}", f"Basic {basic}")
    text = repr(shown) + caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    for secret in (password, signature, basic):
        assert secret not in text


def test_stored_token_address_with_a_secret_says_what_to_do() -> None:
    options = {"project_id": "p", "token_url": "https://me:a-password@iam.example/token?sig=a-signature&env=red"}
    with load_reranker({"use": "watsonx", "api_key": "env:HOME", "watsonx": options}) as reranker:
        stored = reranker.spec
        assert "a-password" not in repr(identity(reranker))
        assert "a-password" not in repr(reranker.scorer)
        assert pickle.loads(pickle.dumps(stored)) == stored
    assert "a-password" not in json.dumps(stored)
    assert "a-signature" not in json.dumps(stored)
    with pytest.raises(ConfigError, match=r"token_url.*was masked"):
        load_reranker(stored)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "1e999", 10**400, None, "soon"], ids=str)
def test_token_without_a_finite_end_is_a_clear_error(seconds: Any, watsonx: DocumentedServer) -> None:
    with (
        token_server(watsonx.key, seconds=seconds) as tokens,
        load_reranker(watsonx_spec(watsonx, tokens)) as reranker,
        pytest.raises(BadResponse, match=r"`expires_in`, a finite number of seconds.*Check `token_url`"),
    ):
        reranker.rerank(QUERY, TEXTS)


def test_variable_of_the_token_address_is_named_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATSONX_IAM_URL", "iam.example")
    with pytest.raises(ConfigError, match="WATSONX_IAM_URL must start with http"):
        load_reranker({"use": "watsonx", "api_key": API_KEY, "watsonx": {"project_id": "p"}})


@pytest.mark.parametrize("before", [0, 185, 195])
def test_key_that_the_token_server_repeats_is_masked_before_the_text_is_cut(
    before: int, watsonx: DocumentedServer
) -> None:
    with token_server(watsonx.key) as tokens, load_reranker(watsonx_spec(watsonx, tokens)) as reranker:
        tokens.status, tokens.message = 400, f"{'x' * before} {API_KEY} is wrong\nand more"
        with pytest.raises(AuthenticationFailed) as raised:
            reranker.rerank(QUERY, TEXTS)
    assert API_KEY[:4] not in str(raised.value).partition("no access token")[2]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("proxy", ["socks5://me:a-password@127.0.0.1:9", "foo://me:a-password@x:1"])
def test_proxy_that_cannot_be_used_for_tokens_is_named(
    proxy: str, watsonx: DocumentedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxy.startswith("socks") and importlib.util.find_spec("socksio"):
        pytest.skip("SOCKS proxies work here")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with token_server(watsonx.key) as tokens:
        own = {"project_id": "p", "token_url": "http://tokens.invalid/token"}
        spec = watsonx_spec(watsonx, tokens, watsonx=own, api_key=f"a-key-for-{proxy[:3]}-0123456789")
        with load_reranker(spec) as reranker, pytest.raises(ConfigError, match="The proxy in HTTP_PROXY") as raised:
            reranker.rerank(QUERY, TEXTS)
    assert "a-password" not in "".join(traceback.format_exception(raised.value))


def test_refused_setting_names_its_variable_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"use": "watsonx", "api_key": API_KEY, "watsonx": {"project_id": "my project"}}
    with pytest.raises(ConfigError, match=r"watsonx\.project_id may have .* since it is a part of the request"):
        load_reranker(spec)
    monkeypatch.setenv("WATSONX_DEPLOYMENT_SPACE_ID", "my space")
    monkeypatch.delenv("WATSONX_SPACE_ID", raising=False)
    variable = r"watsonx\.space_id \(from the environment variable WATSONX_DEPLOYMENT_SPACE_ID\) may have"
    with pytest.raises(ConfigError, match=variable):
        load_reranker({"use": "watsonx", "api_key": API_KEY})
    monkeypatch.setenv("WATSONX_REGION", "EU")
    with pytest.raises(ConfigError, match=r"\(from the environment variable WATSONX_REGION\).* part of the address"):
        load_reranker({"use": "watsonx", "api_key": API_KEY})


def test_watsonx_needs_a_project_or_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WATSONX_PROJECT_ID", "WATSONX_SPACE_ID"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=r"watsonx\.project_id or watsonx\.space_id.*WATSONX_PROJECT_ID"):
        load_reranker({"use": "watsonx", "api_key": API_KEY})
    monkeypatch.setenv("WATSONX_SPACE_ID", "my-space")
    with load_reranker({"use": "watsonx", "api_key": API_KEY, "watsonx": {"region": "eu-de"}}) as reranker:
        backend = next(iter(reranker.scorer.leaves()))
        assert backend._address == "https://eu-de.ml.cloud.ibm.com"
        assert backend.format.body == {"space_id": "my-space"}


# --- Google: application default credentials ---


def test_google_without_credentials_says_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth asks the metadata server of the machine last; here it is told that there is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with (
        load_reranker({"use": "google", "google": {"project": "my-project"}, "retry": 1}) as reranker,
        pytest.raises(AuthenticationFailed, match="GOOGLE_APPLICATION_CREDENTIALS"),
    ):
        reranker.rerank(QUERY, TEXTS)


def test_refused_credentials_of_google_are_named_as_they_were_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token in `api_key` is not that of the application, and without one there is no `api_key` to check."""
    with server_of("google") as server, token_server(server.key) as tokens:
        tokens.any_key = True
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", credentials_of_google(tmp_path, tokens))
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", tokens.url)
        server.always(Status(401))
        spec = {
            "use": "google:semantic-ranker-default-003",
            "base_url": server.url,
            "google": {"project": "my-project"},
            "retry": 1,
        }
        errors = []
        for key in ({"api_key": "an-access-token-0123456789"}, {}):
            with load_reranker(spec | key) as reranker, pytest.raises(AuthenticationFailed) as raised:
                reranker.rerank(QUERY, TEXTS)
            errors.append(str(raised.value))
    with_key, without_key = errors
    assert "`api_key`" in with_key
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in with_key
    assert "api_key" not in without_key
    assert "GOOGLE_APPLICATION_CREDENTIALS" in without_key


def credentials_of_google(folder: Path, tokens: TokenServer) -> str:
    """Write a refresh token as `gcloud auth application-default login` does, and return the path of the file."""
    account = {
        "type": "authorized_user",
        "client_id": "an-id",
        "client_secret": "a-secret",
        "refresh_token": "a-refresh-token",
        "token_uri": tokens.url,
    }
    (folder / "account.json").write_text(json.dumps(account), "utf-8")
    return str(folder / "account.json")


def test_google_credentials_of_a_file_are_exchanged_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh token, as `gcloud auth application-default login` writes it, becomes an access token once."""
    with server_of("google") as server, token_server(server.key) as tokens:
        tokens.any_key = True
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", credentials_of_google(tmp_path, tokens))
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", tokens.url)
        spec = {"use": "google:semantic-ranker-fast-004", "base_url": server.url, "google": {"project": "my-project"}}
        with load_reranker(spec) as reranker:
            assert reranker.rerank(QUERY, TEXTS)[0].index == 1
            assert reranker.rerank(QUERY, TEXTS)[0].index == 1
    assert len(tokens.requests) == 1
    assert tokens.requests[0]["refresh_token"] == ["a-refresh-token"]


def test_google_needs_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    with pytest.raises(ConfigError, match=r"google\.project in the spec.*GOOGLE_CLOUD_PROJECT"):
        load_reranker("google")


def test_wrong_project_of_google_is_named() -> None:
    with server_of("google") as server:
        spec = {"use": "google", "base_url": server.url, "api_key": server.key, "google": {"project": "another"}}
        with (
            load_reranker(spec) as reranker,
            pytest.raises(Rejected, match=r"`google\.project` \(GOOGLE_CLOUD_PROJECT"),
        ):
            reranker.rerank(QUERY, TEXTS)


def test_id_that_was_not_sent_is_a_bad_response() -> None:
    from rerank_plugins.testing.script import JSON

    with server_of("google") as server:
        spec = {"use": "google", "base_url": server.url, "api_key": server.key, "google": {"project": "my-project"}}
        for identifier in ("another", "-1", 1, None, "²"):
            server.play(JSON({"records": [{"id": identifier, "score": 0.5}, {"id": "0", "score": 0.1}]}))
            with load_reranker({**spec, "retry": 1}) as reranker, pytest.raises(BadResponse):
                reranker.rerank(QUERY, TEXTS)


# --- AWS: signatures ---


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


def test_request_is_signed_for_its_body_and_region(aws: None) -> None:
    """botocore signs the received request again, with the same time: the signatures agree."""
    with server_of("bedrock-agent") as server:
        spec = {"use": "bedrock-agent", "base_url": server.url, "bedrock-agent": {"region": "us-west-2"}}
        with load_reranker(spec) as reranker:
            assert reranker.rerank(QUERY, TEXTS)[0].index == 1
        (received,) = server.requests
    sent = received.headers["authorization"]
    assert "/us-west-2/bedrock/aws4_request" in sent
    body = json.dumps(received.body, ensure_ascii=False, separators=(",", ":")).encode()
    signed = re.search(r"SignedHeaders=([\w;-]+)", sent)
    assert signed is not None
    headers = {name: received.headers[name] for name in signed[1].split(";") if name != "host"}
    request = AWSRequest("POST", server.url + received.path, headers, body)
    request.context["timestamp"] = received.headers["x-amz-date"]
    signer = SigV4Auth(Credentials("an-access-key-id", SECRET), "bedrock", "us-west-2")
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert f"Signature={signature}" in sent


def test_missing_credentials_of_aws_name_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    spec = {"use": "bedrock-agent", "bedrock-agent": {"region": "us-west-2"}, "retry": 1}
    with load_reranker(spec) as reranker, pytest.raises(AuthenticationFailed, match=r"AWS_ACCESS_KEY_ID.*AWS_PROFILE"):
        reranker.rerank(QUERY, TEXTS)


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorized: AssumeRole"}}, "AssumeRole"),
        RuntimeError("the refreshed credentials are still expired: AssumeRole"),
    ],
    ids=["refused", "expired"],
)
def test_credentials_of_a_role_that_aws_refuses_are_an_authentication_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore's `ClientError` is no `BotoCoreError`."""

    class Role(Credentials):
        def get_frozen_credentials(self) -> Any:
            raise error

    monkeypatch.setattr(preset_signed, "_credentials", lambda: Role("an-access-key-id", SECRET))
    spec = {"use": "bedrock-agent", "bedrock-agent": {"region": "us-west-2"}, "retry": 1}
    with load_reranker(spec) as reranker, pytest.raises(AuthenticationFailed, match=r"AssumeRole.*AWS_PROFILE"):
        reranker.rerank(QUERY, TEXTS)


def test_bedrock_agent_sends_the_body_and_the_path_of_the_spec(aws: None) -> None:
    exchange = json.loads((FOLDER / "bedrock-agent.json").read_text("utf-8"))
    exchange["request"]["path"] = "/rank/amazon.rerank-v1%3A0"
    exchange["request"]["body"]["nextToken"] = "a-token"
    with documented_server(exchange)() as server:
        own = {"region": "us-west-2", "path": "/rank/{model}", "body": {"nextToken": "a-token"}}
        spec = {"use": "bedrock-agent", "base_url": server.url, "bedrock-agent": own}
        with load_reranker(spec) as reranker:
            assert reranker.rerank(QUERY, TEXTS)[0].index == 1
        assert server.refused == []


async def test_callers_without_aws_credentials_share_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore may ask a server of credentials that is down: then no caller waits for the searches of the others."""
    searches: list[bool] = []
    released = threading.Event()

    def search() -> None:
        searches.append(released.wait(30))

    monkeypatch.setattr(preset_signed, "_credentials", search)
    async with load_reranker({"use": "bedrock-agent", "bedrock-agent": {"region": "us-west-2"}}) as reranker:
        (backend,) = reranker.scorer.leaves()
        calls = [asyncio.create_task(backend._frozen.run()) for _ in range(5)]
        await asyncio.sleep(0)  # each call runs until it waits for the search
        released.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AuthenticationFailed] * 5
    assert searches == [True]


def test_bedrock_agent_takes_no_key() -> None:
    with pytest.raises(ConfigError, match=r"takes no api_key.*`bedrock`"):
        load_reranker({"use": "bedrock-agent", "api_key": "a key", "bedrock-agent": {"region": "us-west-2"}})


@pytest.mark.parametrize("use", ["bedrock", "bedrock-agent"])
def test_bedrock_needs_a_region(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=rf"{use}\.region in the spec.*AWS_REGION or AWS_DEFAULT_REGION"):
        load_reranker({"use": use, "api_key": "a key"} if use == "bedrock" else use)
    for region in ("evil.example/?", "my-bucket.s3", "..", "a@b", "US-EAST-1"):
        with pytest.raises(ConfigError, match="small letters, digits and hyphens only"):
            load_reranker({"use": use, use: {"region": region}})
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with load_reranker({"use": use, **({"api_key": "a key"} if use == "bedrock" else {})}) as reranker:
        assert ".eu-west-1.amazonaws.com" in next(iter(reranker.scorer.leaves()))._address


def test_wrong_region_of_aws_is_named_and_no_secret_is_shown(aws: None) -> None:
    with server_of("bedrock-agent") as server:
        server.always(Status(403, message=f"the security token {SECRET} is not valid here"))
        spec = {"use": "bedrock-agent", "base_url": server.url, "bedrock-agent": {"region": "eu-west-9"}, "retry": 1}
        with (
            load_reranker(spec) as reranker,
            pytest.raises(AuthenticationFailed, match=r"`bedrock-agent\.region` \(AWS_REGION") as raised,
        ):
            reranker.rerank(QUERY, TEXTS)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"use": "google", "base_url": "http://127.0.0.1:9", "google": {"project": "p"}},
        {"use": "bedrock-agent", "base_url": "http://127.0.0.1:9", "bedrock-agent": {"region": "us-west-2"}},
        {"use": "watsonx", "watsonx": {"project_id": "p", "token_url": "http://127.0.0.1:9"}},
        {"use": "siliconflow", "base_url": "http://127.0.0.1:9"},
    ],
    ids=lambda spec: spec["use"],
)
def test_call_does_not_choose_where_credentials_of_the_program_go(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a call must not choose where it goes"):
        refuse_key_references(spec)


@pytest.mark.parametrize("project", ["../../evil", "", "a/b", "?x", ".hidden"])
def test_project_of_google_stays_one_segment_of_the_path(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    with pytest.raises(ConfigError, match=r"google\.project"):
        load_reranker({"use": "google", "google": {"project": project}})

"""The error classes have the documented hierarchy, and each message says what to do next."""

from __future__ import annotations

import ast
import itertools
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.source import parse_source

import rerank_plugins
from rerank_plugins import core, load_reranker
from rerank_plugins.config import registry
from rerank_plugins.core import errors
from rerank_plugins.core.scorer import unexpected_error
from rerank_plugins.core.wire import error_for_status
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import JSON, Hang, Status, StringScores
from rerank_plugins.testing.server import VendorServer

PACKAGE = Path(rerank_plugins.__file__).parent


def documented_bases() -> dict[str, tuple[str, ...]]:
    """Parse the tree in the docstring of `errors`. Returns the names of the base classes by class name."""
    tree = re.search(r"```\n(.*?)```", errors.__doc__ or "", re.DOTALL)
    assert tree
    bases: dict[str, tuple[str, ...]] = {}
    path: list[str] = []
    for line in tree[1].splitlines():
        shape = re.match(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?", line)
        assert shape, line
        depth = len(shape[1]) // 4
        path[depth:] = [shape[2]]
        bases[shape[2]] = tuple(filter(None, (path[depth - 1] if depth else "Exception", shape[3])))
    return bases


def test_class_hierarchy_equals_the_documented_tree() -> None:
    real = {name: tuple(base.__name__ for base in getattr(errors, name).__bases__) for name in errors.__all__}
    assert documented_bases() == real


def test_every_error_class_is_exported() -> None:
    for name in errors.__all__:
        assert getattr(rerank_plugins, name) is getattr(core, name) is getattr(errors, name)


def test_every_error_class_has_a_docstring() -> None:
    assert all(getattr(errors, name).__doc__ for name in errors.__all__)


# --- errors as a user causes them ---


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with CohereLike() as running:
        yield running


def spec_of(server: VendorServer) -> dict[str, Any]:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1}


def rerank(server: VendorServer, **options) -> None:
    with load_reranker({**spec_of(server), **options}) as reranker:
        reranker.rerank("tides", ["the moon", "bananas"])


def without_a_package(server: VendorServer) -> None:
    registry.BUILTIN["acme"] = registry.BackendEntry(
        "acme:Acme", "a test's", extra="acme", packages=("no_such_package_acme",)
    )
    try:
        load_reranker("acme")
    finally:
        del registry.BUILTIN["acme"]


def rerank_after(*steps) -> Callable[..., None]:
    def play(server: VendorServer, **options) -> None:
        for step in steps:
            server.always(step)
        rerank(server, **options)

    return play


RAISED = {
    "ConfigError": (lambda _: load_reranker("coher"), r"no backend 'coher'.*Choose one of: .*passthrough"),
    "MissingExtra": (without_a_package, r"Run: pip install 'rerank-plugins\[acme\]'"),
    "InputError": (
        lambda _: load_reranker("lexical").rerank("query", ["one", 2]),
        r"Document 1 must be a string or a mapping of fields, got 2\. Leave it out",
    ),
    "TransientError": (rerank_after(Status(503)), r"answered 503.*raise `retry` or name a `fallback`"),
    "RateLimited": (rerank_after(Status(429)), r"answered 429.*Send fewer requests"),
    "Rejected": (rerank_after(Status(404)), r"answered 404.*Check the model's name and `base_url`"),
    "AuthenticationFailed": (rerank_after(Status(401)), r"answered 401.*Check the key \(`api_key`"),
    "BadResponse": (rerank_after(StringScores()), r"returned str as the score of document \d.*\w"),
    "AllBackendsFailed": (
        lambda server: rerank_after(Status(503))(server, fallback=[{**spec_of(server), "use": "http:other"}]),
        r"\(1\) http answered 503.*End the fallback with 'passthrough'",
    ),
    "DeadlineExceeded": (
        lambda server: rerank_after(Hang())(server, deadline=0.1),
        r"did not answer within 0\.1 s\. Raise `deadline`",
    ),
}


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_is_raised_with_advice(name: str, server: VendorServer) -> None:
    if name in {"RerankError", "BackendError"}:
        pytest.skip("a base class, never raised itself")
    trigger, message = RAISED[name]
    with pytest.raises(getattr(errors, name), match=re.compile(message, re.DOTALL)) as raised:
        trigger(server)
    assert type(raised.value) is getattr(errors, name)


EXAMPLES = [
    errors.RerankError("message"),
    errors.ConfigError("message"),
    errors.MissingExtra("The backend 'acme'", extra="acme", package="acme_sdk"),
    errors.InputError("message"),
    errors.BackendError("message", backend="acme", status=418, request_id="req-7"),
    errors.TransientError("message", backend="acme", status=503),
    errors.RateLimited("message", backend="acme", status=429, retry_after=1.5),
    errors.Rejected("message", status=400),
    errors.AuthenticationFailed("message", status=401),
    errors.BadResponse("message", backend="acme"),
    errors.AllBackendsFailed((errors.RateLimited("slow", retry_after=2.0), errors.BadResponse("half"))),
    errors.DeadlineExceeded("message"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickled_error_keeps_its_type_message_and_attributes(error: errors.RerankError) -> None:
    """Process pools, Ray and Celery pickle the exception of a worker."""
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    for name in ("backend", "status", "retry_after", "request_id", "extra"):
        assert getattr(copied, name, None) == getattr(error, name, None)
    assert [str(each) for each in getattr(copied, "errors", ())] == [str(each) for each in getattr(error, "errors", ())]


def test_every_error_class_is_in_the_pickle_examples() -> None:
    assert [type(error).__name__ for error in EXAMPLES] == list(documented_bases())


DOUBLED = re.compile(r"[.?!:…][.?!:;…]")


@pytest.mark.thorough
@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_message_appends_a_full_stop_to_a_bare_exception(file):
    """A library's message may end with a full stop. `clause` removes it before our own punctuation."""
    for text in (node for node in ast.walk(parse_source(file.read_text("utf-8"))) if isinstance(node, ast.JoinedStr)):
        for part, following in itertools.pairwise(text.values):
            is_bare = isinstance(part, ast.FormattedValue) and ast.unparse(part.value) in ("error", "str(error)")
            adds_full_stop = isinstance(following, ast.Constant) and str(following.value)[:1] == "."
            assert not (is_bare and adds_full_stop), f"{file.name}:{text.lineno}: write clause(error)"


def test_punctuation_of_a_gateway_message_is_not_doubled(server):
    server.always(JSON({"error": {"message": "Out of credit. Why?."}}))
    with pytest.raises(errors.BadResponse, match=r"in place of scores: Out of credit\. Why\. Do what") as caught:
        rerank(server)
    assert not DOUBLED.search(str(caught.value))


def test_punctuation_of_a_vendor_message_is_not_doubled():
    for explanation in ("Come back later.", "Come back later", "Come back later. "):
        for status in (302, 400, 401, 402, 404, 429, 500, 503):
            error = error_for_status(status, {}, backend="http", explanation=explanation)
            assert f"answered {status}: Come back later. " in str(error)
    for words in ("Why?.", "Why?", "Why?!", "Wait...", "Wait…", "Wait:\n"):
        for status in (302, 400, 401, 402, 404, 429, 500, 503):
            message = str(error_for_status(status, {}, backend="http", explanation=words))
            assert f"answered {status}: {words[:3]}" in message
            assert not DOUBLED.search(message), message
        assert not DOUBLED.search(str(unexpected_error("lexical", ValueError(words))))
        assert not DOUBLED.search(str(errors.AllBackendsFailed((errors.TransientError(words),))))
    message = str(
        errors.AllBackendsFailed((errors.TransientError("One is down."), errors.TransientError("Two is down.")))
    )
    assert ".." not in message
    assert ".;" not in message


@pytest.mark.parametrize(
    ("words", "is_advised"),
    [
        ("Model not exist.", True),  # DashScope
        ("Model does not exist. Please check it carefully.", True),  # SiliconFlow
        ("acme/none is not a valid model ID", True),  # OpenRouter
        ("model_not_supported: Model 'none' is not supported", True),  # watsonx
        ("模型不存在,请检查模型代码。", True),  # Zhipu
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", False),
        ("documents must not be empty", False),
    ],
)
def test_refusal_that_is_about_the_model_advises_its_name(words: str, is_advised: bool) -> None:
    message = str(error_for_status(400, {}, backend="acme:none", explanation=words))
    assert ("Check the model's name (`use`)." in message) is is_advised
    assert words.rstrip(".") in message

"""The tree of errors is the one that is drawn, and each of them says what to do next."""

from __future__ import annotations

import ast
import itertools
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rerank_plugins
from rerank_plugins import core, load_reranker
from rerank_plugins.config import registry
from rerank_plugins.core import errors
from rerank_plugins.core.scorer import failed
from rerank_plugins.core.wire import error_for_status
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import JSON, Hang, Status, StringScores
from rerank_plugins.testing.server import VendorServer

PACKAGE = Path(rerank_plugins.__file__).parent


def drawn() -> dict[str, tuple[str, ...]]:
    """Read the tree in the module's docstring: name → names of its bases."""
    tree = re.search(r"```\n(.*?)```", errors.__doc__ or "", re.DOTALL)
    assert tree
    found: dict[str, tuple[str, ...]] = {}
    path: list[str] = []
    for line in tree[1].splitlines():
        shape = re.match(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?", line)
        assert shape, line
        depth = len(shape[1]) // 4
        path[depth:] = [shape[2]]
        found[shape[2]] = tuple(filter(None, (path[depth - 1] if depth else "Exception", shape[3])))
    return found


def test_the_tree_is_as_drawn() -> None:
    real = {name: tuple(base.__name__ for base in getattr(errors, name).__bases__) for name in errors.__all__}
    assert drawn() == real


def test_every_error_is_public() -> None:
    for name in errors.__all__:
        assert getattr(rerank_plugins, name) is getattr(core, name) is getattr(errors, name)


def test_every_error_is_described() -> None:
    assert all(getattr(errors, name).__doc__ for name in errors.__all__)


# Each raised by what a user does --------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with CohereLike() as running:
        yield running


def own(server: VendorServer) -> dict[str, Any]:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1}


def ask(server: VendorServer, **options) -> None:
    with load_reranker({**own(server), **options}) as reranker:
        reranker.rerank("tides", ["the moon", "bananas"])


def without_a_package(server: VendorServer) -> None:
    registry.BUILTIN["acme"] = registry.Entry("acme:Acme", "a test's", extra="acme", packages=("no_such_package_acme",))
    try:
        load_reranker("acme")
    finally:
        del registry.BUILTIN["acme"]


def after(*steps) -> Callable[..., None]:
    def play(server: VendorServer, **options) -> None:
        for step in steps:
            server.always(step)
        ask(server, **options)

    return play


RAISED = {
    "ConfigError": (lambda _: load_reranker("coher"), r"no backend 'coher'.*Choose one of: .*passthrough"),
    "MissingExtra": (without_a_package, r"Run: pip install 'rerank-plugins\[acme\]'"),
    "InputError": (
        lambda _: load_reranker("lexical").rerank("query", ["one", 2]),
        r"Document 1 must be a string or a mapping of fields, got 2\. Leave it out",
    ),
    "TransientError": (after(Status(503)), r"answered 503.*raise `retry` or name a `fallback`"),
    "RateLimited": (after(Status(429)), r"answered 429.*Send fewer requests"),
    "Rejected": (after(Status(404)), r"answered 404.*Check the model's name and `base_url`"),
    "AuthenticationFailed": (after(Status(401)), r"answered 401.*Check the key \(`api_key`"),
    "BadResponse": (after(StringScores()), r"gave str as the score of document \d.*\w"),
    "AllBackendsFailed": (
        lambda server: after(Status(503))(server, fallback=[{**own(server), "use": "http:other"}]),
        r"\(1\) http answered 503.*End the fallback with 'passthrough'",
    ),
    "DeadlineExceeded": (
        lambda server: after(Hang())(server, deadline=0.1),
        r"did not answer within 0\.1 s\. Raise `deadline`",
    ),
}


@pytest.mark.parametrize("name", errors.__all__)
def test_it_is_raised_and_says_what_to_do(name: str, server: VendorServer) -> None:
    if name in {"RerankError", "BackendError"}:
        pytest.skip("a branch, never raised itself")
    do, says = RAISED[name]
    with pytest.raises(getattr(errors, name), match=re.compile(says, re.DOTALL)) as raised:
        do(server)
    assert type(raised.value) is getattr(errors, name)


EXAMPLES = [
    errors.RerankError("told"),
    errors.ConfigError("told"),
    errors.MissingExtra("The backend 'acme'", extra="acme", package="acme_sdk"),
    errors.InputError("told"),
    errors.BackendError("told", backend="acme", status=418, request_id="req-7"),
    errors.TransientError("told", backend="acme", status=503),
    errors.RateLimited("told", backend="acme", status=429, retry_after=1.5),
    errors.Rejected("told", status=400),
    errors.AuthenticationFailed("told", status=401),
    errors.BadResponse("told", backend="acme"),
    errors.AllBackendsFailed((errors.RateLimited("slow", retry_after=2.0), errors.BadResponse("half"))),
    errors.DeadlineExceeded("told"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_it_comes_back_from_another_process_as_it_was(error: errors.RerankError) -> None:
    """Process pools, Ray and Celery pickle what a worker raised."""
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    for name in ("backend", "status", "retry_after", "request_id", "extra"):
        assert getattr(copied, name, None) == getattr(error, name, None)
    assert [str(each) for each in getattr(copied, "errors", ())] == [str(each) for each in getattr(error, "errors", ())]


def test_every_class_has_an_example() -> None:
    assert [type(error).__name__ for error in EXAMPLES] == list(drawn())


DOUBLED = re.compile(r"[.?!:…][.?!:;…]")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_message_goes_on_behind_the_full_stop_of_a_library(file):
    """A library's words may end like a sentence: `clause` takes that off before punctuation of ours."""
    for text in (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.JoinedStr)):
        for part, following in itertools.pairwise(text.values):
            is_bare = isinstance(part, ast.FormattedValue) and ast.unparse(part.value) in ("error", "str(error)")
            goes_on = isinstance(following, ast.Constant) and str(following.value)[:1] == "."
            assert not (is_bare and goes_on), f"{file.name}:{text.lineno}: write clause(error)"


def test_a_gateways_question_is_not_doubled(server):
    server.always(JSON({"error": {"message": "Out of credit. Why?."}}))
    with pytest.raises(errors.BadResponse, match=r"in place of scores: Out of credit\. Why\. Do what") as caught:
        ask(server)
    assert not DOUBLED.search(str(caught.value))


def test_a_vendors_full_stop_is_not_doubled():
    for explanation in ("Come back later.", "Come back later", "Come back later. "):
        for status in (302, 400, 401, 402, 404, 429, 500, 503):
            error = error_for_status(status, {}, backend="http", explanation=explanation)
            assert f"answered {status}: Come back later. " in str(error)
    for words in ("Why?.", "Why?", "Why?!", "Wait...", "Wait…", "Wait:\n"):
        for status in (302, 400, 401, 402, 404, 429, 500, 503):
            told = str(error_for_status(status, {}, backend="http", explanation=words))
            assert f"answered {status}: {words[:3]}" in told
            assert not DOUBLED.search(told), told
        assert not DOUBLED.search(str(failed("lexical", ValueError(words))))
        assert not DOUBLED.search(str(errors.AllBackendsFailed((errors.TransientError(words),))))
    told = str(errors.AllBackendsFailed((errors.TransientError("One is down."), errors.TransientError("Two is down."))))
    assert ".." not in told
    assert ".;" not in told

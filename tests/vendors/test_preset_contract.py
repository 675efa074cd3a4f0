"""The whole contract suite over every preset, each against a server in the form of its documented exchange."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.token_server import API_KEY, token_server

from rerank_plugins.backends.presets import PRESETS
from rerank_plugins.testing.contract import HostedContract
from rerank_plugins.testing.documented import SECOND_SCORE, documented_server, places

pytestmark = pytest.mark.thorough
AWS = {"AWS_ACCESS_KEY_ID": "an-access-key-id", "AWS_SECRET_ACCESS_KEY": "a-secret-access-key-0123456789"}


class PresetContract(HostedContract):
    """The suite for one preset, whose exchange is in `exchanges/`."""

    __test__ = False

    @pytest.fixture(autouse=True)
    def credentials(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """What the presets need that take no key: AWS signs, and IBM exchanges the key for a token."""
        for variable, value in (*AWS.items(), ("IBM_CLOUD_KEY", API_KEY)):
            monkeypatch.setenv(variable, value)
        with token_server(server.key) as tokens:
            monkeypatch.setenv("WATSONX_IAM_URL", tokens.url)
            yield


def suite_of(name: str) -> type[PresetContract]:
    """Return the suite of a preset as a class that pytest collects."""
    exchange = json.loads(Path(__file__).with_name("exchanges").joinpath(f"{name}.json").read_text("utf-8"))
    key = {"ibm": {"api_key": "env:IBM_CLOUD_KEY"}, "aws": {"api_key": None}}.get(PRESETS[name].authentication, {})
    attributes = {
        "__module__": __name__,
        "__test__": True,
        "spec": {**key, **exchange["spec"]},
        "vendor": documented_server(exchange),
        "bare_scores": isinstance(next(places(exchange["reply"], SECOND_SCORE))[-1], int),
    }
    base = OtherCredentials if PRESETS[name].authentication in ("aws", "ibm") else PresetContract
    return type(f"Test{name.title().replace('-', '')}", (base,), attributes)


class OtherCredentials(PresetContract):
    """A preset whose key is not sent: a signature or a token is. `test_preset_clouds.py` has these tests for it."""

    @pytest.mark.xfail(reason="no key is sent: see test_preset_clouds.py", run=False)
    def test_the_key_is_nowhere(self) -> None:
        """See the class."""

    @pytest.mark.xfail(reason="no key is sent: see test_preset_clouds.py", run=False)
    def test_a_wrong_key_is_an_authentication_error(self) -> None:
        """See the class."""


SUITES = {suite.__name__: suite for suite in map(suite_of, sorted(PRESETS))}
globals().update(SUITES)


def test_every_preset_has_its_suite() -> None:
    assert len(SUITES) == len(PRESETS)

"""A spec that a call names, perhaps with a text from outside of the program, reads no key and sends none."""

from __future__ import annotations

from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.config.call_specs import refuse_key_references
from rerank_plugins.core.errors import ConfigError

ADDRESS = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": ADDRESS, "body": {"instruction": "env:PROGRAM_KEY"}},
        {"base_url": ADDRESS, "body": {"a": {"instruction": "env:PROGRAM_KEY"}}},
        {"base_url": ADDRESS, "headers": {"x-instruction": "env:PROGRAM_KEY"}},
        {"base_url": f"{ADDRESS}/e\tnv:PROGRAM_KEY"},
        {"base_url": f"{ADDRESS}/?k=en\nv:PROGRAM_KEY"},
        {"base_url": "http://user:e\rnv:PROGRAM_KEY@127.0.0.1:1"},
        {"base_url": f"{ADDRESS}/%65nv:PROGRAM_KEY"},
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "as a fallback"])
def test_reference_to_a_variable_is_refused_in_every_disguise(options: dict[str, Any], inside: bool) -> None:
    spec: dict[str, Any] = {"use": "http", "http": options}
    if inside:
        spec = {"use": "lexical", "fallback": [spec]}
    with pytest.raises(ConfigError, match='holds "env:NAME"'):
        refuse_key_references(spec)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"base_url": ADDRESS}, "a base_url"),
        ({"path": "/key/generate"}, "a path"),
        ({"path": ""}, "a path"),
        ({"headers": {"Host": "another.example"}}, "a header host"),
    ],
)
def test_call_cannot_choose_where_the_key_of_the_environment_goes(options: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=f"names {place} and no api_key"):
        refuse_key_references({"use": "litellm:a-model", "litellm": options})
    refuse_key_references({"use": "litellm:a-model", "litellm": {**options, "api_key": "the-key-of-the-call"}})


def test_instruction_may_say_anything() -> None:
    stage = {"use": "lexical", "instruction": "file: the papers about env:NAME"}
    refuse_key_references({"cascade": {"stages": [stage, stage]}, "fallback": [stage], "instruction": "env:X"})


@pytest.mark.parametrize("character", ["\t", "\n", " ", "\x00"])
def test_address_with_a_control_character_is_refused(character: str) -> None:
    with pytest.raises(ConfigError, match="base_url has a space, a line break or a control character"):
        load_reranker({"use": "http", "http": {"base_url": f"{ADDRESS}/v1{character}/a"}})

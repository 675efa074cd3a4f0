"""The YAML of mappings equals PyYAML's output character for character, written in slices and in linear time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rerank_plugins import yaml_text as module
from rerank_plugins.yaml_text import yaml_text


class Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def by_pyyaml(fields: dict[Any, Any]) -> str:
    return yaml.dump(fields, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**9)


WORDS = [
    "yes",
    "null",
    "true",
    "~",
    "=",
    "<<",
    "1",
    "1.5",
    "0x1f",
    "1e3",
    "1:30",
    "2026-11-05",
    ".inf",
    "- a",
    "-",
    "?",
    "a: b",
]
WORDS += [
    "a:",
    "#",
    "a #b",
    "a#b",
    "'",
    "''",
    '"',
    "...",
    "---",
    "--- a",
    "\n",
    "a\nb",
    "a\n\nb\n",
    " a",
    "a ",
    "a \nb",
    "a\n b",
]
WORDS += [
    "\t",
    "\0",
    "\x85",
    "a\x85b",
    "\u2028",
    "\ufeff",
    "é",
    "😀",
    "\ufffe",
    "\U0010ffff",
    "",
    " ",
    "off",
    "No",
    "2026-1-5 1:02:03",
]
WORDS += [
    "a_b c.d-e",
    "a -b",
    "a\u00a0b",
    "@x",
    "`",
    "%",
    "!x",
    "&x",
    "*x",
    "|",
    ">",
    "[a]",
    "{a}",
    ",",
    "a, b",
    "a'b\n'c",
    "1_000",
]
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(WORDS)
strings |= st.text(st.sampled_from(" \n'\":#-a1.\x85\u2028"), max_size=10)
numbers = st.integers() | st.floats() | st.booleans() | st.none()
scalars = strings | numbers | st.dates() | st.datetimes()
keys = strings | st.integers() | st.sampled_from(["k" * 122, "k" * 123, "k" * 200])
trees = st.recursive(
    scalars, lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(keys, deeper, max_size=3), max_leaves=12
)


@given(st.dictionaries(strings, strings | numbers, min_size=1, max_size=4))
@settings(max_examples=150)
def test_flat_mapping_equals_the_output_of_pyyaml(fields):
    assert yaml_text(fields) == by_pyyaml(fields)


@pytest.mark.parametrize("word", WORDS)
def test_string_with_a_yaml_meaning_is_quoted_as_by_pyyaml(word):
    for fields in ({"a": word}, {word: "a"}, {"a": [word, word], "b": {"c": word}}):
        assert yaml_text(fields) == by_pyyaml(fields)


@given(st.dictionaries(keys, trees, min_size=1, max_size=3))
@settings(max_examples=150)
@example({"": {"a": [[]], "b": {}}, "a\nb": {"c": [["d"]]}, "e": [[["f\ng"]], {"h": "i\n\nj"}]})
def test_nested_mapping_equals_the_output_of_pyyaml(fields):
    assert yaml_text(fields) == by_pyyaml(fields)


@given(st.lists(strings | st.text(st.sampled_from("\n '\U0001f600"), min_size=5, max_size=20), min_size=1, max_size=6))
@settings(max_examples=100)
def test_yaml_text_is_independent_of_the_slices(parts):
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_CHARACTERS", 3)
        patch.setattr(module, "slices", lambda text: (text[start : start + 3] for start in range(0, len(text), 3)))
        if not module._NUMBER.match(text) and module._contains(module._NOT_A_NUMBER, text):  # see `_is_number`
            assert yaml_text({"a": text}) == by_pyyaml({"a": text})


def test_dates_are_written_as_yaml_timestamps():
    fields = {"day": dt.date(2026, 11, 5), "at": dt.datetime(2026, 11, 5, 12, 30, tzinfo=dt.UTC)}
    assert yaml_text(fields) == by_pyyaml(fields) == "day: 2026-11-05\nat: 2026-11-05 12:30:00+00:00\n"

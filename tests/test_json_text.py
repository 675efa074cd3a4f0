"""Request bodies as JSON: the bytes that `json.dumps` gives, in slices."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import ConfigError
from rerank_plugins.core import json_text

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    text | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none(),
    lambda deeper: st.lists(deeper) | st.dictionaries(text, deeper) | st.tuples(deeper),
    max_leaves=10,
)


@given(st.dictionaries(text, values, max_size=4), st.integers(1, 5))
def test_the_bytes_are_those_of_the_standard_library(payload, size):
    expected = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "SLICE", size)
        assert json_text.encoded(payload) == expected


def test_a_lone_surrogate_is_a_config_error():
    with pytest.raises(ConfigError, match="lone surrogate"):
        json_text.encoded({"model": "\ud800"})


def test_a_number_that_json_has_no_word_for_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text.encoded({"a": float("nan")})

"""Request bodies are encoded in slices to the same bytes as `json.dumps`."""

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


@pytest.mark.thorough
@given(st.dictionaries(text, values, max_size=4), st.integers(1, 5))
def test_encode_json_equals_json_dumps(payload, size):
    expected = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "SLICE_CHARACTERS", size)
        assert json_text.encode_json(payload) == expected


def test_encode_json_of_a_lone_surrogate_raises_a_config_error():
    with pytest.raises(ConfigError, match="lone surrogate"):
        json_text.encode_json({"model": "\ud800"})


def test_encode_json_of_nan_raises_a_value_error():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text.encode_json({"a": float("nan")})

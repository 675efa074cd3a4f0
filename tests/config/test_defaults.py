"""A spec that only names a backend is built without option models, and as with them."""

from __future__ import annotations

import sys

import pytest

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.backends.embedded import Defaults
from rerank_plugins.backends.embedded_options import EmbeddedOptions
from rerank_plugins.config import registry
from rerank_plugins.config.build import build
from rerank_plugins.config.defaults import DefaultOptions, default_options
from rerank_plugins.config.schema import SHARED, RerankerOptions, parse_spec
from rerank_plugins.core import Capabilities, LocalBackend
from rerank_plugins.options import Count, Options

NAMES = ["embedded", "embedded:balanced", "embedded:fast"]


def test_default_options_are_those_of_the_option_model():
    made, parsed = default_options({"use": "embedded"}), RerankerOptions.model_construct(use="embedded")
    assert made is not None
    assert RerankerOptions.model_fields.keys() - SHARED <= set(DefaultOptions._fields)
    for name in set(DefaultOptions._fields) - {"backend", "long_documents"}:
        assert getattr(made, name) == getattr(parsed, name), name
    assert made.long_documents.mode == parsed.long_documents.mode


def test_defaults_of_embedded_are_those_of_its_option_model():
    assert Defaults()._asdict() == dict(EmbeddedOptions())


@pytest.mark.parametrize("name", NAMES)
def test_stack_without_option_models_is_the_one_with_them(name):
    spec = {"use": name}
    made = default_options(spec)
    assert made is not None
    without, with_models = build(made, spec), build(parse_spec(spec), spec)
    for one, other in zip(without.scorer.walk(), with_models.scorer.walk(), strict=True):
        assert type(one) is type(other)
        assert (one.label, one.capabilities) == (other.label, other.capabilities)
    assert without.spec == with_models.spec == spec
    assert repr(without) == repr(with_models)
    backends = [list(reranker.scorer.walk())[-1] for reranker in (without, with_models)]
    assert backends[0].depth == backends[1].depth
    assert backends[0].document_tokens == backends[1].document_tokens


@pytest.mark.parametrize(
    "settings",
    [
        {"use": "embedded", "top_n": 1},
        {"use": "embedded", "embedded": {}},
        {"use": "lexical"},
        {"use": ""},
        {"use": 3},
        {},
        {"cascade": {"stages": ["embedded:fast", "embedded"]}},
    ],
)
def test_other_specs_are_left_to_the_option_models(settings):
    assert default_options(settings) is None


class FollowOptions(Options):
    """Options of a test's backend."""

    count: Count = 1


class Follows(LocalBackend):
    """A backend whose class only says where its options are, and that has no models."""

    Options = f"{__name__}:FollowOptions"
    capabilities = Capabilities(scale="unit")

    def __init__(self, options: FollowOptions | None = None) -> None:
        super().__init__()
        self.count = 1 if options is None else options.count

    def score(self, query, documents):
        return [1 / (self.count + position) for position, _ in enumerate(documents)]


@pytest.fixture
def follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, Follows.__module__, sys.modules[__name__])
    monkeypatch.setitem(registry.BUILTIN, "follows", registry.BackendEntry(f"{__name__}:Follows", "a test's"))


@pytest.mark.usefixtures("follows")
def test_options_behind_a_reference_are_read_and_checked():
    assert registry.options_model(Follows) is FollowOptions
    assert load_reranker("follows").rerank("a", ["b"])[0].raw_score == 1.0
    assert load_reranker({"use": "follows", "follows": {"count": 2}}).rerank("a", ["b"])[0].raw_score == 0.5
    with pytest.raises(ConfigError, match=r"follows\.count must be an integer of at least 1"):
        load_reranker({"use": "follows", "follows": {"count": 0}})
    with pytest.raises(ConfigError, match=r"follows has no models"):
        load_reranker("follows:large")

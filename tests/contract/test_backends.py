"""The contract suite for our own backends that need no vendor."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from support.language_models import language_model, listwise
from support.late_interaction import late_interaction

from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.contract import BackendContract, HostedContract


class TestPassthrough(BackendContract):
    spec = "passthrough"


class TestLexical(BackendContract):
    spec = "lexical"


class TestOnnx(BackendContract):
    @pytest.fixture
    def spec(self, cross_encoder_folder: Path) -> str:
        return f"onnx:{cross_encoder_folder}"


class TestSentenceTransformers(BackendContract):
    @pytest.fixture
    def spec(self, cross_encoder_folder: Path) -> str:
        return f"sentence-transformers:{cross_encoder_folder}"


@pytest.mark.thorough
class TestFamily(BackendContract):
    """A family of local models, on the torch engine."""

    @pytest.fixture
    def spec(self, cross_encoder_folder: Path) -> dict[str, str]:
        return {"use": f"bge:{cross_encoder_folder}", "runtime": "torch"}


@pytest.mark.slow
class TestCausalLM(BackendContract):
    @pytest.fixture(scope="class")
    def spec(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        folder = language_model(tmp_path_factory.mktemp("contract") / "qwen3", "qwen3")
        return {"use": f"qwen3:{folder}", "device": "cpu"}


@pytest.mark.slow
class TestListwiseModel(BackendContract):
    @pytest.fixture(scope="class")
    def spec(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        return {"use": f"jina:{listwise(tmp_path_factory.mktemp('contract') / 'jina')}", "device": "cpu"}


@pytest.mark.thorough
class TestFlashRank(BackendContract):
    @pytest.fixture
    def spec(self, cross_encoder_folder: Path) -> str:
        return f"flashrank:{cross_encoder_folder}"


@pytest.mark.thorough
class TestOpenVINO(BackendContract):
    @pytest.fixture
    def spec(self, cross_encoder_folder: Path) -> dict:
        return {"use": f"onnx:{cross_encoder_folder}", "runtime": "openvino"}


class TestEmbedded(BackendContract):
    spec = "embedded"


@pytest.mark.thorough
class TestEmbeddedBalanced(BackendContract):
    spec = "embedded:balanced"


class TestEmbeddedFast(BackendContract):
    spec = "embedded:fast"


@pytest.mark.slow
class TestColBERT(BackendContract):
    """A late-interaction model on torch."""

    @pytest.fixture(scope="class")
    def spec(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        folder = late_interaction(tmp_path_factory.mktemp("contract") / "pylate", "pylate")
        return {"use": f"colbert:{folder}", "device": "cpu"}


class FiveDocumentServer(CohereLike):
    max_documents = 5


class TestHTTP(HostedContract):
    spec: ClassVar = {"use": "http:some-model", "http": {"max_documents": 5}}
    vendor = FiveDocumentServer


@pytest.mark.thorough
class TestListwiseHTTP(HostedContract):
    spec: ClassVar = {"use": "http", "http": {"max_documents": 5, "listwise": True, "instruction_field": "instruction"}}
    vendor = FiveDocumentServer

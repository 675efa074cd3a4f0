"""Older SDKs, in an environment of their own: langchain-cohere pins cohere<6, LlamaIndex's Voyage package voyageai<0.4."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from environments import Environment

HERE = Path(__file__).parent
FILES = [str(HERE / f"test_{name}.py") for name in ("contract", "sdks", "wire", "options")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="voyageai 0.3.7 is for Python below 3.14"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))


@pytest.mark.parametrize(
    "versions",
    [
        ("cohere==5.13.0", "voyageai==0.3.7"),
        ("cohere==5.21.1", "voyageai==0.3.7"),
        ("cohere==6.1.0", "voyageai==0.4.1"),
    ],
    ids=" ".join,
)
def test_the_contract_holds_with_older_sdks(versions: tuple[str, ...], environment: Environment, wheel: Path) -> None:
    installed = environment.install(f"{wheel}[cohere,voyage]", *versions, "onnx>=1.17")
    assert set(versions) <= set(installed)
    summary = environment.tests(
        "-k", "TestCohere or TestVoyage or test_sdks or test_wire or test_options", *FILES, more_than=600
    )
    assert "skipped" not in summary


def test_aws_is_reached_with_the_oldest_sdk_that_the_extra_takes(environment: Environment, wheel: Path) -> None:
    versions = {"cohere==5.21.1", "boto3==1.34.0"}
    assert versions <= set(environment.install(f"{wheel}[cohere-aws]", *versions))
    summary = environment.tests(str(HERE / "test_platforms.py"), more_than=50)
    assert "skipped" not in summary

"""Older SDKs, in a separate environment: langchain-cohere pins cohere<6, LlamaIndex's Voyage package voyageai<0.4."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.environments import Environment

HERE = Path(__file__).parent
NOT_FOR_THEM = "a_declined_document or all_declined or a_part_comes_from_the_cache"
"""Laws for decision and chat models. They skip the backends of these SDKs, and no other test may be skipped."""
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
        *("-m", "not slow and not alone"),
        *("-k", f"(TestCohere or TestVoyage or test_sdks or test_wire or test_options) and not ({NOT_FOR_THEM})"),
        *FILES,
        more_than=600,
    )
    assert "skipped" not in summary


def test_aws_works_with_the_oldest_supported_sdk(environment: Environment, wheel: Path) -> None:
    versions = {"cohere==5.21.1", "boto3==1.34.0"}
    assert versions <= set(environment.install(f"{wheel}[cohere-aws]", *versions))
    summary = environment.tests(str(HERE / "test_platforms.py"), more_than=50)
    assert "skipped" not in summary

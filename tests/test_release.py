"""What is released: one version, links that work on PyPI, an sdist that builds the same wheel, CITATION.cff."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.metadata import Metadata
from support.environments import ROOT
from support.pages import TEXTS
from test_oldest import oldest_versions

import rerank_plugins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REPOSITORY = "https://github.com/rerank-plugins/rerank-plugins"
RAW = REPOSITORY.replace("github.com", "raw.githubusercontent.com")
TAG = f"v{PROJECT['version']}"


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert rerank_plugins.__version__ == PROJECT["version"] == citation["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"] == REPOSITORY


def test_every_file_names_the_same_repository():
    texts = [(ROOT / name).read_text("utf-8") for name in ("SECURITY.md", "CITATION.cff", "pyproject.toml")]
    named = set(re.findall(r"https://github\.com/([\w.-]+/[\w.-]+)", "".join(texts)))
    assert {name for name in named if "rerank-plugins" in name} == {"rerank-plugins/rerank-plugins"}
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())


def test_security_policy_names_a_private_way_and_no_address_of_mail():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    assert f"{REPOSITORY}/security/advisories/new" in text
    assert not re.search(r"[\w.]+@[\w.]+", text)
    for target, anchor in re.findall(r"\]\((docs/[^)#]+)#?([^)]*)\)", text):
        titles = re.findall(r"^#+ (.*)$", (ROOT / target).read_text("utf-8"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_page_of_supported_versions_agrees_with_the_tests_of_the_oldest():
    page = TEXTS["docs/reference/support.md"]
    rows = {(name.strip("`"), version) for name, version in re.findall(r"^\| (\S+) \| ([\d.]+) \|", page, re.MULTILINE)}
    assert ("Python", PROJECT["requires-python"].removeprefix(">=")) in rows
    assert {tuple(pinned.split("==")) for pinned in oldest_versions()} <= rows
    sdks = (ROOT / "tests" / "vendors" / "test_oldest_sdks.py").read_text("utf-8")
    for name, version in rows:
        if name in ("cohere", "voyageai", "boto3"):
            assert re.search(rf'"{name}=={re.escape(version)}(\.0)*"', sdks), (name, version)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *TEXTS])
def test_targets_that_a_page_names_are_in_the_makefile(page):
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z0-9-]+)", (ROOT / page).read_text("utf-8"))) <= targets


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and return it unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    build("--sdist", ROOT, folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def build(kind: str, source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def contents(wheel: Path) -> dict[str, int]:
    """Return the size of each file of a wheel, without the list of files, which has the order of the folder."""
    with zipfile.ZipFile(wheel) as file:
        return {entry.filename: entry.CRC for entry in file.infolist() if not entry.filename.endswith("/RECORD")}


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return file.read(name).decode("utf-8")


@pytest.mark.slow  # ten seconds: builds two wheels of 40 MB
def test_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    build("--wheel", sdist, tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert contents(again) == contents(wheel)
    for name in (
        "tests",
        "examples",
        "deploy",
        ".dockerignore",
        "docs",
        "Makefile",
        "SECURITY.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
    ):
        assert (sdist / name).exists(), name


@pytest.mark.slow  # builds a wheel
def test_metadata_is_valid_and_every_link_of_the_description_leads_somewhere(wheel):
    Metadata.from_email(metadata(wheel).encode(), validate=True)
    message: Message = message_from_string(metadata(wheel))
    assert message["Description-Content-Type"].startswith("text/markdown")
    assert len(message.get_all("Project-URL")) == len(PROJECT["urls"])
    text = message.get_payload()
    assert text.count("\n## ") == TEXTS["README.md"].count("\n## ")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    assert len(links) > 20
    ours = [link for link in links if link.startswith((f"{REPOSITORY}/blob/{TAG}/", f"{RAW}/{TAG}/"))]
    for link in links:
        assert link.startswith("https://"), link
    for link in ours:
        path = link.split(f"/{TAG}/")[1].partition("#")[0]
        assert (ROOT / path).is_file(), link
    assert len(ours) > 20
    assert f"]({RAW}/{TAG}/docs/images/quality.svg)" in text


@pytest.mark.slow  # downloads a wheel of 100 kB: the schema of CFF is in the package that validates it
def test_citation_is_valid_by_the_schema_of_cff(tmp_path):
    download = ["pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--dest", str(tmp_path)]
    subprocess.run([sys.executable, "-m", *download, "cffconvert==2.0.0"], check=True, timeout=300)
    (archive,) = tmp_path.glob("*.whl")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    with zipfile.ZipFile(archive) as file:
        schema = json.loads(file.read(f"cffconvert/schemas/{citation['cff-version']}/schema.json"))
    jsonschema.validate(citation, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(citation | {"license": "MIT-like"}, schema)

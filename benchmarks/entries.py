"""How many of the package's own functions are entered while a reranker is loaded and while it is called.

Prints two numbers: entries while README's `production` table is loaded in a fresh process, and entries of a second call by
`http` through LangChain's `RerankCompressor`, async, over a server on this machine. What runs while a module is imported,
coroutines that are resumed, and comprehensions (no calls from Python 3.12 on) do not count. `--list` prints the functions,
most entered first. `--telemetry` counts the call in a process that has imported OpenTelemetry.
"""

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import rerank_plugins

PACKAGE = str(Path(rerank_plugins.__file__).parent)
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
README = Path(__file__).parent.parent / "README.md"
DOCUMENTS = 2
if "--telemetry" not in sys.argv:
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]  # LangChain imports it where it is installed


def is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def counted() -> Iterator[Counter[str]]:
    entries: Counter[str] = Counter()
    frames: set[FrameType] = set()  # held, so that no other frame gets the identity of one that has ended

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name in COMPREHENSIONS:
            return
        if frame not in frames and not is_import(frame):
            frames.add(frame)
            entries[f"{Path(code.co_filename).relative_to(PACKAGE)}: {code.co_qualname}"] += 1

    sys.setprofile(profile)
    try:
        yield entries
    finally:
        sys.setprofile(None)


def loading() -> Counter[str]:
    table = next(
        block
        for block in re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
        if "[rerankers.production]" in block
    )
    os.environ["CO_API_KEY"] = "a-key-for-nobody"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rerank.toml"
        file.write_text(table, "utf-8")
        with counted() as entries:
            rerank_plugins.load_reranker("production", config=file)
    return entries


async def calling() -> Counter[str]:
    from langchain_core.documents import Document

    from rerank_plugins.langchain import RerankCompressor
    from rerank_plugins.testing.cohere_like import CohereLike

    documents = [
        Document(page_content=f"passage {number}", metadata={"relevance_score": 0.5}) for number in range(DOCUMENTS)
    ]
    with CohereLike() as server:
        compressor = RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        await compressor.acompress_documents(documents, "a query")
        with counted() as entries:
            await compressor.acompress_documents(documents, "a query")
    return entries


def show(what: str, entries: Counter[str]) -> None:
    print(f"{what}: {entries.total()} entries of {len(entries)} functions")
    if "--list" in sys.argv:
        for name, count in entries.most_common():
            print(f"{count:5}  {name}")


show("load README's production table", loading())
show(f"http through RerankCompressor, second call, async, {DOCUMENTS} documents", asyncio.run(calling()))

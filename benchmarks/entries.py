"""Count the calls of the package's own functions while a reranker is loaded and while it is called.

    python benchmarks/entries.py [--list] [--telemetry]

Prints two counts: calls while the tutorial's `production` table is loaded in a fresh process, and calls during a second
request by `http` through LangChain's `RerankCompressor`, async, to a server on this machine. Compare a change against
the counts before it. Code that runs during an import, resumed coroutines, and comprehensions (no calls since Python
3.12) do not count. `--list` prints the functions, most called first. `--telemetry` counts in a process that has
imported OpenTelemetry.

Time on two cores: five seconds, 20 on a busy machine.
Install: pip install -e '.[langchain]'
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
PAGE = Path(__file__).parent.parent / "docs" / "tutorial" / "switching.md"
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
def count_calls() -> Iterator[Counter[str]]:
    entries: Counter[str] = Counter()
    frames: set[FrameType] = set()  # kept alive, so that no new frame gets the id of one that has ended

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


def count_while_loading() -> Counter[str]:
    table = next(
        block
        for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        if "[rerankers.production]" in block
    )
    os.environ["CO_API_KEY"] = "a-key-for-nobody"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rerank.toml"
        file.write_text(table, "utf-8")
        with count_calls() as entries:
            rerank_plugins.load_reranker("production", config=file)
    return entries


async def count_while_calling() -> Counter[str]:
    from langchain_core.documents import Document

    from rerank_plugins.langchain import RerankCompressor
    from rerank_plugins.testing.cohere_like import CohereLike

    documents = [
        Document(page_content=f"passage {number}", metadata={"relevance_score": 0.5}) for number in range(DOCUMENTS)
    ]
    with CohereLike() as server:
        compressor = RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        await compressor.acompress_documents(documents, "a query")
        with count_calls() as entries:
            await compressor.acompress_documents(documents, "a query")
    return entries


def show(title: str, entries: Counter[str]) -> None:
    print(f"{title}: {entries.total()} entries of {len(entries)} functions")
    if "--list" in sys.argv:
        for name, count in entries.most_common():
            print(f"{count:5}  {name}")


show("load the tutorial's production table", count_while_loading())
show(f"http through RerankCompressor, second call, async, {DOCUMENTS} documents", asyncio.run(count_while_calling()))

"""An asyncio job over many queries: eight at a time, with a progress bar. A stopped job goes on where it was.

pip install 'rerank-plugins' bm25s
python examples/async_batch.py RESULTS.jsonl [QUERIES]
"""

import asyncio
import json
import sys
from pathlib import Path

from collection import Collection
from tqdm import tqdm

from rerank_plugins import Reranker, RerankError, load_reranker

CANDIDATES, AT_ONCE = 50, 8
collection = Collection()  # your queries and your store


def finished_queries(results: Path) -> set[str]:
    """Return the queries that have a line in the file, after cutting off a line that was half written."""
    text = results.read_text("utf-8") if results.exists() else ""
    results.write_text(text := text[: text.rfind("\n") + 1], "utf-8")
    return {json.loads(line)["query"] for line in text.splitlines()}


async def rerank_all(reranker: Reranker, queries: dict[str, str], results: Path) -> int:
    """Append a line to the file for each query that has none. Return the number of queries that failed."""
    finished = finished_queries(results)
    waiting = iter([name for name in queries if name not in finished])  # shared: each task takes the next one
    failed = 0
    with results.open("a", encoding="utf-8") as file, tqdm(total=len(queries), initial=len(finished)) as progress:

        async def work() -> None:
            nonlocal failed
            for name in waiting:
                places = [place for place, _ in collection.search(queries[name], CANDIDATES)]
                try:
                    response = await reranker.arerank(queries[name], [collection.texts[place] for place in places])
                except RerankError as error:  # no line is written, so the next run sends the query again
                    failed += 1
                    progress.write(f"{name}: {error}")
                    continue
                best = [collection.ids[places[result.index]] for result in response]
                file.write(json.dumps({"query": name, "documents": best}) + "\n")
                file.flush()
                progress.update()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(work())
    return failed


if __name__ == "__main__":
    chosen = dict(list(collection.queries.items())[: int(sys.argv[2]) if len(sys.argv) > 2 else None])
    with load_reranker("embedded:fast", top_n=10) as model:  # a vendor: {"use": "cohere", "retry": 5}
        sys.exit(min(asyncio.run(rerank_all(model, chosen, Path(sys.argv[1]))), 1))

"""A Celery task that reranks. Each worker process loads the model once, after its fork and before its first task.

pip install 'rerank-plugins' celery
python examples/celery_tasks.py
The broker is a folder here, so that no server is needed. Yours is Redis or RabbitMQ.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from celery import Celery, group
from celery.signals import worker_process_init

from rerank_plugins import load_reranker

FOLDER = Path(os.environ.setdefault("CELERY_EXAMPLE_FOLDER", tempfile.mkdtemp()))  # the worker inherits the variable
for name in ("queue", "results", "control"):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)

app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{FOLDER / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "queue"),
    "data_folder_out": str(FOLDER / "queue"),
    "control_folder": str(FOLDER / "control"),
}
reranker = load_reranker("embedded", top_n=2)


@worker_process_init.connect
def load_model(**_):
    reranker.warmup()


# The task is sent again if its worker dies. Texts and scores are plain JSON; a `RerankResponse` stays in the worker.
@app.task(acks_late=True, time_limit=60)
def rerank(query: str, documents: list[str]) -> list[tuple[int, float]]:
    return [(result.index, result.relevance_score) for result in reranker.rerank(query, documents)]


if __name__ == "__main__":
    worker = [sys.executable, "-m", "celery", "--quiet", "-A", "celery_tasks", "worker", "--concurrency", "2"]
    notes = ["A refund takes five working days.", "Parcels are sent from Ghent.", "Gift cards cannot be returned."]
    queries = ["how long does a refund take?", "where are parcels sent from?"]
    with subprocess.Popen(worker, cwd=Path(__file__).parent) as process:
        try:
            job = group(rerank.s(query, notes) for query in queries).apply_async()
            for query, best in zip(queries, job.get(timeout=60), strict=True):
                print(query, *(f"{score:.3f} {notes[index]}" for index, score in best), sep="\n  ")
        finally:
            process.terminate()

"""A reranking stage in a Ray Data pipeline: its rows hold a query and candidates, and get the reranked list.

pip install 'rerank-plugins[ray]'
python examples/ray_dataset.py
"""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

from rerank_plugins.serving.ray_data import rerank

rows = [
    {"query": f"what has {number} to do with it", "documents": [f"{other} is a number" for other in range(20)]}
    for number in range(20)
]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
dataset = rerank(ray.data.from_items(rows), "lexical", actors=2, num_cpus=0.5, top_n=1)
for row in sorted(dataset.take_all(), key=lambda row: int(row["query"].split()[2])):
    print(row["query"], "→", row["reranked"][0]["document"], row["rerank_error"] or "")
ray.shutdown()

"""LlamaIndex's RetrieverEvaluator without and with a reranker: 20 real questions, 20 candidates of BM25.

pip install 'rerank-plugins[llama-index,evaluation]'
"""

import asyncio
import statistics
import sys

from collection import Collection
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rerank_plugins.llama_index import RerankPostprocessor

QUESTIONS, CANDIDATES, METRICS = 20, 20, ["mrr", "ndcg"]
collection = Collection()


class BM25(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle):
        return [
            NodeWithScore(node=TextNode(id_=collection.ids[index], text=collection.texts[index]), score=score)
            for index, score in collection.search(query_bundle.query_str, CANDIDATES)
        ]


async def evaluate(postprocessors):
    evaluator = RetrieverEvaluator.from_metric_names(METRICS, retriever=BM25(), node_postprocessors=postprocessors)
    names = list(collection.queries)[:: len(collection.queries) // QUESTIONS][:QUESTIONS]
    results = [
        await evaluator.aevaluate(collection.queries[name], expected_ids=list(collection.grades[name]))
        for name in names
    ]
    return {metric: statistics.mean(result.metric_vals_dict[metric] for result in results) for metric in METRICS}


for reranker in (None, *(sys.argv[1:] or ["lexical", "embedded"])):
    means = asyncio.run(evaluate([RerankPostprocessor(reranker=reranker)] if reranker else None))
    print(f"{reranker or 'BM25 alone':14}" + "".join(f"{metric} {value:.3f}  " for metric, value in means.items()))

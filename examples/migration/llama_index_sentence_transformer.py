"""LlamaIndex's `SentenceTransformerRerank` → `RerankPostprocessor`.

New: its input is not changed, scores are Python floats (JSON takes them), no code of the model's folder is run (it trusts
remote code unless told otherwise), the model's own limit instead of 512 tokens, the retriever's score kept in the metadata
without entering the text.

pip install 'rerank-plugins[llama-index,sentence-transformers]'
"""

from compare import compare, folder, llama_index


def before():
    from llama_index.core.postprocessor import SentenceTransformerRerank

    return SentenceTransformerRerank(model=folder(), top_n=3, keep_retrieval_score=True)


def after():
    from rerank_plugins.llama_index import RerankPostprocessor

    return RerankPostprocessor(reranker=f"sentence-transformers:{folder()}", top_n=3)


compare(before, after, llama_index)

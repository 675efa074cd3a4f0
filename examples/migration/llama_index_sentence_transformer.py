"""LlamaIndex's `SentenceTransformerRerank` → `RerankPostprocessor`.

New: the input is not changed, scores are Python floats (which JSON accepts), no code of the model's folder is run (it
trusts remote code by default), the limit is the model's instead of 512 tokens, and the retriever's score is kept in the
metadata without entering the text.

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

"""`FlashrankRerank` of langchain-community → `RerankCompressor`, with the folder that FlashRank downloaded.

FOLDER is FlashRank's cache folder plus the name of the model, by default /tmp/ms-marco-TinyBERT-L-2-v2. New: batches of
similar lengths instead of one that is padded to the longest text, no crash without documents, `Document.id` is kept.
Without such a folder, `flashrank:NAME` fetches the model and records its SHA-256; the package is not needed.

pip install 'rerank-plugins[langchain]' langchain-community flashrank
"""

from pathlib import Path

from compare import compare, folder, langchain


def before():
    from flashrank import Ranker
    from langchain_community.document_compressors.flashrank_rerank import FlashrankRerank

    cache = Path(folder())
    return FlashrankRerank(client=Ranker(cache.name, cache_dir=str(cache.parent)), top_n=3)


def after():
    from rerank_plugins.langchain import RerankCompressor

    return RerankCompressor(reranker=f"flashrank:{folder()}", top_n=3)


compare(before, after, langchain)

"""`FlashrankRerank` of langchain-community → `RerankCompressor`, over the very folder that FlashRank has downloaded.

FOLDER is FlashRank's cache folder plus the name of the model: /tmp/ms-marco-TinyBERT-L-2-v2 unless told otherwise. New:
batches of like lengths instead of one padded to the longest, nothing crashes on no documents, `Document.id` kept. Where there is
no such folder yet, `flashrank:NAME` fetches the model, with its SHA-256 recorded and without the package.

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

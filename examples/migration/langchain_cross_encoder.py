"""`CrossEncoderReranker` (langchain-classic, with langchain-community's HuggingFaceCrossEncoder) → `RerankCompressor`.

New: the scores are in the metadata; a cut of a long document is reported; `onnx:FOLDER` needs no torch.

pip install 'rerank-plugins[langchain,sentence-transformers]' langchain-classic langchain-community
"""

from compare import compare, folder, langchain


def before():
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder

    return CrossEncoderReranker(model=HuggingFaceCrossEncoder(model_name=folder()), top_n=3)


def after():
    from rerank_plugins.langchain import RerankCompressor

    return RerankCompressor(reranker=f"sentence-transformers:{folder()}", top_n=3)


compare(before, after, langchain)

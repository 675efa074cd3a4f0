"""A reranker as an HTTP server for other languages and machines: `rerank-plugins serve`, called with Cohere's SDK.

pip install 'rerank-plugins[serve,cohere]'
python examples/serve.py
"""

import os
import re
import subprocess
import sys

import cohere

DOCUMENTS = ["Bananas are yellow.", "A refund takes five working days.", "The warehouse is in Ghent."]

os.environ["SERVE_KEY"] = "a-key-for-the-example"
# --check: refuse to start if the key, the model or the address of a backend is wrong.
options = ["--check", "--port", "0", "--api-key", "env:SERVE_KEY"]
command = [sys.executable, "-m", "rerank_plugins", "serve", "lexical", *options]
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    try:
        url = next(match[1] for line in server.stderr if (match := re.search(r"serving at (\S+)", line)))
        client = cohere.ClientV2(os.environ["SERVE_KEY"], base_url=url)
        answer = client.rerank(model="lexical", query="how long does a refund take", documents=DOCUMENTS, top_n=2)
        for result in answer.results:
            print(f"{result.relevance_score:.3f}  {DOCUMENTS[result.index]}")
    finally:
        server.terminate()

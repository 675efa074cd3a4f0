"""One reranker for other languages and machines: `rerank-plugins serve`, asked through Cohere's own SDK.

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
command = [sys.executable, "-m", "rerank_plugins", "serve", "lexical", "--port", "0", "--api-key", "env:SERVE_KEY"]
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    try:
        url = next(found[1] for line in server.stderr if (found := re.search(r"serving at (\S+)", line)))
        client = cohere.ClientV2(os.environ["SERVE_KEY"], base_url=url)
        answer = client.rerank(model="lexical", query="how long does a refund take", documents=DOCUMENTS, top_n=2)
        for result in answer.results:
            print(f"{result.relevance_score:.3f}  {DOCUMENTS[result.index]}")
    finally:
        server.terminate()

"""The vendors' own SDKs and the testing servers: they send what our backends send, and read the same scores."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.environments import Environment

from rerank_plugins import load_reranker
from rerank_plugins.testing.vendors import ChatServer, OpenAIDecisionsServer, TypeSafeServer

pytestmark = pytest.mark.slow  # it installs two packages

VERSIONS = ["openai==3.57.0", "typesafe_sdk==0.7.5"]
QUERY, DOCUMENTS = "how do the tides work", ["The moon pulls the tides.", "Bananas are yellow.", "Tides work."]

SCRIPT = """
import json, sys

bodies = json.load(sys.stdin)
scores = {}

from openai import OpenAI
from openai.types import decision_create_params
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

# Strict: the SDK's own types refuse a field that they do not know.
def typed(kind, body):
    return TypeAdapter(kind).validate_python(body)

typed(decision_create_params.DecisionCreateParams, bodies["openai"])
client = OpenAI(base_url=bodies["addresses"]["openai"] + "/v1", api_key="k", max_retries=0)
answer = client.decisions.create(**bodies["openai"])
scores["openai"] = [each.probability for each in answer.answers]
assert all(each.type == "predicate" for each in answer.answers)
assert answer.usage.input_tokens > answer.usage.input_tokens_details.cached_tokens > 0

typed(completion_create_params.CompletionCreateParamsNonStreaming, bodies["chat"])
client = OpenAI(base_url=bodies["addresses"]["chat"] + "/v1", api_key="k", max_retries=0)
answer = client.chat.completions.create(**bodies["chat"])
grades = json.loads(answer.choices[0].message.content)
ids = json.loads(bodies["chat"]["messages"][-1]["content"])["documents"]
scores["chat"] = [grades[name] / 10 for name in ids]

from typesafe_sdk import TypeSafeClient

body = bodies["typesafe"]
with TypeSafeClient(api_key="k", base_url=bodies["addresses"]["typesafe"]) as client:
    answer = client.system_one(state=body["state"], questions=body["questions"], model=body["model"])
scores["typesafe"] = [answer.answers[name].noul for name in body["questions"]]
assert answer.usage.input_tokens and answer.usage.output_tokens == 3

print(json.dumps(scores))
"""


def test_the_vendors_sdks_send_the_same_and_read_the_same(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.run("pip", "--disable-pip-version-check", "install", "--quiet", *VERSIONS)
    servers: dict[str, Any] = {"openai": OpenAIDecisionsServer, "typesafe": TypeSafeServer, "chat": ChatServer}
    sent: dict[str, Any] = {"addresses": {}}
    scores: dict[str, list[float | None]] = {}
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(server(key="k")) for name, server in servers.items()}
        for name, server in running.items():
            sent["addresses"][name] = server.url
            use = "chat:m" if name == "chat" else name
            with load_reranker({"use": use, "base_url": server.url, "api_key": "k"}) as reranker:
                answer = reranker.rerank(QUERY, DOCUMENTS)
            scores[name] = [result.raw_score for result in sorted(answer, key=lambda result: result.index)]
            sent[name] = dict(server.requests[0].body)
            sent[name].pop("chat_template_kwargs", None)  # of vLLM and llama.cpp, not of OpenAI
        done = subprocess.run(
            [environment.python, "-c", SCRIPT],
            input=json.dumps(sent),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert [server.refused for server in running.values()] == [[], [], []]
        for name, server in running.items():
            assert server.requests[1].body == sent[name], name
    read = json.loads(done.stdout)
    assert read == {name: pytest.approx(values) for name, values in scores.items()}

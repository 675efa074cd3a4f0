"""What servers say about themselves at warm-up: limits are kept from then on, and what the spec sets wins."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.testing.laws import backend_of
from rerank_plugins.testing.vendors import InfinityServer, TEIServer, VLLMServer

QUERY = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "Paris is in France."]
TEI = {
    "model_id": "BAAI/bge-reranker-base",
    "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
    "max_concurrent_requests": 512,
    "max_input_length": 512,
    "max_client_batch_size": 3,
    "version": "1.9.0",
}
"""https://github.com/huggingface/text-embeddings-inference, docs/openapi.json, schema Info."""
VLLM = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 512}]}
"""https://github.com/vllm-project/vllm, vllm/entrypoints/openai: ModelList of ModelCard."""


def spec_of(use: str, server: Any, **more: Any) -> dict[str, Any]:
    return {"use": use, "base_url": server.url, "api_key": server.key, **more}


def test_tei_limits_are_read_and_kept() -> None:
    with TEIServer(max_documents=3) as server:
        server.information["/info"] = TEI
        with load_reranker(spec_of("tei", server)) as reranker:
            reranker.warmup()
            assert reranker.scorer.capabilities.max_documents == 3
            assert reranker.scorer.capabilities.max_tokens == 512
            response = reranker.rerank(QUERY, [*TEXTS, "word " * 2000])
            assert sorted(len(request.documents) for request in server.requests) == [2, 3]
            assert [result.index for result in response if result.truncated] == [4]
            info = backend_of(reranker).learned
        assert info is not None
        assert info.to_dict() == {
            "model": "BAAI/bge-reranker-base",
            "version": "1.9.0",
            "max_documents": 3,
            "max_tokens": 512,
        }


async def test_option_of_the_spec_wins_over_the_server() -> None:
    with TEIServer() as server:
        server.information["/info"] = TEI
        options = {"max_documents": 2, "max_tokens": 100}
        async with load_reranker(spec_of("tei", server, tei=options)) as reranker:
            await reranker.awarmup()
            limits = reranker.scorer.capabilities
            assert (limits.max_documents, limits.max_tokens) == (2, 100)


@pytest.mark.parametrize("information", [{}, {"/info": ["not", "an", "object"]}, {"/info": {"model_type": None}}])
def test_server_without_information_is_left_as_it_is(information: dict[str, Any]) -> None:
    with TEIServer() as server:
        server.information.update(information)
        with load_reranker(spec_of("tei", server)) as reranker:
            reranker.warmup()
            assert reranker.scorer.capabilities.max_documents == 32
            assert reranker.rerank(QUERY, TEXTS)[0].index == 2
    with load_reranker({"use": "tei", "base_url": "http://127.0.0.1:9"}) as reranker:
        reranker.warmup()  # nothing listens there
        assert backend_of(reranker).learned is None


def test_embedding_model_behind_tei_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    with TEIServer() as server:
        server.information["/info"] = {**TEI, "model_type": {"embedding": {"pooling": "cls"}}}
        with load_reranker(spec_of("tei", server)) as reranker, caplog.at_level(logging.WARNING):
            reranker.warmup()
            assert backend_of(reranker).learned.problem == (
                "the server runs a model of the kind embedding, not a reranker"
            )
    assert "not a reranker" in caplog.text


def test_vllm_cuts_documents_to_the_servers_length() -> None:
    """vLLM refuses a pair above its length, so the document is cut here once the length is known."""
    with VLLMServer() as server:
        server.information["/v1/models"] = VLLM
        with load_reranker(spec_of("vllm:m", server)) as reranker:
            reranker.warmup()
            assert reranker.scorer.capabilities.max_tokens == 512
            response = reranker.rerank(QUERY, ["word " * 2000, TEXTS[2]])
        assert [result.truncated for result in sorted(response, key=lambda result: result.index)] == [True, False]
        assert len(server.requests[0].documents[0]) < 5 * 512


def test_vllm_options_that_cut_win_over_the_servers_length() -> None:
    with VLLMServer() as server:
        server.information["/v1/models"] = VLLM
        with load_reranker(spec_of("vllm:m", server, vllm={"max_tokens_per_doc": 400})) as reranker:
            reranker.warmup()
            assert reranker.scorer.capabilities.max_tokens is None


@pytest.mark.parametrize(
    ("use", "server_class", "path"),
    [
        ("vllm:another", VLLMServer, "/v1/models"),
        ("infinity:another", InfinityServer, "/models"),
    ],
)
def test_another_model_than_the_servers_is_a_problem(use: str, server_class: Any, path: str) -> None:
    with server_class() as server:
        server.information[path] = VLLM
        with load_reranker(spec_of(use, server)) as reranker:
            reranker.warmup()
            assert backend_of(reranker).learned.problem == "the server serves m, not another"


@pytest.mark.parametrize(
    ("use", "model", "scale"),
    [
        ("llama-cpp", "Qwen3-Reranker-0.6B-Q8_0.gguf", "unit"),
        ("llama-cpp", "bge-reranker-v2-m3-Q8_0.gguf", "logit"),
        ("llama-cpp:bge-reranker-v2-m3", "Qwen3-Reranker-0.6B-Q8_0.gguf", "logit"),
    ],
)
def test_llama_cpp_scale_follows_the_model_that_the_server_runs(use: str, model: str, scale: str) -> None:
    """The fields are those of `GET /props`: tools/server/README.md of https://github.com/ggml-org/llama.cpp."""
    with VLLMServer() as server:
        server.information["/props"] = {
            "default_generation_settings": {"n_ctx": 2048},
            "total_slots": 1,
            "model_path": f"/models/{model}",
            "build_info": "b8681-Debian",
        }
        with load_reranker(spec_of(use, server)) as reranker:
            reranker.warmup()
            limits = reranker.scorer.capabilities
            assert (limits.scale, limits.max_tokens, limits.cuts) == (scale, 2048, False)
            assert reranker.rerank(QUERY, TEXTS).scale == scale


def test_xinference_names_the_length_and_the_kind_of_a_model() -> None:
    """The fields are those of `GET /v1/models/{uid}`: https://github.com/xorbitsai/inference, RESTful API."""
    with VLLMServer() as server:
        server.information["/v1/models/my-uid"] = {"model_type": "rerank", "model_name": "bge", "max_tokens": 512}
        with load_reranker(spec_of("xinference:my-uid", server)) as reranker:
            reranker.warmup()
            assert reranker.scorer.capabilities.max_tokens == 512
        server.information["/v1/models/my-uid"] = {"model_type": "embedding"}
        with load_reranker(spec_of("xinference:my-uid", server)) as reranker:
            reranker.warmup()
            assert "a model of the kind embedding" in backend_of(reranker).learned.problem


def test_policies_follow_what_is_learned() -> None:
    with TEIServer() as server:
        server.information["/info"] = TEI
        with load_reranker(spec_of("tei", server, cache=True, breaker=True)) as reranker:
            reranker.warmup()
            assert [scorer.capabilities.max_documents for scorer in reranker.scorer.walk()] == [3] * len(
                list(reranker.scorer.walk())
            )


async def test_check_shows_what_the_server_says() -> None:
    with TEIServer() as server:
        server.information["/info"] = TEI
        async with load_reranker(spec_of("tei", server)) as reranker:
            assert await backend_of(reranker).server_info() == {
                "model": "BAAI/bge-reranker-base",
                "version": "1.9.0",
                "max_documents": 3,
                "max_tokens": 512,
            }
            checked = await reranker.acheck()
        assert "BAAI/bge-reranker-base" in str(checked.to_dict())
    async with load_reranker({"use": "siliconflow", "api_key": "a key"}) as reranker:
        assert await backend_of(reranker).server_info() is None


def test_key_that_the_server_repeats_is_masked_and_its_words_are_cut() -> None:
    with TEIServer() as server:
        server.information["/info"] = {**TEI, "model_id": f"a model with {server.key}", "version": "9" * 10_000}
        with load_reranker(spec_of("tei", server)) as reranker:
            reranker.warmup()
            info = backend_of(reranker).learned
        assert info is not None
        assert server.key not in repr(info)
        assert info.version == "9" * 500

"""The models in the wheel: their files, their scores, and the formula of the score."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
from support.bounds import BFLOAT16, SAME_CODE, near

from rerank_plugins import load_reranker
from rerank_plugins.backends.embedded import FOLDER, Embedded
from rerank_plugins.core._runtime.background_loop import run_sync
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine import tokenizer as tokenizer_module
from rerank_plugins.engine.late_interaction.passage_cache import TokenVectors
from rerank_plugins.engine.late_interaction.scoring import Passage, PreparedQuery, ScoreWeights, TermIDF
from rerank_plugins.engine.onnx import openvino
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel, open_session
from rerank_plugins.engine.tokenizer import PairTokenizer

QUERY = "what makes the tides?"
DOCUMENTS = [
    "Cars have wheels, and most of them have four.",
    "Tides are caused by the gravity of the moon and of the sun, which pull at the oceans.",
    "The moon is made of rock; it has no air and no water.",
    "High tide comes twice a day, since the earth turns under two bulges of water that the moon raises.",
    "The tide of opinion turned against the minister.",
]
PINNED = {
    "embedded": {1: 0.1308, 3: 0.02631, 2: 0.0028, 4: 0.002448, 0: 0.0001109},
    "embedded:fast": {1: 0.02928, 3: 0.0262, 4: 0.02065, 2: 0.004089, 0: 0.001895},
}


def digest(name: str) -> str:
    return hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()


def test_the_files_are_those_of_the_card():
    card = (FOLDER / "CARD.md").read_text("utf-8")
    for name in ("model.onnx", "fast.npy", "background.npy", "score.json", "tokenizer.json"):
        assert f"| `{name}` | {digest(name)} |" in card


def test_tokenizer_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tokenizers are built again without their plain words or special tokens; this one takes 20 ms each time."""
    built: list[str] = []
    build = tokenizer_module._load_tokenizer

    def counting(file: str, marks: Any) -> Any:
        built.append(file)
        return build(file, marks)

    monkeypatch.setattr(tokenizer_module, "_load_tokenizer", counting)
    PairTokenizer(FOLDER / "tokenizer.json")
    assert len(built) == 1


@pytest.mark.parametrize("spec", PINNED)
def test_order_and_scores_are_pinned(spec: str):
    with load_reranker(spec) as reranker:
        response = reranker.rerank(QUERY, DOCUMENTS)
        assert {each.index: each.relevance_score for each in response} == pytest.approx(PINNED[spec], rel=2e-2)
        assert [each.index for each in response] == list(PINNED[spec])
        mix = reranker.scorer.capabilities
        top = response[0]
        assert top.relevance_score == pytest.approx(1 / (1 + math.exp(-(top.raw_score - mix.offset) / mix.divisor)))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_text_has_the_same_vectors_alone_and_in_company(runtime: str):
    rows = PairTokenizer(FOLDER / "tokenizer.json").singles([*DOCUMENTS, "a", " ".join(DOCUMENTS * 4)], 256)
    longest = max(len(row.ids) for row in rows)
    ids = np.array([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    mask = np.array([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    session = open_session(runtime, "float32", FOLDER / "model.onnx", 1)
    together = session.run({"input_ids": ids, "attention_mask": mask})
    for row, vectors in zip(rows, together, strict=True):
        one = np.array([row.ids])
        alone = session.run({"input_ids": one, "attention_mask": np.ones_like(one)})[0]
        assert np.abs(alone - vectors[: len(row.ids)]).max() < SAME_CODE  # of vectors of length 1


@pytest.mark.parametrize("fast_cpu", [True, False])
def test_bfloat16_by_name_runs_on_openvino_where_the_cpu_computes_it(fast_cpu: bool, monkeypatch: pytest.MonkeyPatch):
    """Where it does not, OpenVINO would emulate it. `auto` stays exact on every CPU."""
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: fast_cpu)
    with load_reranker("embedded") as reranker:
        exact = {each.index: each.raw_score for each in reranker.rerank(QUERY, DOCUMENTS)}
    with load_reranker({"use": "embedded", "dtype": "bfloat16"}) as reranker:
        response = reranker.rerank(QUERY, DOCUMENTS)
        assert response.model == f"embedded [{'openvino bfloat16' if fast_cpu else 'onnxruntime float32'}]"
        assert {each.index: each.raw_score for each in response} == near(exact, BFLOAT16 if fast_cpu else SAME_CODE)
        alone = {index: reranker.rerank(QUERY, [text])[0].raw_score for index, text in enumerate(DOCUMENTS)}
        assert alone == near({each.index: each.raw_score for each in response})
    with load_reranker({"use": "embedded", "dtype": "auto"}) as reranker:
        assert reranker.scorer.label == "embedded [onnxruntime float32]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "slower than float32 on a CPU without AVX-512"),
        ({"dtype": "bfloat16", "runtime": "onnxruntime"}, "leave runtime out"),
        ({"dtype": "int4"}, "dtype must be one of auto, bfloat16 or float32"),
    ],
)
def test_dtype_that_the_model_does_not_offer_is_refused_with_the_reason(options: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "embedded", **options})


def test_no_text_has_a_token_whose_row_the_file_leaves_out():
    encoder = PairTokenizer(FOLDER / "tokenizer.json")
    vocabulary = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    left_out = sorted((at, token) for token, at in vocabulary.items() if 104 <= at < 999)  # make_embedded.UNUSED
    assert len(left_out) == 895
    (row,) = encoder.singles([" ".join(token for _, token in left_out)], 100_000)
    assert not {at for at, _ in left_out} & set(row.ids)


@pytest.fixture(scope="module")
def known() -> tuple[PairTokenizer, TermIDF, TokenVectors]:
    return PairTokenizer(FOLDER / "tokenizer.json"), TermIDF.read(FOLDER), TokenVectors.read(FOLDER / "fast.npy")


def passages(known, texts: list[str]) -> list[Passage]:
    encoder, background, table = known
    return [Passage.of(row.ids, table.vectors(row.ids), background) for row in encoder.singles(texts, 256)]


def prepared_query(known, query: str, **changed: float) -> PreparedQuery:
    encoder, background, table = known
    (row,) = encoder.singles([query], 128)
    mix = {name: getattr(ScoreWeights.read(FOLDER, "fast"), name) for name in ScoreWeights._fields} | changed
    return PreparedQuery(row.ids, table.vectors(row.ids), background, ScoreWeights(**mix))


def test_a_score_is_the_same_wherever_its_vectors_come_from():
    """Texts with equal tokens tie, and a cached passage has the same score to the last bit."""
    alike = ["MOON TIDES", "moon  tides", "Moon\ttides ", "moon tides"]
    others = [f"{DOCUMENTS[number % 5]} {'the moon ' * (number % 9)}{number}" for number in range(90)]
    texts = list(others)
    for place, text in zip((3, 31, 62, 88), alike, strict=True):
        texts.insert(place, text)
    for spec in PINNED:
        with load_reranker(spec) as reranker:
            queries = ["why are there tides?", "the moon", "how does the moon make tides and what else does?"]
            first = {query: reranker.rerank(query, texts) for query in queries}
            for query, before in first.items():
                for order in (texts, texts[::-1], [*alike, *others[:7]], alike[1:2]):
                    again = {each.document: each.raw_score for each in reranker.rerank(query, order)}
                    known = {each.document: each.raw_score for each in before}
                    # The first of these queries encoded the passages, the others found them.
                    assert {text: known[text] for text in order} == again
                    assert len({again[text] for text in alike if text in again}) == 1
                places = [each.index for each in before if each.document in alike]
                assert places == sorted(places)


def test_texts_of_the_same_tokens_are_encoded_once(monkeypatch: pytest.MonkeyPatch):
    encoded: list[int] = []
    run = OnnxModel.run_rows

    async def counted(self: OnnxModel, rows: Any, *arguments: Any) -> None:
        encoded.append(len(rows))
        await run(self, rows, *arguments)

    monkeypatch.setattr(OnnxModel, "run_rows", counted)
    with load_reranker("embedded") as reranker:
        reranker.rerank("tides", ["MOON TIDES", "bananas", "moon  tides"])
        reranker.rerank("tides", ["Moon Tides", "BANANAS"])
    assert encoded == [1, 2, 1, 0]  # a query, its passages, and again


def test_a_words_inflections_are_one_term_and_rare_ones_weigh_more(known):
    only = prepared_query(known, "tides of the moons", cosine=0.0, lexical=1.0)
    none = prepared_query(known, "tides of the moons", cosine=0.0, lexical=0.0)
    held = passages(known, ["tide", "moon tide", "the of", "wheel"])
    lexical = np.array(list(map(only.score, held))) - np.array(list(map(none.score, held)))
    assert lexical[1] > lexical[0] > lexical[2] == lexical[3] == 0.0
    assert lexical[1] < 1.0


def test_a_word_asked_for_twice_counts_twice(known):
    held = passages(known, ["moon", "tide"])

    def lexical(query: str) -> list[float]:
        parts = [prepared_query(known, query, cosine=0.0, lexical=share) for share in (1.0, 0.0)]
        return [parts[0].score(each) - parts[1].score(each) for each in held]

    moon, tide = lexical("moon tide")
    more, less = lexical("moon moon tide")
    assert more > moon
    assert less < tide


@pytest.mark.parametrize("spec", PINNED)
def test_a_query_of_unknown_characters_has_finite_scores(spec: str):
    with load_reranker(spec) as reranker:
        assert all(math.isfinite(each.raw_score) for each in reranker.rerank("\u1234\u1235", ["\u1236", *DOCUMENTS]))


def test_fast_runs_no_network():
    fast = Embedded("fast")
    fast._models = [OnnxModel(fast.folder, fast.shared_model.options)]
    run_sync(fast.awarmup())
    answer = run_sync(fast.ascore(RerankRequest(query=QUERY, documents=tuple(DOCUMENTS))))
    assert answer.model == "Embedded:fast [numpy float32]"
    assert fast.shared_model._network is None


def test_a_cache_knows_the_models_apart():
    assert len({Embedded(name).fingerprint for name in ("embedded", "balanced", "fast")}) == 3
    assert repr(ScoreWeights.read(FOLDER, "embedded")) in Embedded().fingerprint
    with pytest.raises(ConfigError, match="'embedded', 'embedded:balanced' or 'embedded:fast'"):
        load_reranker("embedded:large")

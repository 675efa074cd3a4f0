"""Which texts the vocabulary of `embedded` cannot spell: other scripts, and no English text or code."""

from __future__ import annotations

import json
import logging
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.backends.embedded import FOLDER
from rerank_plugins.core._runtime.background_loop import run_sync
from rerank_plugins.engine.late_interaction.spelling import Spelling
from rerank_plugins.engine.tokenizer import PairTokenizer

ROOT = Path(__file__).parent.parent.parent
SHARED = ROOT.parent / "shared" / "eval"
OTHER_LANGUAGES = {
    "Chinese": ("潮汐是怎么形成的", "潮汐是由月球和太阳的引力造成的, 每天发生两次。"),
    "Arabic": ("ما سبب المد والجزر؟", "تحدث حركة المد والجزر بسبب جاذبية القمر والشمس مرتين كل يوم."),
    "Hindi": ("ज्वार भाटा क्यों आता है?", "ज्वार भाटा चंद्रमा और सूर्य के गुरुत्वाकर्षण के कारण दिन में दो बार आता है।"),
    "Russian": ("Отчего бывают приливы?", "Приливы вызывает притяжение Луны и Солнца дважды в день."),
    "Greek": ("Τι προκαλεί τις παλίρροιες;", "Οι παλίρροιες προκαλούνται από τη βαρύτητα της σελήνης και του ήλιου."),
    "Thai": ("น้ำขึ้นน้ำลงเกิดจากอะไร", "น้ำขึ้นน้ำลงเกิดจากแรงดึงดูดของดวงจันทร์และดวงอาทิตย์วันละสองครั้ง"),
    "Korean": ("밀물과 썰물은 왜 생기나요?", "조석은 달과 태양의 중력 때문에 하루에 두 번 일어난다."),
    "Japanese": ("潮の満ち引きはなぜ起こりますか", "潮の満ち引きは月と太陽の引力によって一日に二回起こります。"),
    "Hebrew": ("מה גורם לגאות ולשפל?", "הגאות והשפל נגרמים על ידי כוח המשיכה של הירח והשמש."),
    "Georgian": ("რა იწვევს მოქცევას?", "მოქცევას იწვევს მთვარისა და მზის მიზიდულობა დღეში ორჯერ."),
}
ENGLISH = [
    "Tides are caused by the moon.",
    "“Tides” — the sea’s rise and fall… naïve café, Łódź, Ærø, Straße, Dvořák, Trần Hưng Đạo",
    "Beijing (Chinese: 北京; pinyin: Běijīng), formerly romanized as Peking, is the capital of China.",
    "The sum of the angles α, β and γ is π, and Δx = λ/2 holds for all x ∈ ℝ.",
    "I love the sea 🌊🌊🌊🌊🌊🌊 → ☀️ ✓✓✓✓",
    "x = [[0] * n for _ in range(n)]; y, z = a @ b, ~c | d << 2",
    "┌──────┬──────┐\n│ high │ low  │\n└──────┴──────┘ ████████ ░░░░",
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==" * 3,
    "1 234 567,89 € ± 0.5 % · 20 °C × 3 µm² — ¼ ½ ¾ №",
    "7, 8, 9; (a) [b] {c}!",
]


def unspelled(texts: list[str]) -> list[str]:
    """Return those of the texts that cannot be spelled."""
    positions = run_sync(Spelling().unspelled(texts, lambda: PairTokenizer(FOLDER / "tokenizer.json")))
    return [texts[position] for position in sorted(positions)]


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_text_in_another_script_is_not_spelled(language):
    query, document = OTHER_LANGUAGES[language]
    texts = [query, document, document * 400, f"{document} (tides)"]
    assert unspelled(texts) == texts


def test_english_text_and_code_are_spelled():
    assert unspelled(ENGLISH) == []


def test_languages_in_latin_letters_are_not_noticed():
    """A limit that the guide of local models names: letters alone do not tell them from English."""
    texts = [
        "Qu’est-ce qui provoque les marées ? L’attraction de la Lune et du Soleil, deux fois par jour.",
        "Was verursacht die Gezeiten? Die Anziehungskraft des Mondes und der Sonne, zweimal täglich.",
        "Gelgitlere ne sebep olur? Ay’ın ve Güneş’in çekimi, günde iki kez.",
        "Thủy triều do đâu mà có? Do lực hút của Mặt Trăng và Mặt Trời, hai lần mỗi ngày.",
    ]
    assert unspelled(texts) == []


def passages(text: str, lines: int = 30) -> Iterator[str]:
    """Yield the parts of a source file, each of some lines."""
    rows = iter(text.splitlines(keepends=True))
    while part := "".join(islice(rows, lines)):
        yield part


def collection_texts(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            yield f"{row['title']} {row['text']}"
        yield from (line.split("\t")[1] for line in (folder / "queries.tsv").read_text("utf-8").splitlines())


def test_every_text_of_the_collection_in_the_repository_is_spelled():
    texts = list(collection_texts([ROOT / "examples" / "data" / "nq_qed"]))
    assert len(texts) > 1_000
    assert unspelled(texts) == []


def test_code_of_the_standard_library_is_spelled():
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    parts = [part for file in files for part in passages(file.read_text("utf-8"))]
    assert len(parts) > 3_000
    assert unspelled(parts) == []


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")
def test_every_text_of_the_shared_collections_is_spelled():
    texts = list(collection_texts(sorted(path for path in SHARED.iterdir() if path.is_dir())))
    assert len(texts) > 10_000
    assert unspelled(texts) == []


def test_blanks_at_the_start_are_not_judged():
    (russian, _), blanks = OTHER_LANGUAGES["Russian"], " \n" * 1_000
    assert unspelled([f"{blanks}It’s English text.", f"{blanks}’", f"\u2003{blanks}"]) == []
    assert len(unspelled([blanks + russian])) == 1


def test_a_long_text_is_judged_by_its_start():
    (chinese, _), english = OTHER_LANGUAGES["Chinese"], ENGLISH[0]
    long_ones = [chinese + f" {english}" * 400_000, english * 400 + chinese * 400_000, f"{english} {chinese}"]
    assert unspelled(long_ones) == []
    assert len(unspelled([chinese * 1_000_000])) == 1


def test_unspelled_text_is_reported_once_in_the_log_and_always_in_the_reason(caplog):
    query, document = OTHER_LANGUAGES["Russian"]
    with load_reranker("embedded:fast") as reranker, caplog.at_level(logging.WARNING, "rerank_plugins"):
        assert reranker.rerank("what makes the tides?", ENGLISH).reason is None
        assert not caplog.records
        responses = [
            reranker.rerank(query, ENGLISH),
            reranker.rerank("what makes the tides?", [*ENGLISH, document]),
            reranker.rerank(query, [document, ENGLISH[0]]),
        ]
        assert reranker.rerank("what makes the tides?", ENGLISH).reason is None
    count = len(ENGLISH)
    parts = ["the query", f"1 of {count + 1} documents", "the query and 1 of 2 documents"]
    for response, part in zip(responses, parts, strict=True):
        assert not response.degraded
        assert response.reason.startswith("embedded:fast reads English")
        assert f"cannot spell {part}: name a multilingual model, such as bge:bge-reranker-v2-m3" in response.reason
    assert [record.getMessage() for record in caplog.records] == [f"{responses[0].reason} (logged once)"]


def test_reason_survives_a_cascade_and_a_fallback():
    query, document = OTHER_LANGUAGES["Chinese"]
    documents = [document, *ENGLISH]
    down = {"use": "http", "base_url": "http://127.0.0.1:9", "retry": 1, "fallback": ["embedded:fast"]}
    with load_reranker(down) as reranker:
        response = reranker.rerank(query, documents)
    assert response.degraded
    assert "answered in place of" in response.reason
    assert "cannot spell the query and 1 of" in response.reason
    cascade = {"stages": ["embedded:fast", "lexical"], "keep": [3]}
    with load_reranker({"cascade": cascade}) as reranker:
        assert "cannot spell the query and 1 of" in reranker.rerank(query, documents).reason

"""`check --golden` against servers whose template is right, missing, doubled, or whose yes and no are exchanged."""

from __future__ import annotations

import json
import re
import zlib
from types import SimpleNamespace

import pytest

from rerank_plugins.cli import main
from rerank_plugins.cli.golden import QUESTIONS, prompts_counted
from rerank_plugins.core import Usage
from rerank_plugins.engine.causal_lm.templates import TEMPLATES
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.vendors.tei import TEIServer
from rerank_plugins.testing.vendors.vllm import VLLMServer

QWEN3 = TEMPLATES["qwen3"]
RIGHT = {question.query: question.right for question in QUESTIONS}


def once(query, document):
    return "".join(QWEN3.sides(query, document))


def never(query, document):
    return query + document


def another(query, document):
    """As long as Qwen3's prompt, and no such prompt."""
    first, last = QWEN3.sides("QUERY", "DOCUMENT")
    return f"{first}{last}".replace("<Instruct>", "<instruct>").replace("QUERY", query).replace("DOCUMENT", document)


def twice(query, document):
    return "".join(QWEN3.sides(*QWEN3.sides(query, document)))


def scorer(prompt):
    """Score as a model does that knows its prompt and nothing else: sure inside one, at a loss in any other text."""
    query = next((each for each in RIGHT if each in prompt), None)
    if query is not None and prompt == once(query, prompt.split("<Document>: ")[-1].split("<|im_end|>")[0]):
        return 0.97 if RIGHT[query] in prompt else 0.04
    return 0.5 + zlib.crc32(prompt.encode()) / 2**32 / 50


def tokens(prompt):
    """About what Qwen's tokenizer makes of English: a token every four letters, one for a mark."""
    for mark in QWEN3.marks:
        prompt = prompt.replace(mark, "xxxx")
    return len(prompt) // 4


class CountingVLLM(VLLMServer):
    """A vLLM server with a model in it, which counts the tokens of the prompts that it really made."""

    prompt = staticmethod(once)

    def answer(self, body, pairs):
        used = sum(tokens(self.prompt(body["query"], each)) for each in body["documents"])
        return {**super().answer(body, pairs), "usage": {"prompt_tokens": used, "total_tokens": used}}


def served(kind, name, prompt, *, swapped=False, model=scorer):
    """Return a server of `kind` that puts `prompt` around every pair, and its spec."""

    def score(query, document):
        value = model(prompt(query, document))
        return 1.0 - value if swapped else value

    server = kind(score=score)
    server.prompt = prompt
    return server, lambda: json.dumps({"use": name, "base_url": server.url, "api_key": server.key})


def checked(capsys, server, spec, *family):
    with server:
        code = main(["check", spec(), "--golden", *family])
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    return code, out


@pytest.mark.parametrize(
    ("kind", "name"), [(CountingVLLM, "vllm"), (TEIServer, "tei"), (CohereLike, "http")], ids=["vllm", "tei", "http"]
)
def test_each_fault_is_found_on_every_kind_of_server(kind, name, capsys):
    code, out = checked(capsys, *served(kind, name, once), "qwen3")
    assert code == 0
    assert out.startswith(f"ok: {name}")
    assert "8 of 8 obvious answers first" in out
    code, out = checked(capsys, *served(kind, name, once, swapped=True), "qwen3")
    assert code == 1
    assert "yes and no are swapped" in out
    code, out = checked(capsys, *served(kind, name, never), "qwen3")
    assert code == 1
    assert "the server applies no template" in out
    assert "8 come first" in out
    code, out = checked(capsys, *served(kind, name, twice), "qwen3")
    assert code == 1
    assert "a template is applied twice" in out
    # Only who counts tokens can tell it from a model that is no reranker.
    assert ("cannot tell these apart" in out) == (kind is not CountingVLLM)


def test_a_doubled_template_is_found_although_the_order_is_right(capsys):
    def sure(prompt):
        return 0.9 if any(f"{query}\n<Document>: {right}" in prompt for query, right in RIGHT.items()) else 0.1

    def around(query, document):  # a gateway's chat template around the whole prompt, and the server's around that
        return "".join(QWEN3.sides("", once(query, document)))

    code, out = checked(capsys, *served(CountingVLLM, "vllm", around, model=sure), "qwen3")
    assert code == 1
    assert "8 of 8 obvious answers first" in out
    assert "a template is applied twice" in out


def test_a_missing_template_is_found_whatever_stands_between_query_and_document(capsys):
    def parted(query, document):
        return f"{query}\n\n{document}"

    known = {text for each in QUESTIONS for text in (each.right, each.alike, each.other)}

    def model(prompt):  # what comes before the prompt does not matter, what comes before the document does
        inside = prompt[max(prompt.find("<|im_start|>"), 0) :]
        document = inside.split("<Document>: ")[-1].split("<|im_end|>")[0]
        return scorer(inside if document in known else f"?{inside}")

    for family in (["qwen3"], []):
        code, out = checked(capsys, *served(TEIServer, "tei", parted, model=model), *family)
        assert code == 1
        assert "8 come first, +0.93 ahead: the server applies no template" in out


def test_a_cache_hides_nothing(capsys, tmp_path):
    server, spec = served(CountingVLLM, "vllm", once)
    with server:
        cached = json.dumps({**json.loads(spec()), "cache": {"kind": "disk", "path": str(tmp_path / "cache")}})
        for prompt, told in ((once, "ok"), (twice, "applied twice"), (never, "applies no template"), (once, "ok")):
            server.prompt = prompt
            server.score = lambda query, document, prompt=prompt: scorer(prompt(query, document))
            main(["check", cached, "--golden", "qwen3"])
            assert told in capsys.readouterr().out


def test_without_its_family_every_prompt_is_tried_and_then_it_is_asked_for(capsys):
    code, out = checked(capsys, *served(TEIServer, "tei", never))
    assert code == 1
    assert "inside qwen3's prompt, sent from here, 8 come first" in out
    assert "the server applies no template" in out
    code, out = checked(capsys, *served(TEIServer, "tei", twice))
    assert code == 1
    assert "a template twice" in out
    assert "--golden qwen3" in out
    code, out = checked(capsys, *served(CountingVLLM, "vllm:Qwen/Qwen3-Reranker-0.6B", never))
    assert code == 1
    assert "inside qwen3's prompt" in out


@pytest.mark.parametrize(("kind", "name"), [(CountingVLLM, "vllm"), (TEIServer, "tei")], ids=["vllm", "tei"])
def test_a_missing_template_is_found_although_the_order_is_right(kind, name, capsys):
    """As of a large model, which gets easy questions right without its prompt too, but is less sure."""

    def fair(prompt):
        right = next((each for query, each in RIGHT.items() if query in prompt), "no such text") in prompt
        sure = 0.45 if prompt.count("<Instruct>") == 1 else 0.1
        return 0.5 + sure if right else 0.5 - sure

    code, out = checked(capsys, *served(kind, name, never, model=fair), "qwen3")
    assert code == 1
    assert "8 of 8 obvious answers first, +0.20" in out
    assert "+0.90 ahead: the server applies no template" in out
    code, out = checked(capsys, *served(kind, name, once, model=fair), "qwen3")
    assert code == 0
    # Where the server counts one prompt around a pair, another one that helps is no proof that there was none.
    code, out = checked(capsys, *served(kind, name, another, model=fair), "qwen3")
    assert (code == 0) == (kind is CountingVLLM)


def test_another_familys_prompt_is_told_by_its_tokens(capsys):
    code, out = checked(capsys, *served(CountingVLLM, "vllm", another), "qwen3")
    assert code == 1
    assert "one prompt around a pair: it is another family's" in out


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize(
    "count", [len, lambda text: len(text) // 4, lambda text: len(re.findall(r"\w+|[^\w\s]|\n+", text))]
)
def test_prompts_are_counted_in_the_servers_own_tokens(family, count):
    template = TEMPLATES[family]

    def counted(prompt):
        class Counting:
            def rerank(self, query, documents):
                used = sum(count(prompt(query, each)) for each in documents)
                return SimpleNamespace(usage=Usage(input_tokens=used))

        return prompts_counted(Counting(), template)

    assert counted(lambda query, document: f"{query} {document}") == pytest.approx(0, abs=0.2)
    assert counted(lambda query, document: "".join(template.sides(query, document))) == pytest.approx(1, abs=0.2)
    assert counted(lambda query, document: "".join(template.sides(*template.sides(query, document)))) == pytest.approx(
        2, abs=0.2
    )

    def nested(query, document):  # by a client that puts all of a prompt where the document goes
        return "".join(template.sides(query, "".join(template.sides(query, document))))

    assert counted(nested) == pytest.approx(2, abs=0.2)
    assert counted(lambda query, document: "the same for all") is None


def test_what_cannot_be_checked_says_so(capsys, cross_encoder_folder):
    assert main(["check", "passthrough", "--golden"]) == 1
    assert "nothing to check" in capsys.readouterr().err
    assert main(["check", "lexical", "--golden", "gpt"]) == 2
    assert "'gpt' is none of them" in capsys.readouterr().err
    assert main(["check", "embedded", "--golden"]) == 0
    assert main(["check", f"onnx:{cross_encoder_folder}", "--golden"]) == 1
    assert "WRONG" in capsys.readouterr().out  # random weights


@pytest.mark.slow  # seconds of imports and of a real network
def test_a_real_tiny_qwen3_shows_each_fault(capsys):
    """A Qwen3 of two layers with fixed weights, which knows the questions inside its prompt.

    In any other text it is at a loss, and that is built in here: what its weights make of such a text is chance.
    """
    import torch
    from language_models import GOLDEN
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    assert main(["check", f"qwen3:{GOLDEN}", "--golden"]) == 0
    assert "8 of 8" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN)
    network = Qwen3ForCausalLM.from_pretrained(GOLDEN, dtype=torch.float32).eval()
    capsys.readouterr()  # transformers' bars
    yes, no = (tokenizer.convert_tokens_to_ids(each) for each in ("yes", "no"))
    known = {once(each.query, text) for each in QUESTIONS for text in (each.right, each.alike, each.other)}

    def model(prompt):
        if prompt not in known:
            return scorer(prompt)
        with torch.no_grad():
            logits = network(**tokenizer(prompt, return_tensors="pt"), logits_to_keep=1).logits[0, -1]
        return float(torch.sigmoid(logits[yes] - logits[no]))

    for prompt, swapped, told in (
        (once, False, "ok: "),
        (once, True, "yes and no are swapped"),
        (never, False, "the server applies no template"),
        (twice, False, "a template is applied twice"),
    ):
        code, out = checked(capsys, *served(TEIServer, "tei", prompt, swapped=swapped, model=model), "qwen3")
        assert told in out
        assert code == (not out.startswith("ok: "))

"""`check --golden` against servers whose template is right, missing or doubled, or whose yes and no are swapped."""

from __future__ import annotations

import json
import re
import zlib
from types import SimpleNamespace

import pytest

from rerank_plugins.cli import main
from rerank_plugins.cli.golden import QUESTIONS, count_prompts
from rerank_plugins.core import Usage
from rerank_plugins.engine.causal_lm.templates import TEMPLATES
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.vendors.tei import TEIServer
from rerank_plugins.testing.vendors.vllm import VLLMServer

QWEN3 = TEMPLATES["qwen3"]
ANSWERS = {question.query: question.answer for question in QUESTIONS}

# How a server applies the template.


def once(query, document):
    return "".join(QWEN3.sides(query, document))


def never(query, document):
    return query + document


def another(query, document):
    """Return a prompt as long as Qwen3's, but with another text."""
    first, last = QWEN3.sides("QUERY", "DOCUMENT")
    return f"{first}{last}".replace("<Instruct>", "<instruct>").replace("QUERY", query).replace("DOCUMENT", document)


def twice(query, document):
    return "".join(QWEN3.sides(*QWEN3.sides(query, document)))


def prompt_model(prompt):
    """Score as a model trained only on its prompt: sure inside its prompt, and near 0.5 for any other text."""
    query = next((query for query in ANSWERS if query in prompt), None)
    if query is not None and prompt == once(query, prompt.split("<Document>: ")[-1].split("<|im_end|>")[0]):
        return 0.97 if ANSWERS[query] in prompt else 0.04
    return 0.5 + zlib.crc32(prompt.encode()) / 2**32 / 50


def count_tokens(prompt):
    """Return about what Qwen's tokenizer counts in English: one token for four letters, and one for a special token."""
    for mark in QWEN3.marks:
        prompt = prompt.replace(mark, "xxxx")
    return len(prompt) // 4


class CountingVLLM(VLLMServer):
    """A vLLM server that counts the tokens of the prompts which it made."""

    prompt = staticmethod(once)

    def answer(self, body, pairs):
        used = sum(count_tokens(self.prompt(body["query"], document)) for document in body["documents"])
        return {**super().answer(body, pairs), "usage": {"prompt_tokens": used, "total_tokens": used}}


def make_server(kind, name, prompt, *, swapped=False, model=prompt_model):
    """Return a server of `kind` that puts `prompt` around every pair, and a function that returns its spec."""

    def score(query, document):
        value = model(prompt(query, document))
        return 1.0 - value if swapped else value

    server = kind(score=score)
    server.prompt = prompt
    return server, lambda: json.dumps({"use": name, "base_url": server.url, "api_key": server.key})


def run_check(capsys, server, spec, *family):
    """Return the exit code and the line that `check --golden` printed."""
    with server:
        code = main(["check", spec(), "--golden", *family])
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    return code, out


@pytest.mark.parametrize(
    ("kind", "name"), [(CountingVLLM, "vllm"), (TEIServer, "tei"), (CohereLike, "http")], ids=["vllm", "tei", "http"]
)
def test_golden_finds_each_fault_on_each_kind_of_server(kind, name, capsys):
    code, out = run_check(capsys, *make_server(kind, name, once), "qwen3")
    assert code == 0
    assert out.startswith(f"ok: {name}")
    assert "8 of 8 obvious answers first" in out
    code, out = run_check(capsys, *make_server(kind, name, once, swapped=True), "qwen3")
    assert code == 1
    assert "yes and no are swapped" in out
    code, out = run_check(capsys, *make_server(kind, name, never), "qwen3")
    assert code == 1
    assert "the server applies no template" in out
    assert "8 come first" in out
    code, out = run_check(capsys, *make_server(kind, name, twice), "qwen3")
    assert code == 1
    assert "a template is applied twice" in out
    # Only the token count distinguishes it from a model that is not a reranker.
    assert ("cannot distinguish these" in out) == (kind is not CountingVLLM)


def test_help_names_every_family_with_a_template(capsys):
    assert main(["check", "--help"]) == 0
    listed = " ".join(capsys.readouterr().out.split()).partition("FAMILY is ")[2].partition(", if")[0]
    assert [family for family in TEMPLATES if family.removesuffix("-gemma") not in listed] == []


def test_golden_finds_doubled_template_although_order_is_right(capsys):
    def sure(prompt):
        return 0.9 if any(f"{query}\n<Document>: {answer}" in prompt for query, answer in ANSWERS.items()) else 0.1

    def around(query, document):  # a gateway's chat template around the whole prompt, and the server's around that
        return "".join(QWEN3.sides("", once(query, document)))

    code, out = run_check(capsys, *make_server(CountingVLLM, "vllm", around, model=sure), "qwen3")
    assert code == 1
    assert "8 of 8 obvious answers first" in out
    assert "a template is applied twice" in out


def test_golden_finds_missing_template_with_any_separator(capsys):
    def separated(query, document):
        return f"{query}\n\n{document}"

    known = {text for each in QUESTIONS for text in (each.answer, each.similar, each.unrelated)}

    def model(prompt):  # text before the prompt makes no difference, text before the document does
        inside = prompt[max(prompt.find("<|im_start|>"), 0) :]
        document = inside.split("<Document>: ")[-1].split("<|im_end|>")[0]
        return prompt_model(inside if document in known else f"?{inside}")

    for family in (["qwen3"], []):
        code, out = run_check(capsys, *make_server(TEIServer, "tei", separated, model=model), *family)
        assert code == 1
        assert "8 come first, +0.93 ahead: the server applies no template" in out


def test_golden_ignores_the_cache(capsys, tmp_path):
    server, spec = make_server(CountingVLLM, "vllm", once)
    with server:
        cached = json.dumps({**json.loads(spec()), "cache": {"kind": "disk", "path": str(tmp_path / "cache")}})
        for prompt, verdict in ((once, "ok"), (twice, "applied twice"), (never, "applies no template"), (once, "ok")):
            server.prompt = prompt
            server.score = lambda query, document, prompt=prompt: prompt_model(prompt(query, document))
            main(["check", cached, "--golden", "qwen3"])
            assert verdict in capsys.readouterr().out


def test_golden_without_family_tries_each_prompt(capsys):
    code, out = run_check(capsys, *make_server(TEIServer, "tei", never))
    assert code == 1
    assert "inside the prompt of qwen3, sent from here, 8 come first" in out
    assert "the server applies no template" in out
    code, out = run_check(capsys, *make_server(TEIServer, "tei", twice))
    assert code == 1
    assert "a template twice" in out
    assert "--golden qwen3" in out
    code, out = run_check(capsys, *make_server(CountingVLLM, "vllm:Qwen/Qwen3-Reranker-0.6B", never))
    assert code == 1
    assert "inside the prompt of qwen3" in out


@pytest.mark.parametrize(("kind", "name"), [(CountingVLLM, "vllm"), (TEIServer, "tei")], ids=["vllm", "tei"])
def test_golden_finds_missing_template_although_order_is_right(kind, name, capsys):
    """A large model may answer easy questions without its prompt too, but with smaller differences."""

    def fair(prompt):
        is_right = next((answer for query, answer in ANSWERS.items() if query in prompt), "no such text") in prompt
        margin = 0.45 if prompt.count("<Instruct>") == 1 else 0.1
        return 0.5 + margin if is_right else 0.5 - margin

    code, out = run_check(capsys, *make_server(kind, name, never, model=fair), "qwen3")
    assert code == 1
    assert "8 of 8 obvious answers first, +0.20" in out
    assert "+0.90 ahead: the server applies no template" in out
    code, out = run_check(capsys, *make_server(kind, name, once, model=fair), "qwen3")
    assert code == 0
    # The server counts the tokens of one prompt around a pair, so the template is not missing even if sending it helps.
    code, out = run_check(capsys, *make_server(kind, name, another, model=fair), "qwen3")
    assert (code == 0) == (kind is CountingVLLM)


def test_golden_finds_another_familys_prompt_by_its_tokens(capsys):
    code, out = run_check(capsys, *make_server(CountingVLLM, "vllm", another), "qwen3")
    assert code == 1
    assert "one prompt around a pair: it is that of another family" in out


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize(
    "count", [len, lambda text: len(text) // 4, lambda text: len(re.findall(r"\w+|[^\w\s]|\n+", text))]
)
def test_count_prompts_works_with_any_tokenizer(family, count):
    template = TEMPLATES[family]

    def counted(prompt):
        class Counting:
            def rerank(self, query, documents):
                used = sum(count(prompt(query, document)) for document in documents)
                return SimpleNamespace(usage=Usage(input_tokens=used))

        return count_prompts(Counting(), template)

    assert counted(lambda query, document: f"{query} {document}") == pytest.approx(0, abs=0.2)
    assert counted(lambda query, document: "".join(template.sides(query, document))) == pytest.approx(1, abs=0.2)
    assert counted(lambda query, document: "".join(template.sides(*template.sides(query, document)))) == pytest.approx(
        2, abs=0.2
    )

    def nested(query, document):  # a client sent the whole prompt as the document
        return "".join(template.sides(query, "".join(template.sides(query, document))))

    assert counted(nested) == pytest.approx(2, abs=0.2)
    assert counted(lambda query, document: "the same for all") is None


def test_golden_reports_what_it_cannot_check(capsys, cross_encoder_folder):
    assert main(["check", "passthrough", "--golden"]) == 1
    assert "nothing to check" in capsys.readouterr().err
    assert main(["check", "lexical", "--golden", "gpt"]) == 2
    assert "got 'gpt'" in capsys.readouterr().err
    assert main(["check", "embedded", "--golden"]) == 0
    assert main(["check", f"onnx:{cross_encoder_folder}", "--golden"]) == 1
    assert "WRONG" in capsys.readouterr().out  # random weights


@pytest.mark.slow  # seconds of imports and of a real network
def test_golden_finds_each_fault_of_a_real_tiny_qwen3(capsys):
    """A Qwen3 of two layers with fixed weights, which was trained on the questions inside its prompt.

    Its scores of any other text are chance, so the test replaces them by scores near 0.5.
    """
    import torch
    from support.language_models import GOLDEN
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    assert main(["check", f"qwen3:{GOLDEN}", "--golden"]) == 0
    assert "8 of 8" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN)
    network = Qwen3ForCausalLM.from_pretrained(GOLDEN, dtype=torch.float32).eval()
    capsys.readouterr()  # the progress bars of transformers
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    known = {once(each.query, text) for each in QUESTIONS for text in (each.answer, each.similar, each.unrelated)}

    def model(prompt):
        if prompt not in known:
            return prompt_model(prompt)
        with torch.no_grad():
            logits = network(**tokenizer(prompt, return_tensors="pt"), logits_to_keep=1).logits[0, -1]
        return float(torch.sigmoid(logits[yes] - logits[no]))

    for prompt, swapped, verdict in (
        (once, False, "ok: "),
        (once, True, "yes and no are swapped"),
        (never, False, "the server applies no template"),
        (twice, False, "a template is applied twice"),
    ):
        code, out = run_check(capsys, *make_server(TEIServer, "tei", prompt, swapped=swapped, model=model), "qwen3")
        assert verdict in out
        assert code == (not out.startswith("ok: "))


class InstructableVLLM(VLLMServer):
    """A server whose template has a place for an instruction, if `follows`."""

    follows = True

    def answer(self, body, pairs):
        shift = 0.02 if self.follows and body.get("instruction") else 0.0
        return super().answer(body, [(index, score - shift) for index, score in pairs])


@pytest.mark.parametrize("instruction", [None, "Prefer passages about money."])
@pytest.mark.parametrize("follows", [True, False])
def test_an_instruction_that_the_server_drops_is_found(follows, instruction, capsys):
    """vLLM ignores the field where the chat template has no place for it, and the scores look right."""
    server, _ = make_server(InstructableVLLM, "vllm", once)
    server.follows = follows

    def spec():
        return json.dumps({"use": "vllm", "base_url": server.url, "api_key": server.key, "instruction": instruction})

    code, out = run_check(capsys, server, spec, "qwen3")
    assert ("an instruction changes no score" in out) == (not follows)
    assert code == (1 if instruction and not follows else 0)
    assert out.startswith("WRONG" if code else "ok")


def test_a_warning_of_the_vendor_ends_no_check(capsys):
    class Deprecated(CohereLike):
        def answer(self, body, pairs):
            return super().answer(body, pairs) | {"meta": {"warnings": ["this model is deprecated"]}}

    server, spec = make_server(Deprecated, "http", once)
    with server:
        assert main(["check", spec(), "--golden", "qwen3"]) == 0
    assert capsys.readouterr().out.startswith("ok: http")

"""Golden questions, which have one obvious answer: their scores show whether the prompt template of a model is right.

A server may run a reranking language model without its prompt template, apply the template twice, or swap the answer
tokens yes and no. It still returns plausible scores. A client can only observe whether obvious answers rank first, how
far apart the scores are, whether it helps to send the prompt as part of the texts, and, if the server counts tokens,
how many it adds to a pair of query and document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from ..core.errors import BackendError, ConfigError
from ..core.types import Capabilities
from ..engine.causal_lm.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from ..core.model_id import ModelId
    from ..reranker import Reranker, RerankResponse

__all__ = [
    "QUESTIONS",
    "Outcome",
    "Question",
    "Verdict",
    "ask_questions",
    "check_prompt",
    "count_prompts",
    "find_template",
    "ignores_instruction",
]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and three passages: its answer, a similar one, and an unrelated one."""

    query: str
    answer: str
    similar: str
    unrelated: str


QUESTIONS = (
    Question(
        "What is the capital of France?",
        "Paris is the capital of France and its largest city.",
        "London is the capital of England and its largest city.",
        "Bread rises because yeast makes gas in the dough.",
    ),
    Question(
        "Why is the sky blue?",
        "The sky looks blue because air scatters blue light more than red light.",
        "The blue whale is the largest animal that has ever lived.",
        "The contract ends on the last day of March.",
    ),
    Question(
        "How do plants make their food?",
        "Plants make their food by photosynthesis, from light, water and carbon dioxide.",
        "Many people grow plants on their balconies for decoration.",
        "The train to Milan leaves at nine in the morning.",
    ),
    Question(
        "Who wrote Romeo and Juliet?",
        "Romeo and Juliet is a tragedy written by William Shakespeare.",
        "Romeo, a small town in Michigan, holds a peach festival each year.",
        "Glass is made by melting sand with soda and lime.",
    ),
    Question(
        "At what temperature does water boil at sea level?",
        "At sea level water boils at 100 degrees Celsius.",
        "The average temperature of the sea surface has been measured since 1880.",
        "He plays the violin in a small orchestra.",
    ),
    Question(
        "How many legs does a spider have?",
        "A spider has eight legs.",
        "An insect has six legs.",
        "The invoice was paid by bank transfer.",
    ),
    Question(
        "What causes the tides?",
        "The tides are caused by the gravity of the moon and the sun.",
        "Tide is a well-known brand of laundry detergent.",
        "Chess is played on a board of sixty-four squares.",
    ),
    Question(
        "How do I reset my password?",
        "To reset your password, click 'Forgot password' on the sign-in page and follow the link in the mail.",
        "A good password has at least twelve characters.",
        "The museum is closed on Mondays.",
    ),
)

_MIN_RANKED_FIRST = len(QUESTIONS) - 1
"""How many answers a right prompt must rank first. One question may be too hard for a small model."""
_MIN_RANKED_LAST = len(QUESTIONS) - 2
"""How many answers must rank last to conclude that yes and no are swapped."""
_MIN_GAP = 0.05
"""The smallest `Outcome.gap` of a right prompt."""
_MIN_GAIN = 0.25
"""If the outcome is good without the prompt: by how much sending the prompt must raise the gap to conclude that the
server applies no template."""
_ONE_PROMPT_MIN, _ONE_PROMPT_MAX = 0.5, 1.5
"""Results of `count_prompts` that mean one prompt. Below them there is none, above them there are two."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reranker ranked the answers of all questions."""

    ranked_first: int
    """Number of answers that ranked first."""
    ranked_last: int
    """Number of answers that ranked last."""
    gap: float
    """Mean `relevance_score` of the answers minus that of the other passages."""

    @property
    def is_good(self) -> bool:
        """Whether enough answers rank first, with a large enough gap."""
        return self.ranked_first >= _MIN_RANKED_FIRST and self.gap >= _MIN_GAP


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the prompt of a model is right, and a message with the reason."""

    is_ok: bool
    message: str


def find_template(family: str, model_id: ModelId, rows: Iterator[dict[str, str]]) -> Template | None:
    """Return the prompt template of `family`, or of the model if `family` is empty; `None` if it is unknown.

    Args:
        family: A key of `TEMPLATES`, or a family of which `TEMPLATES` has several models. May be empty.
        model_id: The model to find a template for.
        rows: The known models, as `config.registry.models` yields them.

    Raises:
        ConfigError: There is no template of `family`.
    """
    if family:
        template = TEMPLATES.get(family) or TEMPLATES.get(f"{family}-gemma")
        if template is None:
            raise ConfigError(f"--golden must name one of {', '.join(TEMPLATES)}; got {family!r}.")
        return template
    for row in rows:
        name, _, model = row["spec"].partition(":")
        if row["engine"] == "causal-lm" and (model.lower() in model_id.model.lower() or model_id.backend == name):
            return TEMPLATES.get(name) or TEMPLATES[f"{name}-gemma"]
    return None


def ask_questions(reranker: Reranker, template: Template | None = None, *, prompt_in_document: bool = False) -> Outcome:
    """Rerank the passages of all questions.

    Args:
        reranker: The reranker, without a `top_n` and a threshold.
        template: If set, its prompt is sent as text: the part up to the document as the query, the rest as the
            document.
        prompt_in_document: Whether to send the whole prompt as the document, for a server that adds text between
            query and document.

    Raises:
        BackendError: A fallback answered, a score is outside its scale, or there are no scores.
    """
    ranked_first = ranked_last = 0
    gap_sum = 0.0
    for question in QUESTIONS:
        query = question.query
        # The answer is in the middle: a reranker that keeps or reverses the order does not rank it first.
        passages = [question.unrelated, question.answer, question.similar]
        if template is not None and prompt_in_document:
            passages = ["".join(template.sides(query, passage)) for passage in passages]
        elif template is not None:
            passages = [template.sides(query, passage)[1] for passage in passages]
            query, _ = template.sides(query, question.answer)
        response = reranker.rerank(query, passages)
        if response.degraded:
            raise BackendError(
                f"{response.model} answered as a fallback ({response.reason}): check the reranker without its fallback."
            )
        if response.reason is not None and _has_score_outside_scale(response):
            raise BackendError(response.reason)
        scores = {result.index: result.relevance_score for result in response}
        values = [scores[index] or 0.0 for index in range(3)]
        if None in scores.values():
            raise BackendError(f"{response.model} returns no scores, so there is nothing to check.")
        ranked_first += response[0].index == 1
        ranked_last += response[2].index == 1
        gap_sum += values[1] - (values[0] + values[2]) / 2
    return Outcome(ranked_first, ranked_last, gap_sum / len(QUESTIONS))


def _has_score_outside_scale(response: RerankResponse) -> bool:
    bounds = Capabilities(scale=response.scale).bounds
    scores = [result.raw_score for result in response if result.raw_score is not None]
    return bounds is not None and not all(bounds[0] <= score <= bounds[1] for score in scores)


def ignores_instruction(reranker: Reranker, instruction: str) -> bool:
    """Return whether an instruction changes no score: vLLM drops it if the chat template has no place for one.

    The scores of two equal requests may differ a little. An instruction must change them more than that.
    """
    question = QUESTIONS[0]
    documents = [question.unrelated, question.answer, question.similar]

    def scores(instruction: str | None) -> list[float]:
        response = reranker.rerank(question.query, documents, instruction=instruction)
        return [result.raw_score or 0.0 for result in sorted(response, key=lambda result: result.index)]

    def largest_difference(one: list[float], other: list[float]) -> float:
        return max(abs(a - b) for a, b in zip(one, other, strict=True))

    uninstructed = scores(None)
    noise = largest_difference(uninstructed, scores(None))
    return largest_difference(uninstructed, scores(instruction)) <= max(2 * noise, 1e-9)


def count_prompts(reranker: Reranker, template: Template) -> float | None:
    """Return how many prompts of `template` the server adds to a pair, or `None` if the server counts no tokens.

    Four requests give the lengths in the server's own tokens: a pair of query and document, the pair with the query
    twice, with the document twice, and with the prompt in the document. What the pair has beyond query and document,
    divided by the length of the prompt, is the result. About 2 shows that the template is applied twice. About 0 proves
    nothing, since some servers count only the texts.
    """
    query, document = QUESTIONS[0].query, QUESTIONS[0].answer
    pairs = (
        (query, document),
        (f"{query} {query}", document),
        (query, f"{document} {document}"),
        (
            query,
            "".join(template.sides("", document)),
        ),  # in the document: a server may count the query twice, but not this
    )
    tokens = [reranker.rerank(query, [document]).usage.input_tokens for query, document in pairs]
    pair, query_twice, document_twice, prompt_in_document = (count or 0 for count in tokens)
    prompt = prompt_in_document - pair
    if None in tokens or prompt <= 0:
        return None
    return (pair - (query_twice - pair) - (document_twice - pair)) / prompt


def _is_prompt_missing(without_prompt: Outcome, with_prompt: Outcome, prompt_count: float | None) -> bool:
    """Return whether sending the prompt as text improved the outcome so much that the server applies no template.

    Args:
        without_prompt: The outcome of the texts alone.
        with_prompt: The outcome with the prompt in the texts.
        prompt_count: The result of `count_prompts`.
    """
    if not without_prompt.is_good:
        return with_prompt.is_good or (
            with_prompt.ranked_first >= _MIN_RANKED_FIRST and with_prompt.gap > 2 * max(without_prompt.gap, 0.0)
        )
    return (
        with_prompt.is_good
        and with_prompt.ranked_first >= without_prompt.ranked_first
        and with_prompt.gap > without_prompt.gap + _MIN_GAIN
        and (prompt_count or 0.0) < _ONE_PROMPT_MIN
    )


def check_prompt(reranker: Reranker, template: Template | None, *, server: bool) -> Verdict:
    """Ask the questions and return a verdict on the prompt of the model.

    Args:
        reranker: The reranker, without a `top_n` and a threshold.
        template: The template of the model's family, if it is known.
        server: Whether a server applies the template. Then the prompt is also sent as text, and the tokens are counted.

    Raises:
        BackendError: `ask_questions` raised it, or the backend failed.
    """
    without_prompt = ask_questions(reranker)
    total = len(QUESTIONS)
    message = (
        f"{without_prompt.ranked_first} of {total} obvious answers first, {without_prompt.gap:+.2f} relevance ahead"
    )
    prompt_count = count_prompts(reranker, template) if server and template else None
    if without_prompt.ranked_last >= _MIN_RANKED_LAST:
        return Verdict(
            False,
            f"{without_prompt.ranked_last} of {total} obvious answers last: yes and no are swapped. Exchange the two "
            "tokens (or labels) whose logits give the score.",
        )
    if prompt_count is not None and prompt_count > _ONE_PROMPT_MAX:
        return Verdict(
            False,
            f"{message}; the server adds as many tokens as {prompt_count:.1f} prompts of {template and template.name} "
            "have: a template is applied twice. Let only one side apply it.",
        )
    if not without_prompt.is_good:
        message += (
            ": the scores are close to each other"
            if without_prompt.gap < _MIN_GAP
            else ": obvious answers are not first"
        )
    if not server:
        cause = " This package makes the prompt, so the model is of another family, or is not trained to rerank."
        return Verdict(without_prompt.is_good, message if without_prompt.is_good else f"{message}.{cause}")
    # If the family is unknown, all templates are tried, unless the outcome is good: then no prompt is missing.
    templates = [template] if template else [] if without_prompt.is_good else TEMPLATES.values()
    for candidate, prompt_in_document in product(templates, (False, True)):
        with_prompt = ask_questions(reranker, candidate, prompt_in_document=prompt_in_document)
        if _is_prompt_missing(without_prompt, with_prompt, prompt_count):
            return Verdict(
                False,
                f"{message}, but inside the prompt of {candidate.name}, sent from here, {with_prompt.ranked_first} "
                f"come first, {with_prompt.gap:+.2f} ahead: the server applies no template. Configure the model's chat "
                "template.",
            )
    if without_prompt.is_good:
        return Verdict(True, message)
    if template is None:
        return Verdict(
            False,
            f"{message}, and it does not help to send the prompt of any known family from here. The server may apply a "
            "template twice, or that of another family, or the model is not a reranker. Name its family "
            f"(--golden {next(iter(TEMPLATES))}) to compare the tokens that the server counts too.",
        )
    if prompt_count is not None and prompt_count >= _ONE_PROMPT_MIN:
        return Verdict(
            False,
            f"{message}, although the server counts the tokens of one prompt around a pair: it is that of another "
            "family, or the model is not a reranker. Look at one prompt in the server's log.",
        )
    return Verdict(
        False,
        f"{message}, and it does not help to send the prompt of {template.name} from here: a template is applied "
        "twice, or that of another family, or the model is not a reranker. Scores alone cannot distinguish these: look "
        "at one prompt in the server's log.",
    )

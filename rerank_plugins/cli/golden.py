"""Questions with one obvious answer, and what a reranker's scores on them say about its prompt.

A reranking language model that is served with no template, with two, or with yes and no exchanged answers every request
with plausible numbers. What can be seen from outside: whether obvious answers come first, how far apart the scores are,
whether sending the prompt along mends it, and, where a server counts tokens, how much it adds to a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import BackendError, ConfigError
from ..engine.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from ..reranker import Reranker

__all__ = ["QUESTIONS", "Question", "Seen", "Verdict", "judged", "prompts_counted", "seen", "template_of"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the one passage that answers it, one that sounds alike, and one about something else."""

    query: str
    right: str
    alike: str
    other: str


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

_ENOUGH = len(QUESTIONS) - 1
"""Right answers that have to come first: one question may be hard for a small model."""
_MOSTLY = len(QUESTIONS) - 2
_APART = 0.05
"""Relevance by which right answers lead on average, or the scores are called near one another."""
_MARK = 4
"""Letters that a mark, which is one token, counts for: about what a token of English prose has."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reranker did with the questions."""

    first: int
    """Right answers that came first …"""
    last: int
    """… and last."""
    gap: float
    """How much `relevance_score` the right answers have over the others, on average."""

    @property
    def good(self) -> bool:
        """Whether the obvious answers come first, clearly."""
        return self.first >= _ENOUGH and self.gap >= _APART


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is the matter, in words."""

    fine: bool
    words: str


def template_of(family: str, label: str, rows: Iterator[dict[str, str]]) -> Template | None:
    """Return the prompt of a family that was named, else of the model that a label names; `None`: nobody knows.

    Raises:
        ConfigError: There is no such family.
    """
    if family:
        found = TEMPLATES.get(family) or TEMPLATES.get(f"{family}-gemma")
        if found is None:
            raise ConfigError(f"--golden knows the prompts of {', '.join(TEMPLATES)}, and {family!r} is none of them.")
        return found
    for row in rows:
        name, _, model = row["spec"].partition(":")
        if row["engine"] == "causal-lm" and (model.lower() in label.lower() or label.startswith(f"{name}:")):
            return TEMPLATES.get(name) or TEMPLATES[f"{name}-gemma"]
    return None


def seen(reranker: Reranker, template: Template | None = None) -> Seen:
    """Ask all questions; with a `template`, as text inside its prompt.

    Raises:
        BackendError: A stand-in answered, or nothing is scored.
    """
    first = last = 0
    gap = 0.0
    for question in QUESTIONS:
        query, right = question.query, question.right
        others = [question.other, question.alike]  # the right one is in the middle: an order that is kept is no answer
        if template is not None:
            others = [template.sides(query, each)[1] for each in others]
            query, right = template.sides(query, right)
        response = reranker.rerank(query, [others[0], right, others[1]])
        if response.degraded:
            raise BackendError(
                f"{response.model} answered in its place ({response.reason}): check it without a fallback."
            )
        scores = {each.index: each.relevance_score for each in response}
        values = [scores[place] or 0.0 for place in range(3)]
        if None in scores.values():
            raise BackendError(f"{response.model} gives no scores, so there is nothing to check.")
        first += response[0].index == 1
        last += response[2].index == 1
        gap += values[1] - (values[0] + values[2]) / 2
    return Seen(first, last, gap / len(QUESTIONS))


def prompts_counted(reranker: Reranker, template: Template) -> float | None:
    """Return how many of the family's prompts a server puts around a pair, by the tokens it counts; `None`: it counts none.

    Two documents of different lengths tell how many letters a token has, and so what is there beside the pair. Too many
    is evidence; too few is none, since some servers count the texts alone.
    """
    query, short, long = QUESTIONS[0].query, QUESTIONS[0].right, " ".join(each.right for each in QUESTIONS)
    told = [reranker.rerank(query, [document]).usage.input_tokens for document in (short, long)]
    if told[0] is None or told[1] is None or told[1] <= told[0]:
        return None
    letters = (len(long) - len(short)) / (told[1] - told[0])
    prompt = "".join(template.sides("", ""))
    for mark in template.marks:
        prompt = prompt.replace(mark, "x" * _MARK)
    return (told[0] * letters - len(query) - len(short)) / len(prompt)


def judged(reranker: Reranker, template: Template | None, *, server: bool) -> Verdict:
    """Ask, and say what the answers mean.

    Args:
        reranker: Without a `top_n` and a threshold.
        template: The family's, where it is known.
        server: Whether the prompt is made by somebody else, so that sending one along, and its tokens, can tell more.

    Raises:
        BackendError: As `seen`, or no answer.
    """
    found = seen(reranker)
    shown = f"{found.first} of {len(QUESTIONS)} obvious answers first, {found.gap:+.2f} relevance ahead"
    counted = prompts_counted(reranker, template) if server and template else None
    if found.last >= _MOSTLY:
        return Verdict(
            False,
            f"upside down ({found.last} of {len(QUESTIONS)} obvious answers LAST): yes and no are swapped. Exchange the two "
            "tokens (or labels) that the score is made of.",
        )
    if counted is not None and counted > 1.6:
        return Verdict(
            False,
            f"{shown}; the server counts as many tokens as {counted:.1f} of {template and template.name}'s prompts would "
            "take: a template is applied twice. Let only one side apply it.",
        )
    if found.good:
        return Verdict(True, shown)
    near = "the scores lie near one another" if found.gap < _APART else "obvious answers are not on top"
    if not server:
        return Verdict(
            False,
            f"{shown}: {near}. The prompt is this package's own, so the weights are another family's, or not trained to "
            "rerank.",
        )
    if template is None:
        return Verdict(
            False,
            f"{shown}: {near}. The server may apply no template, or one twice, or the model is no reranker; name its family "
            f"(--golden {next(iter(TEMPLATES))}) and the prompt is tried from here, which tells more.",
        )
    inside = seen(reranker, template)
    if inside.good or (inside.first >= _ENOUGH and inside.gap > 2 * max(found.gap, 0.0)):
        return Verdict(
            False,
            f"{shown}: {near}, but inside {template.name}'s prompt, sent from here, {inside.first} come first: the server "
            "applies no template. Give it the model's chat template.",
        )
    return Verdict(
        False,
        f"{shown}: {near}, and {template.name}'s prompt sent from here does not mend it: a template is applied twice, or "
        "another family's, or the model is no reranker. Scores alone cannot tell these apart: look at one prompt in the "
        "server's log.",
    )

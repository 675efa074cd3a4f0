"""Questions with one obvious answer, and what a reranker's scores on them say about its prompt.

A reranking language model that is served with no template, with two, or with yes and no exchanged answers every request
with plausible numbers. What can be seen from outside: whether obvious answers come first, how far apart the scores are,
whether sending the prompt along mends it, and, where a server counts tokens, how much it adds to a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from ..core.errors import BackendError, ConfigError
from ..engine.causal_lm.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from ..core.model_id import ModelId
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
_BETTER = 0.25
"""Relevance by which the prompt sent along has to help answers that are good without it: then they came without a prompt."""
_NONE_COUNTED, _TWO_COUNTED = 0.5, 1.5
"""Prompts around a pair, by the tokens counted, below which there is none, and above which there are two."""


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


def template_of(family: str, model_id: ModelId, rows: Iterator[dict[str, str]]) -> Template | None:
    """Return the prompt of a family that was named, else of the model that is named; `None`: nobody knows.

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
        if row["engine"] == "causal-lm" and (model.lower() in model_id.model.lower() or model_id.backend == name):
            return TEMPLATES.get(name) or TEMPLATES[f"{name}-gemma"]
    return None


def seen(reranker: Reranker, template: Template | None = None, *, whole: bool = False) -> Seen:
    """Ask all questions; with a `template`, as text inside its prompt, which begins with the query and ends with the document.

    With `whole`, all of the prompt stands in the document, for a server that puts something between the two.

    Raises:
        BackendError: A stand-in answered, or nothing is scored.
    """
    first = last = 0
    gap = 0.0
    for question in QUESTIONS:
        query, right = question.query, question.right
        others = [question.other, question.alike]  # the right one is in the middle: an order that is kept is no answer
        if template is not None and whole:
            others = ["".join(template.sides(query, each)) for each in others]
            right = "".join(template.sides(query, right))
        elif template is not None:
            others = [template.sides(query, each)[1] for each in others]
            query, right = template.sides(query, right)
        response = reranker.rerank(query, [others[0], right, others[1]])
        if response.degraded:
            raise BackendError(
                f"{response.model} answered in its place ({response.reason}): check it without a fallback."
            )
        if response.reason is not None:
            raise BackendError(response.reason)
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

    A query or a document that is sent twice tells how long it is, the prompt sent along how long that is, and what is left
    of the pair is the server's: all as the server itself counts. Too many is evidence; too few alone is none, since some
    servers count the texts only.
    """
    query, document = QUESTIONS[0].query, QUESTIONS[0].right
    asked = (
        (query, document),
        (f"{query} {query}", document),
        (query, f"{document} {document}"),
        (query, "".join(template.sides("", document))),  # beside the document, of which no server makes two
    )
    told = [reranker.rerank(query, [document]).usage.input_tokens for query, document in asked]
    pair, queries, documents, inside = (each or 0 for each in told)
    prompt = inside - pair
    if None in told or prompt <= 0:
        return None
    return (pair - (queries - pair) - (documents - pair)) / prompt


def _mended(found: Seen, inside: Seen, counted: float | None) -> bool:
    """Tell whether sending the prompt along made of poor answers good ones, or of fair ones so much better ones that it was missing."""
    if not found.good:
        return inside.good or (inside.first >= _ENOUGH and inside.gap > 2 * max(found.gap, 0.0))
    return (
        inside.good
        and inside.first >= found.first
        and inside.gap > found.gap + _BETTER
        and (counted or 0.0) < _NONE_COUNTED
    )


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
    if counted is not None and counted > _TWO_COUNTED:
        return Verdict(
            False,
            f"{shown}; the server counts as many tokens as {counted:.1f} of {template and template.name}'s prompts would "
            "take: a template is applied twice. Let only one side apply it.",
        )
    if not found.good:
        shown += ": the scores lie near one another" if found.gap < _APART else ": obvious answers are not on top"
    if not server:
        own = " The prompt is this package's own, so the weights are another family's, or not trained to rerank."
        return Verdict(found.good, shown if found.good else f"{shown}.{own}")
    # Nobody knows the family: where the answers are good, there is nothing to try.
    for tried, whole in product([template] if template else [] if found.good else TEMPLATES.values(), (False, True)):
        inside = seen(reranker, tried, whole=whole)
        if _mended(found, inside, counted):
            return Verdict(
                False,
                f"{shown}, but inside {tried.name}'s prompt, sent from here, {inside.first} come first, "
                f"{inside.gap:+.2f} ahead: the server applies no template. Give it the model's chat template.",
            )
    if found.good:
        return Verdict(True, shown)
    if template is None:
        return Verdict(
            False,
            f"{shown}, and no known family's prompt sent from here mends it. The server may apply a template twice, "
            "or another family's, or the model is no reranker; name its family "
            f"(--golden {next(iter(TEMPLATES))}), and the tokens that the server counts are looked at too.",
        )
    if counted is not None and counted >= _NONE_COUNTED:
        return Verdict(
            False,
            f"{shown}, although the server counts the tokens of one prompt around a pair: it is another family's, or the "
            "model is no reranker. Look at one prompt in the server's log.",
        )
    return Verdict(
        False,
        f"{shown}, and {template.name}'s prompt sent from here does not mend it: a template is applied twice, or "
        "another family's, or the model is no reranker. Scores alone cannot tell these apart: look at one prompt in the "
        "server's log.",
    )

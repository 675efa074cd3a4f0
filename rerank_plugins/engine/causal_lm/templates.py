"""What each family of reranking language models reads and answers, as data: the prompt IS the model's correctness.

A part of a prompt is tokenized by itself, as its maker does; one that is a mark is that token of the vocabulary. In a
part, `{query}`, `{document}` and `{instruction}` stand for the texts, in which no mark is ever seen. The document ends
its part, so that cutting it leaves the rest whole.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OTHER_MARKS", "TEMPLATES", "Template"]

OTHER_MARKS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<start_of_turn>", "<end_of_turn>"),
)
"""Marks of chats that tokenizers may not call special (Qwen3's tokenizer_config.json; Gemma's): in a text they are text."""


@dataclass(frozen=True, slots=True)
class Template:
    """One family's prompt, and the tokens whose logits at its end are the score."""

    name: str
    architecture: str
    """The class that a checkpoint of it names in config.json."""
    parts: tuple[str, ...]
    yes: str
    """The raw score is the logit of this token …"""
    no: str | None = None
    """… minus the logit of this one, where there is one."""
    instructed: tuple[str, ...] | None = None
    """The parts for a call with an instruction, where they differ by more than the text."""
    instruction: str | None = None
    """The text for a call without one."""
    offset: float = 0.0
    divisor: float = 1.0
    """Of the `logit` scale."""
    stripped: bool = False
    """Whether white space around query and document is taken off."""

    def chosen(self, instruction: str | None) -> tuple[str, ...]:
        """Return the parts for a call."""
        return self.instructed if instruction is not None and self.instructed else self.parts

    @property
    def marks(self) -> tuple[str, ...]:
        """The tokens of the vocabulary that it is built with."""
        every = (*self.parts, *(self.instructed or ()))
        return tuple(dict.fromkeys(part for part in every if part.startswith("<") and part.endswith(">")))

    def sides(self, query: str, document: str) -> tuple[str, str]:
        """Return the whole prompt as text, cut before the document: what a server that applies no template has to be sent."""
        whole = "".join(self.parts)
        first, _, last = whole.removeprefix("<bos>").partition("{document}")  # every tokenizer sets that one itself
        return first.format(query=query, instruction=self.instruction), document + last


_QWEN3 = Template(
    # https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, the card's format_instruction and process_inputs: prefix and suffix
    # are tokenized apart from the text between them; softmax over "no" and "yes" is the sigmoid of their difference.
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    parts=(
        "<|im_start|>",
        (
            "system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
            'Note that the answer can only be "yes" or "no".'
        ),
        "<|im_end|>",
        "\n",
        "<|im_start|>",
        "user\n",
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
        "<|im_end|>",
        "\n",
        "<|im_start|>",
        "assistant\n",
        "<think>",
        "\n\n",
        "</think>",
        "\n\n",
    ),
    yes="yes",
    no="no",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)

_MXBAI_BEGIN = (
    "<|im_start|>",
    "system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "<|im_end|>",
    "\n",
    "<|im_start|>",
    "user\n",
)
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
_MXBAI_END = (
    "\n",
    "document: {document}",
    "\n",
    _MXBAI_TASK,
    "<|im_end|>",
    "\n",
    "<|im_start|>",
    "assistant\n",
)
_MXBAI = Template(
    # mxbai-rerank 0.1.6, mxbai_rerank_v2.py: prepare_inputs, concat_input_ids, forward (November 2026).
    name="mxbai",
    architecture="Qwen2ForCausalLM",
    parts=(*_MXBAI_BEGIN, "query: {query}", *_MXBAI_END),
    instructed=(*_MXBAI_BEGIN, "instruction: {instruction}\nquery: {query}", *_MXBAI_END),
    yes="1",
    no="0",
    offset=6.0,  # half of `estimated_max`, 12 for a model that the package does not know
)


def _zerank(query: str) -> tuple[str, ...]:
    user = ("<|im_start|>", "user\n{document}", "<|im_end|>", "\n")
    return ("<|im_start|>", f"system\n{query}", "<|im_end|>", "\n", *user, "<|im_start|>", "assistant\n")


_ZERANK = Template(
    # zeroentropy/zerank-1-small, modeling_zeranker.py (format_pointwise_datapoints) and zerank-2's card of May 2026: the
    # tokenizer's chat template (Qwen3's) over system = query, user = document, with the generation prompt. An instruction
    # goes into the query in tags, as zerank-2 was trained
    # (https://www.zeroentropy.dev/articles/prompting-best-practices-for-instruction-following-rerankers, 2026-01-22).
    name="zerank",
    architecture="Qwen3ForCausalLM",
    parts=_zerank("{query}"),
    instructed=_zerank("<query>{query}</query>\n<instructions>{instruction}</instructions>"),
    yes="Yes",
    divisor=5.0,  # "sigmoid(score / 5)", zerank-2's card
    stripped=True,
)

_BGE_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)
_BGE_GEMMA = Template(
    # FlagEmbedding 1.4.2, inference/reranker/decoder_only/base.py, compute_score_single_gpu (November 2026). Its `prompt`
    # argument replaces the task; an instruction stands before it here, since the task asks for the word that is scored.
    name="bge-gemma",
    architecture="GemmaForCausalLM",
    parts=("<bos>", "A: {query}", "\n", "B: {document}", "\n", _BGE_TASK),
    instructed=("<bos>", "A: {query}", "\n", "B: {document}", "\n", "{instruction} " + _BGE_TASK),
    yes="Yes",
)

TEMPLATES: dict[str, Template] = {each.name: each for each in (_QWEN3, _MXBAI, _ZERANK, _BGE_GEMMA)}

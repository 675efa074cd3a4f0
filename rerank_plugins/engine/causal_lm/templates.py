"""The prompt of each family of reranking language models, and its answer tokens, as data.

A wrong prompt makes every score wrong. Each part of a prompt is tokenized by itself, as the model's maker does. A part
that is a mark (`<|im_end|>`) is that token of the vocabulary. In other parts `{query}`, `{document}` and
`{instruction}` stand for the texts, in which no mark is recognized. A part that goes on behind the document is one text
with it for the tokenizer, and the document alone is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OTHER_MARKS", "TEMPLATES", "Template"]

OTHER_MARKS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<start_of_turn>", "<end_of_turn>"),
)
"""Marks of chats that a tokenizer may not call special (Qwen3's tokenizer_config.json; Gemma's). In a text they are
plain text."""


@dataclass(frozen=True, slots=True)
class Template:
    """The prompt of one family, and the tokens whose logits at its end give the score."""

    name: str
    architecture: str
    """The class that config.json names."""
    parts: tuple[str, ...]
    yes: str
    """The raw score is the logit of this token."""
    yes_id: int | None = None
    """The id that `yes` must have, where the maker's code reads the score by number."""
    no: str | None = None
    """The token whose logit is subtracted, if any."""
    instructed: tuple[str, ...] | None = None
    """The parts for a call with an instruction, if other parts change too."""
    instruction: str | None = None
    """The instruction for a call without one."""
    offset: float = 0.0
    divisor: float = 1.0
    """Offset and divisor of the `logit` scale."""
    stripped: bool = False
    """Whether white space around query and document is removed."""

    def parts_for(self, instruction: str | None) -> tuple[str, ...]:
        """Return the parts for a call with that instruction."""
        return self.instructed if instruction is not None and self.instructed else self.parts

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that config.json may name: the language model's, and that of a conversion.

        A conversion is a classifier of one label for the same prompt. Its head is the row of `yes` in the vocabulary's,
        minus that of `no` if there is one: examples/pooling/score/convert_model_to_seq_cls.py of
        https://github.com/vllm-project/vllm; for Qwen3 the card of
        https://huggingface.co/tomaarsen/Qwen3-Reranker-0.6B-seq-cls, for zerank that of
        https://huggingface.co/baseten-admin/zerank-2-reranker-seq, for Contextual's that of
        https://huggingface.co/sigridjineth/ctxl-rerank-v2-1b-seq-cls. All were read on 2026-11-30.
        """
        return self.architecture, self.architecture.replace("ForCausalLM", "ForSequenceClassification")

    @property
    def marks(self) -> tuple[str, ...]:
        """The marks in the prompt, which are tokens of the vocabulary."""
        parts = (*self.parts, *(self.instructed or ()))
        return tuple(dict.fromkeys(part for part in parts if part.startswith("<") and part.endswith(">")))

    def sides(self, query: str, document: str) -> tuple[str, str]:
        """Return the whole prompt as two texts, split before the document, for a server that applies no template."""
        prompt = "".join(self.parts)
        first, _, last = prompt.removeprefix("<bos>").partition("{document}")  # every tokenizer adds <bos> itself
        known = {"query": query, "instruction": self.instruction}
        return first.format(**known), document + last.format(**known)


_QWEN3 = Template(
    # https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, the card's format_instruction and process_inputs: prefix and
    # suffix are tokenized apart from the text between them; softmax over "no" and "yes" is the sigmoid of their
    # difference.
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
    # zeroentropy/zerank-1-small, modeling_zeranker.py (format_pointwise_datapoints) and zerank-2's card of May 2026:
    # the tokenizer's chat template (Qwen3's) over system = query, user = document, with the generation prompt. An
    # instruction goes into the query in tags, as zerank-2 was trained
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
    # FlagEmbedding 1.4.2, inference/reranker/decoder_only/base.py, compute_score_single_gpu (November 2026). Its
    # `prompt` argument replaces the task; an instruction stands before it here, since the task asks for the word that
    # is scored.
    name="bge-gemma",
    architecture="GemmaForCausalLM",
    parts=("<bos>", "A: {query}", "\n", "B: {document}", "\n", _BGE_TASK),
    instructed=("<bos>", "A: {query}", "\n", "B: {document}", "\n", "{instruction} " + _BGE_TASK),
    yes="Yes",
)

_CTXL_TASK = "Check whether a given document contains information helpful to answer the query.\n"
_CTXL = Template(
    # https://huggingface.co/ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b, the card's format_prompts and
    # infer_w_hf, read in public copies of that code on 2026-11-30. The prompt is one text, and the score is the logit
    # of token 0 ("!" in the tokenizer that 1b and 2b share). The card shows raw logits and gives no formula for [0, 1].
    name="ctxl",
    architecture="Qwen3ForCausalLM",
    parts=(_CTXL_TASK + "<Document> {document}\n<Query> {query} ??",),
    instructed=(_CTXL_TASK + "<Document> {document}\n<Query> {query} {instruction} ??",),
    yes="!",
    yes_id=0,
)

TEMPLATES: dict[str, Template] = {template.name: template for template in (_QWEN3, _MXBAI, _ZERANK, _BGE_GEMMA, _CTXL)}

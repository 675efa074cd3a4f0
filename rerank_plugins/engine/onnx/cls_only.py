"""The last layer of a torch encoder for its first token only, where the head reads no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["first_token_only"]

_BERT_LIKE = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}


def first_token_only(model: PreTrainedModel) -> bool:
    """Make the last layer give the first token's row alone; return whether this head allows it.

    Keys and values are still made of all tokens, so the logits stay what they were; one of MiniLM-L6's six layers
    shrinks to its keys and values. Changes `model` in place. As in transformers 5.23: the pooler of BERT, the heads
    of RoBERTa, XLM-R, CamemBERT and ELECTRA, DeBERTa-v2's `ContextPooler` and ModernBERT's pooling "cls" read
    `hidden[:, 0]`. All other models are left as they are.
    """
    kind, config, base = model.config.model_type, model.config, getattr(model, model.base_model_prefix)
    if kind in _BERT_LIKE and not config.is_decoder:
        last = base.encoder.layer[-1]
        _one_query(last.attention.self)
        last.attention.output.register_forward_pre_hook(_first_rows)
        return True
    # DeBERTa's convolution stands after the first layer and reads all tokens.
    if kind == "deberta-v2" and len(base.encoder.layer) > 1:
        base.encoder.layer[-1].attention.output.register_forward_pre_hook(_first_rows)
        return True
    if kind == "modernbert" and config.classifier_pooling == "cls":
        last = base.layers[-1]
        last.attn.Wo.register_forward_pre_hook(_first_rows)
        _one_residual(last)
        return True
    return False


def _first_rows(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each[:, :1] for each in arguments)


def _one_query(attention: Any) -> None:
    """Ask with the first token only: softmax(q k^T / sqrt(d) + mask) v, as transformers' eager attention."""
    heads, size = attention.num_attention_heads, attention.attention_head_size

    def split(rows: Tensor, batch: int) -> Tensor:
        return rows.view(batch, -1, heads, size).transpose(1, 2)

    def forward(hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> tuple[Tensor, None]:
        batch = hidden_states.shape[0]
        query = split(attention.query(hidden_states[:, :1]), batch)
        weights = query @ split(attention.key(hidden_states), batch).transpose(2, 3) * size**-0.5
        if attention_mask is not None:
            weights = weights + attention_mask[:, :, :1]
        mixed = weights.softmax(-1) @ split(attention.value(hidden_states), batch)
        return mixed.transpose(1, 2).reshape(batch, 1, heads * size), None

    attention.forward = forward


def _one_residual(layer: Any) -> None:
    def forward(hidden: Tensor, *arguments: Any, **options: Any) -> Tensor:
        seen, _ = layer.attn(layer.attn_norm(hidden), *arguments, **options)
        first = hidden[:, :1] + seen
        made: Tensor = first + layer.mlp(layer.mlp_norm(first))
        return made

    layer.forward = forward

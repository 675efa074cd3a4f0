"""Computes the last layer of a torch encoder only for the first token (CLS), if the head reads no other token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["skip_unread_tokens"]

_BERT_LIKE = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}


def skip_unread_tokens(model: PreTrainedModel) -> bool:
    """Change `model` so that its last layer computes only the first token. Return whether the model's head allows that.

    Keys and values are still computed for all tokens, so the logits do not change. Of MiniLM-L6's six layers one
    shrinks to its keys and values. In transformers 5.23 these heads read only `hidden[:, 0]`: the pooler of BERT, the
    heads of RoBERTa, XLM-R, CamemBERT and ELECTRA, DeBERTa-v2's `ContextPooler`, and ModernBERT's pooling "cls". All
    other models are left unchanged.
    """
    kind, config, base = model.config.model_type, model.config, getattr(model, model.base_model_prefix)
    if kind in _BERT_LIKE and not config.is_decoder:
        last = base.encoder.layer[-1]
        _attend_with_first_token(last.attention.self)
        last.attention.output.register_forward_pre_hook(_first_rows)
        return True
    # DeBERTa's convolution follows the first layer and reads all tokens, so a model of one layer is left unchanged.
    if kind == "deberta-v2" and len(base.encoder.layer) > 1:
        base.encoder.layer[-1].attention.output.register_forward_pre_hook(_first_rows)
        return True
    if kind == "modernbert" and config.classifier_pooling == "cls":
        last = base.layers[-1]
        last.attn.Wo.register_forward_pre_hook(_first_rows)
        _add_first_residual(last)
        return True
    return False


def _first_rows(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(states[:, :1] for states in arguments)


def _attend_with_first_token(attention: Any) -> None:
    """Compute attention for the first token's query only: softmax(q k^T / sqrt(d) + mask) v, as in transformers."""
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


def _add_first_residual(layer: Any) -> None:
    def forward(hidden: Tensor, *arguments: Any, **options: Any) -> Tensor:
        attended, _ = layer.attn(layer.attn_norm(hidden), *arguments, **options)
        first = hidden[:, :1] + attended
        output: Tensor = first + layer.mlp(layer.mlp_norm(first))
        return output

    layer.forward = forward

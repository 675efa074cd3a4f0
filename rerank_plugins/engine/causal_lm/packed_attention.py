"""Packed attention: several texts in one row, each attending to itself and to a common prefix, not to the other texts.

The linear layers run over all tokens at once, without padding; only attention is computed text by text. It is
registered with transformers under a name of its own, so it affects only the models that are loaded with that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["NAME", "Packed", "register"]

NAME = "rerank_plugins_packed"
_BLOCK = 512
"""Queries per block: the mask of a long text stays small, and keys that no query of the block may attend to are
skipped."""

KeysAndValues = list[tuple["torch.Tensor", "torch.Tensor"]]
"""Keys and values of each layer, both (1, key heads, tokens, head size). The keys include the rotary positions."""


class Packed:
    """One forward pass: the lengths of its texts, and the keys and values of their common prefix."""

    def __init__(self, lengths: Sequence[int], shared: KeysAndValues | None = None, *, store: bool = False) -> None:
        """Describe the pass.

        Args:
            lengths: The tokens of each text, in the order of the row.
            shared: Keys and values of the common prefix.
            store: Whether to store the keys and values of this pass, which has one text, in `stored`.
        """
        self.lengths = lengths
        self.shared = shared
        self.stored: KeysAndValues | None = [] if store else None
        self._masks: dict[int | None, torch.Tensor] = {}

    @property
    def prefix(self) -> int:
        """The number of tokens of the common prefix."""
        return int(self.shared[0][0].shape[2]) if self.shared else 0

    def positions(self) -> list[int]:
        """Return the position of every token of the row in its text, prefix included."""
        return [self.prefix + place for length in self.lengths for place in range(length)]

    def mask(self, rows: int, columns: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Return the additive mask (rows, columns) of the last queries of a text; `None` if it is the causal triangle.

        Args:
            rows: The number of queries.
            columns: The number of keys.
            window: The size of the sliding window, or `None`.
            like: A tensor with the dtype and device of the mask.
        """
        if rows == columns and (window is None or columns <= window):
            return None
        if window not in self._masks:
            self._masks[window] = self._largest_mask(window, like)
        return self._masks[window][-rows:, -columns:].contiguous()

    def _largest_mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return the mask of the last block of the longest text. Every smaller mask is its lower right corner.

        A mask for each block would take half the square of a text's length: 34 GB for the 131,072 tokens of one
        listwise prompt.
        """
        import torch

        longest = max(self.lengths)
        rows, columns = min(_BLOCK, longest), self.prefix + longest
        # Right-aligned: the last query attends to everything.
        visible = torch.ones(rows, columns, dtype=torch.bool, device=like.device).tril(columns - rows)
        if window is not None:
            visible &= torch.ones_like(visible).triu(columns - rows - window + 1)
        return torch.zeros(rows, columns, dtype=like.dtype, device=like.device).masked_fill_(~visible, float("-inf"))


def register() -> None:
    """Register the attention with transformers under `NAME`. May be called repeatedly."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,  # noqa: ARG001 (transformers passes it by position, and it is None)
    *,
    packed: Packed,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each text and to the common prefix.

    `query` is (1, heads, tokens, size), the output (1, tokens, heads, size).
    """
    import torch

    if packed.stored is not None:
        packed.stored.append((key, value))
    shared = packed.shared[module.layer_idx] if packed.shared else None
    output = torch.empty_like(query)
    start = 0
    for length in packed.lengths:
        part = slice(start, start + length)
        keys, values = key[:, :, part], value[:, :, part]
        if shared is not None:
            keys, values = torch.cat([shared[0], keys], dim=2), torch.cat([shared[1], values], dim=2)
        for first in range(0, length, _BLOCK):
            rows = min(_BLOCK, length - first)
            place = slice(start + first, start + first + rows)
            columns = packed.prefix + first + rows
            output[:, :, place] = _sdpa(
                query[:, :, place],
                keys[:, :, :columns],
                values[:, :, :columns],
                packed.mask(rows, columns, sliding_window, query),
                scaling,
            )
        start += length
    return output.transpose(1, 2), None


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    grouped = query.shape[1] != key.shape[1]
    if grouped and mask is not None and query.device.type != "cpu":
        # A GPU's fast kernels do not support a mask with grouped heads (see transformers'
        # integrations/sdpa_attention.py).
        times = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1), False
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )

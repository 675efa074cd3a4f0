"""Attention over texts that lie in one row behind each other, each seeing a common beginning and itself, and no other.

The linear layers then run over all tokens at once, without padding; only attention is computed text by text. It is
registered with transformers under a name of ours and used by the models that ask for it; nobody else's attention changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["NAME", "Packed", "register"]

NAME = "rerank_plugins_packed"
_BLOCK = 512
"""Rows of queries at a time: the mask of a long text stays small, and what no row of the block may see is not computed."""

KeysAndValues = list[tuple["torch.Tensor", "torch.Tensor"]]
"""Of each layer, (1, key heads, tokens, head size) both, with positions already in the keys."""


class Packed:
    """One forward pass: the lengths of its texts, and the keys and values of what stands before every one of them."""

    def __init__(self, lengths: Sequence[int], shared: KeysAndValues | None = None, *, keep: bool = False) -> None:
        """Describe the pass.

        Args:
            lengths: Tokens of each text, in the order of the row.
            shared: What every text sees before itself.
            keep: Remember the keys and values of this pass (of one text) in `kept`.
        """
        self.lengths = lengths
        self.shared = shared
        self.kept: KeysAndValues | None = [] if keep else None
        self._masks: dict[int | None, torch.Tensor] = {}

    @property
    def before(self) -> int:
        """How many tokens stand before every text."""
        return int(self.shared[0][0].shape[2]) if self.shared else 0

    def positions(self) -> list[int]:
        """Return the position of every token of the row in its own text."""
        return [self.before + place for length in self.lengths for place in range(length)]

    def mask(self, rows: int, columns: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Return what the last `rows` of `columns` tokens may see, (rows, columns), to be added; `None` for the plain triangle."""
        if rows == columns and (window is None or columns <= window):
            return None
        if window not in self._masks:
            self._masks[window] = self._widest(window, like)
        return self._masks[window][-rows:, -columns:].contiguous()

    def _widest(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return the mask of a block at the end of the longest text; every smaller one is its lower right corner.

        One for each block would take half the square of a text's length: 34 GB for the 131,072 tokens of one listwise prompt.
        """
        import torch

        longest = max(self.lengths)
        rows, columns = min(_BLOCK, longest), self.before + longest
        # Right-aligned: the last row sees everything.
        seen = torch.ones(rows, columns, dtype=torch.bool, device=like.device).tril(columns - rows)
        if window is not None:
            seen &= torch.ones_like(seen).triu(columns - rows - window + 1)
        return torch.zeros(rows, columns, dtype=like.dtype, device=like.device).masked_fill_(~seen, float("-inf"))


def register() -> None:
    """Make the attention known to transformers under `NAME`; any number of times."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,  # noqa: ARG001 (transformers gives it by position; there is none)
    *,
    packed: Packed,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each text and to what is shared; query (1, heads, tokens, size) → (1, tokens, heads, size)."""
    import torch

    if packed.kept is not None:
        packed.kept.append((key, value))
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
            seen = packed.before + first + rows
            output[:, :, place] = _sdpa(
                query[:, :, place],
                keys[:, :, :seen],
                values[:, :, :seen],
                packed.mask(rows, seen, sliding_window, query),
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
        # A GPU's fast kernels take no mask with grouped heads (transformers' integrations/sdpa_attention.py says the same).
        times = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1), False
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )

"""Masks of packed attention: what each token attends to in a text that is read in blocks, and their memory."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("window", [None, 7, 600])
@pytest.mark.parametrize("before", [0, 30])
def test_shared_mask_equals_the_attention_of_every_block(window, before):
    import torch

    from rerank_plugins.engine.causal_lm.packed_attention import _BLOCK, Packed

    lengths, like = [3, 2_500, 40], torch.zeros(1)
    packed = Packed(lengths, [(torch.zeros(1, 1, before, 2),) * 2] if before else None)
    for length in lengths:
        for first in range(0, length, _BLOCK):
            rows = min(_BLOCK, length - first)
            columns = before + first + rows
            mask = packed.mask(rows, columns, window, like)
            own = torch.arange(columns - rows, columns)[:, None]
            seen = torch.arange(columns)[None, :] <= own
            if window is not None:
                seen &= torch.arange(columns)[None, :] > own - window
            if mask is None:  # the causal mask
                assert rows == columns
                assert torch.equal(seen, torch.ones(rows, rows, dtype=torch.bool).tril())
            else:
                assert torch.equal(mask == 0, seen)
                assert torch.equal(mask == float("-inf"), ~seen)
    # Linear in the length of the longest text, not quadratic.
    assert sum(each.numel() for each in packed._masks.values()) <= _BLOCK * (before + max(lengths))

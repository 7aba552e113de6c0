"""Positions of text and picture tokens, worked out on the CPU while a batch is put together.

transformers would work them out in ``forward``, row by row on the GPU, waiting for it at every row: at 256 short rows that is
longer than the rest of the step (measured, see docs/benchmarks.md).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def picture_positions(token_types: Tensor, attention_mask: Tensor, grids: Tensor, *, merge_size: int) -> Tensor:
    """M-RoPE positions (Qwen2-VL, arXiv:2409.12191, section 2.1) of right-padded rows with pictures.

    Text counts on by one in all three axes. A picture's tokens share one time step; height and width count its merged
    patches; the text after it goes on after the larger of the two.

    Args:
        token_types: (B, T), 1 where a token is a picture's, else 0.
        attention_mask: (B, T), 0 where a row is padded.
        grids: (num_images, 3), time, height and width in patches, in the order of the rows.
        merge_size: Patches along each side of a merged patch.

    Returns:
        (3, B, T) int64: time, height, width; 0 where a row is padded.
    """
    import torch

    types = token_types.numpy()
    lengths = attention_mask.sum(dim=1).tolist()
    positions = np.zeros((3, *types.shape), dtype=np.int64)
    remaining = iter((grids // torch.tensor([1, merge_size, merge_size])).tolist())
    for row, length in enumerate(lengths):
        start = place = 0
        for is_picture, run in groupby(types[row, :length].tolist()):
            end = start + sum(1 for _ in run)
            while start < end:
                if not is_picture:
                    positions[:, row, start:end] = np.arange(place, place + end - start)
                    place += end - start
                    start = end
                    continue
                # Two pictures may stand side by side where a template puts nothing between them.
                frames, height, width = next(remaining)
                axes = np.indices((frames, height, width)).reshape(3, -1)
                positions[:, row, start : start + axes.shape[1]] = axes + place
                start += axes.shape[1]
                place += max(height, width)
    return torch.from_numpy(positions)

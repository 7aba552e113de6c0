"""Where the patches of pictures lie, worked out from their grids on the CPU.

The vision towers of transformers work this out in ``forward``, on the GPU and waiting for it several times. They also take it
ready-made as keyword arguments, so it is done where a batch is put together, in the processes that load the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class VisionLayout:
    """What a Qwen-VL tower's layout depends on besides the grids. Make it with :func:`vision_layout`.

    Attributes:
        merge_size: Patches along each side of a merged patch.
        grid_side: Side of the square table of learned positions that is resampled; None where there is none (Qwen2-VL).
        grid_mode: How it is resampled.
        align_corners: The same.
        window: (window size in pixels, patch size in pixels) of windowed attention (Qwen2.5-VL, arXiv:2502.13923, section
            2.1.1), None without.
    """

    merge_size: int
    grid_side: int | None = None
    grid_mode: str = "bilinear"
    align_corners: bool = True
    window: tuple[int, int] | None = None

    def __call__(self, grids: Tensor) -> dict[str, Any]:
        """Keyword arguments of the tower.

        Args:
            grids: (num_images, 3) int64 on the CPU: time, height and width in patches.
        """
        from transformers import vision_utils

        lengths = (grids[:, 1] * grids[:, 2]).repeat_interleave(grids[:, 0])
        layout: dict[str, Any] = {
            "position_ids": vision_utils.get_vision_position_ids(grids, self.merge_size),
            "cu_seqlens": vision_utils.get_vision_cu_seqlens(grids),
            "max_seqlen": int(lengths.max()),
        }
        if self.grid_side is not None:
            layout["interp_indices"], layout["interp_weights"] = vision_utils.get_vision_interpolation_indices_and_weights(
                grids,
                num_grid_per_side=self.grid_side,
                mode=self.grid_mode,
                align_corners=self.align_corners,
                spatial_merge_size=self.merge_size,
            )
        if self.window is not None:
            size, patch = self.window
            index, borders = vision_utils.get_vision_window_index(
                grids, spatial_merge_size=self.merge_size, window_size=size, patch_size=patch
            )
            layout |= {
                "window_index": index,
                "cu_window_seqlens": borders,
                "max_window_seqlen": int((borders[1:] - borders[:-1]).max()),
            }
        return layout


def vision_layout(tower: nn.Module) -> VisionLayout:
    """The layout of a Qwen-VL vision tower."""
    visual: Any = tower
    return VisionLayout(
        merge_size=int(visual.spatial_merge_size),
        grid_side=int(visual.num_grid_per_side) if hasattr(visual, "num_grid_per_side") else None,
        grid_mode=str(getattr(visual, "interpolation_mode", "bilinear")),
        align_corners=bool(getattr(visual, "interpolation_align_corners", True)),
        window=(int(visual.window_size), int(visual.patch_size)) if hasattr(visual, "window_size") else None,
    )

"""A sample as tensors, and a batch of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Features:
    """One encoded sample.

    Attributes:
        sample_id: The sample it was made from.
        input_ids: (T,) int64.
        labels: (T,) int64, :data:`IGNORE_INDEX` where there is no loss. For a prompt alone, all :data:`IGNORE_INDEX`.
        tensors: The family's own, e.g. ``pixel_values`` (num_patches, patch_dim), ``image_grid_thw`` (num_images, 3),
            ``mm_token_type_ids`` (T,).
    """

    sample_id: str
    input_ids: Tensor
    labels: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    """Collated features: ``inputs`` goes to ``model(**inputs)`` as it is.

    Attributes:
        sample_ids: B ids.
        inputs: ``input_ids``, ``attention_mask``, ``labels`` (B, T), and the family's own.
        num_target_tokens: Labels that carry loss, after the shift: the weight of this batch in the mean.
    """

    sample_ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    num_target_tokens: int

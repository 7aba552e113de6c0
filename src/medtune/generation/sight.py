"""What the vision tower makes of pictures, computed once for all questions about a picture."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from medtune.generation.ahead import EncodedPicture
from medtune.models.packed_forward import causal_model, picture_features
from medtune.models.vision_layout import vision_layout

__all__ = ["Sight"]

_LARGEST_PATCHES = 32_768
"""Patches that go through the tower at once: 32 pictures of 512 x 512."""

_KEPT_LAYOUTS = 4
"""Some megabytes each on the device."""


class Sight:
    """Features of pictures, kept while further questions about them are to come.

    Args:
        model: A Qwen-VL model, with or without an adapter.
        times_shown: In how many places of all requests a picture stands.
        limit: Bytes that may be kept.
    """

    def __init__(self, model: Any, times_shown: Callable[[Hashable], int], *, limit: int = 2**31) -> None:
        self._inner = causal_model(model).model
        self._layout = vision_layout(self._inner.visual)
        self._times_shown = times_shown
        self._limit = limit
        self._seen: Counter[Hashable] = Counter()
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0
        self._layouts: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()
        self.num_computed = 0

    def features(self, pictures: Sequence[EncodedPicture], device: torch.device) -> Tensor:
        """(num_tokens of all, 1 + levels, hidden), in their order.

        Args:
            pictures: At least one.
        """
        missing = {picture.key: picture for picture in pictures if picture.key not in self._kept}
        found = {picture.key: self._kept[picture.key] for picture in pictures if picture.key in self._kept}
        found.update(self._computed(list(missing.values()), device))
        for picture in pictures:
            self._seen[picture.key] += 1
            self._keep(picture.key, found[picture.key])
        return torch.cat([found[picture.key] for picture in pictures])

    def _computed(self, pictures: Sequence[EncodedPicture], device: torch.device) -> dict[Hashable, Tensor]:
        found: dict[Hashable, Tensor] = {}
        group: list[EncodedPicture] = []
        for picture in pictures:
            if group and sum(len(each.pixels) for each in group) + len(picture.pixels) > _LARGEST_PATCHES:
                found.update(self._tower(group, device))
                group = []
            group.append(picture)
        if group:
            found.update(self._tower(group, device))
        return found

    def _tower(self, pictures: Sequence[EncodedPicture], device: torch.device) -> dict[Hashable, Tensor]:
        grids = torch.stack([picture.grid for picture in pictures])
        layout = self._laid_out(grids, device)
        pixels = _uploaded([picture.pixels for picture in pictures], device)
        features = picture_features(self._inner, pixels, layout, grids.to(device))
        merge = self._layout.merge_size**2
        parts = torch.split(features, [int(picture.grid.prod()) // merge for picture in pictures])
        self.num_computed += len(pictures)
        return {picture.key: part for picture, part in zip(pictures, parts, strict=True)}

    def _laid_out(self, grids: Tensor, device: torch.device) -> dict[str, Any]:
        """Where the patches lie. Kept for pictures of the same sizes, because the CPU works it out and a GPU waits for it."""
        key = tuple(map(tuple, grids.tolist()))
        layout = self._layouts.pop(key, None)
        if layout is None:
            layout = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self._layout(grids).items()}
        self._layouts[key] = layout
        while len(self._layouts) > _KEPT_LAYOUTS:
            self._layouts.popitem(last=False)
        return layout

    def _keep(self, key: Hashable, features: Tensor) -> None:
        """Keep what will be asked for again, and drop what will not; the longest unused go first where there is no room."""
        if self._seen[key] >= self._times_shown(key):
            if key in self._kept:
                self._bytes -= _size(self._kept.pop(key))
            return
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        self._kept[key] = features.clone()  # a part of a batch would keep all of the batch
        self._bytes += _size(features)
        while self._bytes > self._limit:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _uploaded(pixels: Sequence[Tensor], device: torch.device) -> Tensor:
    """(num_patches of all, patch_dim) on ``device``. Page-locked memory is given to nobody else before it has been read."""
    joined = torch.empty((sum(map(len, pixels)), pixels[0].shape[1]), dtype=pixels[0].dtype, device=device)
    for part, source in zip(torch.split(joined, [len(each) for each in pixels]), pixels, strict=True):
        part.copy_(source, non_blocking=True)
    return joined


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

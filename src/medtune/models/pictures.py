"""Pictures as the Qwen-VL families take them: resized to whole patches, cut, and counted before they are read."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import DataError, MissingDependencyError, ModelError
from medtune.language import msg
from medtune.models.config import ResizeBackend
from medtune.schema import read_fault

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# Names under which a processor's settings travel, but which are no settings of the resizing itself.
_NOT_SETTINGS = ("processor_class", "image_processor_type", "feature_extractor_type", "auto_map", "_valid_processor_keys")


class PatchPictures:
    """Qwen's grid of patches: a picture becomes ``grid_thw.prod() // merge_size**2`` tokens.

    The limits go straight to the processor's rule (``smart_resize``), which rounds down where ``max_pixels`` binds. Two
    kinds of picture can still pass it by a part of a token row: one thinner than a token's side once shrunk, and one that is
    enlarged to a ``min_pixels`` next to ``max_pixels``.

    Args:
        folder: A model folder with ``preprocessor_config.json``.
        min_pixels: Overrides the model's own; so does ``max_pixels``.
        backend: ``pil`` works everywhere; ``torchvision`` must be installed.

    Raises:
        ModelError: The folder has no readable ``preprocessor_config.json``.
        MissingDependencyError: torchvision is asked for and missing.
    """

    def __init__(self, folder: Path, *, min_pixels: int | None, max_pixels: int | None, backend: ResizeBackend) -> None:
        values = _read_settings(folder)
        # Older files name the limits min_pixels and max_pixels, newer ones size.shortest_edge and size.longest_edge: both
        # are numbers of pixels, whatever the second pair is called.
        size = values.pop("size", None) or {}
        own_min = values.pop("min_pixels", None) or size.get("shortest_edge") or size.get("min_pixels") or 56 * 56
        own_max = values.pop("max_pixels", None) or size.get("longest_edge") or size.get("max_pixels") or 28 * 28 * 1280
        self.min_pixels = int(min_pixels if min_pixels is not None else own_min)
        self.max_pixels = int(max_pixels if max_pixels is not None else own_max)
        if self.min_pixels > self.max_pixels:
            raise ModelError(
                msg("min_pixels ({low}) is larger than max_pixels ({high}).", low=self.min_pixels, high=self.max_pixels),
                key="model.max_pixels",
                remedy=msg(
                    "Set both model.min_pixels and model.max_pixels; the model's own are {low} and {high}.",
                    low=own_min,
                    high=own_max,
                ),
            )
        self.backend = backend
        self.processor: Any = _processor_class(backend)(
            **values, size={"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        )
        self.merge_size = int(self.processor.merge_size)
        self.merge = self.merge_size**2

    def num_tokens(self, width: int, height: int, *, sample_id: str = "") -> int:
        """Tokens of a picture of this size, without looking at it.

        Raises:
            DataError: One side is more than 200 times the other.
        """
        try:
            return int(self.processor.get_number_of_image_patches(height, width)) // self.merge
        except ValueError as error:
            raise DataError(
                msg(
                    "A picture of {width} x {height} pixels is too thin: one side may be at most 200 times the other.",
                    width=width,
                    height=height,
                ),
                sample=sample_id or None,
                remedy=msg("Crop or pad the picture, or leave the row out."),
            ) from error

    def tensors(self, images: Sequence[Image], *, sample_id: str = "") -> dict[str, Tensor]:
        """``pixel_values`` (num_patches, channels * temporal_patch * patch * patch) and ``image_grid_thw`` (num_images, 3)."""
        for image in images:
            self.num_tokens(*image.size, sample_id=sample_id)
        features = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        return {"pixel_values": features["pixel_values"], "image_grid_thw": features["image_grid_thw"]}

    def resized(self, image: Image) -> Image:
        """The picture as it is before it is cut into patches: RGB, whole patches, within the limits. Resizing it again by the
        same rule changes nothing."""
        import numpy as np
        from PIL import Image as Pil

        self.num_tokens(*image.size)
        pixels: Any = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        if self.backend == "torchvision":
            import torch

            pixels = torch.from_numpy(pixels.copy())
        processor = self.processor
        factor = int(processor.patch_size) * self.merge_size
        resized = np.asarray(processor.resize(pixels, size=processor.size, resample=processor.resample, factor=factor))
        return Pil.fromarray(np.ascontiguousarray(resized.transpose(1, 2, 0)))


def write_limits(folder: Path, *, min_pixels: int, max_pixels: int) -> None:
    """Put pixel limits into the processor files of a model folder, where plain transformers and servers look for them.

    Both names under which a file may hold them are served: transformers lets ``min_pixels`` win over ``size``.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = document.get("image_processor", document) if name == "processor_config.json" else document
        if "patch_size" not in values:
            continue  # a processor's file without the image processor's settings
        before = json.dumps(document)
        values["size"] = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
        values.update({key: limit for key, limit in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if key in values})
        if json.dumps(document) != before:
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file() and (folder / "processor_config.json").is_file():
        # Processors saved by transformers 5 keep the image processor's settings in here.
        path = folder / "processor_config.json"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            msg("The model folder has no preprocessor_config.json, so its pictures cannot be prepared."),
            file=folder,
            key="model.base",
            remedy=msg("Copy preprocessor_config.json from the base model."),
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(msg("preprocessor_config.json cannot be read: {error}", error=read_fault(error)), file=path) from error
    values = values.get("image_processor", values)
    return {name: value for name, value in values.items() if name not in _NOT_SETTINGS}


def _processor_class(backend: ResizeBackend) -> Any:
    if backend == "torchvision":
        if importlib.util.find_spec("torchvision") is None:
            raise MissingDependencyError("torchvision", needed_for=msg("model.resize_backend=torchvision"))
        from transformers import Qwen2VLImageProcessor

        return Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil

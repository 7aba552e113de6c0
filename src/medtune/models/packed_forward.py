"""The forward pass of a Qwen-VL model over packed rows, with pictures put into their places by number.

transformers finds the places of pictures on the GPU, by comparing tokens and counting masks, and waits for the answer several
times in every pass. Here the collator has counted on the CPU, the GPU is never waited for, and what the vision tower makes of a
picture may come from elsewhere than the tower.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from medtune.models.packing import packed_attention_on
from medtune.models.replaced import replaced

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextlib.contextmanager
def packed_forward(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` (with or without an adapter and wrappers for several devices) reads what
    :meth:`medtune.models.encoder.Encoder.pack` makes, and nothing else.

    Only attributes of this one model are set, and they are taken away again.
    """
    causal = causal_model(model)
    with packed_attention_on(causal), contextlib.ExitStack() as stack:
        inner: Any = causal.model
        if hasattr(inner, "visual"):
            stack.enter_context(replaced(inner, "forward", _PackedForward(inner)))
            if hasattr(inner.language_model, "_deepstack_process"):
                stack.enter_context(replaced(inner.language_model, "_deepstack_process", _add_at_places))
        yield


def picture_features(inner: Any, pixel_values: Tensor, layout: dict[str, Any], grids: Tensor) -> Tensor:
    """What the vision tower makes of pictures, as the language model takes it.

    Args:
        inner: The model that holds ``visual``.
        pixel_values: (num_patches, patch_dim).
        layout: :class:`medtune.models.vision_layout.VisionLayout` of the grids.
        grids: (num_images, 3).

    Returns:
        (num_tokens, 1 + levels, hidden): the merged patches, then the DeepStack levels (Meng et al. 2024, arXiv:2406.04334) of
        the models that have them (Qwen3-VL: three).
    """
    import torch

    tower = inner.visual
    # The layout is copied: the tower takes out what it uses.
    output = tower(pixel_values.to(tower.dtype), grid_thw=grids, **layout)
    levels = list(getattr(output, "deepstack_features", None) or ())
    return torch.stack([output.pooler_output, *levels], dim=1)


class _PackedForward:
    """``forward`` of the model that joins tower and language model."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._tower_learns = any(parameter.requires_grad for parameter in inner.visual.parameters())

    def __call__(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        *,
        cu_seq_lens_q: Tensor,
        max_length_q: int,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        vision: dict[str, Any] | None = None,
        picture_features: Tensor | None = None,
        picture_places: Tensor | None = None,
        output_router_logits: bool | None = None,
        **_: Any,
    ) -> Any:
        import torch

        inner = self._inner
        embedded: Tensor = inner.get_input_embeddings()(input_ids)
        features = picture_features
        if pixel_values is not None:
            assert vision is not None
            assert image_grid_thw is not None
            with torch.set_grad_enabled(self._tower_learns and torch.is_grad_enabled()):
                features = _features(inner, pixel_values, vision, image_grid_thw)
        pictures: dict[str, Any] = {}
        if features is not None and (picture_places is None or not picture_places.numel()):
            # A picture that no row shows: the tower must run, because others wait for it, and must change nothing.
            if features.requires_grad:
                embedded = embedded + 0 * features.sum().to(embedded.dtype)
        elif features is not None and picture_places is not None:
            features = features.to(embedded.dtype)
            embedded = embedded[0].index_copy(0, picture_places, features[:, 0]).unsqueeze(0)
            if features.shape[1] > 1:
                pictures = {"visual_pos_masks": picture_places, "deepstack_visual_embeds": list(features[:, 1:].unbind(1))}
        if output_router_logits is not None:
            pictures["output_router_logits"] = output_router_logits
        output = inner.language_model(
            inputs_embeds=embedded,
            position_ids=position_ids,
            attention_mask=None,
            use_cache=False,
            cu_seq_lens_q=cu_seq_lens_q,
            cu_seq_lens_k=cu_seq_lens_q,
            max_length_q=max_length_q,
            max_length_k=max_length_q,
            **pictures,
        )
        return _as_wanted(inner, output)


_features = picture_features  # the argument of the same name hides it above


def _as_wanted(inner: Any, output: Any) -> Any:
    """Before transformers 5.20 the outer model reads ``rope_deltas`` from the output, which only generation needs."""
    if hasattr(output, "rope_deltas"):
        return output
    name = f"{type(inner).__name__}OutputWithPast"
    wanted = getattr(sys.modules[type(inner).__module__], name, None)
    return output if wanted is None else wanted(**output)


def _add_at_places(hidden: Tensor, places: Tensor, level: Tensor) -> Tensor:
    """Add a DeepStack level (N, hidden) to the tokens at ``places`` (N,) of ``hidden`` (1, T, hidden).

    The level is spread over all tokens first: the backward pass through a sum costs nothing.
    """
    spread = hidden.new_zeros(hidden.shape[1:]).index_copy(0, places, level.to(hidden.dtype))
    return hidden + spread


def causal_model(model: Any) -> Any:
    """The transformers model under wrappers for several devices and PEFT."""
    from accelerate.utils import extract_model_from_parallel

    model = extract_model_from_parallel(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def vision_tower(model: Any) -> Any | None:
    """The tower of a Qwen-VL model, under the same wrappers; None where there is none."""
    return getattr(getattr(causal_model(model), "model", None), "visual", None)

"""What the engine does with a recipe on a given machine: decided by the plan, or by hand. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Checkpointing", "EngineChoice"]


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Which decoder layers compute their activations again in the backward pass.

    Attributes:
        every: 0 = none, 1 = all, k = every k-th layer.
        offload: What is kept of each such layer rests in the main memory.
    """

    every: int = 0
    offload: bool = False


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Attributes:
    packing: Rows lie one behind the other in one sequence, without padding.
    micro_batch_tokens: Tokens that go through the model at once; 0 = not limited by tokens (without packing: ``batch_size``
        rows at once).
    checkpointing: Activations that are computed again.
    vision_cache: Where the output of a frozen vision tower is kept.
    compile: Decoder layers go through ``torch.compile``.
    """

    packing: bool = False
    micro_batch_tokens: int = 0
    checkpointing: Checkpointing = Checkpointing()
    vision_cache: Literal["none", "memory", "disk"] = "none"
    compile: bool = False

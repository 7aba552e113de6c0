"""What the engine does with a recipe on a given machine: decided by the plan, or by hand. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Checkpointing", "EngineChoice", "smaller"]


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
    micro_batch_rows: Rows that go through the model at once where tokens do not limit them; 0 = ``batch_size``.
    checkpointing: Activations that are computed again.
    vision_cache: Where the output of a frozen vision tower is kept.
    compile: Decoder layers go through ``torch.compile``.
    optimizer: As ``train.optimizer`` or ``train.hf.optim`` names it. The only one of these that changes results, so a resumed run
        keeps that of its checkpoint.
    """

    packing: bool = False
    micro_batch_tokens: int = 0
    micro_batch_rows: int = 0
    checkpointing: Checkpointing = Checkpointing()
    vision_cache: Literal["none", "memory", "disk"] = "none"
    compile: bool = False
    optimizer: str = "adamw"


def smaller(choice: EngineChoice, *, longest_row: int, step_tokens: int, batch_size: int) -> EngineChoice | None:
    """The next choice that needs less memory for the same result, or None when there is none.

    First half as many tokens (or rows) at once, down to a single row: that costs little speed until the passes become short.
    Then more layers that are computed again, and last what is kept of them in the main memory: each costs time at every step.

    Args:
        longest_row: Tokens of the longest row; a micro-batch is never smaller.
        step_tokens: Tokens of the largest optimizer step on one device; a micro-batch is never larger.
        batch_size: The setting, which limits rows where tokens do not.
    """
    if choice.packing and choice.micro_batch_tokens:
        tokens = min(choice.micro_batch_tokens, step_tokens)
        if tokens > longest_row:
            return replace(choice, micro_batch_tokens=max(longest_row, tokens // 2))
    else:
        rows = choice.micro_batch_rows or batch_size
        if rows > 1:
            return replace(choice, micro_batch_rows=rows // 2)
    again = choice.checkpointing
    if not again.offload and again.every != 1:
        return replace(choice, checkpointing=Checkpointing(every=1 if again.every == 2 else 2))
    if not again.offload:
        return replace(choice, checkpointing=Checkpointing(every=1, offload=True))
    return None

"""Token losses where there are labels, and nowhere else.

Of a row, only the answer carries loss: often a tenth of the tokens. The output head is by far the widest layer, so its input
is cut to the positions that predict a supervised token. A forward hook does it, which leaves the model's own ``forward`` in
charge (and with it DDP, FSDP, autocast and PEFT); a model that does something else with its head is served all the same,
from its full logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medtune.types import IGNORE_INDEX

__all__ = ["TokenLoss", "target_positions"]


def target_positions(labels: Tensor) -> Tensor:
    """Where a supervised token is predicted: indices (N,) int64 into the flattened (B, T) batch.

    Position t predicts the label at t + 1; the last position of a row predicts nothing.
    """
    predicts = nn.functional.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1), value=False)
    return predicts.flatten().nonzero()[:, 0]


class TokenLoss:
    """Computes the summed cross entropy of a batch, row by row.

    Args:
        model: Anything with ``get_output_embeddings()`` for the short way; without it the full logits are used.
    """

    def __init__(self, model: nn.Module) -> None:
        self._shape: torch.Size | None = None
        self._positions: Tensor | None = None
        head = _output_head(model)
        self._hook = None if head is None else head.register_forward_pre_hook(self._cut)

    def close(self) -> None:
        """Take the hook away again."""
        if self._hook is not None:
            self._hook.remove()

    def _cut(self, head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG002
        if self._positions is None or not args or args[0].shape[:-1] != self._shape:
            return None
        return (args[0].flatten(0, 1).index_select(0, self._positions), *args[1:])

    def __call__(self, model: nn.Module, inputs: dict[str, Any], positions: Tensor | None = None) -> tuple[Tensor, Tensor, Any]:
        """Run ``model`` (wrapped or not) on a batch.

        Args:
            inputs: As in :class:`medtune.types.Batch`, with ``labels`` (B, T).
            positions: :func:`target_positions` of the labels. To find them on a GPU means to wait for it, so the collator
                does it on the CPU.

        Returns:
            Summed loss of each row (B,) float32, in nats, with gradient; supervised tokens of each row (B,) int64; what the
            model returned.
        """
        inputs = dict(inputs)
        labels: Tensor = inputs.pop("labels")
        if positions is None:
            positions = target_positions(labels)
        self._shape, self._positions = labels.shape, positions
        try:
            outputs = model(**inputs)
        finally:
            self._shape = self._positions = None
        logits: Tensor = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.dim() == 3:
            logits = logits.flatten(0, 1).index_select(0, positions)
        targets = labels.flatten().index_select(0, positions + 1)
        token_losses = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        rows = positions // labels.shape[1]
        sums = token_losses.new_zeros(len(labels)).index_add(0, rows, token_losses)
        counts = rows.new_zeros(len(labels)).index_add(0, rows, torch.ones_like(rows))
        return sums, counts, outputs


def _output_head(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    try:
        head = get() if get is not None else None
    except (AttributeError, NotImplementedError):
        return None
    return head if isinstance(head, nn.Module) else None

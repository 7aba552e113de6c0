"""Token losses where there are labels, and nowhere else, without ever holding all logits.

Of a row, only the answer carries loss: often a tenth of the tokens. The output head is by far the widest layer, so it is given
the positions that predict a supervised token, some hundred at a time, and returns their losses instead of their logits. This
happens inside the head's own call, which leaves the model's ``forward`` in charge (and with it DDP, FSDP, ZeRO, autocast and
PEFT); a model that does something else with its head is served all the same, from its full logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medtune.models.replaced import replaced
from medtune.types import IGNORE_INDEX

__all__ = ["CHUNK_TOKENS", "TokenLoss", "target_positions"]

CHUNK_TOKENS = 512
"""Tokens whose logits are held at once: with Qwen's vocabulary of 151,936, 0.6 GB in float32 and half of that twice in bfloat16."""


def target_positions(labels: Tensor) -> Tensor:
    """Where a supervised token is predicted: indices (N,) int64 into the flattened (B, T) batch.

    Position t predicts the label at t + 1; the last position of a row predicts nothing.
    """
    predicts = nn.functional.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1), value=False)
    return predicts.flatten().nonzero()[:, 0]


class TokenLoss:
    """Computes the cross entropy of every supervised token of a batch.

    Args:
        model: Anything with ``get_output_embeddings()`` for the short way; without it the full logits are used.
    """

    def __init__(self, model: nn.Module) -> None:
        self._shape: torch.Size | None = None
        self._positions: Tensor | None = None
        self._targets: Tensor | None = None
        self._head = _output_head(model)
        self._replaced = contextlib.ExitStack()
        # Asked before the model is wrapped: FSDP2 gives each module another class.
        self._is_linear = type(self._head) is nn.Linear
        if self._head is not None:
            self._forward: Callable[..., Tensor] = self._head.forward
            self._replaced.enter_context(replaced(self._head, "forward", self._in_head))

    def close(self) -> None:
        """Give the head back as it was."""
        if self._head is not None:
            self._replaced.close()
            self._head = None

    def _in_head(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._positions is None or self._targets is None or hidden.shape[:-1] != self._shape:
            return self._forward(hidden, *args, **kwargs)
        return self._losses(hidden.flatten(0, 1).index_select(0, self._positions), self._targets)

    def _losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        head = self._head
        assert head is not None
        frozen = self._is_linear and not any(parameter.requires_grad for parameter in head.parameters())
        if frozen and hidden.requires_grad and torch.is_grad_enabled():
            losses: Tensor = _FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
                hidden, head.weight, head.bias, targets
            )
            return losses
        chunks = [
            _checkpointed(self._chunk, part, wanted)
            for part, wanted in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True)
        ]
        return torch.cat(chunks) if chunks else hidden.sum() * hidden.new_zeros(0, dtype=torch.float32)

    def _chunk(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self._forward(hidden).float(), targets, reduction="none")

    def __call__(
        self, model: nn.Module, inputs: dict[str, Any], positions: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Run ``model`` (wrapped or not) on a batch.

        Args:
            inputs: As in :class:`medtune.types.Batch`, with ``labels`` (B, T).
            positions: :func:`target_positions` of the labels. To find them on a GPU means to wait for it, so the collator
                does it on the CPU.
            targets: (N,) int64, the tokens to be predicted there.

        Returns:
            The loss of each supervised token (N,) float32, in nats, with gradient, in the order of ``positions``; what the
            model returned.
        """
        inputs = dict(inputs)
        labels: Tensor = inputs.pop("labels")
        if positions is None:
            positions = target_positions(labels)
        if targets is None:
            targets = labels.flatten().index_select(0, positions + 1)
        self._shape, self._positions, self._targets = labels.shape, positions, targets
        try:
            outputs = model(**inputs)
        finally:
            self._shape = self._positions = self._targets = None
        logits: Tensor = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.dim() == 1:
            return logits, outputs
        if logits.dim() == 3:
            logits = logits.flatten(0, 1).index_select(0, positions)
        return nn.functional.cross_entropy(logits.float(), targets, reduction="none"), outputs


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross entropy of a linear layer that does not learn: its gradient is worked out in the forward pass, chunk by chunk, while
    the logits are there (the gradient of a token's loss does not depend on the other tokens)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradients = torch.empty_like(hidden)
        for start in range(0, len(hidden), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            wanted = targets[part].unsqueeze(1)
            logits = nn.functional.linear(hidden[part], weight, bias).float()
            normalizer = logits.logsumexp(dim=1, keepdim=True)
            losses[part] = (normalizer - logits.gather(1, wanted)).squeeze(1)
            probabilities = logits.sub_(normalizer).exp_()
            probabilities.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=probabilities.dtype))
            gradients[part] = probabilities.to(weight.dtype) @ weight
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, *outward: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return (gradients * outward[0].unsqueeze(1)).to(gradients.dtype), None, None, None


def _checkpointed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return function(*inputs)
    result: Tensor = torch.utils.checkpoint.checkpoint(function, *inputs, use_reentrant=False)
    return result


def _output_head(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    try:
        head = get() if get is not None else None
    except (AttributeError, NotImplementedError):
        return None
    return head if isinstance(head, nn.Module) else None

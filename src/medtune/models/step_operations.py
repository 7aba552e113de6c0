"""What a decoding step does besides its matrix products, in torch's own operations.

:mod:`medtune.models.step_kernels` does the same in fewer kernels on a GPU: at a few rows a step is hundreds of kernels that each
work for two microseconds and wait as long for the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor

    from medtune.models.projections import Projections

__all__ = ["StepOperations", "TorchOperations"]


class StepOperations(Protocol):
    """Operations on T tokens, of several texts. H are heads, K key heads, each ``head_dim`` wide.

    Attributes:
        reads_all_slots: Attention reads as many slots of every row as it is told, and not only those in use.
    """

    reads_all_slots: bool

    def add_norm(self, hidden: Tensor, added: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """``hidden + added``, perhaps in place, and that after a root mean square norm (Zhang and Sennrich 2019,
        arXiv:1910.07467): (..., width) each. ``added`` may be what :meth:`product` gave ``apart``."""
        ...

    def product(self, projections: Projections, x: Tensor, *, apart: bool = False) -> list[Tensor]:
        """(..., in) -> one (..., out) for each member; the last dimension is contiguous, the others may not be.

        Args:
            apart: The one member's result may be parts, which :meth:`add_norm` adds up: (parts, ..., out) float32.
        """
        ...

    def gated_product(self, projections: Projections, x: Tensor, act: Any) -> Tensor:
        """``act(gate(x)) * up(x)`` of two members (Shazeer 2020, arXiv:2002.05202): (..., in) -> (..., out)."""
        ...

    def rotate_and_keep(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        norms: tuple[Any, Any],
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        rows: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Norm the heads where the model does, turn them by their positions (Su et al. 2021, arXiv:2104.09864), and write keys
        and values where they are kept.

        Args:
            query: (T, H, head_dim); perhaps changed. Likewise ``key`` (T, K, head_dim).
            value: (T, K, head_dim).
            norms: Of queries and of keys; None, None where there are none.
            cos: (T, head_dim); likewise ``sin``.
            keys: (rows, K, slots, head_dim), written; likewise ``values``.
            rows: (T,) int64, where; likewise ``slots``.

        Returns:
            Query and key.
        """
        ...

    def seen(self, slots: Tensor, num_slots: int, dtype: torch.dtype) -> Any:
        """Made once a step for all layers' :meth:`attend`: the first ``num_slots`` up to those in ``slots`` (T,)."""
        ...

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Any, scaling: float) -> Tensor:
        """One query a row over the slots up to its own: query (T, H, head_dim) -> the same. The groups of query heads that share
        a key head (Ainslie et al. 2023, arXiv:2305.13245) are rows of one query, so that no key is copied."""
        ...


class TorchOperations:
    """Exact in float32; for CPUs, and for GPUs without Triton."""

    reads_all_slots = True

    def add_norm(self, hidden: Tensor, added: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        if added is not None:
            hidden = hidden + added
        return hidden, _normed(norm, hidden)

    def rotate_and_keep(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        norms: tuple[Any, Any],
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        rows: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if norms[0] is not None:
            query, key = _normed(norms[0], query), _normed(norms[1], key)
        half = query.shape[-1] // 2
        # rotate_half(x) * sin is the two halves changed about, times sin with its first half negative.
        cos, sin = cos[:, None], torch.cat((-sin[:, :half], sin[:, half:]), dim=-1)[:, None]
        query, key = (torch.addcmul(part * cos, part.roll(half, -1), sin) for part in (query, key))
        keys[rows, :, slots] = key
        values[rows, :, slots] = value
        return query, key

    def seen(self, slots: Tensor, num_slots: int, dtype: torch.dtype) -> Tensor:
        """(T, 1, 1, num_slots): 0 and minus infinity."""
        behind = torch.arange(num_slots, device=slots.device) > slots[:, None]
        return torch.zeros(behind.shape, device=slots.device, dtype=dtype).masked_fill_(behind, float("-inf"))[:, None, None]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Any, scaling: float) -> Tensor:
        count, heads, width = query.shape
        keys, values = (states[:count, :, : seen.shape[-1]] for states in (keys, values))
        grouped = query.reshape(count, keys.shape[1], -1, width)
        return scaled_dot_product_attention(grouped, keys, values, attn_mask=seen, scale=scaling).reshape(count, heads, width)

    def product(self, projections: Projections, x: Tensor, *, apart: bool = False) -> list[Tensor]:  # noqa: ARG002
        return projections(x)

    def gated_product(self, projections: Projections, x: Tensor, act: Any) -> Tensor:
        gate, up = projections(x)
        activated: Tensor = act(gate)
        return activated * up


def _normed(norm: Any, x: Tensor) -> Tensor:
    """transformers' RMSNorm in one kernel, which rounds once instead of twice."""
    if not is_plain_norm(norm, x.dtype):
        other: Tensor = norm(x)
        return other
    return rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def is_plain_norm(norm: Any, dtype: torch.dtype) -> bool:
    """Whether ``norm`` is ``weight * x / sqrt(mean(x^2) + variance_epsilon)`` in ``dtype``, as the Qwen families have it."""
    weight = getattr(norm, "weight", None)
    return weight is not None and getattr(norm, "variance_epsilon", None) is not None and weight.dtype == dtype

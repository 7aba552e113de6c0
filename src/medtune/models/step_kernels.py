"""What a decoding step does besides its matrix products, in a few kernels of a GPU, written in Triton (Tillet et al. 2019,
MAPL, doi:10.1145/3315508.3329973), which comes with torch's builds for GPUs.

The attention reads the keys of a row that are in use and no others, and splits long rows over several processors whose partial
sums are put together at the end (Dao et al. 2023, "Flash-Decoding for long-context inference", Stanford CRFM). All sums are in
float32; what a kernel hands on within itself is rounded where torch's operations would write it down.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from medtune.models import product_kernels
from medtune.models.few_rows import MOST_ROWS, FewRows
from medtune.models.step_operations import is_plain_norm

if TYPE_CHECKING:
    from torch import Tensor

    from medtune.models.projections import Projections

__all__ = ["TritonOperations"]

_log = logging.getLogger(__name__)

_KEYS = 64
"""Keys that a program reads at a time."""

_PROGRAMS = 512
"""Programs that an attention is split into where its rows are too few: about four for each processor of an H100, where 16 rows
of 8 key heads were fastest with 528 (0.54 ms in 36 layers; 0.30 would be the keys' reading alone) and 64 rows without a split."""

_MOST_PARTS = 16


class TritonOperations:
    """See :class:`medtune.models.step_operations.StepOperations`.

    Args:
        device: Where they run.
        dtype: Of the numbers.

    Attributes:
        chained: A kernel is launched while the one before it still runs, and waits for that itself (CUDA's programmatic dependent
            launch, from Hopper on). Between two kernels of some microseconds there is otherwise one without any. So every kernel
            waits before it touches memory, which another may still be reading or writing, and only then lets the next one be
            launched, which may therefore rely on all that ran before this one.
    """

    reads_all_slots = False

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.chained = device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)
        self._options: dict[str, Any] = {"CHAINED": True, "launch_pdl": True} if self.chained else {"CHAINED": False}
        self._multiplies = product_kernels.can_run(device, dtype, chained=self.chained)

    def add_norm(self, hidden: Tensor, added: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        width = hidden.shape[-1]
        normed = torch.empty_like(hidden)
        parts = 0 if added is None else 1 if added.ndim == hidden.ndim else len(added)
        _add_norm[(hidden.numel() // width,)](
            hidden,
            hidden if added is None else added,
            norm.weight,
            normed,
            width,
            hidden.numel(),
            norm.variance_epsilon,
            PARTS=parts,
            BLOCK=triton.next_power_of_2(width),
            num_warps=8 if width > 1024 else 4,
            **self._options,
        )
        return hidden, normed

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
        tokens, heads, width = query.shape
        key_heads = key.shape[1]
        normed = norms[0] is not None
        _rotate_and_keep[(tokens, heads + 2 * key_heads)](
            query,
            key,
            value,
            norms[0].weight if normed else query,
            norms[1].weight if normed else key,
            cos,
            sin,
            keys,
            values,
            rows,
            slots,
            query.stride(0),
            key.stride(0),
            value.stride(0),
            keys.stride(0),
            keys.stride(1),
            norms[0].variance_epsilon if normed else 0.0,
            norms[1].variance_epsilon if normed else 0.0,
            heads,
            key_heads,
            NORMED=normed,
            HALF=width // 2,
            num_warps=1,
            **self._options,
        )
        return query, key

    def seen(self, slots: Tensor, num_slots: int, dtype: torch.dtype) -> Tensor:  # noqa: ARG002
        return slots

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Any, scaling: float) -> Tensor:
        count, heads, width = query.shape
        key_heads = keys.shape[1]
        group = heads // key_heads
        parts = min(_MOST_PARTS, max(1, -(-_PROGRAMS // (count * key_heads))), -(-keys.shape[2] // _KEYS))
        output = torch.empty((count, heads, width), device=query.device, dtype=query.dtype)
        sums = output
        weights = output
        if parts > 1:
            sums = torch.empty((count * heads, parts, width), device=query.device, dtype=torch.float32)
            weights = torch.empty((count * heads, parts, 2), device=query.device, dtype=torch.float32)
        _attend[(count * key_heads, parts)](
            query,
            keys,
            values,
            seen,
            output,
            sums,
            weights,
            scaling * 1.4426950408889634,  # log2(e), because the kernel raises 2 and not e to its powers
            query.stride(0),
            keys.stride(0),
            keys.stride(1),
            key_heads,
            parts,
            GROUP=group,
            ROWS=max(16, triton.next_power_of_2(group)),  # no fewer rows go into a product
            WIDTH=width,
            KEYS=_KEYS,
            SPLIT=parts > 1,
            PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
            num_warps=4,
            num_stages=3,
            **self._options,
        )
        if parts > 1:
            _put_together[(count * heads,)](
                sums, weights, output, parts, WIDTH=width, PARTS=triton.next_power_of_2(parts), num_warps=2, **self._options
            )
        return output

    def product(self, projections: Projections, x: Tensor, *, apart: bool = False) -> list[Tensor]:
        layer = self._few(projections, x, weights=1)
        if layer is None:
            return projections(x)
        found = product_kernels.product(x.reshape(-1, x.shape[-1]), layer, apart=apart, chained=self.chained)
        found = found.view(*found.shape[:-2], *x.shape[:-1], found.shape[-1])
        return list(torch.split(found, projections.widths, dim=-1))

    def gated_product(self, projections: Projections, x: Tensor, act: Any) -> Tensor:  # noqa: ARG002
        layer = self._few(projections, x, weights=2)
        if layer is None:
            gate, up = projections(x)
            return self.gated(gate, up)
        found = product_kernels.gated_product(x.reshape(-1, x.shape[-1]), layer, chained=self.chained)
        return found.view(*x.shape[:-1], -1)

    def _few(self, projections: Projections, x: Tensor, *, weights: int) -> FewRows | None:
        layer = projections.few if self._multiplies and x.numel() <= MOST_ROWS * x.shape[-1] else None
        return layer if layer is not None and len(layer.weights) == weights else None

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """``silu(gate) * up``: (..., width) each."""
        width = gate.shape[-1]
        output = torch.empty(gate.shape, device=gate.device, dtype=gate.dtype)
        # As a matrix, because the stride of a dimension of one does not say where the next row begins.
        gate, up = gate.view(-1, width), up.view(-1, width)
        block = min(1024, triton.next_power_of_2(width))
        _gated[(len(gate), triton.cdiv(width, block))](
            gate, up, output, width, gate.stride(0), up.stride(0), BLOCK=block, num_warps=4, **self._options
        )
        return output


@functools.cache
def can_run(device: torch.device, dtype: torch.dtype, *, heads: int, key_heads: int, head_dim: int) -> bool:
    """Whether kernels can be built and run here. Tried once, on the attention at its real widths: it alone needs more shared
    memory than some GPUs have."""
    try:
        operations = TritonOperations(device, dtype)
        query = torch.ones(1, heads, head_dim, device=device, dtype=dtype)
        operations.gated(query, query)
        for num_slots in (_KEYS, 2 * _KEYS):  # whole, and in parts
            keys = torch.ones(1, key_heads, num_slots, head_dim, device=device, dtype=dtype)
            operations.attend(query, keys, keys, torch.zeros(1, device=device, dtype=torch.int64), 1.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # a compiler, a driver, Triton's cache folder or memory may be missing in many ways
        _log.warning("Triton cannot build kernels here, so decoding steps take torch's: %s", str(error).split("\n")[0])
        return False
    return True


def serves(text: Any, *, head_dim: int, dtype: torch.dtype) -> bool:
    """Whether the kernels do what a language model's layers do: plain norms, SiLU, and heads of a power of two."""
    if head_dim < 16 or head_dim & (head_dim - 1) or not is_plain_norm(text.norm, dtype):
        return False
    for layer in text.layers:
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        norms += [norm for name in ("q_norm", "k_norm") if (norm := getattr(layer.self_attn, name, None)) is not None]
        if not all(is_plain_norm(norm, dtype) for norm in norms):
            return False
        if hasattr(layer.mlp, "gate_proj") and type(layer.mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
            return False
    return True


@triton.jit
def _add_norm(
    hidden,
    added,
    weight,
    normed,
    width,
    part_stride,
    eps,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHAINED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()
    x = tl.load(hidden + row * width + column, mask=inside, other=0.0)
    if PARTS > 0:
        more = tl.load(added + row * width + column, mask=inside, other=0.0).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            more += tl.load(added + part * part_stride + row * width + column, mask=inside, other=0.0)
        x = (x.to(tl.float32) + more.to(x.dtype).to(tl.float32)).to(x.dtype)
        tl.store(hidden + row * width + column, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + eps)
    factor = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * width + column, (wide * scale * factor).to(x.dtype), mask=inside)


@triton.jit
def _rotate_and_keep(
    query,
    key,
    value,
    query_weight,
    key_weight,
    cos,
    sin,
    keys,
    values,
    rows,
    slots,
    query_stride,
    key_stride,
    value_stride,
    row_stride,
    head_stride,
    query_eps,
    key_eps,
    num_heads,
    num_key_heads,
    NORMED: tl.constexpr,
    HALF: tl.constexpr,
    CHAINED: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()
    column = tl.arange(0, HALF)
    kept = tl.load(rows + token) * row_stride + tl.load(slots + token) * 2 * HALF + column
    if head >= num_heads + num_key_heads:
        number = head - num_heads - num_key_heads
        source = value + token * value_stride + number * 2 * HALF + column
        target = values + kept + number * head_stride
        tl.store(target, tl.load(source))
        tl.store(target + HALF, tl.load(source + HALF))
    else:
        if head < num_heads:
            source = query + token * query_stride + head * 2 * HALF + column
            weight = query_weight + column
            eps = query_eps
        else:
            source = key + token * key_stride + (head - num_heads) * 2 * HALF + column
            weight = key_weight + column
            eps = key_eps
        first = tl.load(source)
        kind = first.dtype
        first = first.to(tl.float32)
        second = tl.load(source + HALF).to(tl.float32)
        if NORMED:
            scale = tl.rsqrt((tl.sum(first * first, 0) + tl.sum(second * second, 0)) / (2 * HALF) + eps)
            first = (first * scale * tl.load(weight).to(tl.float32)).to(kind).to(tl.float32)
            second = (second * scale * tl.load(weight + HALF).to(tl.float32)).to(kind).to(tl.float32)
        angle = token * 2 * HALF + column
        turned = first * tl.load(cos + angle).to(tl.float32) - second * tl.load(sin + angle).to(tl.float32)
        other = second * tl.load(cos + angle + HALF).to(tl.float32) + first * tl.load(sin + angle + HALF).to(tl.float32)
        tl.store(source, turned.to(kind))
        tl.store(source + HALF, other.to(kind))
        if head >= num_heads:
            target = keys + kept + (head - num_heads) * head_stride
            tl.store(target, turned.to(kind))
            tl.store(target + HALF, other.to(kind))


@triton.jit
def _attend(
    query,
    keys,
    values,
    last,
    output,
    sums,
    weights,
    scaling,
    query_stride,
    row_stride,
    head_stride,
    num_key_heads,
    parts,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    CHAINED: tl.constexpr,
):
    row = (tl.program_id(0) // num_key_heads).to(tl.int64)
    head = tl.program_id(0) % num_key_heads
    part = tl.program_id(1)
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()
    length = tl.load(last + row).to(tl.int32) + 1
    each = tl.cdiv(tl.cdiv(length, parts), KEYS) * KEYS
    begin = part * each
    end = tl.minimum(begin + each, length)
    member = tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    number = tl.arange(0, KEYS)
    of_group = member[:, None] < GROUP
    place = (head * GROUP + member[:, None]) * WIDTH + column[None, :]
    asked = tl.load(query + row * query_stride + place, mask=of_group, other=0.0)
    start = row * row_stride + head.to(tl.int64) * head_stride
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    found = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(begin, end, KEYS):
        inside = first + number < end
        key = tl.load(keys + start + (first + number)[None, :] * WIDTH + column[:, None], mask=inside[None, :], other=0.0)
        score = tl.dot(asked, key, input_precision=PRECISION) * scaling
        score = tl.where(inside[None, :], score, float("-inf"))
        top = tl.maximum(best, tl.max(score, 1))
        share = tl.exp2(score - top[:, None])
        fade = tl.exp2(best - top)
        total = total * fade + tl.sum(share, 1)
        value = tl.load(values + start + (first + number)[:, None] * WIDTH + column[None, :], mask=inside[:, None], other=0.0)
        found = found * fade[:, None] + tl.dot(share.to(value.dtype), value, input_precision=PRECISION)
        best = top
    if SPLIT:
        one = (row * num_key_heads * GROUP + head * GROUP + member) * parts + part
        tl.store(sums + one[:, None] * WIDTH + column[None, :], found, mask=of_group)
        tl.store(weights + 2 * one, best, mask=member < GROUP)
        tl.store(weights + 2 * one + 1, total, mask=member < GROUP)
    else:
        target = output + row * num_key_heads * GROUP * WIDTH + place
        tl.store(target, (found / total[:, None]).to(asked.dtype), mask=of_group)


@triton.jit
def _put_together(sums, weights, output, parts, WIDTH: tl.constexpr, PARTS: tl.constexpr, CHAINED: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()
    part = tl.arange(0, PARTS)
    column = tl.arange(0, WIDTH)
    inside = part < parts
    one = head * parts + part
    # A part without keys has a best of minus infinity and so no share; the first part always has one.
    best = tl.load(weights + 2 * one, mask=inside, other=float("-inf"))
    share = tl.exp2(best - tl.max(best, 0))
    total = tl.sum(share * tl.load(weights + 2 * one + 1, mask=inside, other=0.0), 0)
    each = tl.load(sums + one[:, None] * WIDTH + column[None, :], mask=inside[:, None], other=0.0)
    found = tl.sum(each * share[:, None], 0) / total
    tl.store(output + head * WIDTH + column, found.to(output.dtype.element_ty))


@triton.jit
def _gated(gate, up, output, width, gate_stride, up_stride, BLOCK: tl.constexpr, CHAINED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0)
    wide = x.to(tl.float32)
    activated = (wide * tl.sigmoid(wide)).to(x.dtype).to(tl.float32)
    other = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + row * width + column, (activated * other).to(x.dtype), mask=inside)

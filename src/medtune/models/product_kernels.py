"""Matrix products of few rows on a GPU, in Triton: a weight is read once, and what belongs to the product is done meanwhile.

A program reads some rows of the weight from their beginning to their end, or, where these are too few to keep the card's memory
busy, a part of each. Parts stay apart in float32 until the sum that follows anyway (``TritonOperations.add_norm``) reads them:
in a fixed order, so that a result does not depend on which program ended first.

An adapter (Hu et al. 2021, arXiv:2106.09685) is two thin products. Each program makes the first one again while it reads its
rows of the weight, since that costs no memory traffic worth counting, and the second one at the end.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from medtune.models.few_rows import MOST_ROWS, FewRows

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["can_run", "gated_product", "product"]

_log = logging.getLogger(__name__)

_BUSY = 96
"""Programs that keep an H100's memory busy, of its 132 processors; below it the rows of a weight are read in parts."""

_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class _Tiling:
    """How a product is divided. The figures were the fastest of some forty on an H100, at the widths of Qwen3-VL-8B and 16 rows.

    Attributes:
        turned: The weight is the left factor: its 64 rows fill the matrix units, which x's 16 do not.
    """

    columns: int
    turned: bool
    warps: int
    stages: int
    depth: int = 128


_WIDE = _Tiling(columns=64, turned=True, warps=4, stages=4)
_NARROW = _Tiling(columns=32, turned=False, warps=2, stages=4)
_GATED = _Tiling(columns=32, turned=False, warps=2, stages=3)


def product(x: Tensor, layer: FewRows, *, apart: bool, chained: bool) -> Tensor:
    """(rows, in) -> (rows, out).

    Args:
        apart: The result may be (parts, rows, out) float32, whose sum over the parts it is.
        chained: See :class:`medtune.models.step_kernels.TritonOperations`.
    """
    width, depth = layer.weights[0].shape
    parts = 1
    wide = triton.cdiv(width, _WIDE.columns)
    if apart and layer.bias is None:
        while parts * wide < _BUSY and parts < _MOST_PARTS and depth % (2 * parts * _WIDE.depth) == 0:
            parts *= 2
    tiling = _WIDE if 2 * parts * wide >= _BUSY else _NARROW
    shape = (parts, len(x), width) if parts > 1 else (len(x), width)
    output = torch.empty(shape, device=x.device, dtype=torch.float32 if parts > 1 else x.dtype)
    _launch(x, layer, output, tiling, parts=parts, chained=chained)
    return output


def gated_product(x: Tensor, layer: FewRows, *, chained: bool) -> Tensor:
    """``silu(x @ gate.T) * (x @ up.T)`` of a layer with two weights: (rows, in) -> (rows, out)."""
    output = torch.empty((len(x), len(layer.weights[0])), device=x.device, dtype=x.dtype)
    _launch(x, layer, output, _GATED, parts=1, chained=chained)
    return output


@functools.cache
def can_run(device: torch.device, dtype: torch.dtype, *, chained: bool) -> bool:
    """Whether the kernels can be built and run here, with as many rows and as large an adapter as they are used with."""
    if dtype not in (torch.bfloat16, torch.float16):
        return False
    try:
        weight = torch.zeros(2 * _WIDE.columns, 2 * _WIDE.depth, device=device, dtype=dtype)
        x = torch.zeros(MOST_ROWS, weight.shape[1], device=device, dtype=dtype)
        first, second = weight[:32], torch.zeros(32, 2 * len(weight), device=device, dtype=dtype)
        layer = FewRows((weight,), first, second[:, : len(weight)].contiguous())
        for tiling in (_WIDE, _NARROW):
            _launch(x, layer, torch.empty(len(x), len(weight), device=device, dtype=dtype), tiling, parts=1, chained=chained)
        gated_product(x, FewRows((weight, weight), first, second), chained=chained)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # as in step_kernels.can_run: too little shared memory, first of all
        _log.warning("Triton's products of few rows cannot run here, so torch's are taken: %s", str(error).split("\n")[0])
        return False
    return True


def _launch(x: Tensor, layer: FewRows, output: Tensor, tiling: _Tiling, *, parts: int, chained: bool) -> None:
    width, depth = layer.weights[0].shape
    adapted = layer.first is not None and layer.second is not None
    options: dict[str, Any] = {"launch_pdl": True} if chained else {}
    _product[(triton.cdiv(width, tiling.columns), parts)](
        x,
        layer.weights[0],
        layer.weights[-1],
        layer.first if adapted else x,
        layer.second if adapted else x,
        x if layer.bias is None else layer.bias,
        output,
        len(x),
        width,
        depth,
        x.stride(0),
        layer.second.stride(0) if layer.second is not None else 0,
        ROWS=max(16, triton.next_power_of_2(len(x))),  # no fewer rows go into a product
        COLUMNS=tiling.columns,
        DEPTH=tiling.depth,
        RANK=len(layer.first) if layer.first is not None else 0,
        PARTS=parts,
        TURNED=tiling.turned,
        GATED=len(layer.weights) == 2,
        BIASED=layer.bias is not None,
        EVEN=width % tiling.columns == 0,
        CHAINED=chained,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=tiling.warps,
        num_stages=tiling.stages,
        **options,
    )


@triton.jit(do_not_specialize=["rows"])
def _product(
    x,
    weight,
    other,
    first,
    second,
    bias,
    output,
    rows,
    width,
    depth,
    x_stride,
    second_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    TURNED: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    EVEN: tl.constexpr,
    CHAINED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    row = tl.arange(0, ROWS)
    along = tl.arange(0, DEPTH)
    of_weight = column < width
    of_x = row < rows
    place = column[:, None].to(tl.int64) * depth + along[None, :]
    source = x + row[:, None] * x_stride + along[None, :]
    kind: tl.constexpr = x.dtype.element_ty
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()
    shape: tl.constexpr = (COLUMNS, ROWS) if TURNED else (ROWS, COLUMNS)
    total = tl.zeros(shape, tl.float32)
    total_of_other = tl.zeros(shape, tl.float32)
    if RANK > 0:
        low = tl.zeros((ROWS, RANK), tl.float32)
        of_first = first + tl.arange(0, RANK)[:, None] * depth + along[None, :]
    each = depth // PARTS
    for start in range(part * each, (part + 1) * each, DEPTH):
        read = tl.load(source + start, mask=of_x[:, None], other=0.0)
        # A weight is not read again before all others were, so it gives way in the cache to what is.
        if EVEN:
            tile = tl.load(weight + place + start, eviction_policy="evict_first")
        else:
            tile = tl.load(weight + place + start, mask=of_weight[:, None], other=0.0, eviction_policy="evict_first")
        if TURNED:
            total = tl.dot(tile, read.T, total, input_precision=PRECISION)
        else:
            total = tl.dot(read, tile.T, total, input_precision=PRECISION)
        if GATED:
            if EVEN:
                tile = tl.load(other + place + start, eviction_policy="evict_first")
            else:
                tile = tl.load(other + place + start, mask=of_weight[:, None], other=0.0, eviction_policy="evict_first")
            if TURNED:
                total_of_other = tl.dot(tile, read.T, total_of_other, input_precision=PRECISION)
            else:
                total_of_other = tl.dot(read, tile.T, total_of_other, input_precision=PRECISION)
        if RANK > 0:
            low = tl.dot(read, tl.load(of_first + start).T, low, input_precision=PRECISION)
    if RANK > 0:
        of_second = second + tl.arange(0, RANK)[:, None] * second_stride + column[None, :]
        thin = tl.load(of_second, mask=of_weight[None, :], other=0.0)
        rounded = low.to(kind)
        if TURNED:
            total = tl.dot(thin.T, rounded.T, total, input_precision=PRECISION)
        else:
            total = tl.dot(rounded, thin, total, input_precision=PRECISION)
        if GATED:
            thin = tl.load(of_second + width, mask=of_weight[None, :], other=0.0)
            if TURNED:
                total_of_other = tl.dot(thin.T, rounded.T, total_of_other, input_precision=PRECISION)
            else:
                total_of_other = tl.dot(rounded, thin, total_of_other, input_precision=PRECISION)
    if TURNED:
        total = total.T
        total_of_other = total_of_other.T
    if BIASED:
        total += tl.load(bias + column, mask=of_weight, other=0.0).to(tl.float32)[None, :]
    if GATED:
        gate = total.to(kind).to(tl.float32)
        total = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32) * total_of_other.to(kind).to(tl.float32)
    target = output + part * rows * width + row[:, None] * width + column[None, :]
    tl.store(target, total.to(output.dtype.element_ty), mask=of_x[:, None] & of_weight[None, :])

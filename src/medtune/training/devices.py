"""What a GPU has: memory, matrix products a second, bandwidth. From NVIDIA's data sheets, or asked and measured here.

Imports nothing heavy; torch is asked only for the device of this machine.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.errors import TrainingError
from medtune.language import Text, msg

__all__ = ["DEVICES", "Device", "find_device", "this_device"]

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Device:
    """Attributes:
    name: Short, as a user writes it.
    memory: Bytes that a process can use, its CUDA context included.
    flops: Matrix products with bfloat16 operands a second, dense; with float32 ones where ``has_bf16`` is false.
    bandwidth: Bytes a second between processor and memory.
    link: Bytes a second to another GPU of the machine, each way.
    has_bf16: Computes in bfloat16.
    is_gpu: False = the CPU.
    source: Where the numbers are from.
    achieved: They were measured, so nothing is taken off them any more.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    has_bf16: bool = True
    is_gpu: bool = True
    source: str | Text = ""
    achieved: bool = False


def _gpu(
    name: str, gib: float, tflops: float, gb_per_s: float, link: float, source: str, *, ecc: bool = False, bf16: bool = True
) -> Device:
    # GDDR memory keeps its error-correcting code in itself, a sixteenth (NVIDIA, "NVML API", nvmlDeviceSetEccMode; the A10 and
    # the L40S come with it on); HBM has memory of its own for it.
    return Device(name, gib * _GIB * (15 / 16 if ecc else 1), tflops * 1e12, gb_per_s * 1e9, link * 1e9, bf16, source=source)


_H100 = "NVIDIA H100 Tensor Core GPU data sheet"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet"

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _gpu("H100", 79.2, 989, 3350, 450, f"{_H100}, SXM"),
        _gpu("H100-PCIe", 79.2, 756, 2000, 32, f"{_H100}, PCIe"),
        _gpu("H200", 139.8, 989, 4800, 450, "NVIDIA H200 Tensor Core GPU data sheet, SXM"),
        _gpu("H800", 79.2, 989, 3350, 200, f"{_H100}, SXM; NVLink of 400 GB/s"),
        _gpu("A100", 79.2, 312, 2039, 300, f"{_A100}, SXM 80 GB"),
        _gpu("A100-40GB", 39.4, 312, 1555, 300, f"{_A100}, SXM 40 GB"),
        _gpu("A800", 79.2, 312, 2039, 200, f"{_A100}, SXM 80 GB; NVLink of 400 GB/s"),
        _gpu("L40S", 48, 362, 864, 32, "NVIDIA L40S data sheet", ecc=True),
        _gpu("A10", 24, 125, 600, 32, "NVIDIA A10 data sheet", ecc=True),
        _gpu("RTX4090", 23.6, 165, 1008, 32, "NVIDIA Ada GPU architecture whitepaper, appendix A (bfloat16, float32 accumulate)"),
        _gpu(
            "RTX3090", 23.6, 71, 936, 32, "NVIDIA Ampere GA102 GPU architecture whitepaper, table 9 (bfloat16, float32 accumulate)"
        ),
        _gpu("V100", 31.7, 15.7, 900, 150, "NVIDIA V100 data sheet, SXM2 32 GB: float32, as it has no bfloat16", bf16=False),
        _gpu("V100-16GB", 15.8, 15.7, 900, 150, "NVIDIA V100 data sheet, SXM2 16 GB: float32, as it has no bfloat16", bf16=False),
    )
}
"""By name. ``flops`` are the data sheets' dense figures for bfloat16: half of those "with sparsity". ``memory`` of the HBM and
GeForce cards is what a process finds of the nominal GiB: the driver keeps 1 to 2 %."""

_SPELLED: tuple[tuple[str, str], ...] = (
    (r"h100-.*pcie", "H100-PCIe"),
    (r"h100(?!\d)", "H100"),
    (r"h200(?!\d)", "H200"),
    (r"h800(?!\d)", "H800"),
    (r"a100-.*40", "A100-40GB"),
    (r"a100(?!\d)", "A100"),
    (r"a800(?!\d)", "A800"),
    (r"l40s(?!\d)", "L40S"),
    (r"a10(?!\d)", "A10"),
    (r"rtx-?4090(?!-d)", "RTX4090"),
    (r"rtx-?3090(?!-ti)", "RTX3090"),
    (r"v100-.*16", "V100-16GB"),
    (r"v100(?!\d)", "V100"),
)


def find_device(name: str) -> Device:
    """A GPU by its name, spelled as NVIDIA's tools or people do: ``H100``, ``NVIDIA A100-SXM4-80GB``, ``rtx 4090``; ``cpu``.

    Raises:
        TrainingError: It is not in the table.
    """
    if name.strip().lower() == "cpu":
        return _cpu()
    spelled = _known(name)
    if spelled is None:
        raise TrainingError(
            msg("The GPU {name} is not known.", name=name),
            remedy=msg("Known: {known}. Without --gpu, the GPU of this machine is taken.", known=", ".join([*DEVICES, "cpu"])),
        )
    return DEVICES[spelled]


def this_device() -> Device:
    """The first GPU of this machine, else its CPU. Memory is what the driver says; an unknown GPU is measured, for a second."""
    try:
        import torch
    except ImportError:
        return _cpu()
    if not torch.cuda.is_available():
        return _cpu()
    properties = torch.cuda.get_device_properties(0)
    spelled = _known(properties.name)
    if spelled is None:
        return _measured_gpu(torch, properties)
    known = DEVICES[spelled]
    return Device(
        known.name,
        float(properties.total_memory),
        known.flops,
        known.bandwidth,
        known.link,
        known.has_bf16,
        source=known.source,
    )


def _known(name: str) -> str | None:
    plain = re.sub(r"[\s_-]+", "-", name.lower())
    return next((spelled for pattern, spelled in _SPELLED if re.search(pattern, plain)), None)


def _measured_gpu(torch: Any, properties: Any) -> Device:
    has_bf16 = torch.cuda.is_bf16_supported()
    side = 4096
    left = torch.randn(side, side, device="cuda", dtype=torch.bfloat16 if has_bf16 else torch.float32)

    def seconds(work: Any) -> float:
        work()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            work()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / 5

    product = seconds(lambda: left @ left)
    copied = torch.empty_like(left)
    copy = seconds(lambda: copied.copy_(left))
    return Device(
        properties.name,
        float(properties.total_memory),
        2 * side**3 / product,
        2 * left.numel() * left.element_size() / copy,
        16e9,
        has_bf16,
        source=msg("measured here"),
        achieved=True,
    )


def _cpu() -> Device:
    """Measured with a matrix product of 512 x 512 and a copy of 64 MB, best of five."""
    import numpy as np

    left = np.ones((512, 512), dtype=np.float32)
    block = np.ones(16_000_000, dtype=np.float32)
    target = np.empty_like(block)

    def best(work: Any) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return max(min(times), 1e-9)

    flops = 2 * 512**3 / best(lambda: left @ left)
    bandwidth = 2 * block.nbytes / best(lambda: np.copyto(target, block))
    return Device(
        "cpu", float(free_memory()), flops, bandwidth, bandwidth, False, is_gpu=False, source=msg("measured here"), achieved=True
    )


def free_memory() -> int:
    """Bytes of main memory that are free, within the limit of the container when there is one."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        pass  # Linux only; elsewhere all of it counts as free
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit.isdigit():
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except OSError:
        pass  # no control group
    return max(0, free)

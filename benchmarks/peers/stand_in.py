"""What LLaMA-Factory's environment lacks on a machine without a GPU."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types

import torch


def stand_in() -> None:
    """For a rehearsal with torch for the CPU: what LLaMA-Factory imports and that build does not have.

    torchvision's wheel is of the CUDA build; its import describes two operators that its native library would have declared.
    torchaudio reads sounds only.
    """
    if torch.version.cuda is None:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        stand_in.kept = operators  # type: ignore[attr-defined]  # the operators go when the library does
    if importlib.util.find_spec("torchaudio") is None:
        audio = types.ModuleType("torchaudio")
        audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = audio

"""Captions: the picture in one sentence, or in detail."""

from __future__ import annotations

from typing import ClassVar

from medtune.tasks.asking import InstructedTask, Instructions

__all__ = ["Caption", "CaptionDetails"]


class Caption(InstructedTask):
    """One sentence: modality, organ, main finding."""

    name = "caption"
    metrics = ("region", "modality-organ", "findings", "measurements", "terminology", "llamafactory", "bleu", "chrf", "rouge")
    instructions: ClassVar[Instructions] = {
        "en": "Describe this medical image in one sentence: modality, organ and main finding.",
        "zh": "用一句话描述这幅医学图像：成像方式、器官和主要所见。",
    }


class CaptionDetails(InstructedTask):
    """A paragraph: anatomy, abnormal density, likely pathology."""

    name = "caption-details"
    metrics = ("region", "modality-organ", "findings", "measurements", "terminology", "llamafactory", "bleu", "chrf", "rouge")
    instructions: ClassVar[Instructions] = {
        "en": "Describe this medical image in detail: modality and anatomy, any abnormal density or signal and where in the "
        "patient it lies, and the pathology it suggests.",
        "zh": "详细描述这幅医学图像：成像方式和解剖结构，异常密度或信号及其在患者体内的位置，以及提示的病变。",
    }

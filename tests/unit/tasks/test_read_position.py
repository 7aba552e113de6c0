"""Positions in words: the picture's and the patient's, never mixed."""

from __future__ import annotations

import pytest

from medtune.tasks.reading.position import read_position

CASES = [
    # MedTrinity's wording is about the picture, anatomy is about the patient.
    (
        "The region of interest, located on the left side and in the upper part of the image, occupies approximately 4.1% of it.",
        "left",
        "upper",
        None,
    ),
    ("located in the center and in the lower part of the image", "center", "lower", None),
    ("located in the center and in the middle part of the image", "center", "middle", None),
    ("on the right side and in the middle part of the image, in the left frontal lobe", "right", "middle", "left"),
    ("a haematoma in the right frontal lobe", None, None, "right"),
    ("located on the left of the image (the patient's right side)", "left", None, "right"),
    ("on the image's left, which is the patient's right", "left", None, "right"),
    ("on the left side of the brain", None, None, "left"),
    ("on the left side of the brain image", "left", None, None),
    ("Axial CT of the head. The lesion is on the left.", "left", None, None),
    ("in the frontal lobe, on the right side", None, None, "right"),
    ("a right-sided infarct", None, None, "right"),
    ("in the frontal region at the midline", None, None, "midline"),
    # Everyday words.
    ("It is in the top left corner of the picture.", "left", "upper", None),
    ("at the bottom right of the scan", "right", "lower", None),
    ("in the middle of the picture", "center", "middle", None),
    ("The spot is centrally located.", "center", "middle", None),
    ("the centre top of the slice", "center", "upper", None),
    ("on the left-hand side, near the top", "left", "upper", None),
    ("left-middle of the image", "left", "middle", None),
    ("upper third of the image, slightly to the right", "right", "upper", None),
    ("the upper part of the brain", None, "upper", None),
    ("Center.", "center", "middle", None),
    ("center middle, 4%", "center", "middle", None),
    # Axes named.
    ("horizontally in the center and vertically in the upper third", "center", "upper", None),
    ("horizontally in the center", "center", None, None),
    ("position: left, lower; side: right", "left", "lower", "right"),
    # Words of position that are none.
    ("right upper lobe", None, None, "right"),
    ("in the territory of the middle cerebral artery", None, None, None),
    ("a lesion with a central hypodense area", None, None, None),
    ("lower density than grey matter", None, None, None),
    ("midline shift to the right", None, None, None),
    ("the ventricle is displaced to the left", None, None, None),
    ("abnormal", None, None, None),
    ("", None, None, None),
    # Alternatives are no answer.
    ("left or right", None, None, None),
    ("on the left, center or right of the image", None, None, None),
    ("in the upper or lower part of the image", None, None, None),
    # Chinese.
    ("病灶位于图像左上部，右侧额叶", "left", "upper", "right"),
    ("位于图像的右侧、下部", "right", "lower", None),
    ("位于图像中央", "center", "middle", None),
    ("位于画面左侧中部，中线移位", "left", "middle", None),
    ("患者左侧", None, None, "left"),
    ("右肺上叶可见结节", None, None, "right"),
    ("中线处", None, None, "midline"),
]


@pytest.mark.parametrize(("text", "horizontal", "vertical", "side"), CASES)
def test_position(text: str, horizontal: str | None, vertical: str | None, side: str | None) -> None:
    found = read_position(text)
    assert (found.horizontal, found.vertical, found.side) == (horizontal, vertical, side)


@pytest.mark.parametrize("word", ["left", "right"])
def test_the_pictures_left_is_not_the_patients(word: str) -> None:
    picture = read_position(f"on the {word} side of the image")
    patient = read_position(f"in the {word} cerebral hemisphere")
    assert (picture.horizontal, picture.side) == (word, None)
    assert (patient.horizontal, patient.side) == (None, word)


def test_the_first_mention_counts() -> None:
    found = read_position("A clot in the left temporal lobe that presses on the right lateral ventricle.")
    assert found.side == "left"

"""The checks of contents: each names what is wrong, and is silent about what only looks odd."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from medtune.data.checks import box_words, text_tags, texts, wording
from medtune.data.checks.burned_boxes import find_outlines
from medtune.data.checks.burned_text import kind_of_text
from medtune.data.checks.licences import is_missing, is_non_commercial, is_without_derivatives
from medtune.types import ImageRef, Message, Sample

Picture = Any


def row(answer: str, question: str = "What is seen?", modality: str | None = None, **metadata: Any) -> Sample:
    image = ImageRef(path="images/aa/a.png", sha256="0" * 64, width=512, height=512, modality=modality)
    messages = (Message(role="user", content="<image>" + question), Message(role="assistant", content=answer))
    return Sample(
        id="a", task="caption", images=(image,), messages=messages, target=answer, group="g", source="s", metadata=metadata
    )


def codes(found: Any) -> list[str]:
    return [item.code for item in found]


# ------------------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("box", [[0, 0, 513, 10], [9, 0, 9, 5], [1, 2, 3], "left", [1, 2, 3, float("nan")], [1, 2, True, 9]])
def test_what_is_no_box_of_the_picture_is_not_compared(box: Any) -> None:
    """``box-outside`` names it; its words cannot be judged."""
    assert codes(box_words.look(row("x", box=box, horizontal="right", area_percent=99))) == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"horizontal": "left", "vertical": "upper"}, []),
        ({"horizontal": "right"}, ["box-position"]),
        ({"horizontal": "right", "vertical": "lower"}, ["box-position", "box-position"]),
        ({"horizontal": "center"}, ["box-position"]),
        ({"horizontal": "elsewhere", "vertical": 3}, []),
        ({"side": "right"}, []),  # the patient's right is the picture's left
        ({"area_percent": 1.6}, []),
        ({"area_percent": 0.5}, ["box-area"]),
        ({"area_percent": 9.0}, ["box-area"]),
        ({"area_percent": 0}, []),
        ({"area_percent": "large"}, []),
    ],
)
def test_words_about_a_box(metadata: dict[str, Any], expected: list[str]) -> None:
    sample = row("x", box=[20, 30, 94, 104], **metadata)  # 2.1 % of the picture, in its upper left
    assert codes(box_words.look(sample)) == expected


def test_words_are_about_the_source_picture_inside_its_borders() -> None:
    """A letterboxed 512 x 256 picture: a box in the stored picture's middle height may be the source's upper part."""
    box = [20, 140, 90, 200]
    assert codes(box_words.look(row("x", box=box, vertical="upper", extent=[0, 128, 512, 384]))) == []
    assert codes(box_words.look(row("x", box=box, vertical="lower", extent=[0, 128, 512, 384]))) == ["box-position"]
    assert codes(box_words.look(row("x", box=box, area_percent=3.2, extent=[0, 128, 512, 384]))) == []
    assert codes(box_words.look(row("x", box=box, area_percent=1.2, extent=[0, 128, 512, 384]))) == ["box-area"]


def test_a_thin_crescent_is_a_note() -> None:
    """The share of the box over the stated one; a crescent fills a small part of its box."""
    found = {
        share: [item.severity for item in box_words.look(row("x", box=[20, 30, 94, 104], area_percent=share))]
        for share in (0.2, 0.5, 6.0)
    }
    assert found == {0.2: ["warning"], 0.5: ["info"], 6.0: ["warning"]}


# ------------------------------------------------------------------------------------------------------------ burned in


def slice_like(seed: int = 0, size: int = 256) -> Picture:
    grey = np.random.default_rng(seed).normal(70, 12, (size, size)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def as_jpeg(picture: Picture, quality: int = 80) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize(("colour", "name"), [((0, 255, 0), "green"), ((255, 0, 0), "red"), ((255, 255, 0), "yellow")])
@pytest.mark.parametrize("box", [(40, 60, 120, 200), (100, 100, 122, 118)])
def test_a_frame_in_a_grey_picture(width: int, colour: tuple[int, int, int], name: str, box: tuple[int, int, int, int]) -> None:
    picture = slice_like()
    ImageDraw.Draw(picture).rectangle(box, outline=colour, width=width)
    for pixels in (np.asarray(picture), as_jpeg(picture)):
        (outline,) = find_outlines(pixels)
        assert outline.colour == name
        assert np.abs(np.array(outline.box) - box).max() <= 3


def test_two_frames_and_what_is_no_frame() -> None:
    picture = slice_like()
    draw = ImageDraw.Draw(picture)
    draw.rectangle((10, 10, 60, 60), outline=(0, 255, 0))
    draw.rectangle((90, 90, 180, 140), outline=(0, 255, 0))
    assert len(find_outlines(as_jpeg(picture))) == 2

    others = slice_like(1)
    draw = ImageDraw.Draw(others)
    draw.rectangle((10, 10, 60, 60), fill=(200, 30, 30))  # a patch of colour, as in Doppler
    draw.line((80, 20, 200, 90), fill=(255, 255, 0))  # a caliper
    draw.ellipse((90, 110, 190, 190), outline=(0, 255, 0), width=2)  # drawn around, but no box
    draw.rectangle((20, 200, 90, 240), outline=(255, 255, 255))  # grey
    for line in range(0, 256, 16):
        draw.line((240, line, 250, line), fill=(255, 200, 0))  # a scale
    assert find_outlines(as_jpeg(others)) == []


def test_a_picture_of_colours_has_no_frame() -> None:
    colours = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    picture = Image.fromarray(colours)
    ImageDraw.Draw(picture).rectangle((20, 20, 90, 90), outline=(0, 255, 0), width=2)
    assert find_outlines(np.asarray(picture)) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("DOE^JANE", "identifier"), ("DOE, JANE", "identifier"), ("1961-02-03", "identifier"), ("03/02/61", "identifier"),
        ("MRN00812345", "identifier"), ("ID: 42", "identifier"), ("0081234", "identifier"), ("姓名：某", "identifier"),
        ("General Hospital", "identifier"), ("2019年3月4日", "identifier"),
        ("L", "marker"), ("R", "marker"), ("5cm", "marker"), ("W:80", "marker"), ("AP", "marker"),
        ("右", "marker"),
        ("arrow here", "text"),
    ],
)  # fmt: skip
def test_the_kind_of_a_text_in_a_picture(text: str, kind: str) -> None:
    assert kind_of_text(text) == kind


def test_text_in_a_picture_is_read_and_not_repeated() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="the extra ocr is not installed")
    from PIL import ImageFont

    from medtune.data.checks.burned_text import measure

    picture = slice_like(0, 512)
    assert measure(picture) == []
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(24)
    draw.text((10, 10), "DOE^JANE 1961-02-03", fill=(255, 255, 255), font=font)
    draw.text((300, 460), "5 cm", fill=(255, 255, 255), font=font)
    lines = measure(picture)
    assert [line[0] for line in lines] == ["identifier", "marker"]
    assert "DOE" not in repr(lines)
    assert "JANE" not in repr(lines)
    assert lines[0][4] < 40 < 440 < lines[1][4]


# ------------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    "text", ["XXXX", "___", "n/a", "N/A", "null", "略", "待补充", "暂无描述", "…", "[caption]", "not available", "□□"]
)
def test_a_text_that_stands_for_nothing(text: str) -> None:
    assert texts.is_placeholder(text)


@pytest.mark.parametrize("text", ["none", "No.", "unknown", "无", "没有", "T2", "x-ray", "[]", "空洞", "不适用于本例"])
def test_a_short_answer_is_no_placeholder(text: str) -> None:
    assert not texts.is_placeholder(text)


@pytest.mark.parametrize(
    "text",
    [
        "Compared with XXXX, the heart is larger.", "The ___ lobe is clear.", "{{finding}} in the left lobe.",
            "A [insert organ] lesion.",
        "Lorem ipsum dolor", "TODO describe the lesion", "右肺【待补充】", "某某医院的图像", "病灶位于（此处填写部位）。",
    ],
)  # fmt: skip
def test_a_placeholder_inside_a_text(text: str) -> None:
    assert codes(texts.look(row(text))) == ["text-placeholder"]


@pytest.mark.parametrize(
    "text", ["An x-ray; the XX chromosome.", "A _small_ lesion.", "**Bold** words.", "[1] a source", "5 × 4 cm × 3 cm"]
)
def test_marks_that_mean_something(text: str) -> None:
    assert codes(texts.look(row(text))) == []


def test_turns_that_say_nothing() -> None:
    assert codes(texts.look(row("Yes", question=""))) == ["turn-empty"]
    assert codes(texts.look(row("Yes", question="N/A"))) == ["turn-empty"]
    turns = ["<image>What?", "…", "And then?", "A lesion"]
    messages = tuple(Message(role=("user", "assistant")[n % 2], content=turn) for n, turn in enumerate(turns))
    found = list(texts.look(row("A lesion").model_copy(update={"messages": messages})))
    assert [(item.code, item.severity) for item in found] == [("turn-empty", "error")]


# -------------------------------------------------------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("This is a non-contrast CT scan of the brain.", {"CT"}), ("An MRI of the head", {"MR"}), ("A T2-weighted image", {"MR"}),
        ("头部CT平扫显示", {"CT"}), ("磁共振图像", {"MR"}), ("Chest X-ray", {"radiograph"}), ("PET/CT of the body", {"hybrid"}),
        ("This is not an MRI but a CT", {"CT"}), ("Mr. Smith, ct 3", set()), ("CT; compared with a prior MRI", {"CT"}),
        ("建议进一步行磁共振检查，CT扫描显示", {"CT"}), ("A chest film", set()),
    ],
)  # fmt: skip
def test_modalities_in_words(text: str, named: set[str]) -> None:
    assert text_tags.modalities_named(text) == named


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (row("A CT of the brain.", modality="CT"), []),
        (row("An MRI of the brain.", modality="CT"), ["text-modality"]),
        (row("An MRI of the brain.", tags_modality="CT"), ["text-modality"]),
        (row("A lesion.", modality="CT", tags_modality="MR"), ["tags-differ"]),
        (row("A radiograph.", modality="DX", tags_modality="CR"), []),
        (row("An MRI and a CT.", modality="US"), []),
        (row("An axial CT image of the chest shows a nodule in the lung.", organ="brain"), ["text-organ"]),
        (row("An axial CT image of the brain shows a nodule.", organ="HEAD"), []),
        (row("A chest CT shows a nodule; the brain is not shown at all.", organ="brain"), []),
        (row("Right kidney", organ="CHEST"), []),
    ],
)
def test_texts_against_tags(sample: Sample, expected: list[str]) -> None:
    assert codes(text_tags.look(sample)) == expected


# ----------------------------------------------------------------------------------------------------------------- wording


def test_the_finding_that_the_tables_began_with() -> None:
    (found,) = wording.look(row("The region shows an area of differing density in the left frontal lobe."))
    assert (found.code, found.severity) == ("wording", "warning")
    assert "differing density" in found.message.render("en")
    assert "hyperdense" in str(found.remedy)


@pytest.mark.parametrize(
    "text",
    [
        "A hyperdense area in the left frontal lobe.",
        "There is no differing density.",
        "未见密度不同的区域",
        "A hypodense area, i.e. of different density than white matter.",
        "The acoustic shadow of the rib; chest radiograph with cardiac shadow.",
        "液性暗区",
        "中风险结节",
        "A myocardial infarction (heart attack).",
    ],
)
def test_proper_words(text: str) -> None:
    assert [item.phrase for item in wording.wording(text)] == []


def test_each_entry_of_the_tables() -> None:
    for language, least in (("en", 40), ("zh", 30)):
        terms = wording.read_terms(language)
        assert len(terms) >= least
        assert len({term.pattern.pattern for term in terms}) == len(terms)
        for term in terms:
            assert term.suggestion
            assert term.source
            # No suggestion is itself a phrase to avoid, and no replacement leads to the next one.
            new = term.replace.replace("\\1", "") if term.replace else ""
            assert not term.pattern.search(new), term.suggestion
            assert not wording.wording(new), f"{term.suggestion}: {wording.wording(new)}"


def test_replacing_terms() -> None:
    text = "Bone spurs at L4. Signs of a brain bleed and of differing density; the tummy is spared."
    new, changed = wording.replace_terms(text)
    assert new == "Osteophytes at L4. Signs of a intracranial hemorrhage and of differing density; the abdomen is spared."
    assert changed == [("Bone spurs", "Osteophytes"), ("brain bleed", "intracranial hemorrhage"), ("tummy", "abdomen")]
    assert wording.replace_terms(new) == (new, [])
    assert wording.replace_terms("提示脑溢血，核磁共振检查")[0] == "提示脑出血，磁共振成像检查"


def test_only_the_assistants_words_are_judged() -> None:
    assert codes(wording.look(row("A pneumothorax.", question="Is there a collapsed lung?"))) == []


def test_licences() -> None:
    assert is_missing("not stated")
    assert is_missing("")
    assert not is_missing("CC0-1.0")
    assert is_non_commercial("CC BY-NC-SA 4.0")
    assert is_non_commercial("for research use only")
    assert not is_non_commercial("Apache-2.0")
    assert not is_non_commercial("CC-BY-4.0")
    assert is_without_derivatives("CC-BY-ND-4.0")
    assert not is_without_derivatives("CC-BY-SA-4.0")

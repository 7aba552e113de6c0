"""Yes and no, shares of the area, findings, JSON and boxes out of free text."""

from __future__ import annotations

import pytest

from medtune.imaging.boxes import relative_box
from medtune.tasks.reading.area import read_percent
from medtune.tasks.reading.boxes import read_boxes, write_boxes
from medtune.tasks.reading.finding import canonical_finding, is_kind_of, read_density, read_finding
from medtune.tasks.reading.json_text import all_json, read_json, read_python_literal
from medtune.tasks.reading.yes_no import read_yes_no


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "yes"),
        ("No.", "no"),
        ("**Yes**", "yes"),
        ("Yes, the lung is abnormal", "yes"),
        ("Yes, there is no fracture.", "yes"),
        ("There is no fracture.", "no"),
        ("The answer is: no", "no"),
        ("Answer: Yes", "yes"),
        ("the heart is normal", None),
        ("abnormal", None),
        ("nodule", None),
        ("both yes and no", None),
        ("<think>no</think>\nyes", "yes"),
        ("<think>no, it is not", None),
        ("是的。", "yes"),
        ("有", "yes"),
        ("不是", "no"),
        ("否", "no"),
        ("答案：否", "no"),
        ("无积液", "no"),
        ("图像中不存在骨折", "no"),
        ("图像中存在骨折", "yes"),
        ("对比增强CT", None),
        ("是否", None),
        ("", None),
    ],
)
def test_yes_no(text: str, answer: str | None) -> None:
    assert read_yes_no(text) == answer


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("occupies approximately 4.1% of the image area", 4.1),
        ("4,1 %", 4.1),
        ("4.1 percent", 4.1),
        ("4 per cent", 4.0),
        ("about four percent", 4.0),
        ("four point one percent", 4.1),
        ("twenty-five percent", 25.0),
        ("3-5%", 4.0),
        ("2% to 4%", 3.0),
        ("between 3 and 5 percent", 4.0),
        ("约占图像面积的4.1％", 4.1),
        ("百分之四点一", 4.1),
        ("百分之十二", 12.0),
        ("百分之4", 4.0),
        ("a quarter of the image", 25.0),
        ("two thirds of the picture", 200 / 3),
        ("covers half of the scan", 50.0),
        ("I am 95% sure. It covers 3% of the image.", 3.0),
        ("the upper third of the image", None),
        ("left half of the image", None),
        ('{"place": "top left", "percent": 6.2}', 6.2),
        ("120%", None),
        ("4 cm", None),
        ("", None),
    ],
)
def test_percent(text: str, percent: float | None) -> None:
    assert read_percent(text) == (percent if percent is None else pytest.approx(percent))


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("hyperdense intracerebral haemorrhage", "intracerebral hemorrhage"),
        ("a brain bleed", "intracerebral hemorrhage"),
        ("an acute subdural haematoma", "subdural hematoma"),
        ("bleeding", "hemorrhage"),
        ("ischaemic infarct", "infarct"),
        ("a stroke", "infarct"),
        ("a meningioma", "meningioma"),
        ("with a thin rim of oedema: intracerebral hemorrhage", "intracerebral hemorrhage"),
        ("vasogenic edema", "edema"),
        ("a tumour with mass effect", "tumor"),
        ("mass effect", None),
        ("tumour or abscess", None),
        ("haemorrhage, infarct or mass", None),
        ("a tumour, possibly a meningioma", "tumor"),
        ("右侧额叶脑出血", "intracerebral hemorrhage"),
        ("蛛网膜囊肿", "arachnoid cyst"),
        ("nothing to see", None),
    ],
)
def test_finding(text: str, finding: str | None) -> None:
    assert read_finding(text) == finding


def test_a_kind_is_what_it_is_a_kind_of_and_not_the_other_way_round() -> None:
    assert is_kind_of("subdural hematoma", "hemorrhage")
    assert not is_kind_of("hemorrhage", "subdural hematoma")
    assert canonical_finding("ischaemic infarct") == canonical_finding("brain infarction") == "infarct"
    assert canonical_finding("widget") is None


@pytest.mark.parametrize(
    ("text", "density"),
    [
        ("hyperdense", "hyperdense"),
        ("a bright spot", "hyperdense"),
        ("a low-density area", "hypodense"),
        ("isodense", "isodense"),
        ("低密度影", "hypodense"),
        ("hyperdense or hypodense", None),
        ("dense", None),
    ],
)
def test_density(text: str, density: str | None) -> None:
    assert read_density(text) == density


def test_json_is_found_in_fences_and_among_words() -> None:
    assert read_json('Here it is:\n```json\n{"a": [1, null]}\n```\nDone.') == {"a": [1, None]}
    assert read_json('the record {"a": 1} and more', opening="{") == {"a": 1}
    assert list(all_json('{"a": 1}, {"b": {"c": 2}}')) == [{"a": 1}, {"b": {"c": 2}}]


@pytest.mark.parametrize(
    "text", ["", "no json", "{'a': 1}", '{"a": ', '{"a": NaN}', '{"a": Infinity}', '{"a":' * 100_000 + '{"b": 1}']
)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)


def test_a_python_literal_is_read_and_never_run() -> None:
    assert read_python_literal("{'a': (1, None), 'b': True}") == {"a": [1, None], "b": True}
    for text in ("__import__('os').getcwd()", "{1, 2}", "b'x'", "{'a': ", "(" * 10_000):
        with pytest.raises(ValueError):
            read_python_literal(text)


@pytest.mark.parametrize(
    ("text", "boxes", "labels"),
    [
        ('{"bbox_2d": [100, 200, 300, 400], "label": "cyst"}', [(100, 200, 300, 400)], ["cyst"]),
        (
            '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox": [5, 6, 7, 8]}]\n```',
            [(1, 2, 3, 4), (5, 6, 7, 8)],
            ["a", ""],
        ),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6', [(1, 2, 3, 4)], ["a"]),
        ("(10,20),(30,40)", [(10, 20, 30, 40)], [""]),
        ("The box is [10, 20, 30.5, 40].", [(10, 20, 30.5, 40)], [""]),
        ('{"bbox_2d": [300, 400, 100, 200]}', [(100, 200, 300, 400)], [""]),
        ("[]", [], []),
    ],
)
def test_boxes(text: str, boxes: list[tuple[float, ...]], labels: list[str]) -> None:
    assert read_boxes(text) == (boxes, labels)


@pytest.mark.parametrize(
    "text", ["", "on the left", "{}", '{"bbox_2d": [1, 2, 3]}', '{"bbox_2d": [1, 2, 3, true]}', '{"bbox_2d": ["1", 2, 3, 4]}']
)
def test_no_box(text: str) -> None:
    with pytest.raises(ValueError):
        read_boxes(text)


def test_a_box_beyond_numbers_is_refused() -> None:
    with pytest.raises(ValueError):
        read_boxes('{"bbox_2d": [1, 2, 3, 1e999]}')
    with pytest.raises(ValueError):
        read_boxes('{"bbox_2d": [1, 2, 3, 1' + "0" * 400 + "]}")


def test_pixels_become_thousandths_and_come_back() -> None:
    box = relative_box([64, 32, 192, 96], 256, 128)
    assert box == (250, 250, 750, 750)
    assert read_boxes(write_boxes([(box, "cyst")])) == ([box], ["cyst"])
    assert write_boxes([]) == "[]"
    assert write_boxes([(box, "a"), (box, "b")]).startswith("[{")
    with pytest.raises(ValueError):
        relative_box([0, 0, 1, 1], 0, 10)

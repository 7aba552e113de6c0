"""Synthetic patients and their slices: determinism, geometry, densities."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from math import sqrt

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from medtune.data.sources.phantom import Phantom
from medtune.data.sources.phantom.finding import KINDS, SLICE_SPACING_MM, Kind, draw_lesion, draw_patient, draw_slice
from medtune.data.sources.phantom.head import (
    AIR,
    BONE,
    FIELD_OF_VIEW_MM,
    FLUID,
    GREY,
    SCALP,
    WHITE,
    Array,
    Head,
    Mask,
    draw_head,
    render,
    to_head,
    to_picture,
)
from medtune.imaging.window import apply_window
from medtune.types import Record

SIZE = 64
PATIENTS = range(80)


def records(**options: int | str) -> list[Record]:
    return list(Phantom(**{"image_size": SIZE, **options}).samples())  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ determinism


def test_a_seed_gives_the_same_records_every_time() -> None:
    first = records(num_patients=4, seed=3)
    assert first == records(num_patients=4, seed=3)
    assert len(first) == 4 * 3 * 7


def test_a_slice_does_not_depend_on_what_was_drawn_before() -> None:
    forwards = [(n, i, draw_slice(draw_patient(1, n, 2), i, seed=1, size=SIZE)) for n in range(6) for i in range(2)]
    for number, index, (image, truth) in reversed(forwards):
        again, truth_again = draw_slice(draw_patient(1, number, 2), index, seed=1, size=SIZE)
        assert np.array_equal(image.hu, again.hu)
        assert np.array_equal(image.lesion, again.lesion)
        assert truth == truth_again


def test_a_later_start_leaves_the_earlier_patients_out_and_changes_none() -> None:
    whole = records(num_patients=5)
    assert whole[2 * 21 :] == records(num_patients=3, first_patient=2)


def test_sources_with_other_patient_numbers_share_nothing() -> None:
    first, second = records(num_patients=10, seed=5), records(num_patients=10, seed=5, first_patient=10)
    for what in (lambda record: record.id, lambda record: record.group, lambda record: record.pictures[0].data):
        assert not {what(record) for record in first} & {what(record) for record in second}
    heads = {draw_patient(5, number, 1).head for number in range(20)}
    assert len(heads) == 20


def test_another_seed_draws_other_patients() -> None:
    first, second = records(num_patients=5, seed=0), records(num_patients=5, seed=1)
    assert not {record.pictures[0].data for record in first} & {record.pictures[0].data for record in second}
    assert not {record.group for record in first} & {record.group for record in second}


def test_every_slice_of_a_patient_is_a_picture_of_its_own() -> None:
    pictures = {(record.group, record.pictures[0].data) for record in records(num_patients=5, slices_per_patient=4)}
    assert len(pictures) == 5 * 4


# ---------------------------------------------------------------------------------------------------------- the population


def test_kinds_come_as_often_as_stated() -> None:
    """Each count within four standard deviations of its binomial distribution: by chance one seed in some thousands fails."""
    total = 3000
    counts = Counter(patient.kind.name if patient.kind else "normal" for patient in (draw_patient(9, n, 1) for n in range(total)))
    expected = {"normal": 1 / 8} | {kind.name: 7 / 8 / 5 for kind in KINDS}
    assert counts.keys() == expected.keys()
    for name, share in expected.items():
        assert abs(counts[name] - total * share) < 4 * sqrt(total * share * (1 - share)), (name, counts[name])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_extents_and_densities_stay_in_their_ranges(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    lesions = [draw_lesion(rng, draw_head(rng), kind) for _ in range(400)]
    for values, (low, high) in (
        ([lesion.axes[0] for lesion in lesions], kind.along),
        ([lesion.axes[1] for lesion in lesions], kind.across),
        ([lesion.density for lesion in lesions], kind.hu),
    ):
        assert low <= min(values) < low + 0.1 * (high - low)
        assert max(values) <= high
    assert all(lesion.axes[0] >= lesion.axes[1] for lesion in lesions), "the long axis is the longer one"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_lesions_lie_on_both_sides_of_the_patient(kind: Kind) -> None:
    rng = np.random.default_rng(1)
    left = sum(draw_lesion(rng, draw_head(rng), kind).centre[0] > 0 for _ in range(400))
    assert abs(left - 200) < 4 * sqrt(400 * 0.25)


@pytest.mark.parametrize("num_slices", [1, 2, 3, 6])
def test_every_slice_of_a_lesion_patient_meets_the_lesion(num_slices: int) -> None:
    for number in PATIENTS:
        patient = draw_patient(2, number, num_slices)
        assert len(patient.levels) == num_slices
        assert all(low < high <= low + SLICE_SPACING_MM + 1e-6 for low, high in itertools.pairwise(patient.levels))
        if patient.lesion is not None:
            assert all(abs(level - patient.lesion.centre[2]) < patient.lesion.axes[2] for level in patient.levels)


def test_every_slice_of_a_lesion_patient_shows_the_lesion() -> None:
    """Not only in the mask: the window shows it brighter or darker than the brain around it, above the noise."""
    for number in PATIENTS:
        patient = draw_patient(2, number, 3)
        for index in range(3):
            image, truth = draw_slice(patient, index, seed=2, size=SIZE)
            if patient.kind is None:
                assert truth.kind is None
                assert not image.lesion.any()
                continue
            assert truth.kind == patient.kind.name
            assert image.lesion.sum() >= 15, (number, index)
            grey = apply_window(image.hu, 40, 80).astype(float)
            inside = float(np.median(grey[image.lesion]))
            brain = float(np.median(grey[brain_of(patient.head, patient.levels[index]) & ~grown(image.lesion, 5)]))
            difference = inside - brain if truth.density == "hyperdense" else brain - inside
            assert difference > 15, (number, index, truth.kind, difference)


def brain_of(head: Head, z: float) -> Mask:
    """Inside the skull by 6 mm, by the same ellipse as the drawing."""
    steps = ((np.arange(SIZE) + 0.5) / SIZE * FIELD_OF_VIEW_MM - FIELD_OF_VIEW_MM / 2).astype(np.float32)
    x, y = to_head(head, steps[None, :], steps[:, None])
    scale = sqrt(max(0.3, 1 - (z / 110) ** 2))
    inner = (head.inner[0] * scale - 6, head.inner[1] * scale - 6)
    inside: Mask = (x / inner[0]) ** 2 + (y / inner[1]) ** 2 < 1
    return inside


def grown(mask: Mask, size: int) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)), dtype=np.bool_)


# ---------------------------------------------------------------------------------------------------------- the Hounsfield

UPRIGHT = Head(70, 86, 6, 4, 0.0, (0.0, 0.0), 1.0, 0.0, (0.0, 1.0, 2.0))
"""A head in the middle of the picture, without tilt and noise."""


def quiet_slice(head: Head = UPRIGHT, *, z: float = 5.0, size: int = 256) -> Array:
    return render(head, (), z=z, size=size, rng=np.random.default_rng(0)).hu


def around(hu: Array, head: Head, x: float, y: float) -> float:
    """The median density in a square of 5 pixels about a point of the head's own axes (mm)."""
    to_pixel = hu.shape[0] / FIELD_OF_VIEW_MM
    column, row = (int((value + FIELD_OF_VIEW_MM / 2) * to_pixel) for value in to_picture(head, x, y))
    return float(np.median(hu[row - 2 : row + 3, column - 2 : column + 3]))


@pytest.mark.parametrize(
    ("name", "place", "low", "high"),
    [
        ("air", (0, 100), -1000, -999),
        ("bone", (0, -79), 700, 1000),
        ("ventricle", (9, -12), 0, 15),
        ("white matter", (38, 10), 20, 30),
        ("thalamus", (14, 9), 30, 40),
    ],
)
@pytest.mark.parametrize("tilt", [-0.12, 0.0, 0.12])
def test_regions_have_the_densities_that_are_stated(
    name: str, place: tuple[float, float], low: float, high: float, tilt: float
) -> None:
    head = replace(UPRIGHT, tilt=tilt, centre=(4.0, -3.0))
    value = around(quiet_slice(head), head, *place)
    assert low <= value <= high, (name, value)


def test_the_stated_densities_follow_the_ranges_of_non_contrast_ct() -> None:
    assert AIR == -1000
    assert 0 <= FLUID <= 15
    assert 20 <= WHITE <= 30 <= GREY <= 40
    assert SCALP < GREY
    assert BONE > 700
    for kind in KINDS:
        assert min(kind.hu) > GREY if kind.density_word == "hyperdense" else max(kind.hu) < WHITE


def test_the_middle_of_a_lesion_has_its_density() -> None:
    for number in range(40):
        patient = draw_patient(4, number, 1)
        if patient.lesion is None:
            continue
        patient = replace(patient, head=replace(patient.head, noise=0.0))
        image, _ = draw_slice(patient, 0, seed=4, size=256)
        core = cv2.erode(image.lesion.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        if core.sum() > 20:
            assert abs(float(np.median(image.hu[core])) - patient.lesion.density) < 1.5, number


def test_the_noise_has_the_stated_deviation() -> None:
    for deviation in (2.0, 4.5):
        noisy = render(replace(UPRIGHT, noise=deviation), (), z=5.0, size=128, rng=np.random.default_rng(3)).hu
        assert float((noisy - quiet_slice(size=128)).std()) == pytest.approx(deviation, rel=0.01)


def test_ventricles_shrink_towards_the_vertex() -> None:
    def fluid(z: float) -> int:
        return int(((quiet_slice(z=z) < 12) & (np.abs(np.indices((256, 256)) - 128).max(axis=0) < 45)).sum())

    assert fluid(5) > fluid(25) > fluid(40)


def test_head_and_picture_coordinates_are_inverse() -> None:
    head = replace(UPRIGHT, tilt=0.11, centre=(6.0, -4.0))
    for x, y in ((0.0, 0.0), (30.0, -50.0), (-12.5, 70.0)):
        back = to_head(head, *(np.float32(value) for value in to_picture(head, x, y)))  # type: ignore[arg-type]
        assert [float(value) for value in back] == pytest.approx([x, y], abs=1e-4)


# -------------------------------------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("size", [32, 128])
def test_the_png_holds_the_windowed_slice(size: int) -> None:
    source = Phantom(num_patients=2, slices_per_patient=2, image_size=size, forms="medtrinity", seed=8)
    for position, record in enumerate(source.samples()):
        number, index = divmod(position, 2)
        image, _ = draw_slice(draw_patient(8, number, 2), index, seed=8, size=size)
        shown = cv2.imdecode(np.frombuffer(record.pictures[0].data or b"", np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown.shape == (size, size)
        assert np.array_equal(shown, apply_window(image.hu, 40, 80))
        assert (shown == 0).any()
        assert (shown == 255).any()


def test_a_larger_picture_shows_the_same_patient() -> None:
    patient = draw_patient(6, 3, 1)
    assert patient.lesion is not None
    small, small_truth = draw_slice(patient, 0, seed=6, size=128)
    large, large_truth = draw_slice(patient, 0, seed=6, size=256)
    assert np.mean(cv2.resize(large.lesion.astype(np.uint8), (128, 128), interpolation=cv2.INTER_NEAREST) != small.lesion) < 0.005
    assert small_truth.side == large_truth.side
    assert abs(small_truth.area_percent - large_truth.area_percent) < 0.3


@pytest.mark.parametrize(
    ("number", "kind", "box", "mean"),
    [
        (0, "subdural haematoma", (89, 30, 104, 92), 46.55),
        (1, "ischaemic infarct", (43, 68, 65, 99), 51.16),
        (2, "arachnoid cyst", (61, 93, 73, 103), 45.76),
        (3, "intracerebral haemorrhage", (51, 61, 66, 81), 53.38),
        (4, None, None, 47.99),
        (5, "meningioma", (81, 70, 97, 89), 47.93),
    ],
)
def test_the_drawing_stays_as_it_is(number: int, kind: str | None, box: tuple[int, ...] | None, mean: float) -> None:
    """Data sets, and what was measured on them, are named by their seed: a changed drawing would be another data set."""
    image, truth = draw_slice(draw_patient(0, number, 1), 0, seed=0, size=128)
    assert (truth.kind, truth.box) == (kind, box)
    assert float(apply_window(image.hu, 40, 80).mean()) == pytest.approx(mean, abs=0.05)


# --------------------------------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    "options",
    [
        {"num_patients": 0},
        {"slices_per_patient": 0},
        {"image_size": 16},
        {"image_size": 1024},
        {"forms": "three"},
        {"first_patient": -1},
        {"patients": 3},
    ],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        Phantom(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("forms", "tasks"), [("six-tasks", 6), ("medtrinity", 1), ("both", 7)])
def test_the_forms(forms: str, tasks: int) -> None:
    found = records(num_patients=2, slices_per_patient=1, forms=forms)
    assert len(found) == 2 * tasks
    assert len({record.task for record in found}) == tasks


def test_the_card_says_that_it_is_synthetic() -> None:
    card = Phantom().card
    assert card.synthetic
    assert card.group_kind == "patient"
    assert "clinical" in card.notes[0]

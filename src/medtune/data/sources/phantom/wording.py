"""Radiology texts for a phantom slice: MedTrinity's three-part caption and the six task forms of the brain data sets.

The forms follow published descriptions: MedTrinity-25M (arXiv:2408.02900) writes a caption in three parts (modality and
organ; region of interest with position, area share and texture; relation to its surroundings); the six-task brain sets ask
for a caption, its details, a region of interest, a JSON record, a box and a region description. The sentences are medtune's
own. Each sentence has a few equal variants, drawn per slice, so that no two texts can be told apart by wording alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from medtune.data.sources.phantom.finding import Truth
from medtune.imaging.boxes import relative_box

MEDTRINITY_QUESTION = "What is the diagnosis in this picture?"


@dataclass(frozen=True, slots=True)
class Wording:
    """One question and its answer: the registered task, the answer, and the question where the task has no fixed one."""

    task: str
    target: str
    question: str = ""


def six_tasks(truth: Truth, size: int, rng: np.random.Generator) -> tuple[Wording, ...]:
    """The six forms of one slice of ``size`` pixels. Without a lesion there is no box: the detection answer is an empty list.

    With a lesion the detection target is left empty: the task writes it from ``metadata["box"]``.
    """
    return (
        Wording("caption", _caption(truth, rng)),
        Wording("caption-details", " ".join((_scene(rng), _density(truth, rng), _pathology(truth, rng)))),
        Wording("region", _region(truth)),
        Wording("json-record", _record(truth, size)),
        Wording("detection", "" if truth.box else "[]"),
        Wording("region-description", _region_description(truth, rng)),
    )


def medtrinity(truth: Truth, rng: np.random.Generator) -> Wording:
    """The three parts in one paragraph."""
    return Wording("open-vqa", " ".join((_scene(rng), _region(truth), _pathology(truth, rng))), MEDTRINITY_QUESTION)


def _pick(rng: np.random.Generator, *variants: str) -> str:
    return variants[int(rng.integers(len(variants)))]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _place(truth: Truth) -> str:
    if truth.side == "midline":
        return f"{truth.lobe} region at the midline"
    return f"{truth.side} {truth.lobe} region"


def _scene(rng: np.random.Generator) -> str:
    return _pick(
        rng,
        "Axial non-contrast CT of the head in the brain window.",
        "Non-contrast axial head CT, brain window.",
    )


def _caption(truth: Truth, rng: np.random.Generator) -> str:
    if truth.kind is None:
        return _pick(rng, "Head CT without an abnormal finding.", "Normal head CT.")
    return _pick(
        rng,
        f"Head CT showing {_article(truth.kind)} in the {_place(truth)}.",
        f"Head CT with {_article(truth.kind)} in the {_place(truth)}.",
    )


def _density(truth: Truth, rng: np.random.Generator) -> str:
    if truth.kind is None:
        return _pick(rng, "The parenchyma is of normal density.", "No abnormal density is seen.")
    return _pick(
        rng,
        f"A {truth.density} lesion lies in the {_place(truth)}.",
        f"There is a {truth.density} lesion in the {_place(truth)}.",
    )


def _pathology(truth: Truth, rng: np.random.Generator) -> str:
    if truth.kind is None:
        return _pick(rng, "No haemorrhage, infarct or mass.", "There is no acute intracranial abnormality.")
    return _pick(
        rng,
        f"The appearance is consistent with {_article(truth.kind)}.",
        f"This is consistent with {_article(truth.kind)} of the {_place(truth)}.",
    )


def _region(truth: Truth) -> str:
    if truth.kind is None:
        return "There is no region of interest."
    across = {"left": "on the left side", "center": "in the center", "right": "on the right side"}[truth.horizontal or "center"]
    return (
        f"The region of interest, located {across} and in the {truth.vertical} part of the image, "
        f"occupies approximately {truth.area_percent}% of the image area and is {truth.density}."
    )


def _region_description(truth: Truth, rng: np.random.Generator) -> str:
    if truth.kind is None:
        return _pick(rng, "No focal lesion.", "No focal abnormality is seen.")
    near = {
        "subdural haematoma": "along the inner table of the skull",
        "arachnoid cyst": "abutting the inner table of the skull",
        "meningioma": "with a broad base on the dura",
        "ischaemic infarct": "without a mass effect on the skull",
        "intracerebral haemorrhage": "with a thin rim of oedema",
    }[truth.kind]
    return _pick(
        rng,
        f"{truth.density.capitalize() if truth.density else ''} {truth.kind} in the {_place(truth)}, {near}.",
        f"In the {_place(truth)}, {near}: {truth.density} {truth.kind}.",
    )


def _record(truth: Truth, size: int) -> str:
    """Sound JSON with the five keys of the brain sets' records; ``bloc`` is the box, 0-1000 of the picture's sides."""
    if truth.kind is None or truth.box is None:
        record: dict[str, str | list[int]] = {
            "caption": "Head CT, no abnormal finding",
            "region of interest": "none",
            "observation": "none",
        }
        box: list[int] = []
    else:
        record = {
            "caption": f"Head CT with {_article(truth.kind)}",
            "region of interest": f"{truth.horizontal} {truth.vertical}, {truth.area_percent}%",
            "observation": f"{truth.density} lesion, {_place(truth)}",
        }
        box = [round(edge) for edge in relative_box(truth.box, size, size)]
    return json.dumps({**record, "notes": "", "bloc": box})

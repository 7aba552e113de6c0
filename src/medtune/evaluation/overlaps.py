"""What splits have in common, or may have: the warnings that make numbers too good for new patients."""

from __future__ import annotations

from collections.abc import Iterable

from medtune.language import Text, msg
from medtune.types import GroupKind, Sample, ValidationReport

__all__ = [
    "chosen_by",
    "chosen_on_split",
    "found_by_validation",
    "is_overlap",
    "leakage",
    "makes_unfit",
    "no_patient_ids",
    "trained_on_split",
]


def no_patient_ids(kind: GroupKind) -> Text:
    """For data whose groups are no patients: ``kind`` is what a split keeps together instead."""
    if kind == "study":
        return msg("The data set has no patient ids: two studies of one patient may stand on both sides of the split.")
    if kind == "volume":
        return msg("The data set has no patient ids: two volumes of one patient may stand on both sides of the split.")
    if kind == "image":
        return msg("The data set has no patient ids: two pictures of one patient may stand on both sides of the split.")
    return msg("The data set has no patient ids and no picture ids: the rows of one patient may stand on both sides of the split.")


def trained_on_split() -> Text:
    return msg("These are the training samples: the numbers show what was learnt by heart, not what a new patient would get.")


def chosen_on_split() -> Text:
    return msg(
        "These are the validation samples: where weights or settings were chosen by them, the numbers are too good. A result to be"
        " reported needs a split that nothing was chosen by."
    )


def shared_with_validation(num_shared: int, num_groups: int) -> Text:
    return msg(
        "{shared} of the {count} evaluated groups are also in the validation split: where weights or settings were chosen by it,"
        " the numbers are too good.",
        shared=num_shared,
        count=num_groups,
    )


def shared_pictures(num_shared: int, num_images: int) -> Text:
    return msg(
        "{shared} of the {count} evaluated pictures are also in the training split: the numbers are too good.",
        shared=num_shared,
        count=num_images,
    )


def shared_groups(num_shared: int, num_groups: int) -> Text:
    return msg(
        "{shared} of the {count} evaluated groups are also in the training split: the numbers are too good.",
        shared=num_shared,
        count=num_groups,
    )


def leakage(evaluated: Iterable[Sample], trained: Iterable[Sample]) -> list[Text]:
    """Pictures and groups that the evaluated samples share with the training split, compared by content."""
    pictures: set[str] = set()
    groups: set[tuple[str, str]] = set()
    for sample in evaluated:
        pictures.update(image.sha256 for image in sample.images)
        groups.add((sample.source, sample.group))
    shared_images: set[str] = set()
    shared: set[tuple[str, str]] = set()
    for sample in trained:
        shared_images.update(image.sha256 for image in sample.images if image.sha256 in pictures)
        if (sample.source, sample.group) in groups:
            shared.add((sample.source, sample.group))
    found = []
    if shared_images:
        found.append(shared_pictures(len(shared_images), len(pictures)))
    if shared:
        found.append(shared_groups(len(shared), len(groups)))
    return found


def chosen_by(evaluated: Iterable[Sample], validation: Iterable[Sample]) -> Text | None:
    """Groups, or pictures by content, that the evaluated samples share with the split by which weights were chosen."""
    pictures: dict[str, tuple[str, str]] = {}
    groups = set()
    for sample in evaluated:
        groups.add((sample.source, sample.group))
        pictures.update({image.sha256: (sample.source, sample.group) for image in sample.images})
    shared = set()
    for sample in validation:
        shared.update({(sample.source, sample.group)} & groups)
        shared.update(pictures[image.sha256] for image in sample.images if image.sha256 in pictures)
    return shared_with_validation(len(shared), len(groups)) if shared else None


def validation_found(finding: Text, row: str | None = None) -> Text:
    if row is None:
        return msg("Validation of the data found: {finding}", finding=finding)
    return msg("Validation of the data found: {row}: {finding}", row=row, finding=finding)


def not_validated() -> Text:
    return msg(
        "No validation of this data set is stored: whether look-alike pictures or rephrased rows stand in two splits is not known."
        " Run `medtune validate`."
    )


def found_by_validation(report: ValidationReport | None) -> list[Text]:
    """What ``validate`` found that makes numbers too good or their groups unknown."""
    if report is None:
        return [not_validated()]
    issues = [
        issue for issue in report.issues if issue.severity != "info" and (issue.code.endswith("-overlap") or issue.code in _LEAKS)
    ]
    return [validation_found(issue.message, issue.sample) for issue in issues]


_LEAKS = frozenset({"leaking-volume"})
"""Codes of leakage that do not end in ``-overlap``. ``no-patient-ids`` is said by :func:`no_patient_ids`, ``adjacent-slices`` is a
guess."""


_OVERLAP = frozenset(
    text.template
    for text in (
        trained_on_split(),
        shared_with_validation(0, 0),
        shared_pictures(0, 0),
        shared_groups(0, 0),
        validation_found(Text("")),
        validation_found(Text(""), ""),
    )
)


def is_overlap(text: Text) -> bool:
    """Whether a warning says that splits have something in common."""
    return text.template in _OVERLAP


_UNFIT = _OVERLAP | {
    text.template for text in (chosen_on_split(), *(no_patient_ids(kind) for kind in ("study", "volume", "image", "row")))
}


def makes_unfit(text: Text) -> bool:
    """Whether a warning means that the numbers cannot be taken for new patients: an overlap, or no way to exclude one."""
    return text.template in _UNFIT

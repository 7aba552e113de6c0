"""Subgroups: the same numbers for the men and the women, the CTs and the MRs, the one hospital and the other."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from medtune.evaluation import cautions
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.measure import ScoreTable, cut_into_thirds, measure
from medtune.language import Text
from medtune.types import Measurement, MetricValue, Sample

__all__ = ["AGES", "MAX_SUBGROUPS", "MIN_GROUPS", "measure_subgroups", "subgroup_labels"]

MAX_SUBGROUPS = 12
"""Values of one field that are told apart; a field with more is no subgroup but a label."""

MIN_GROUPS = 5
"""Of a subgroup that is shown: twenty questions about one patient say nothing of women or of a hospital. With fewer groups no
interval means much (``medtune.evaluation.bootstrap``)."""

AGES = ((18, "0 – 17"), (40, "18 – 39"), (65, "40 – 64"), (float("inf"), "≥ 65"))
"""(First age above, name) of the bins. Children end at 18 (UN Convention on the Rights of the Child, article 1) and "older" begins
at 65 (WHO and OECD statistics); the cut at 40 halves what lies between, by convention."""

_DICOM_AGE = re.compile(r"(\d{1,3})\s*([DWMY]?)", re.IGNORECASE)
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}


def subgroup_labels(samples: Iterable[Sample], field: str) -> dict[str, str]:
    """Sample id -> the value of ``field``, for the samples that have one: common values first, numbers in their order.

    ``task`` is the sample's own, and ``modality`` is also looked for on the first picture. ``age`` is binned (:data:`AGES`); it is
    years, or DICOM's age string (PS3.5 section 6.2, AS: ``063Y``, ``011M``). Any other number (never a yes or no) that takes more
    than a few values is cut into thirds.
    """
    return _labels(field, _values(samples, (field,))[field])


_Values = tuple[list[str], list[JsonValue]]
"""Sample ids, and the value of each."""


def _values(samples: Iterable[Sample], fields: Sequence[str]) -> dict[str, _Values]:
    """Of each field, for the samples that have it."""
    found: dict[str, _Values] = {field: ([], []) for field in fields}
    for sample in samples:
        for field, (names, values) in found.items():
            value = sample.task if field == "task" else sample.metadata.get(field)
            if value is None and field == "modality" and sample.images:
                value = sample.images[0].modality
            if value is not None and value != "" and not isinstance(value, (list, dict)):
                names.append(sys.intern(sample.id))
                values.append(sys.intern(value) if isinstance(value, str) else value)
    return found


def _labels(field: str, having: _Values) -> dict[str, str]:
    found = dict(zip(*having, strict=True))
    if field == "age":
        years = {name: age for name, value in found.items() if (age := _age(value)) is not None}
        order = sorted(years, key=lambda name: years[name])
        return {name: next(title for end, title in AGES if years[name] < end) for name in order}
    numbers = {
        name: float(value) for name, value in found.items() if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    if len(numbers) == len(found) and len(set(numbers.values())) > MAX_SUBGROUPS:
        return cut_into_thirds(numbers)
    words = {name: {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value) for name, value in found.items()}
    counts = Counter(words.values())
    return dict(sorted(words.items(), key=lambda entry: (-counts[entry[1]], entry[1])))


def _age(value: JsonValue) -> float | None:
    """Years, None for what is no age."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value < 150 else None
    match = _DICOM_AGE.fullmatch(str(value).strip())
    return int(match[1]) * _YEARS[match[2].upper()] if match else None


def measure_subgroups(
    table: ScoreTable, samples: Sequence[Sample], values: Mapping[str, MetricValue], settings: EvaluationSettings
) -> tuple[dict[str, dict[str, tuple[Measurement, ...]]], list[Text]]:
    """Field -> value -> measurements, and what was too small to be shown. A field that tells nobody apart is left out."""
    found: dict[str, dict[str, tuple[Measurement, ...]]] = {}
    warnings = []
    for field, having in _values(samples, settings.subgroups).items():
        members: dict[str, list[str]] = {}
        for sample, value in _labels(field, having).items():
            members.setdefault(value, []).append(sample)
        large = {
            value: ids
            for value, ids in members.items()
            if len(ids) >= settings.min_subgroup_samples and len({table.groups[name] for name in ids}) >= MIN_GROUPS
        }
        if len(members) > len(large):
            warnings.append(cautions.small_subgroups(field, len(members) - len(large), settings.min_subgroup_samples, MIN_GROUPS))
        if len(large) < 2:
            continue
        found[field] = {
            value: tuple(measure(table, name, among=large[value]) for name in values if table.select(name, among=large[value]))
            for value in list(large)[:MAX_SUBGROUPS]
        }
    return found, warnings

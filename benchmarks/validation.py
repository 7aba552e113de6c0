"""Does ``medtune validate`` find what is wrong? Plants faults of every kind among clean rows and prints what was found of each.

Run: ``python benchmarks/validation.py`` (``--ocr`` plants text in pictures too, ``--html FILE`` keeps the page of the first set).
Exits with 1 when a fault of a deterministic kind was missed, or a finding names a clean row.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import planted as planting
from medtune.data.checks.meanings import MEANINGS
from medtune.data.dataset import Dataset, LeftOut
from medtune.data.validate import validate
from medtune.data.validation_page import write_page
from medtune.errors import DataError
from medtune.language import msg
from medtune.types import Fault, Issue, Sample, ValidationReport

GUESSES = frozenset({"near-duplicate-overlap", "burned-in-box", "burned-in-identifier", "burned-in-text", "burned-in-marker"})
"""Kinds that are recognised rather than read: they may miss some."""

MEASUREMENTS = frozenset({"closed-majority", "class-balance", "normal-share", "question-only"})
"""Kinds that state a number of any data set: a warning, where the number is a fault, counts as found."""

STATEMENTS = frozenset({"source-card", "synthetic", "near-duplicates-crowded"})
"""Kinds that are not planted: they repeat what a manifest says, or tell how far a check came."""


@dataclass(frozen=True)
class Line:
    """One kind of the table."""

    code: str
    planted: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        return self.right / self.planted


def count_words(sample: Sample) -> int:
    """Stands for a tokenizer: words of the row."""
    if planting.UNENCODABLE in sample.target:
        raise DataError(msg("The answer is empty."))
    return sum(len(message.content.split()) for message in sample.messages)


def compare(report: ValidationReport, planted: planting.PlantedSet) -> list[Line]:
    """What was planted against what was found, by kind. A finding that names something of a clean row is a wrong one."""
    lines, clean = [], planted.clean_names()
    for code, expected in sorted(planted.expected.items()):
        issues = [issue for issue in report.issues if issue.code == code]
        if isinstance(expected, set):
            found = {issue.sample for issue in issues}
            lines.append(Line(code, len(expected), len(found), len(expected & found)))
        else:
            count = sum(issue.count for issue in issues)
            wrong = len(clean & {name for issue in issues for name in _named(issue)})
            lines.append(Line(code, expected, count, max(min(count, expected) - wrong, 0)))
    return lines


def false_alarms(report: ValidationReport, planted: planting.PlantedSet) -> Counter[str]:
    """Findings of any kind that name a clean row, or something that only clean rows have."""
    clean = planted.clean_names()
    return Counter(issue.code for issue in report.issues if clean & set(_named(issue)))


def _named(issue: Issue) -> Iterator[str]:
    """What a finding names: its sample, and the examples in its words."""
    yield str(issue.sample)
    for field in ("examples", "volume"):
        yield from str(issue.message.fields.get(field, "")).replace(" - ", ", ").split(", ")


def measure(work: Path, *, num_clean: int = 160, ocr: bool = False, page: Path | None = None) -> tuple[list[Line], Counter[str]]:
    """Make the sets in ``work``, validate them, and compare. Returns a line for each kind, and the false alarms on clean rows."""
    rows = planting.PlantedSet()
    planting.add_clean(rows, num_clean)
    planting.plant_rows(rows)
    steps = list(planting.plant_pictures(rows))
    if ocr:
        planting.plant_text_in_pictures(rows)
    dataset = rows.write(work / "rows")
    for step in steps:
        step(dataset.folder)
    report = validate(dataset, count_tokens=count_words, max_tokens=200, context=1000, ocr=ocr)
    if page is not None:
        write_page(report, dataset, page)
    lines, alarms = compare(report, rows), false_alarms(report, rows)

    overlaps = planting.PlantedSet()
    planting.add_clean(overlaps, num_clean)
    planting.plant_overlaps(overlaps)
    report = validate(overlaps.write(work / "overlaps"))
    lines += compare(report, overlaps)
    alarms += false_alarms(report, overlaps)

    slices = planting.PlantedSet()
    planting.add_clean(slices, num_clean)
    planting.plant_slices(slices)
    report = validate(slices.write(work / "slices", group_kind="image"))
    lines += compare(report, slices)
    alarms += false_alarms(report, slices)
    lines += _of_whole_sets(work)
    return sorted(lines, key=lambda line: line.code), alarms


def _of_whole_sets(work: Path) -> list[Line]:
    """Kinds that a whole set has or has not: each is planted in one set, and must not be found in the clean one."""
    clean = planting.PlantedSet()
    planting.add_clean(clean, 60)
    found_in_clean = _faults(clean.write(work / "clean"))
    made: list[tuple[str, Dataset]] = []

    def make(code: str, planted: planting.PlantedSet, **manifest: object) -> Dataset:
        dataset = planted.write(work / code, **manifest)
        made.append((code, dataset))
        return dataset

    for code, licence in (
        ("licence-missing", "not stated"),
        ("licence-non-commercial", "CC-BY-NC-4.0"),
        ("licence-no-derivatives", "CC-BY-ND-4.0"),
    ):
        planted = planting.PlantedSet()
        planting.add_clean(planted, 12)
        planted.cards = {"planted": planting.card("planted", licence)}
        make(code, planted)
    planted = planting.PlantedSet()
    planting.add_clean(planted, 12)
    for row in planted.rows["train"]:
        row["metadata"]["licence"] = "CC-BY-4.0"
    make("licence-mixed", planted)
    planted = planting.PlantedSet()
    for number in range(80):
        planted.add("scaled", box=[500 + number, 600, 700 + number, 900 - number])
    make("box-convention", planted)
    planted = planting.PlantedSet()
    planting.add_clean(planted, 12)
    make("no-patient-ids", planted, group_kind="image")
    planted = planting.PlantedSet()
    planting.add_clean(planted, 12)
    dataset = make("file-changed", planted)
    with (dataset.folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    planted = planting.PlantedSet()
    planting.add_clean(planted, 12)
    (make("images-index", planted).folder / "images.jsonl").write_text("{\n")
    planted = planting.PlantedSet()
    for _ in range(12):
        planted.add("train only")
    make("split-empty", planted)
    planted = planting.PlantedSet()
    planting.add_clean(planted, 12)
    fault = Fault("answer-empty", msg("The answer is empty."), msg("Prepare the data set again."))
    line = LeftOut.of(fault, source="planted", record_id="gone").model_dump_json()
    (make("left-out-answer-empty", planted).folder / "left_out.jsonl").write_text(line + "\n", encoding="utf-8")
    for code, task, tags in (
        ("closed-majority", "closed-vqa", {"answer_type": "closed"}),
        ("class-balance", "caption", {}),
        ("question-only", "caption", {}),
        ("normal-share", "caption", {"normal": True}),
    ):
        planted = planting.PlantedSet()
        for number in range(60):
            # Nine of ten answers are one; for normal-share all differ, and all say that nothing is abnormal.
            same = None if code == "normal-share" else "A lesion." if number % 10 else "No lesion."
            row = planted.add("alike", "test" if number % 2 else "train", answer=same, **tags)
            row["task"] = task
        make(code, planted)
    lines = []
    for code, dataset in made:
        found = code in _faults(Dataset.open(dataset.folder))
        lines.append(Line(code, 1, int(found) + int(code in found_in_clean), int(found)))
    return lines


def _faults(dataset: Dataset) -> set[str]:
    """The kinds of what was found; of :data:`MEASUREMENTS` those with a warning."""
    return {issue.code for issue in validate(dataset).issues if issue.code not in MEASUREMENTS or issue.severity != "info"}


def not_planted(lines: list[Line]) -> list[str]:
    """Kinds that ``validate`` knows and this benchmark does not plant, other than :data:`STATEMENTS`."""
    planted = {line.code for line in lines}
    return [code for code in MEANINGS if code not in STATEMENTS and not any(fnmatch.fnmatch(line, code) for line in planted)]


def missed(lines: list[Line]) -> list[str]:
    """Deterministic kinds of which a fault was missed."""
    return [line.code for line in lines if line.recall < 1 and line.code not in GUESSES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ocr", action="store_true")
    parser.add_argument("--html", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines, alarms = measure(Path(folder), ocr=options.ocr, page=options.html)
    print(f"{'kind':26} {'planted':>8} {'found':>8} {'precision':>10} {'recall':>8}")
    for line in lines:
        print(f"{line.code:26} {line.planted:8d} {line.found:8d} {line.precision:10.2f} {line.recall:8.2f}")
    print(
        f"\nFindings that name a clean row: {dict(alarms) or 'none'}. Kinds not planted: {', '.join(not_planted(lines)) or 'none'}."
    )
    other = Path(__file__).parent / "leak_baseline.py"
    if other.is_file():
        print(flush=True)
        os.spawnv(os.P_WAIT, sys.executable, [sys.executable, str(other)])
    return 1 if missed(lines) or alarms else 0


if __name__ == "__main__":
    sys.exit(main())

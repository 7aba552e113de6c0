"""``--fix``: the copy has none of the faults, the origin is untouched, and the list says what was done."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from medtune.data.dataset import Dataset
from medtune.data.fix import Faults, Fixed, write_fixed
from medtune.data.repair import repair_row
from medtune.data.validate import validate
from medtune.errors import DataError
from medtune.types import ValidationReport

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


planting = benchmark("planted")


def words(sample: Any) -> int:
    return sum(len(message.content.split()) for message in sample.messages)


def checked(dataset: Dataset) -> tuple[ValidationReport, Faults]:
    made: list[Faults] = []

    def family(context: Any) -> Faults:
        made.append(Faults(context))
        return made[0]

    return validate(dataset, count_tokens=words, max_tokens=200, extra=(family,)), made[0]


def fixed(dataset: Dataset, folder: Path, *, terms: bool = False) -> tuple[Fixed, list[dict[str, Any]]]:
    result = write_fixed(dataset, checked(dataset)[1], folder, terms=terms)
    return result, fixes_of(folder)


def fixes_of(folder: Path) -> list[dict[str, Any]]:
    file = folder / "fixes.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    planted = planting.PlantedSet()
    planting.add_clean(planted, 16)
    planting.plant_rows(planted)
    planting.plant_overlaps(planted)
    number = planted.add("number")
    number["target"] = number["messages"][-1]["content"] = 17
    planted.add("edge", box=[100, 100, planting.SIDE + 0.6, 150])
    steps = list(planting.plant_pictures(planted))
    dataset: Dataset = planted.write(tmp_path_factory.mktemp("spoilt") / "data")
    for step in steps:
        step(dataset.folder)
    return dataset


@pytest.fixture(scope="module")
def report_and_faults(spoilt: Dataset) -> tuple[ValidationReport, Faults]:
    return checked(spoilt)


@pytest.fixture(scope="module")
def cleaned(
    spoilt: Dataset, report_and_faults: tuple[ValidationReport, Faults], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Fixed, Dataset]:
    before = contents(spoilt.folder)
    folder = tmp_path_factory.mktemp("cleaned") / "copy"
    result = write_fixed(spoilt, report_and_faults[1], folder, terms=True)
    assert contents(spoilt.folder) == before
    return result, Dataset.open(folder)


def test_the_copy_has_none_of_the_faults_and_a_second_time_there_is_nothing_to_do(
    spoilt: Dataset, report_and_faults: tuple[ValidationReport, Faults], cleaned: tuple[Fixed, Dataset], tmp_path: Path
) -> None:
    report, _ = report_and_faults
    result, copy = cleaned
    fixes = fixes_of(copy.folder)
    after, faults = checked(copy)
    assert after.num_errors == 0, {issue.code for issue in after.issues if issue.severity == "error"}
    left = {issue.code for issue in after.issues}
    assert not left & set(result.codes) - {"wording", "answer-is-number"}  # "differing density" has no one term; a number stays one
    errors = {issue.code for issue in report.issues if issue.severity == "error"}
    # Both are about a shared picture, which is named first.
    assert errors - {"question-overlap", "paraphrase-overlap"} <= set(result.codes)

    assert copy.manifest.derived_from == spoilt.manifest.hash != copy.manifest.hash
    assert copy.manifest.num_samples == after.num_rows
    assert sum(copy.manifest.num_samples.values()) == sum(report.num_rows.values()) - result.num_left_out
    assert copy.manifest.num_images == len(list(copy.images)) == len(list((copy.folder / "images").rglob("*.*")))
    assert sum(copy.manifest.tasks.values()) == sum(after.num_rows.values())
    assert {fix["action"] for fix in fixes} == {"changed", "left-out"}
    assert sum(fix["action"] == "left-out" for fix in fixes) == result.num_left_out

    again = write_fixed(copy, faults, tmp_path / "again", terms=True)
    assert (again.num_changed, again.num_left_out, again.codes) == (0, 0, {})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_taken_from_test_that_train_has_too(spoilt: Dataset, cleaned: tuple[Fixed, Dataset]) -> None:
    result, copy = cleaned
    overlaps = [fix for fix in fixes_of(copy.folder) if fix["code"].endswith("-overlap")]
    assert len(overlaps) >= 6 * planting.TIMES
    assert {fix["split"] for fix in overlaps} == {"train"}
    assert copy.manifest.num_samples["test"] == spoilt.manifest.num_samples["test"]
    assert result.num_left_out > len(overlaps)


def test_rows_of_one_group_in_one_split_stay_together(tmp_path: Path) -> None:
    planted = planting.PlantedSet()
    planting.add_clean(planted, 8)
    for split in ("validation", "test", "train"):
        first, second = planted.add(f"{split}-one", split), planted.add(f"{split}-two", split)
        second.update(group=first["group"], metadata=first["metadata"])
    planted.say(planted.add("blank"), "Yes ")
    result, _ = fixed(planted.write(tmp_path / "data"), tmp_path / "copy")
    assert (result.num_changed, result.num_left_out) == (1, 0)


def test_what_was_changed_is_listed(cleaned: tuple[Fixed, Dataset]) -> None:
    _, copy = cleaned
    changed = {(fix["code"], fix["before"], fix["after"]) for fix in fixes_of(copy.folder) if fix["action"] == "changed"}
    assert ("answer-is-number", "17", '"17"') in changed
    assert ("wording", "脑溢血", "脑出血") in changed
    assert ("wording", "green box", "region of interest") in changed
    assert ("stray-blanks", " A lesion of the brain.", "A lesion of the brain.") in changed
    assert any(code == "box-outside" and after == f"[100.0, 100.0, {planting.SIDE}, 150.0]" for code, _, after in changed)
    rows = {row.id.rpartition("-")[0]: row for row in copy.rows("train")}
    assert rows["number"].target == "17"
    assert rows["edge"].metadata["box"] == [100, 100, planting.SIDE, 150]


def test_terms_are_replaced_only_when_asked_for(
    spoilt: Dataset, report_and_faults: tuple[ValidationReport, Faults], tmp_path: Path
) -> None:
    result = write_fixed(spoilt, report_and_faults[1], tmp_path / "copy")
    assert "wording" not in result.codes
    assert result.num_changed


def test_an_official_split_keeps_what_it_shares(tmp_path: Path) -> None:
    planted = planting.PlantedSet(official=True)
    planting.add_clean(planted, 12)
    row = planted.add("picture-train")
    planted.add("picture-test", "test", path=row["images"][0])
    planted.say(planted.add("blank"), "Yes ")
    result, _ = fixed(planted.write(tmp_path / "data"), tmp_path / "copy")
    assert (result.num_changed, result.num_left_out) == (1, 0)


def test_the_copy_is_never_in_place(spoilt: Dataset, report_and_faults: tuple[ValidationReport, Faults], tmp_path: Path) -> None:
    for folder in (spoilt.folder, spoilt.folder / "copy", tmp_path):
        with pytest.raises(DataError):
            write_fixed(spoilt, report_and_faults[1], folder)
    assert not (spoilt.folder / "copy").exists()


def test_no_row_would_be_left(tmp_path: Path) -> None:
    planted = planting.PlantedSet()
    planted.say(planted.add("empty"), "")
    with pytest.raises(DataError, match="No row would be left"):
        fixed(planted.write(tmp_path / "data"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("row", [{}, {"messages": 3}, {"messages": [1, None]}, {"messages": [{"role": "user"}], "target": None}])
def test_a_row_that_is_none_is_left_as_it_is(row: dict[str, Any]) -> None:
    before = json.dumps(row)
    assert repair_row(row, (10, 10), terms=True) == []
    assert json.dumps(row) == before

"""Records that no file system, encoding or column was made for: each costs itself, never the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import source_files
from medtune.data import shard
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset, RowError, sample_of
from medtune.data.prepare import prepare
from medtune.errors import DataError
from medtune.types import Part, Picture, Record, Settings, SourceCard

HALF = "\ud83d"
"""Half of a character outside the basic plane: JSON can name it, UTF-8 cannot."""


class Odd(Settings):
    """Ten sound records, and one that is not."""

    case: str = ""
    num_rows: int = 10

    @property
    def card(self) -> SourceCard:
        return SourceCard(name="odd", title="Odd", licence="Apache-2.0", citation="", group_kind="patient", synthetic=True)

    def samples(self) -> Iterator[Record]:
        for number in range(self.num_rows):
            yield record(id=f"row-{number}", group=f"patient-{number}")
        if self.case:
            yield CASES[self.case]


class OnePart(Settings):
    """All rows in one part, each with an organ of its own."""

    num_rows: int

    @property
    def card(self) -> SourceCard:
        return Odd().card

    def parts(self) -> list[Part]:
        return [Part(Path(__file__))]

    def samples(self) -> Iterator[Record]:
        return self.samples_of(self.parts()[0])

    def samples_of(self, part: Part) -> Iterator[Record]:  # noqa: ARG002
        for number in range(self.num_rows):
            yield record(id=f"row-{number}", metadata={"organ": f"organ {number}"})


class ManyModalities(Settings):
    """Seventy modalities."""

    num_rows: int

    @property
    def card(self) -> SourceCard:
        return Odd().card

    def samples(self) -> Iterator[Record]:
        for number in range(self.num_rows):
            yield record(id=f"row-{number}", group=f"patient-{number}", metadata={"modality": f"kind {number % 70}"})


def record(**fields: Any) -> Record:
    return Record(**{"id": "odd", "task": "text-qa", "pictures": (), "target": "a", "group": "g", "question": "q?", **fields})


def pictured(path: str) -> Record:
    return record(pictures=(Picture(path=Path(path)),), question="<image>?")


CASES = {
    "id": record(id=f"x{HALF}y"),
    "group": record(group=f"x{HALF}y"),
    "target": record(target=f"x{HALF}y"),
    "question": record(question=f"x{HALF}y"),
    "metadata": record(metadata={"note": f"x{HALF}y"}),
    "long path": pictured("/" + "k" * 10_000),
    "null in the path": pictured("/a\0b"),
    "half a character in the path": pictured(f"/a{HALF}b"),
}


GROUPS = ('Müller, "A"', "two\nlines", "carriage\rreturn", "x" * 10_000, "\ufeffmark", " ")
CASES |= {f"group {number}": record(group=group) for number, group in enumerate(GROUPS)}
ODD = [case for case in CASES if not case.startswith("group ")]


def settings(case: str = "", *, source: str = "Odd", split: dict[str, Any] | None = None, **options: Any) -> DataSettings:
    options = {**options, **({"case": case} if source == "Odd" else {})}
    entry = {"source": f"test_odd_records:{source}", "options": options}
    return DataSettings.model_validate({"sources": [entry], "num_workers": 1, "split": split or {}})


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("case", ODD)
def test_an_odd_record_costs_itself(tmp_path: Path, case: str) -> None:
    manifest = prepare(settings(case), name="x", folder=tmp_path / "out")
    assert sum(manifest.num_samples.values()) == 10
    (left_out,) = Dataset.open(tmp_path / "out").left_out()
    assert left_out.id == ("x\\ud83dy" if case == "id" else "odd")
    assert left_out.reason in {"row-malformed", "text-not-unicode", "unreadable-image"}
    assert left_out.remedy is not None


def test_more_tags_in_one_shard_than_16_bits_count(tmp_path: Path) -> None:
    rows = 2**16 + 10
    manifest = prepare(settings(source="OnePart", num_rows=rows), name="x", folder=tmp_path / "out")
    assert sum(manifest.num_samples.values()) == rows


def test_a_source_without_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no records") as caught:
        prepare(settings(num_rows=0), name="x", folder=tmp_path / "out")
    assert caught.value.key == "data.sources.0"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(6))
def test_groups_csv_can_be_given_back(tmp_path: Path, number: int) -> None:
    chosen = settings(f"group {number}")
    first = prepare(chosen, name="x", folder=tmp_path / "first")
    listed = settings(f"group {number}", split={"assigned": str(tmp_path / "first" / "groups.csv"), "seed": 99})
    again = prepare(listed, name="x", folder=tmp_path / "again")
    assert sum(first.num_samples.values()) == 11
    for split in first.num_samples:
        assert (tmp_path / "first" / f"{split}.jsonl").read_bytes() == (tmp_path / "again" / f"{split}.jsonl").read_bytes()
    assert again.num_groups == first.num_groups


def test_more_modalities_than_are_looked_after_are_told(tmp_path: Path) -> None:
    manifest = prepare(settings(source="ManyModalities", num_rows=140), name="x", folder=tmp_path / "out")
    assert sum(manifest.num_samples.values()) == 140
    assert len(manifest.strata) == 64
    assert any("There are 6 combinations" in text.render("en") for text in manifest.warnings)


def test_a_record_of_many_pictures_gives_a_sign_of_life_at_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``data.limits.seconds`` is for one picture, not for all of a record."""
    monkeypatch.setattr(shard, "HEARTBEAT_SECONDS", -1.0)
    pictures = tuple(Picture(data=source_files.jpeg(number), name=str(number)) for number in range(9))
    many = record(pictures=pictures, question="<image>" * 9, task="open-vqa")
    signs = list(shard.make_shard(settings(), tmp_path, shard.Job(0, 0, "odd", "", records=(many,)), {}))
    assert len(signs) > 9


@pytest.mark.parametrize("line", ["[" * 100_000, b"\xff{}", '{"id": ' + "9" * 5000 + "}"])
def test_a_line_that_is_no_row(line: str | bytes) -> None:
    with pytest.raises(RowError):
        sample_of(line, {})

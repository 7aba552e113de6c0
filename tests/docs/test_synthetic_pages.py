"""docs/phantom.md and docs/nano.md give the numbers that the code and the packed model have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medtune.data.sources.phantom import Phantom, PhantomGeneral
from medtune.data.sources.phantom import head as heads
from medtune.data.sources.phantom.finding import KINDS, Kind

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "src" / "medtune" / "nano"
BOTH = pytest.mark.parametrize("ending", ["md", "zh-CN.md"])


def page(name: str, ending: str) -> str:
    return (ROOT / "docs" / f"{name}.{ending}").read_text(encoding="utf-8")


def cells(text: str, first: str) -> list[str]:
    """The cells of the table row that begins with the cell ``first``, `code` or with words behind it."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@BOTH
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_its_ranges(ending: str, kind: Kind) -> None:
    row = cells(page("phantom", ending), f"`{kind.name}`")
    assert row[1].startswith(kind.density_word)
    for cell, values in zip(row[2:5], (kind.along, kind.across, kind.hu), strict=True):
        assert cell == f"{values[0]}–{values[1]}"


@BOTH
def test_every_density_is_the_code_s(ending: str) -> None:
    text = page("phantom", ending)
    stated = [heads.AIR, heads.GREY, heads.SCALP, heads.WHITE, heads.BONE, heads.FLUID, heads.FALX]
    start = text.splitlines().index(next(line for line in text.splitlines() if line.count("HU |") == 2))
    rows = text.splitlines()[start + 2 : start + 6]
    numbers = [float(cell.strip().replace("−", "-")) for row in rows for cell in row.split("|") if re.fullmatch(r" −?\d+ ", cell)]
    assert numbers == stated


@BOTH
@pytest.mark.parametrize("source", [Phantom, PhantomGeneral])
def test_every_option_has_its_default(ending: str, source: type[Phantom | PhantomGeneral]) -> None:
    text = page("phantom", ending)
    table = text[text.index(f"| `{source().card.name}` |") :]
    for name, field in source.model_fields.items():
        assert cells(table, f"`{name}`")[1].strip("`") == str(field.default)


@BOTH
def test_the_run_is_the_packed_record(ending: str) -> None:
    text = page("nano", ending)
    record = json.loads((NANO / "training.json").read_text(encoding="utf-8"))
    last = [entry["loss"] for entry in record["losses"] if "loss" in entry][-1]
    for value in (
        record["dataset_hash"],
        f"{record['num_steps']:,}",
        f"{record['num_epochs']:.2f}",
        f"{record['trainable']['total']:,}",
        f"{record['seconds']:.0f} ",
        f"{record['losses'][0]['loss']:.2f}",
        f"{last:.3f}",
        f"{record['eval_loss']:.3f}",
        record["versions"]["torch"],
        record["versions"]["transformers"],
        record["versions"]["device"],
    ):
        assert value in text, value


@BOTH
def test_sizes_of_the_files_and_of_the_model_are_those_that_ship(ending: str) -> None:
    text = page("nano", ending)
    for name in ("model.safetensors", "tokenizer.json"):
        assert cells(text, f"`{name}`")[1] == f"{(NANO / name).stat().st_size:,}"
    small = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "chat_template.jinja")
    assert f"{sum((NANO / name).stat().st_size for name in small):,}" in text
    named = set(re.findall(r"`(\w+\.(?:json|yaml|jinja|safetensors))`", text))
    assert named >= {path.name for path in NANO.iterdir() if path.is_file()}


@BOTH
def test_the_parameters_add_up(ending: str) -> None:
    row = next(line for line in page("nano", ending).splitlines() if "5,817,824" in line and line.startswith("|"))
    total, *parts = [int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+", row)]
    assert len(parts) == 3
    assert sum(parts) == total


def test_the_loss_picture_is_small() -> None:
    assert 5_000 < (ROOT / "docs" / "images" / "nano_loss.png").stat().st_size < 60_000

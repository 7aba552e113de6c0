"""Data sets that were prepared by somebody else: what they name must not lead out of their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import source_files
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare
from medtune.data.validate import validate
from medtune.errors import DataError
from medtune.types import ImageRef

OUTSIDE = (
    "../secret.png",
    "images/../../secret.png",
    "/etc/secret.png",
    "images/..\\..\\secret.png",
    "\\\\host\\x.png",
    "C:/x.png",
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    source_files.write_vqa_rad(tmp_path / "rad", num_images=6)
    settings = DataSettings.model_validate({"sources": [{"source": "vqa-rad", "options": {"path": str(tmp_path / "rad")}}]})
    prepare(settings, name="theirs", folder=tmp_path / "theirs")
    (tmp_path / "secret.png").write_bytes(source_files.png())
    return tmp_path / "theirs"


def repoint(folder: Path, path: str) -> None:
    """Let the first picture of the folder be ``path``, in rows and index."""
    index = folder / "images.jsonl"
    first = json.loads(index.read_text().splitlines()[0])["path"]
    for name in ("images.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl"):
        file = folder / name
        file.write_text(file.read_text().replace(json.dumps(first), json.dumps(path)))


@pytest.mark.parametrize("path", OUTSIDE)
def test_pictures_outside_the_folder_are_refused(dataset: Path, path: str) -> None:
    repoint(dataset, path)
    with pytest.raises(DataError, match="lies outside the data set's folder") as caught:
        list(Dataset.open(dataset).rows("train"))
    assert str(caught.value.file).endswith("images.jsonl:1")
    report = validate(Dataset.open(dataset))
    assert [issue.code for issue in report.issues if issue.severity == "error" and issue.code == "images-index"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_picture_reference_made_by_hand_stays_inside_too(dataset: Path, path: str) -> None:
    ref = ImageRef(path=path, sha256="0" * 64, width=1, height=1)
    with pytest.raises(DataError, match="outside"):
        Dataset.open(dataset).image_path(ref)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd"])
def test_a_manifest_that_names_files_elsewhere_is_damaged(dataset: Path, name: str) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json cannot be read: .* outside the folder"):
        Dataset.open(dataset)


def test_names_with_dots_are_no_way_out(dataset: Path) -> None:
    ref = ImageRef(path="images/3f/..hidden..png", sha256="0" * 64, width=1, height=1)
    assert Dataset.open(dataset).image_path(ref) == dataset / "images" / "3f" / "..hidden..png"

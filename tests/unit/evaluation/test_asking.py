"""What asking keeps of the samples: their names and numbers, not their texts, pictures and requests."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from medtune.data.dataset import Dataset, file_sha256, image_line, write_row
from medtune.evaluation import asking
from medtune.evaluation.asking import Source, ask, ids_of
from medtune.evaluation.controls import Presented, present
from medtune.evaluation.predictions import Asked, read_predictions
from medtune.generation.echo import EchoGenerator
from medtune.types import ControlName, ImageRef, Manifest, Message, Sample, Sampling, SourceCard, SourceRecord

QUESTION = "<image>Describe what is seen. " + "It was asked at length. " * 60


def long_samples(folder: Path, count: int) -> Dataset:
    """Samples of 3 kB each; their pictures are named, and never looked at."""
    folder.mkdir(parents=True)
    with (folder / "test.jsonl").open("w") as rows, (folder / "images.jsonl").open("w") as images:
        for number in range(count):
            digest = f"{number:064x}"
            ref = ImageRef(path=f"images/{digest[-2:]}/{digest[-16:]}.png", sha256=digest, width=8, height=8)
            images.write(image_line(ref) + "\n")
            target = f"The liver shows nodule {number}. " + "The lungs are clear. " * 60
            turns = (Message(role="user", content=QUESTION), Message(role="assistant", content=target))
            sample = Sample(
                id=f"s{number:05}",
                task="open-vqa",
                images=(ref,),
                messages=turns,
                target=target,
                group=f"g{number // 4}",
                source="-",
            )
            rows.write(write_row(sample) + "\n")
    card = SourceCard(name="-", title="-", licence="CC0-1.0", citation="-", group_kind="patient", synthetic=True)
    manifest = Manifest(
        name="long",
        medtune_version="0",
        sources=(SourceRecord(card=card, num_samples=count),),
        split={},
        num_samples={"test": count},
        num_groups={"test": -(-count // 4)},
        num_images=count,
        tasks={"open-vqa": count},
        group_kind="patient",
        synthetic=True,
        local_only=False,
        files={name: file_sha256(folder / name) for name in ("test.jsonl", "images.jsonl")},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return Dataset.open(folder)


def peak_of_asking(folder: Path, count: int, control: ControlName) -> int:
    """Of what Python has allocated, in bytes."""
    dataset = long_samples(folder / "data", count)
    pool = dataset.sequence("test")
    known, order = ids_of(pool)
    entry = Asked(label="m", model="base", control=control, dataset="-", dataset_hash="-", split="test", seed=0, sampling={})

    def show(made: Path) -> Presented:
        return present(control, pool, pool=pool, picture=dataset.stored_picture, seed=0, blank_folder=made)

    tracemalloc.start()
    source = Source(EchoGenerator(["a nodule in the liver"]))
    ask(entry, known, order, show, source, folder=folder, sampling=Sampling(), overwrite=False, hear=lambda _: None)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stored = read_predictions(folder / "evaluations" / entry.folder / "predictions.jsonl", known)
    assert list(stored.predictions) == order
    return found


@pytest.mark.parametrize("control", ["none", "shuffled"])
def test_asking_more_samples_keeps_their_names_and_no_texts(
    control: ControlName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_ANSWERED_SOON", 8)
    peak_of_asking(tmp_path / "first", 20, control)  # what is imported and kept once
    # Other threads of the process, whatever they are doing, can only add to it.
    few, many = (min(peak_of_asking(tmp_path / f"{count}-{again}", count, control) for again in range(3)) for count in (60, 260))
    # A text alone has 1.3 kB, and a sample three of them.
    assert many - few < 200 * 1200, f"{(many - few) / 200:.0f} bytes a sample"

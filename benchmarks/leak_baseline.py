"""What a split by row is worth to a memory: a baseline that answers as the most similar training picture does.

Run: ``python benchmarks/leak_baseline.py [--patients 150] [--slices 8]``. Makes synthetic volumes of adjacent slices (medtune's
phantom; every slice cuts the volume's lesion), splits them once by volume and once by slice, and prints for both splits which
volumes ``validate`` names, with and without volume ids, and how well the baseline answers: mean BLEU-4 of the captions
(LLaMA-Factory's, over characters), and how often the right lesion (or none) is named. The baseline has no model: it takes, for
each test row, the answer to the same task of the training picture whose thumbnail correlates most.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medtune.data.checks.fingerprint import measure
from medtune.data.checks.keys import normalised
from medtune.data.config import DataSettings
from medtune.data.dataset import Dataset
from medtune.data.prepare import prepare
from medtune.data.sources.phantom import Phantom
from medtune.data.validate import validate
from medtune.evaluation.metrics.llamafactory import bleu_4
from medtune.imaging.read import open_picture
from medtune.types import Record, Sample, SourceCard

__all__ = ["Scores", "Slices", "leaking", "main", "nearest_answers"]

QUESTION = "Which lesion does the slice show?"


class Slices(Phantom):
    """The phantom's slices, each with a caption and a question for its lesion, split as ``unit`` says."""

    unit: Literal["volume", "slice"] = "volume"
    """What a split keeps together."""
    named: bool = True
    """Whether the rows name their volume."""

    @property
    def card(self) -> SourceCard:
        return super().card.model_copy(update={"group_kind": "volume" if self.unit == "volume" else "image"})

    def samples(self) -> Iterator[Record]:
        for record in super().samples():
            index = int(record.pictures[0].name.removesuffix(".png").rpartition("-")[2])
            metadata = {**record.metadata, "volume": record.group, "slice": index} if self.named else record.metadata
            group = record.group if self.unit == "volume" else f"{record.group}-{index}"
            yield dataclasses.replace(record, group=group, metadata=metadata)
            lesion = str(record.metadata.get("kind") or "none")
            yield dataclasses.replace(
                record,
                id=record.id + "-lesion",
                task="closed-vqa",
                question=QUESTION,
                target=lesion,
                group=group,
                metadata=metadata,
            )


@dataclass(frozen=True)
class Scores:
    """Of the baseline on the test split of ``num_slices``: BLEU-4 of the captions (0 to 100), accuracy of the lesions (0 to 1)."""

    bleu_4: float
    accuracy: float
    num_slices: int


def nearest_answers(dataset: Dataset) -> Iterator[tuple[Sample, str]]:
    """Each test row, and the answer that the nearest training picture with a row of the same task has."""
    trained: dict[str, list[tuple[str, str]]] = defaultdict(list)
    thumbnails: dict[str, np.ndarray] = {}

    def look(sample: Sample) -> str:
        ref = sample.images[0]
        if ref.path not in thumbnails:
            grey = np.frombuffer(measure(open_picture(dataset.picture(ref)))["thumbnail"], np.uint8).astype(np.float32)
            centred = grey - grey.mean()
            thumbnails[ref.path] = centred / max(float(np.linalg.norm(centred)), 1e-6)
        return ref.path

    for sample in dataset.rows("train"):
        trained[sample.task].append((look(sample), sample.target))
    stacked = {task: np.stack([thumbnails[path] for path, _ in rows]) for task, rows in trained.items()}
    for sample in dataset.rows("test"):
        if sample.task in stacked:
            nearest = int(np.argmax(stacked[sample.task] @ thumbnails[look(sample)]))
            yield sample, trained[sample.task][nearest][1]


def score(dataset: Dataset) -> Scores:
    """How well the baseline answers the test rows."""
    texts: list[float] = []
    lesions: list[bool] = []
    for sample, answer in nearest_answers(dataset):
        if sample.task == "closed-vqa":
            lesions.append(normalised(answer) == normalised(sample.target))
        else:
            texts.append(bleu_4(answer, sample.target))
    return Scores(float(np.mean(texts)), float(np.mean(lesions)), len(texts))


def leaking(dataset: Dataset) -> set[str]:
    """The volumes that really have slices in several splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for split in dataset.splits:
        for sample in dataset.rows(split):
            splits[volume_of(sample.id)].add(split)
    return {volume for volume, found in splits.items() if len(found) > 1}


def found(dataset: Dataset, code: str) -> set[str]:
    """The volumes that findings of a kind name."""
    issues = [issue for issue in validate(dataset).issues if issue.code == code]
    if code == "leaking-volume":
        return {str(issue.message.fields["volume"]) for issue in issues}
    return {volume_of(str(issue.sample)) for issue in issues}


def volume_of(row_id: str) -> str:
    """The volume in the id of a row: ``phantom-<seed>-<patient>-<slice>-<task>``."""
    return "-".join(row_id.split("-")[:3])


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; 1 when a leaking volume with an id was not named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--slices", type=int, default=8)
    given = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    missed: set[str] = set()
    results: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as folder:
        for unit in ("volume", "slice"):
            for named in (True, False):
                options = {
                    "num_patients": given.patients,
                    "slices_per_patient": given.slices,
                    "unit": unit,
                    "named": named,
                    "forms": "medtrinity",
                }
                source = {"source": f"{Path(__file__).stem}:Slices", "options": options}
                dataset_folder = Path(folder) / f"{unit}-{named}"
                settings = DataSettings.model_validate({"sources": [source], "num_workers": 1})
                prepare(settings, name="slices", folder=dataset_folder)
                dataset = Dataset.open(dataset_folder)
                truth = leaking(dataset)
                named_volumes = found(dataset, "leaking-volume" if named else "slice-run")
                known = "volume ids in the rows" if named else "no ids, by likeness"
                right = len(truth & named_volumes)
                print(
                    f"split by {unit}, {known}: {len(truth)} volumes leak, {len(named_volumes)} named, {right} rightly"
                    + (f", e.g. {', '.join(sorted(named_volumes)[:3])}" if named_volumes else "")
                )
                if named:
                    missed |= truth - named_volumes
                    results[unit] = score(dataset)
    print()
    print("| split by | test slices | BLEU-4 of the captions | right lesion |")
    print("|---|---|---|---|")
    for unit, scores in results.items():
        print(f"| {unit} | {scores.num_slices} | {scores.bleu_4:.1f} | {scores.accuracy:.1%} |")
    gain_bleu = results["slice"].bleu_4 - results["volume"].bleu_4
    gain_accuracy = 100 * (results["slice"].accuracy - results["volume"].accuracy)
    print(f"\nThe leak is worth {gain_bleu:.1f} BLEU-4 and {gain_accuracy:.1f} points of accuracy to a memory without a model.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

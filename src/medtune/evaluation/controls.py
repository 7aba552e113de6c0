"""Controls: the same question without the right picture.

A model that scores as well on a stranger's picture as on the patient's has learnt the wording, not to look. On VQA-RAD a
text-only tuned model kept 81 % of its score on blank pictures (arXiv:2603.03437), so no score is shown without its control.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.evaluation.picked import PickedSamples
from medtune.types import IMAGE_MARK, ControlName, ImageRef, Message, Sample, StoredPicture

__all__ = ["MID_GREY", "Presentation", "askable", "present", "shuffle_pictures"]

MID_GREY = 128
"""The grey of a blank picture, in each of red, green and blue (0-255)."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """What is really shown for a sample: the prompt, the picture files in the order of the marks, and their sha256."""

    messages: tuple[Message, ...]
    images: tuple[StoredPicture, ...]
    image_sha256: tuple[str, ...]


def present(
    control: ControlName,
    samples: Sequence[Sample],
    *,
    pool: Sequence[Sample],
    picture: Callable[[ImageRef], StoredPicture],
    seed: int,
    blank_folder: Path,
) -> dict[str, Presentation]:
    """How each sample is shown under ``control``, by sample id, in the order of ``samples``.

    Samples without a picture are absent under every control but ``none``: there is nothing to take away. Under ``shuffled``
    a sample is also absent when no other group has a picture for its task. :func:`askable` names those that remain.

    Args:
        pool: Where shuffled pictures come from: the whole split, so that a smaller draw of samples sees the same ones.
        blank_folder: Where the grey pictures of ``blank`` are written, one for each size.
    """
    if control == "none":
        return {sample.id: _shown(sample, sample.images, picture) for sample in samples}
    seen = [sample for sample in samples if sample.images]
    if control == "question-only":
        return {sample.id: Presentation(tuple(_without_marks(message) for message in sample.prompt), (), ()) for sample in seen}
    if control == "blank":
        blank = _BlankPictures(blank_folder)
        return {sample.id: blank.show(sample) for sample in seen}
    donors = shuffle_pictures(pool, seed=seed)
    return {sample.id: _shown(sample, donors[sample.id].images, picture) for sample in seen if sample.id in donors}


def askable(
    control: ControlName, samples: Sequence[Sample], *, pool: Sequence[Sample], trained_tasks: Container[str] = ()
) -> Sequence[Sample]:
    """The samples that ``control`` can be asked of, in the order of ``samples``; ``samples`` itself where it is all of them.

    Args:
        trained_tasks: Tasks that the training split has rows of, from which the answers of ``majority`` and ``nearest`` come.
    """
    if control == "none":
        return samples
    shared = _of_several_groups(pool) if control == "shuffled" else ()

    def fits(sample: Sample) -> bool:
        if control in ("majority", "nearest"):
            return sample.task in trained_tasks
        return bool(sample.images) and (control != "shuffled" or _likeness(sample) in shared)

    numbers = [number for number, sample in enumerate(samples) if fits(sample)]
    return samples if len(numbers) == len(samples) else PickedSamples(samples, numbers)


def _likeness(sample: Sample) -> tuple[str, int]:
    """What a sample and the one whose pictures it is shown have in common: the task and the number of pictures."""
    return sample.task, len(sample.images)


def _of_several_groups(samples: Iterable[Sample]) -> set[tuple[str, int]]:
    """Of which likeness there are samples of at least two groups, so that :func:`shuffle_pictures` has pictures for them."""
    first: dict[tuple[str, int], str] = {}
    return {_likeness(sample) for sample in samples if first.setdefault(_likeness(sample), sample.group) != sample.group}


def shuffle_pictures(samples: Sequence[Sample], *, seed: int) -> Mapping[str, Sample]:
    """For each sample, by id, one of another group with the same task and number of pictures, whose pictures it is shown.

    Where no group holds more than half of such samples the pictures are permuted: each is shown exactly once, so the
    pictures as a set stay what they were. Otherwise every sample draws from the other groups, with replacement. Samples of
    a task that has one group only are absent. The result depends on the samples and the seed, not on their order.
    """
    alike: dict[tuple[str, int], list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.id):
        if not sample.images:
            continue
        alike.setdefault(_likeness(sample), []).append(sample)
    donors: dict[str, Sample] = {}
    for key in sorted(alike):
        draw = random.Random(f"{seed}/{key[0]}/{key[1]}")
        groups: dict[str, list[Sample]] = {}
        for sample in alike[key]:
            groups.setdefault(sample.group, []).append(sample)
        if len(groups) < 2:
            continue
        blocks = list(groups.values())
        draw.shuffle(blocks)
        for block in blocks:
            draw.shuffle(block)
        line = [sample for block in blocks for sample in block]
        # Turning a line of blocks by the length of the longest moves every sample out of its own block, and, as long as
        # that is no more than half of the line, not round into it again.
        turn = max(len(block) for block in blocks)
        if 2 * turn <= len(line):
            donors.update({sample.id: line[(place + turn) % len(line)] for place, sample in enumerate(line)})
        else:
            for group, block in sorted(groups.items()):
                others = [sample for sample in line if sample.group != group]
                donors.update({sample.id: draw.choice(others) for sample in block})
    return donors


def _shown(sample: Sample, images: Sequence[ImageRef], picture: Callable[[ImageRef], StoredPicture]) -> Presentation:
    return Presentation(sample.prompt, tuple(picture(image) for image in images), tuple(image.sha256 for image in images))


def _without_marks(message: Message) -> Message:
    content = message.content.replace(f"{IMAGE_MARK}\n", "").replace(IMAGE_MARK, "")
    return Message(role=message.role, content=content.strip() if content != message.content else content)


class _BlankPictures:
    """Writes one PNG for each size and shows it wherever a picture of that size stood."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[tuple[int, int], tuple[Path, str]] = {}

    def show(self, sample: Sample) -> Presentation:
        shown = [self._picture(image.width, image.height) for image in sample.images]
        return Presentation(sample.prompt, tuple(path for path, _ in shown), tuple(digest for _, digest in shown))

    def _picture(self, width: int, height: int) -> tuple[Path, str]:
        if (width, height) not in self.written:
            from PIL import Image

            path = self.folder / f"blank-{width}x{height}.png"
            Image.new("RGB", (width, height), (MID_GREY, MID_GREY, MID_GREY)).save(path)
            self.written[width, height] = (path, hashlib.sha256(path.read_bytes()).hexdigest())
        return self.written[width, height]

"""Controls: the same question without the right picture.

A model that scores as well on a stranger's picture as on the patient's has learnt the wording, not to look. On VQA-RAD a
text-only tuned model kept 81 % of its score on blank pictures (arXiv:2603.03437), so no score is shown without its control.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medtune.evaluation.picked import PickedSamples
from medtune.types import IMAGE_MARK, ControlName, ImageRef, Message, Sample, StoredPicture

__all__ = ["MID_GREY", "Presentation", "Presented", "askable", "present", "shuffle_pictures"]

MID_GREY = 128
"""The grey of a blank picture, in each of red, green and blue (0-255)."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """What is really shown for a sample: the prompt, the picture files in the order of the marks, and their sha256."""

    messages: tuple[Message, ...]
    images: tuple[StoredPicture, ...]
    image_sha256: tuple[str, ...]


class Presented(Mapping[str, Presentation]):
    """How samples are shown, by sample id. Each is worked out when it is asked for.

    Attributes:
        samples: Those that can be shown; may stand in a file.
        show: How one of them is shown.
    """

    def __init__(self, samples: Sequence[Sample], names: Iterable[str], show: Callable[[Sample], Presentation]) -> None:
        self.samples = samples
        self.show = show
        self._places = {name: place for place, name in enumerate(names)}

    @classmethod
    def of(
        cls, samples: Sequence[Sample], show: Callable[[Sample], Presentation], fits: Callable[[Sample], bool] | None = None
    ) -> Presented:
        """Of the ``samples`` that can be shown: those that it ``fits``, all when not given."""
        numbers = {sys.intern(sample.id): number for number, sample in enumerate(samples) if fits is None or fits(sample)}
        return cls(samples if len(numbers) == len(samples) else PickedSamples(samples, numbers.values()), numbers, show)

    def among(self, names: Collection[str]) -> Presented:
        """Those of ``names``; itself where these are all."""
        if len(names) == len(self):
            return self
        return Presented(PickedSamples(self.samples, (self._places[name] for name in names)), names, self.show)

    def __getitem__(self, name: str) -> Presentation:
        return self.show(self.samples[self._places[name]])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def present(
    control: ControlName,
    samples: Sequence[Sample],
    *,
    pool: Sequence[Sample],
    picture: Callable[[ImageRef], StoredPicture],
    seed: int,
    blank_folder: Path,
) -> Presented:
    """How each sample is shown under ``control``.

    Samples without a picture are absent under every control but ``none``: there is nothing to take away. Under ``shuffled``
    a sample is also absent when no other group has a picture for its task. :func:`askable` names those that remain.

    Args:
        pool: Where shuffled pictures come from: the whole split, so that a smaller draw of samples sees the same ones.
        blank_folder: Where the grey pictures of ``blank`` are written, one for each size.
    """

    def has_picture(sample: Sample) -> bool:
        return bool(sample.images)

    if control == "none":
        return Presented.of(samples, lambda sample: _shown(sample, sample.images, picture))
    if control == "question-only":
        without = lambda sample: Presentation(tuple(_without_marks(message) for message in sample.prompt), (), ())  # noqa: E731
        return Presented.of(samples, without, has_picture)
    if control == "blank":
        return Presented.of(samples, _BlankPictures(blank_folder).show, has_picture)
    donors = shuffle_pictures(pool, seed=seed)
    return Presented.of(
        samples, lambda sample: _shown(sample, donors[sample.id].images, picture), lambda sample: sample.id in donors
    )


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


class _Member(NamedTuple):
    """What is kept of a sample while pictures are exchanged."""

    name: str
    group: str
    number: int


class _Donors(Mapping[str, Sample]):
    """Sample id -> the sample whose pictures it is shown; read when asked for, where samples stand in a file."""

    def __init__(self, samples: Sequence[Sample], numbers: Mapping[str, int]) -> None:
        self._samples = samples
        self._numbers = numbers

    def __getitem__(self, name: str) -> Sample:
        return self._samples[self._numbers[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def shuffle_pictures(samples: Sequence[Sample], *, seed: int) -> Mapping[str, Sample]:
    """For each sample, by id, one of another group with the same task and number of pictures, whose pictures it is shown.

    Where no group holds more than half of such samples the pictures are permuted: each is shown exactly once, so the
    pictures as a set stay what they were. Otherwise every sample draws from the other groups, with replacement. Samples of
    a task that has one group only are absent. The result depends on the samples and the seed, not on their order.
    """
    alike: dict[tuple[str, int], list[_Member]] = {}
    for number, sample in enumerate(samples):
        if sample.images:
            alike.setdefault(_likeness(sample), []).append(_Member(sys.intern(sample.id), sys.intern(sample.group), number))
    donors: dict[str, int] = {}
    for key in sorted(alike):
        draw = random.Random(f"{seed}/{key[0]}/{key[1]}")
        groups: dict[str, list[_Member]] = {}
        for member in sorted(alike[key], key=lambda member: member.name):
            groups.setdefault(member.group, []).append(member)
        if len(groups) < 2:
            continue
        blocks = list(groups.values())
        draw.shuffle(blocks)
        for block in blocks:
            draw.shuffle(block)
        line = [member for block in blocks for member in block]
        # Turning a line of blocks by the length of the longest moves every sample out of its own block, and, as long as
        # that is no more than half of the line, not round into it again.
        turn = max(len(block) for block in blocks)
        if 2 * turn <= len(line):
            donors.update({member.name: line[(place + turn) % len(line)].number for place, member in enumerate(line)})
        else:
            for group, block in sorted(groups.items()):
                others = [member for member in line if member.group != group]
                donors.update({member.name: draw.choice(others).number for member in block})
    return _Donors(samples, donors)


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

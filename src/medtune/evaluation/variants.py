"""Other ways of asking the same: in other words, of the mirrored picture, drawn again. See :mod:`medtune.evaluation.consistency`.

Each is a condition of its own with a folder under ``evaluations/``, asked and resumed like any other. It says nothing of how good
the answers are, only whether they stay the same where they should.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from medtune.errors import UnreadableImageError
from medtune.evaluation.config import EvaluationSettings
from medtune.evaluation.controls import Presentation
from medtune.evaluation.paraphrases import paraphrase
from medtune.types import ImageRef, Message, Sample, Sampling, StoredPicture

__all__ = ["exchange_sides", "has_side", "is_variant", "present_variant", "variant_names", "variant_samples", "variant_sampling"]

_SIDES = {"left": "right", "right": "left", "左": "右", "右": "左"}
# "Right" is a side only as a word of its own or joined by a hyphen; in Chinese the sign is enough, but for 左右 ("about") and 左旋.
_SIDE = re.compile(r"(?<![a-z])(?:left|right)(?![a-z])|(?<!左)右(?!左)|左(?!右|旋)", re.IGNORECASE)


def has_side(text: str) -> bool:
    """Whether the text names left or right."""
    return _SIDE.search(text) is not None


def exchange_sides(text: str) -> str:
    """Left for right and right for left, in the same case; everything else as it is."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        swapped = _SIDES[word.lower()]
        return swapped.upper() if word.isupper() and word.isascii() else swapped.capitalize() if word[0].isupper() else swapped

    return _SIDE.sub(other, text)


def variant_names(settings: EvaluationSettings) -> tuple[str, ...]:
    """The variants that the settings ask for, ``repeated`` once for each draw, ``general`` not among them."""
    names: list[str] = []
    for kind in settings.consistency:
        names.extend(
            [f"repeated-{number}" for number in range(1, settings.consistency_draws + 1)] if kind == "repeated" else [kind]
        )
    return tuple(names)


def is_variant(name: str) -> bool:
    """Whether ``name`` is one of the variants, ``general`` included."""
    return name in ("paraphrase", "mirrored", "general") or name.startswith("repeated-")


def variant_samples(variant: str, samples: Sequence[Sample], settings: EvaluationSettings) -> list[Sample]:
    """Which samples are asked again: those that the variant fits, at most ``consistency_samples``, in the order of ``samples``.

    ``mirrored`` fits samples with a picture whose question or reference names a side, except those that ask for coordinates of
    boxes.
    """
    fitting = [sample for sample in samples if variant != "mirrored" or _has_laterality(sample)]
    lots = {sample.id: random.Random(f"{settings.seed}/again/{sample.id}").random() for sample in fitting}
    drawn = set(sorted(lots, key=lambda name: (lots[name], name))[: settings.consistency_samples])
    return [sample for sample in fitting if sample.id in drawn]


def variant_sampling(variant: str, sampling: Sampling, settings: EvaluationSettings) -> Sampling:
    """How the variant's answers are drawn: as all others, but for ``repeated``, whose draws have a temperature and seeds of
    their own."""
    if not variant.startswith("repeated-"):
        return sampling
    number = int(variant.removeprefix("repeated-"))
    return sampling.model_copy(update={"temperature": settings.consistency_temperature, "seed": sampling.seed + number})


def present_variant(
    variant: str, samples: Sequence[Sample], *, picture: Callable[[ImageRef], StoredPicture], folder: Path
) -> dict[str, Presentation]:
    """How each sample is shown, by sample id. Mirrored pictures are written into ``folder``.

    A sample whose picture cannot be decoded is absent under ``mirrored``: there is nothing to turn.
    """
    shown: dict[str, Presentation] = {}
    for sample in samples:
        messages, images = sample.prompt, tuple(picture(image) for image in sample.images)
        digests = tuple(image.sha256 for image in sample.images)
        if variant == "paraphrase":
            last = messages[-1]
            messages = (*messages[:-1], Message(role=last.role, content=paraphrase(last.content, sample.task)))
        elif variant == "mirrored":
            messages = tuple(Message(role=turn.role, content=exchange_sides(turn.content)) for turn in messages)
            try:
                turned = [_mirror(image, ref, folder) for image, ref in zip(images, sample.images, strict=True)]
            except UnreadableImageError:
                continue
            images, digests = tuple(path for path, _ in turned), tuple(digest for _, digest in turned)
        shown[sample.id] = Presentation(messages, images, digests)
    return shown


def _has_laterality(sample: Sample) -> bool:
    asked = " ".join(turn.content for turn in sample.prompt if turn.role == "user")
    return bool(sample.images) and sample.task != "detection" and (has_side(asked) or has_side(sample.target))


def _mirror(image: StoredPicture, ref: ImageRef, folder: Path) -> tuple[Path, str]:
    """The picture turned left to right, as a PNG so that nothing else of it changes, and its sha256."""
    from PIL import Image

    from medtune.imaging.read import open_picture

    path = folder / f"mirrored-{ref.sha256[:32]}.png"
    if not path.exists():
        open_picture(image, name=ref.path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()

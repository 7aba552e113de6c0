"""Which altered copies ``validate`` takes for the same picture, and which different pictures; and how slices correlate.

Run: ``python benchmarks/near_duplicates.py PICTURES [--volumes FILE.nii.gz ...]``: a folder of different pictures (the figures in
docs/benchmarks.md are of VQA-RAD's 315), and head volumes whose slices along the third axis are compared with their neighbours
(the figures are of MRIcron's templates, Debian package mricron-data).
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from medtune.data.checks.fingerprint import measure
from medtune.data.checks.hamming import RADIUS
from medtune.data.checks.same_pictures import SAME
from medtune.data.checks.slices import LEAST
from medtune.imaging.read import open_picture

__all__ = ["COPIES", "main"]


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def copy(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return copy


def _cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    def copy(image: Image.Image) -> Image.Image:
        x, y = round(image.width * share), round(image.height * share)
        return image.crop((x, y, image.width - x, image.height - y))

    return copy


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 50": _jpeg(50),
    "JPEG, quality 20": _jpeg(20),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    "256 x 256": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC),
    "a fifth brighter": lambda image: image.point(lambda value: min(255, int(value * 1.2))),
    "gamma 0.7": lambda image: image.point(lambda value: int(255 * (value / 255) ** 0.7)),
    "2 % cut off each side": _cropped(0.02),
    "5 % cut off each side": _cropped(0.05),
}
"""Ways in which a copy differs."""


def _print_of(image: Image.Image) -> tuple[int, np.ndarray]:
    found = measure(image)
    grey = np.frombuffer(found["thumbnail"], np.uint8).astype(np.float64)
    centred = grey - grey.mean()
    return found["hash"], centred / max(float(np.linalg.norm(centred)), 1e-9)


def copies(folder: Path) -> None:
    """Print how many altered copies are found, and how many pairs of different pictures are taken for one."""
    images = [open_picture(file) for file in sorted(folder.iterdir()) if file.suffix.lower() in (".jpg", ".jpeg", ".png")]
    prints = [_print_of(image) for image in images]
    for name, alter in COPIES.items():
        right = 0
        for image, (pattern, unit) in zip(images, prints, strict=True):
            other, other_unit = _print_of(alter(image))
            right += (pattern ^ other).bit_count() <= RADIUS and float(unit @ other_unit) >= SAME
        print(f"{name}: {right / len(images):.1%} found")
    hashes = np.array([pattern for pattern, _ in prints], np.uint64)
    units = np.stack([unit for _, unit in prints])
    first, second = np.triu_indices(len(images), 1)
    distance = np.bitwise_count(hashes[first] ^ hashes[second])
    correlation = np.einsum("ij,ij->i", units[first], units[second])
    wrong = int(((distance <= RADIUS) & (correlation >= SAME)).sum())
    print(f"{len(first)} pairs of different pictures: {wrong} taken for one; highest correlation {correlation.max():.3f}")


def volumes(files: list[Path]) -> None:
    """Print how many neighbouring slices correlate as the search for volumes asks."""
    import nibabel

    for file in files:
        image = nibabel.load(file)
        values = np.asanyarray(image.dataobj).astype(np.float64)  # type: ignore[attr-defined]
        grey = (np.clip(values / np.percentile(values, 99.5), 0, 1) * 255).astype(np.uint8)
        slices = [grey[:, :, index] for index in range(grey.shape[2]) if grey[:, :, index].std() > 2]
        units = np.stack([_print_of(Image.fromarray(np.rot90(plane)).convert("RGB"))[1] for plane in slices])
        shares = [float((np.einsum("ij,ij->i", units[:-step], units[step:]) >= LEAST).mean()) for step in (1, 2, 5, 20)]
        steps = ", ".join(f"{share:.0%} at {step}" for share, step in zip(shares, (1, 2, 5, 20), strict=True))
        print(f"{file.name}, {len(slices)} slices, correlation {LEAST} or more, by distance in slices: {steps}")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--volumes", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    copies(given.pictures)
    volumes(given.volumes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

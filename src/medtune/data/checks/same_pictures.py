"""The same picture in two files, and neighbouring slices of a volume, within and across splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from medtune.data.checks.check import Check, Context, PictureFacts, PictureUse, Place
from medtune.data.checks.hamming import NearPairs
from medtune.data.checks.keys import runs_of_equal
from medtune.data.checks.prints import NO_ROW, Prints, chunks
from medtune.data.checks.slices import find_slices
from medtune.language import Text, msg
from medtune.types import Sample, Severity, SplitName

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SAME", "SamePictures"]

SAME = 0.98
"""Correlation of two thumbnails from which their pictures count as one, when their hashes differ in at most seven bits.

On VQA-RAD's 315 pictures, as JPEG of quality 20 and 50, at half size and at 256 x 256, every copy is found, 99.7 % of those made
brighter by a fifth and 96 % of those with gamma 0.7, but only 7 % of those cropped by 2 % a side; and none of the 49,455 pairs of
different pictures is taken for one (they correlate at 0.96 at most; benchmarks/near_duplicates.py)."""

_MOST_TRIALS = 32
"""Thumbnails that a picture is compared with, at most: in a set of pictures that all look alike, hashes prove little."""

_SPLIT_BY_GROUP = msg("Give the source what belongs together (patient, study or volume) and prepare again.")


class SamePictures(Check):
    """Equal pixels are found by a key of the decoded pixels; nearly equal ones by perceptual hash, confirmed by correlation.

    Keeps 30 bytes of memory and 1 KiB of disk for each picture.
    """

    names = ("same-pixels", "near-duplicates", "adjacent-slices")
    needs = frozenset({"fingerprint"})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.prints = Prints(context.scratch)
        self._groups_hold_volumes = context.dataset.manifest.group_kind not in ("image", "row")
        self._rows_name_volumes = True

    def row(self, sample: Sample, place: Place) -> None:  # noqa: ARG002
        # Of a mixed set, the rows that name theirs say nothing about the others.
        self._rows_name_volumes &= not sample.images or "volume" in sample.metadata

    def picture(self, facts: PictureFacts, use: PictureUse) -> None:
        self.prints.add(facts, use)

    def conclude(self) -> Mapping[str, Text]:
        self.prints.conclude()
        self._same_pixels()
        self._near()
        if self._groups_hold_volumes or self._rows_name_volumes:
            return {"adjacent-slices": msg("Groups or volumes are known and compared by name.")}
        find_slices(self.context, self.prints)
        return {}

    def _same_pixels(self) -> None:
        prints = self.prints
        usable = np.flatnonzero(prints.rows != NO_ROW)
        order, starts, sizes = runs_of_equal(prints.pixels[usable])
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            members = usable[order[start : start + size]]
            # The first picture of the earliest split is the original.
            members = members[np.argsort(prints.masks[members] & -prints.masks[members].astype(np.int16), kind="stable")]
            for member in members[1:].tolist():
                across = _apart(prints.masks[members[:1]], prints.masks[member : member + 1])[0]
                severity: Severity = "warning" if self.context.official or not across else "error"
                self._add(
                    "same-pixels-overlap" if across else "same-pixels",
                    severity,
                    msg("The same pixels, in another file, as the picture of row {first}.", first=self._id(int(members[0]))),
                    member,
                )

    def _near(self) -> None:
        prints = self.prints
        usable = np.flatnonzero(prints.rows != NO_ROW)
        partner = np.full(len(prints), -1, np.int32)
        best = np.zeros(len(prints), np.float32)
        inside = np.zeros(len(prints), np.bool_)
        trials = np.zeros(len(prints), np.uint8)
        search = NearPairs(prints.hashes[usable])
        for first, second in _mapped(search, usable):
            # The one of the later split, or the later one of a split.
            ranks = prints.masks[first].astype(np.int16) - prints.masks[second]
            later = np.where((ranks > 0) | ((ranks == 0) & (first > second)), first, second)
            earlier = first + second - later
            across = _apart(prints.masks[later], prints.masks[earlier])
            wanted = (prints.pixels[first] != prints.pixels[second]) & (trials[later] < _MOST_TRIALS)
            wanted &= np.where(across, partner[later] < 0, ~inside[later])
            later, earlier, across = later[wanted], earlier[wanted], across[wanted]
            np.add.at(trials, later, np.uint8(1))
            found = prints.correlations(later, earlier)
            near = found >= SAME
            inside[later[near & ~across]] = True
            near &= across
            partner[later[near]], best[later[near]] = earlier[near], found[near]
        for number in np.flatnonzero(partner >= 0).tolist():
            self._add(
                "near-duplicate-overlap",
                "warning",
                msg(
                    "Nearly the same picture as that of row {other} in {split} (correlation {correlation:.3f}).",
                    other=self._id(int(partner[number])),
                    split=str(self._split(int(partner[number]))),
                    correlation=float(best[number]),
                ),
                number,
            )
        copies = np.flatnonzero(inside)
        if len(copies):
            self.findings.add(
                "near-duplicates",
                "info",
                msg(
                    "{count} pictures are nearly the same as another of their split, e.g. those of the rows {examples}.",
                    count=len(copies),
                    examples=", ".join(self._id(number) for number in copies[:3].tolist()),
                ),
                count=len(copies),
            )
        crowded = int((search.crowded | (trials[usable] >= _MOST_TRIALS)).sum())
        if crowded:
            self.findings.add(
                "near-duplicates-crowded",
                "info",
                msg(
                    "{count} pictures look so much like many others that not all pairs were compared; near duplicates may be "
                    "missed.",
                    count=crowded,
                ),
            )

    def _add(self, code: str, severity: Severity, message: Text, number: int) -> None:
        place = self.context.rows.place(int(self.prints.rows[number]))
        self.findings.add(
            code, severity, message, _SPLIT_BY_GROUP, split=self._split(number), sample=self._id(number), file=str(place)
        )

    def _id(self, number: int) -> str:
        return self.context.rows.id(int(self.prints.rows[number]))

    def _split(self, number: int) -> SplitName:
        return self.context.rows.split(int(self.prints.rows[number]))


def _apart(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Each stands in a split where the other does not."""
    apart: NDArray[np.bool_] = ((first & ~second) != 0) & ((second & ~first) != 0)
    return apart


def _mapped(search: NearPairs, numbers: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    for first, second in search:
        yield from chunks(numbers[first], numbers[second])

"""Which split a group belongs to.

Rows of one patient on both sides of a split make a model look better than it is: slice-level splits of brain MRI raised
accuracy by 29 to 55 points (Yagis et al. 2021, doi:10.1038/s41598-021-01681-w).

Three rules, in this order: a list that the user gives; else a hash of seed and group, so that a group keeps its place whatever
else is added; then, for a task and modality (a stratum) with so few groups that the hash gave a split none of them, the group
nearest to that split's share of the hash's range is moved there (:func:`fill_strata`).
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.data.config import Fractions, SplitSettings
from medtune.errors import DataError, system_reason
from medtune.language import msg
from medtune.types import SplitName

__all__ = [
    "SPLITS",
    "assigned_splits",
    "digest_of",
    "digest_of_list",
    "draw",
    "draw_all",
    "fill_strata",
    "place_of",
    "split_record",
]

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def digest_of(group: str, seed: int) -> int:
    """64 bits of sha256 over seed and group: where the group lies in the range that the splits share."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x00{group}".encode()).digest()[:8], "big")


def draw(group: str, fractions: Fractions, seed: int) -> SplitName:
    """The split of a group, by a hash of seed and group alone: adding or removing other groups does not move it."""
    return SPLITS[place_of(digest_of(group, seed), fractions)]


def place_of(digest: int, fractions: Fractions) -> int:
    """The split of a group by its digest, as an index into :data:`SPLITS`."""
    place = digest / 2**64
    if place < fractions.train:
        return 0
    if place < fractions.train + fractions.validation or fractions.test == 0.0:
        # Without a test share, a sum that rounding left just below 1 must not open a test split.
        return 1 if fractions.validation else 0
    return 2


def draw_all(digests: NDArray[np.uint64], fractions: Fractions) -> NDArray[np.uint8]:
    """:func:`place_of` for many digests (n,)."""
    places = digests.astype(np.float64) / 2.0**64
    past_validation = places >= fractions.train + fractions.validation
    past_train = np.where(past_validation & (fractions.test > 0.0), 2, 1 if fractions.validation else 0)
    return np.where(places < fractions.train, 0, past_train).astype(np.uint8)


@lru_cache(maxsize=1)
def _read_list(file: Path, modified: int) -> dict[str, SplitName]:  # noqa: ARG001
    found: dict[str, SplitName] = {}
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        if not {"group", "split"} <= set(rows.fieldnames or ()):
            raise DataError(
                msg("The list of splits has no columns group and split."),
                file=file,
                key="data.split.assigned",
                remedy=msg("Write one line for each group: group,split. groups.csv of a data set is such a list."),
            )
        for number, row in enumerate(rows, start=2):
            group, split = row["group"], row["split"]
            if split not in SPLITS or found.setdefault(group, split) != split:
                what = (
                    msg("The list of splits names the split {split!r}.", split=str(split))
                    if split not in SPLITS
                    else msg("The list of splits gives a group two splits.")
                )
                remedy = msg("Each group has one of: {splits}.", splits=", ".join(SPLITS))
                raise DataError(what, file=f"{file}:{number}", key="data.split.assigned", remedy=remedy)
    return found


def assigned_splits(settings: SplitSettings) -> dict[str, SplitName]:
    """The splits that the user's list gives, by group; empty when there is no list.

    Raises:
        DataError: The list is missing, has other columns, an unknown split, or two splits for one group.
    """
    if settings.assigned is None:
        return {}
    file = settings.assigned.expanduser()
    try:
        return _read_list(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(
            msg("The list of splits cannot be read: {error}", error=str(system_reason(error))),
            file=file,
            key="data.split.assigned",
            remedy=msg("Check the path."),
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            msg("The list of splits is not CSV in UTF-8."),
            file=file,
            key="data.split.assigned",
            remedy=msg("Write one line for each group: group,split. groups.csv of a data set is such a list."),
        ) from error


def digest_of_list(settings: SplitSettings) -> str:
    """sha256 of the user's list of splits; empty where there is none, or it cannot be read."""
    try:
        return hashlib.sha256(settings.assigned.expanduser().read_bytes()).hexdigest() if settings.assigned else ""
    except OSError:
        return ""


def split_record(settings: SplitSettings) -> dict[str, Any]:
    """The settings for the manifest: of a list its name, without its folder, and its hash."""
    record = settings.model_dump(mode="json")
    if settings.assigned is not None:
        record |= {"assigned": settings.assigned.name, "assigned_sha256": digest_of_list(settings)}
    return record


def group_line(group: str, split: SplitName) -> str:
    """A line of ``groups.csv``, with its end."""
    text = io.StringIO()
    # csv puts a field in quotes when it holds a character of the line end: a bare carriage return would end a line for readers.
    csv.writer(text, lineterminator="\r\n").writerow((group, split))
    return text.getvalue().removesuffix("\r\n") + "\n"


def fill_strata(
    counts: NDArray[np.int64],
    fractions: Fractions,
    candidates: Iterable[tuple[int, tuple[int, ...], int]],
) -> dict[int, int]:
    """Give each split a group of each stratum that has groups enough.

    A stratum is a task and a modality. One that has at least as many groups as there are splits with a share, but none in one of
    them, gives that split the group whose digest lies nearest to the split's range, from the split where it has most, unless a
    stratum of that group would lose its last group there.

    Args:
        counts: (strata, 3) groups of each stratum in each split, in the order of :data:`SPLITS`; changed along.
        fractions: The shares.
        candidates: (digest, strata, split) of each group that may be moved. Read only when there is something to fill.

    Returns:
        Digest -> index of the new split.
    """
    shares = (fractions.train, fractions.validation, fractions.test)
    wanted = [place for place, share in enumerate(shares) if share > 0]
    lacking = [
        (int(row.sum()), stratum, place)
        for stratum, row in enumerate(counts)
        for place in wanted
        if row.sum() >= len(wanted) and row[place] == 0
    ]
    if not lacking:
        return {}
    # Only groups of a stratum that lacks one: such strata are small, the data set may have millions of groups.
    concerned = {stratum for _, stratum, _ in lacking}
    groups = [candidate for candidate in candidates if not concerned.isdisjoint(candidate[1])]
    edges = (0.0, fractions.train, fractions.train + fractions.validation, 1.0)
    moved: dict[int, int] = {}
    # The smallest strata first: they have the least choice.
    for _, stratum, place in sorted(lacking):
        if counts[stratum, place]:
            continue
        nearest: tuple[float, int, tuple[int, ...], int] | None = None
        donor = int(np.argmax(counts[stratum]))
        for digest, strata, split in groups:
            if stratum not in strata or moved.get(digest, split) != donor:
                continue
            if any(counts[other, donor] < 2 for other in strata):
                continue
            where = digest / 2.0**64
            distance = max(edges[place] - where, where - edges[place + 1])
            if nearest is None or (distance, digest) < nearest[:2]:
                nearest = (distance, digest, strata, split)
        if nearest is not None:
            _, digest, strata, _ = nearest
            moved[digest] = place
            for other in strata:
                counts[other, donor] -= 1
                counts[other, place] += 1
    return moved

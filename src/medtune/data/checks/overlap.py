"""What the splits have in common, and should not: patients, studies, volumes, groups, pictures and rephrased questions."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medtune.data.checks.check import Check, Context, Place
from medtune.data.checks.keys import as_numpy, key, normalised, runs_of_equal
from medtune.data.split import SPLITS
from medtune.language import Text, msg
from medtune.types import Sample, SplitName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Numbers = NDArray[np.unsignedinteger[Any]]

__all__ = ["Overlap"]

EXAMPLES = 3
"""Shared things that a finding names."""


class _Kind(NamedTuple):
    name: str
    """Of the check, and the code of its findings."""
    ids: Callable[[Sample], tuple[str, ...]]
    """What a row has of this kind: the parts of a key, or nothing."""
    message: Callable[..., Text]
    example: Callable[[Mapping[str, Any]], str]
    """How a finding names it, from a row's JSON object."""


def _tag(name: str) -> Callable[[Sample], tuple[str, ...]]:
    def ids(sample: Sample) -> tuple[str, ...]:
        value = sample.metadata.get(name)
        # Two sources may count their patients alike.
        return (sample.source, str(value)) if isinstance(value, (str, int)) and value != "" else ()

    return ids


def _tagged(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: str(json.loads(row["metadata"])[name])


def _picture(row: Mapping[str, Any]) -> str:
    return str(row["images"][0])


def _link(row: Mapping[str, Any]) -> str:
    return str(json.loads(row["metadata"])["linked_id"])


def _groups(**fields: str | int) -> Text:
    return msg("{shared} of the {total} groups of {split} also stand in {others}, e.g. {examples}.", **fields)


def _patients(**fields: str | int) -> Text:
    return msg("{shared} of the {total} patients of {split} also stand in {others}, e.g. {examples}.", **fields)


def _studies(**fields: str | int) -> Text:
    return msg("{shared} of the {total} studies of {split} also stand in {others}, e.g. {examples}.", **fields)


def _volumes(**fields: str | int) -> Text:
    return msg("{shared} of the {total} volumes of {split} also stand in {others}, e.g. {examples}.", **fields)


def _pictures(**fields: str | int) -> Text:
    return msg("{shared} of the {total} pictures of {split} also stand in {others}, e.g. {examples}.", **fields)


def _links(**fields: str | int) -> Text:
    return msg("{shared} of the {total} linked questions of {split} are rephrased in {others}, e.g. {examples}.", **fields)


def _rephrased(**fields: str | int) -> Text:
    return msg(
        "{shared} of the {total} rephrasings of {split} have the picture and the answer of a row of {others}, e.g. {examples}. "
        "Which row each rephrases is not said.",
        **fields,
    )


_KINDS = (
    _Kind("group-overlap", lambda sample: (sample.group,), _groups, lambda row: str(row["group"])),
    _Kind("patient-overlap", _tag("patient"), _patients, _tagged("patient")),
    _Kind("study-overlap", _tag("study"), _studies, _tagged("study")),
    _Kind("volume-overlap", _tag("volume"), _volumes, _tagged("volume")),
)


class _Column:
    """What the rows have of one kind: 12 bytes for each row that has it."""

    def __init__(self) -> None:
        self.keys = array("Q")
        self.rows = array("I")

    def add(self, value: int, row: int) -> None:
        self.keys.append(value)
        self.rows.append(row)


class Overlap(Check):
    """Compares each split with those before it.

    Keeps 12 bytes a row for its group, as many for each of patient, study and volume that its metadata name, and for each
    picture, link and row with a ``phrase_type``.
    """

    names = (*(kind.name for kind in _KINDS), "image-overlap", "linked-overlap", "paraphrase-overlap")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._columns = {kind.name: _Column() for kind in _KINDS}
        self._pictures = _Column()
        self._links = _Column()
        self._ids = _Column()
        self._phrased = _Column()
        self._rephrasing = array("B")

    def row(self, sample: Sample, place: Place) -> None:
        for kind in _KINDS:
            if ids := kind.ids(sample):
                self._columns[kind.name].add(key(*ids), place.number)
        for image in sample.images:
            self._pictures.add(key(image.sha256), place.number)
        self._ids.add(key(sample.id), place.number)
        linked = sample.metadata.get("linked_id")
        if linked is not None:
            # A link names the other row's id in the source; several sources together prefix their ids.
            prefix, slash, _ = sample.id.rpartition("/")
            self._links.add(key(f"{prefix}{slash}{linked}"), place.number)
        phrasing = sample.metadata.get("phrase_type")
        if isinstance(phrasing, str) and sample.images:
            self._phrased.add(key(sample.images[0].sha256, normalised(sample.target)), place.number)
            self._rephrasing.append("para" in phrasing)

    def conclude(self) -> Mapping[str, Text]:
        skipped = {}
        for kind in _KINDS:
            column = self._columns[kind.name]
            self._compare(kind.name, column, kind.message, kind.example)
            if kind.name == "volume-overlap":
                self._name_volumes(column, kind)
            if not len(column.keys):
                skipped[kind.name] = msg("No row names any; groups were compared.")
        self._compare("image-overlap", self._pictures, _pictures, _picture)
        if len(self._links.keys):
            self._compare_links()
        else:
            skipped["linked-overlap"] = msg("No row names the row that it rephrases.")
        if any(self._rephrasing):
            self._compare_rephrasings()
        else:
            skipped["paraphrase-overlap"] = msg("No row says that it rephrases another.")
        return skipped

    def _compare(
        self, code: str, column: _Column, message: Callable[..., Text], example: Callable[[Mapping[str, Any]], str]
    ) -> None:
        """Things of a split that stand in the splits before it."""
        keys, rows = as_numpy(column.keys), as_numpy(column.rows)
        borders = np.searchsorted(rows, [self.context.rows.starts.get(split, 0) for split in SPLITS] + [len(self.context.rows)])
        before: _Numbers = np.zeros(0, np.uint64)
        others: list[SplitName] = []
        for split, start, stop in zip(SPLITS, borders[:-1], borders[1:], strict=True):
            own, first = np.unique(keys[start:stop], return_index=True)
            shared = np.sort(first[np.isin(own, before, assume_unique=True)]) + start
            self._report(code, split, others, message, len(own), rows[shared], example)
            if len(own):
                before = np.union1d(before, own)
                others.append(split)

    def _name_volumes(self, column: _Column, kind: _Kind) -> None:
        """One note for each volume that stands in several splits."""
        keys, rows = as_numpy(column.keys), as_numpy(column.rows)
        starts = [self.context.rows.starts.get(split, 0) for split in SPLITS] + [len(self.context.rows)]
        order, begins, sizes = runs_of_equal(keys)
        for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
            # A stable sort leaves the rows of a volume in their order, and so in the order of the splits.
            members = rows[order[begin : begin + size]]
            counts = np.diff(np.searchsorted(members, starts)).tolist()
            if sum(count > 0 for count in counts) > 1:
                self.findings.add(
                    "leaking-volume",
                    "info",
                    msg(
                        "Rows of the volume {volume}: {splits}.",
                        volume=kind.example(self.context.rows.raw(int(members[0]))),
                        splits=", ".join(f"{split} {count}" for split, count in zip(SPLITS, counts, strict=True) if count),
                    ),
                )

    def _compare_links(self) -> None:
        """Links of a split to rows, or to what rows link to, of any other split."""
        starts = [self.context.rows.starts.get(split, 0) for split in SPLITS] + [len(self.context.rows)]
        parts: dict[SplitName, tuple[_Numbers, _Numbers, _Numbers]] = {}
        for split, start, stop in zip(SPLITS, starts[:-1], starts[1:], strict=True):
            found = []
            for column in (self._ids, self._links):
                rows = as_numpy(column.rows)
                low, high = np.searchsorted(rows, [start, stop])
                found += [as_numpy(column.keys)[low:high], rows[low:high]]
            parts[split] = (found[0], found[2], found[3])
        for split, (_, links, rows) in parts.items():
            others = [other for other in SPLITS if other != split and len(parts[other][0])]
            elsewhere = np.concatenate([part for other in others for part in parts[other][:2]] or [np.zeros(0, np.uint64)])
            own, first = np.unique(links, return_index=True)
            shared = np.sort(first[np.isin(own, elsewhere)])
            self._report("linked-overlap", split, others, _links, len(own), rows[shared], _link)

    def _compare_rephrasings(self) -> None:
        """Rows that say that they rephrase another, but not which: it has the same picture and the same answer."""
        keys, rows = as_numpy(self._phrased.keys), as_numpy(self._phrased.rows)
        rephrasing = as_numpy(self._rephrasing).astype(np.bool_)
        starts = [self.context.rows.starts.get(split, 0) for split in SPLITS]
        places = np.searchsorted(starts, rows, side="right") - 1
        for place, split in enumerate(SPLITS):
            own = np.flatnonzero(rephrasing & (places == place))
            others = [other for position, other in enumerate(SPLITS) if position != place and (places == position).any()]
            shared = own[np.isin(keys[own], keys[places != place])]
            if place and len(shared):
                self._report("paraphrase-overlap", split, others, _rephrased, len(own), rows[shared], lambda row: str(row["id"]))

    def _report(
        self,
        code: str,
        split: SplitName,
        others: list[SplitName],
        message: Callable[..., Text],
        total: int,
        shared: _Numbers,
        example: Callable[[Mapping[str, Any]], str],
    ) -> None:
        if not len(shared):
            return
        self.findings.add(
            code,
            "warning" if self.context.official else "error",
            message(
                shared=len(shared),
                total=total,
                split=split,
                others=", ".join(others),
                examples=", ".join(example(self.context.rows.raw(row)) for row in shared[:EXAMPLES].tolist()),
            ),
            msg("Split by group (data.split.kind: group-hash); numbers measured on such a split are too good."),
            split=split,
            count=len(shared),
        )

"""Indiana University chest X-rays (OpenI) with their reports, in the three forms in which the collection is passed on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from medtune.data.sources.reports import deidentified_words, report_text
from medtune.data.sources.rows import RecordFault, Row, faulty, read_rows
from medtune.errors import DataError
from medtune.language import msg
from medtune.schema import read_fault
from medtune.types import Fault, Picture, Record, Settings, SourceCard, SplitName

__all__ = ["IuXray"]

_STUDY = re.compile(r"CXR(\d+)", re.IGNORECASE)
_SPLITS: dict[str, SplitName] = {"train": "train", "val": "validation", "test": "test"}
_VIEWS = {"frontal": 0, "lateral": 1}


class IuXray(Settings):
    """R2Gen's ``annotation.json`` (splits of ``id``, ``report``, ``image_path``), MedEvalKit's ``test.json`` (``id``, ``image``,
    ``findings``, ``impression``), or Kaggle's ``indiana_reports.csv`` with ``indiana_projections.csv``.

    A study is one record with all its views, frontal before lateral where the files say which is which: the projections of
    the Kaggle form do; the other two list the frontal view first by custom, and their order is kept.
    """

    path: Path
    """The folder with the files named above, or R2Gen's or MedEvalKit's JSON file."""
    media_dir: Path | None = None
    """Where the pictures lie; when left out `images/images_normalized` (Kaggle), `images` or nothing, below the files' folder."""
    sections: Literal["findings", "impression", "both"] = "both"
    """Which part of the report is the answer. R2Gen's file holds the findings only."""
    views: Literal["all", "frontal"] = "all"
    """`frontal`: only pictures known or, by their order, taken to be frontal."""

    @property
    def card(self) -> SourceCard:
        return SourceCard(
            name="iu-xray",
            title="IU X-ray (OpenI)",
            licence="CC-BY-NC-ND-4.0 as the Open-i pages state it for the collection; check yours",
            citation="Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and retrieval, "
            "JAMIA 23(2), 304-310 (2016)",
            url="https://openi.nlm.nih.gov/faq",
            group_kind="study",
            notes=(
                "The number after CXR is that of a study; whether two studies are of one patient is not published.",
                "Words taken out to hide identities stand as XXXX in the reports; a model that learns them writes them.",
            ),
        )

    def samples(self) -> Iterator[Record]:
        path = self.path.expanduser()
        reports, projections = path / "indiana_reports.csv", path / "indiana_projections.csv"
        if path.is_dir() and reports.is_file():
            yield from self._kaggle(reports, projections)
            return
        files = [path] if path.is_file() else [path / name for name in ("annotation.json", "test.json") if (path / name).is_file()]
        if not files:
            raise DataError(
                msg("None of the known forms of this data set is there."),
                file=path,
                key="data.sources.options.path",
                remedy=msg("Looked for: {names}.", names="annotation.json, test.json, indiana_reports.csv"),
            )
        for row, split in _json_rows(files[0]):
            yield self._one(row, _text(row.values.get("id")), row.values, self._listed(row.values), split)

    def _one(
        self, row: Row, study: str, values: Mapping[str, Any], names: Sequence[tuple[str, str | None]], split: SplitName | None
    ) -> Record:
        identity = study or row.id
        try:
            if row.fault is not None:
                raise RecordFault(row.fault)
            return self._record(row, identity, values, names, split)
        except RecordFault as found:
            return faulty(row, found.fault, record_id=identity)

    def _record(
        self, row: Row, identity: str, values: Mapping[str, Any], names: Sequence[tuple[str, str | None]], split: SplitName | None
    ) -> Record:
        if not names:
            raise RecordFault(
                Fault(
                    "picture-missing",
                    msg("The study has no picture of the views asked for."),
                    msg("Ask for all views, or leave the study out."),
                )
            )
        found, impression = _text(values.get("findings") or values.get("report")), _text(values.get("impression"))
        parts = {"findings": found, "impression": impression}
        wanted = list(parts) if self.sections == "both" else [self.sections]
        target = report_text({name: parts[name] for name in wanted})
        if not target:
            raise RecordFault(
                Fault(
                    "report-empty",
                    msg("The report has none of the sections asked for ({sections}).", sections=", ".join(wanted)),
                    msg("Ask for other sections, or leave the study out."),
                )
            )
        metadata: dict[str, JsonValue] = {"modality": "DX", "organ": "chest", "language": "en", "provenance": "clinical"}
        metadata["study"] = _group(identity)
        metadata |= {name: text for name, text in parts.items() if text}
        known = [view for _, view in names if view]
        if known:
            metadata["view_position"] = ", ".join(known)
        notes = deidentified_words(target)
        if notes:
            metadata["source_notes"] = list(notes)
        folder = self._media(row.file)
        return Record(
            id=identity,
            task="report",
            pictures=tuple(Picture(path=folder / name, name=name, modality="DX") for name, _ in names),
            target=target,
            group=_group(identity),
            metadata=metadata,
            split=split,
            place=row.place,
        )

    def _listed(self, values: Mapping[str, Any]) -> list[tuple[str, str | None]]:
        found = values.get("image_path") or values.get("image") or ()
        names = [found] if isinstance(found, str) else [name for name in found if isinstance(name, str) and name]
        return [(name, None) for name in (names[:1] if self.views == "frontal" else names)]

    def _kaggle(self, reports: Path, projections: Path) -> Iterator[Record]:
        pictures: dict[str, list[tuple[str, str | None]]] = {}
        for row in read_rows(projections):
            view = _text(row.values.get("projection")).lower()
            name = _text(row.values.get("filename"))
            if name and (self.views == "all" or view == "frontal"):
                pictures.setdefault(_text(row.values.get("uid")), []).append((name, view or None))
        for row in read_rows(reports):
            study = _text(row.values.get("uid"))
            names = sorted(pictures.get(study, ()), key=lambda item: (_VIEWS.get(item[1] or "", 2), item[0]))
            yield self._one(row, f"CXR{study}" if study else "", row.values, names, None)

    def _media(self, file: Path) -> Path:
        if self.media_dir is not None:
            return self.media_dir.expanduser()
        for name in ("images/images_normalized", "images_normalized", "images"):
            if (file.parent / name).is_dir():
                return file.parent / name
        return file.parent


def _json_rows(file: Path) -> Iterator[tuple[Row, SplitName | None]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            msg("The file cannot be read: {error}", error=read_fault(error)),
            file=file,
            remedy=msg("Was the download cut short? Fetch the file again."),
        ) from error
    lists = {"": content} if isinstance(content, list) else content
    if not isinstance(lists, dict) or not all(isinstance(entry, list) for entry in lists.values()):
        raise DataError(
            msg("The JSON file holds neither a list of studies nor splits with such lists."),
            file=file,
            remedy=msg("Looked for: {names}.", names="annotation.json, test.json, indiana_reports.csv"),
        )
    number = 0
    for name, entries in lists.items():
        for values in entries:
            number += 1
            sound = isinstance(values, dict)
            fault = (
                None
                if sound
                else Fault("not-an-object", msg("The record is not a JSON object, but {kind}.", kind=type(values).__name__))
            )
            yield Row(file, number, values if sound else {}, fault), _SPLITS.get(name)


def _group(identity: str) -> str:
    """``CXR2384`` of R2Gen's ``CXR2384_IM-0942``, MedEvalKit's ``open_i_2384`` and Kaggle's ``2384``: forms of one study meet."""
    match = _STUDY.search(identity) or re.fullmatch(r"open_i_(\d+)", identity)
    return f"CXR{match.group(1)}" if match else identity


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()

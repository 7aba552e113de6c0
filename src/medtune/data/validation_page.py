"""``validation.html``: what ``validate`` found, as one file that anybody can open, browse, keep and print.

It loads nothing from anywhere and runs nothing: language and filters are radio buttons that the style sheet reads. Every value
goes through the template's escaping, since captions are other people's text. It stands in the data set folder, beside the files
whose hashes the manifest names, and is none of them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from medtune.data.checks.box_words import box_of
from medtune.data.checks.meanings import meaning_of
from medtune.data.checks.picture_reader import read_pictures
from medtune.data.dataset import Dataset, RowError, sample_of
from medtune.errors import DataError
from medtune.language import Language, Text, language, msg
from medtune.runs import atomic_write
from medtune.types import ImageRef, Issue, Sample, SplitName, ValidationReport

__all__ = ["PAGE_NAME", "SHOWN", "render_page", "write_page"]

PAGE_NAME = "validation.html"

SHOWN = 12
"""Findings of a kind that are shown with picture and text; the others are a number."""

_LONGEST = 1500
"""Characters of a text that are shown."""

_COMMAND = re.compile(r"`([^`]+)`")
_SEVERITIES = ("error", "warning", "info")
_ROW_PLACE = re.compile(r"^(?P<file>.*\.jsonl):(?P<line>\d+)$")


@dataclass(slots=True)
class _Shown:
    """One finding as the page shows it."""

    issue: Issue
    place: str
    turns: tuple[tuple[str, str], ...] = ()
    raw: str = ""
    picture: ImageRef | None = None
    thumbnail: str = ""
    size: tuple[int, int] = (1, 1)
    box: tuple[float, float, float, float] | None = None
    no_picture: Text | None = None


@dataclass(slots=True)
class _Kind:
    code: str
    severity: str
    count: int = 0
    meaning: Text | None = None
    remedies: list[Text] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    shown: list[_Shown] = field(default_factory=list)
    num_more: int = 0


def write_page(report: ValidationReport, dataset: Dataset, path: Path | None = None, in_language: Language | None = None) -> Path:
    """Write the page, whole or not at all; returns its path, ``validation.html`` in the data set folder where none is given."""
    path = path or dataset.folder / PAGE_NAME
    atomic_write(path, render_page(report, dataset, in_language))
    return path


def render_page(report: ValidationReport, dataset: Dataset, in_language: Language | None = None) -> str:
    """The page.

    Args:
        report: What was found in ``dataset``.
        dataset: For texts and pictures of the findings; pictures are decoded in child processes.
        in_language: The language that the page opens in; the reader can switch.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medtune.data"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    kinds = _kinds(report, dataset)
    shown = [item for kind in kinds for item in kind.shown]
    _add_rows(dataset, shown)
    _withhold(dataset, report, shown)
    _add_thumbnails(dataset, shown)
    style = (resources.files("medtune.data") / "templates" / "validation.css").read_text(encoding="utf-8")
    spoken = in_language or language()
    page = environment.get_template("validation.html").render(
        lang={"en": "en", "zh": "zh-CN"}[spoken],
        zh=spoken == "zh",
        t=_both,
        text=_page_words(),
        style=Markup(style),
        report=report,
        manifest=dataset.manifest,
        title=msg("Validation of {name}", name=report.dataset),
        severities=[(name, _severity(name), sum(i.count for i in report.issues if i.severity == name)) for name in _SEVERITIES],
        kinds=kinds,
        group_kind=_group_word(dataset.manifest.group_kind),
        skipped=list(report.skipped.items()),
        more=lambda count: msg("... and {count} more; `medtune validate --json` lists them.", count=count),
    )
    return str(page)


def _both(text: Text) -> Markup:
    """A sentence in both languages; the style sheet shows the one that the page is set to. A `command` in it is set as code."""
    english, chinese = text.render("en"), text.render("zh")
    if english == chinese:
        return escape(english)
    sentences = (Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(sentence)))) for sentence in (english, chinese))
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(*sentences)


def _kinds(report: ValidationReport, dataset: Dataset) -> list[_Kind]:
    """The findings by kind, errors first, in the order in which each kind was met."""
    found: dict[tuple[str, str], _Kind] = {}
    for issue in report.issues:
        kind = found.setdefault((issue.severity, issue.code), _Kind(issue.code, issue.severity, meaning=meaning_of(issue.code)))
        kind.count += issue.count
        if issue.split is not None:
            kind.splits[issue.split] = kind.splits.get(issue.split, 0) + issue.count
        if issue.remedy is not None and issue.remedy not in kind.remedies and len(kind.remedies) < 3:
            kind.remedies.append(issue.remedy)
        if len(kind.shown) < SHOWN:
            kind.shown.append(_Shown(issue, _inside(issue.file, dataset.folder)))
        else:
            kind.num_more += issue.count
    return sorted(found.values(), key=lambda kind: _SEVERITIES.index(kind.severity))


def _inside(file: str | None, folder: Path) -> str:
    """A place without the path of the machine that it was found on."""
    if file is None:
        return ""
    for base in (folder, folder.absolute()):
        if file.startswith(f"{base}/"):
            return file[len(f"{base}/") :]
    return Path(file).name


def _add_rows(dataset: Dataset, shown: Sequence[_Shown]) -> None:
    """Read the rows that the findings name, by line where they have one, else by id, in one pass over the split files."""
    by_line: dict[tuple[str, int], list[_Shown]] = {}
    by_id: dict[str, list[_Shown]] = {}
    for item in shown:
        place = _ROW_PLACE.match(item.place)
        if place is not None:
            by_line.setdefault((place["file"], int(place["line"])), []).append(item)
        elif item.issue.sample is not None:
            by_id.setdefault(item.issue.sample, []).append(item)
    if not by_line and not by_id:
        return
    # An id stands at the head of a row as write_row wrote it; a million rows are not parsed for a dozen.
    heads = {f'{{"id": {json.dumps(name, ensure_ascii=False)},': name for name in by_id}
    longest = max((len(head) for head in heads), default=0)
    for split, number, line in _lines(dataset):
        wanted = list(by_line.get((f"{split}.jsonl", number), ()))
        head = line[:longest]
        wanted += [item for start, name in heads.items() if head.startswith(start) for item in by_id[name]]
        if wanted:
            _add_row(dataset, line, wanted)


def _lines(dataset: Dataset) -> Iterator[tuple[SplitName, int, str]]:
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    for split in splits:
        try:
            for number, line in dataset.lines(split):
                yield split, number, line
        except DataError:
            continue  # a finding of its own


def _add_row(dataset: Dataset, line: str, wanted: Sequence[_Shown]) -> None:
    try:
        sample = sample_of(line, dataset.images)
    except (RowError, DataError):
        for item in wanted:
            item.raw = _cut(line.strip())
        return
    for item in wanted:
        item.turns = tuple((message.role, _cut(message.content)) for message in sample.messages)
        item.picture = _picture_of(sample, item.place)
        item.box = box_of(sample) if item.issue.code.startswith("box-") else None


def _picture_of(sample: Sample, place: str) -> ImageRef | None:
    """The picture that a finding is about, else the first one of its row."""
    return next((image for image in sample.images if image.path == place), sample.images[0] if sample.images else None)


def _withhold(dataset: Dataset, report: ValidationReport, shown: Sequence[_Shown]) -> None:
    """Pictures that may name a person are shown nowhere on the page, whatever else was found in them."""
    named = {_inside(issue.file, dataset.folder) for issue in report.issues if issue.code == "burned-in-identifier"}
    for item in shown:
        if item.picture is not None and item.picture.path in named:
            item.picture = None
            item.no_picture = msg("The picture may name a person and is not shown.")


def _add_thumbnails(dataset: Dataset, shown: Sequence[_Shown]) -> None:
    wanted: dict[str, list[_Shown]] = {}
    for item in shown:
        if item.picture is not None:
            wanted.setdefault(item.picture.path, []).append(item)
    refs = [items[0].picture for items in wanted.values() if items[0].picture is not None]
    for facts in read_pictures(dataset, refs, ["thumbnail"], num_workers=1):
        for item in wanted[facts.ref.path]:
            if facts.fault is not None:
                item.no_picture = facts.fault.message
                continue
            small: dict[str, Any] = facts.measured["thumbnail"]
            item.thumbnail = "data:image/jpeg;base64," + base64.b64encode(small["jpeg"]).decode("ascii")
            item.size = (facts.width, facts.height)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def _severity(name: str) -> Text:
    return {"error": msg("Errors"), "warning": msg("Warnings"), "info": msg("Notes")}[name]


def _group_word(kind: str) -> Text:
    words = {"patient": msg("patients"), "study": msg("studies"), "volume": msg("volumes")}
    return words.get(kind) or msg("pictures or rows, as no patient is known")


def _page_words() -> dict[str, Text]:
    return {
        "intended_use": msg("For research only. Not a medical device. Not for diagnosis or treatment decisions."),
        "all": msg("All"),
        "rows": msg("Rows"),
        "groups": msg("Groups"),
        "split": msg("Split"),
        "findings": msg("Findings"),
        "grouped_by": msg("Grouped by"),
        "synthetic": msg("The data are synthetic, in part or in whole: they show that the method works, nothing about patients."),
        "local_only": msg("This page holds pictures and texts of the data set, which may not leave this place."),
        "keep": msg("This page holds pictures and texts of the data set: treat it as you treat the data."),
        "nothing": msg("Nothing was found."),
        "kinds": msg("Kinds of findings"),
        "what_to_do": msg("What to do"),
        "not_checked": msg("Not checked"),
        "checks": msg("Checks that ran"),
        "user": msg("user"),
        "assistant": msg("assistant"),
        "system": msg("system"),
        "top": msg("To the top"),
    }

"""What a check is given, and what it is.

``validate`` reads every row once, in file order, then every picture once, in the order of ``images.jsonl``, and shows each to
every check. A data set may have millions of both, so a check keeps numbers in columns (``array``, numpy, a file in
``Context.scratch``) and never an object for each; its docstring states the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medtune.data.checks.row_table import Place, RowTable
from medtune.data.dataset import Dataset
from medtune.data.findings import Findings
from medtune.language import Text
from medtune.types import Fault, ImageRef, Sample, SplitName

__all__ = ["Check", "Context", "PictureFacts", "PictureUse", "Place", "RowLimits"]


@dataclass(frozen=True, slots=True)
class RowLimits:
    """How long a row may be.

    Attributes:
        count_tokens: Tokens of a row in the model's own counting, pictures included; None = lengths are not checked.
        max_tokens: What a row of train and validation must fit in.
        context: What any row must fit in.
        too_long: ``leave-out``: training leaves out what does not fit, which is worth a warning then, not an error.
    """

    count_tokens: Callable[[Sample], int] | None = None
    max_tokens: int | None = None
    context: int | None = None
    too_long: Literal["error", "leave-out"] = "error"


@dataclass(frozen=True, slots=True)
class Context:
    """What all checks of one validation share.

    Attributes:
        dataset: The data set. ``images`` is large: look up, never copy.
        findings: Where findings go.
        rows: The rows read so far by number: their ids and places.
        scratch: An empty folder for what is too large for memory; deleted at the end.
        limits: See :class:`RowLimits`.
    """

    dataset: Dataset
    findings: Findings
    rows: RowTable
    scratch: Path
    limits: RowLimits = RowLimits()

    @property
    def official(self) -> bool:
        """The user asked for the source's own split by name: what its splits share is a warning, not an error."""
        return self.dataset.manifest.split.get("kind") == "official"


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What was found in a stored picture, decoded once in a child process.

    Attributes:
        ref: The picture.
        fault: Why it could not be read; then ``measured`` is empty.
        intact: The bytes are those that ``images.jsonl`` names by their hash.
        width: Pixels, as decoded.
        height: Pixels, as decoded.
        measured: By name of the measure (see ``measures.MEASURES``), what it returned.
    """

    ref: ImageRef
    fault: Fault | None = None
    intact: bool = True
    width: int = 0
    height: int = 0
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PictureUse:
    """Where a picture is used.

    Attributes:
        number: Of the picture, from 0, in the order of ``images.jsonl``, which is the order in which the sources gave them.
        row: Number of the first row that shows it; None when no row does.
        splits: The splits whose rows show it.
    """

    number: int
    row: int | None
    splits: tuple[SplitName, ...]


class Check:
    """A family of checks. Made anew for each validation; the methods are called in the order in which they stand here."""

    names: tuple[str, ...] = ()
    """What it checks, as the report lists it (kebab-case)."""
    needs: frozenset[str] = frozenset()
    """The measures that it wants of each picture, by their names in ``measures.MEASURES``."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.findings = context.findings

    def row(self, sample: Sample, place: Place) -> None:
        """Look at one row."""

    def picture(self, facts: PictureFacts, use: PictureUse) -> None:
        """Look at one picture."""

    def conclude(self) -> Mapping[str, Text]:
        """Compare what was seen. Returns those of ``names`` that could not be checked, and why."""
        return {}

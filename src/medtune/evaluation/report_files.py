"""Everything that is written of a report besides ``report.json``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medtune.evaluation.checklists import write_checklists
from medtune.evaluation.known import known_of
from medtune.evaluation.model_card import render_model_card
from medtune.evaluation.report_html import write_report
from medtune.language import Language
from medtune.runs import atomic_write
from medtune.types import Report

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset

__all__ = ["write_report_files"]


def write_report_files(report: Report, folder: Path, dataset: Dataset | None, in_language: Language | None = None) -> None:
    """Write ``report.html``, ``report.md``, ``claim_2024.md`` and ``tripod_llm.md`` into a run folder, each whole or not at all.

    Args:
        dataset: Of the report; without it the page has no cases, and the other files say less.
        in_language: Of the words; the page has both.

    Raises:
        EvaluationError: The data set is another than the report's, or a stored file is damaged.
    """
    write_report(report, folder, dataset, in_language)
    known = known_of(report, folder, dataset)
    atomic_write(folder / "report.md", render_model_card(known, in_language))
    write_checklists(known, folder, in_language)

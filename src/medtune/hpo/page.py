"""``report.html`` of a sweep: one file in both languages that loads nothing from anywhere."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path

from markupsafe import Markup, escape

from medtune.hpo.plots import PLOTS
from medtune.hpo.report import SweepReport
from medtune.hpo.table import objective_title, rows
from medtune.language import Language, Text, language, msg
from medtune.runs import atomic_write

__all__ = ["PAGE_NAME", "render_page", "write_page"]

PAGE_NAME = "report.html"

_CAPTIONS = {
    "trials.png": msg("Every trial with its interval; green is the best, grey the recipe's own settings."),
    "settings.png": msg("The objective over the values of each setting."),
    "importance.png": msg("How much each setting tells good trials from others."),
}


def write_page(report: SweepReport, folder: Path, in_language: Language | None = None) -> Path:
    """Write the page, whole or not at all; returns its path."""
    path = folder / PAGE_NAME
    atomic_write(path, render_page(report, folder / "plots", in_language))
    return path


def render_page(report: SweepReport, plots: Path, in_language: Language | None = None) -> str:
    """The page.

    Args:
        plots: Where the pictures are; those that are missing are left out.
        in_language: The language that the page opens in; the reader can switch.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medtune.hpo"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    spoken = in_language or language()
    style = (resources.files("medtune.hpo") / "templates" / "sweep.css").read_text(encoding="utf-8")
    pictures = [
        (_CAPTIONS[name], base64.b64encode((plots / name).read_bytes()).decode()) for name in PLOTS if (plots / name).is_file()
    ]
    page = environment.get_template("sweep.html").render(
        zh=spoken == "zh",
        t=_both,
        text=_words(),
        style=Markup(style),
        title=msg("Sweep of {recipe}", recipe=report.recipe),
        report=report,
        rows=rows(report),
        objective=objective_title(report),
        pictures=pictures,
        num_done=report.num_finished,
    )
    return str(page)


def _both(text: Text | str) -> Markup:
    """A sentence in both languages; the style sheet shows the one that the page is set to."""
    if isinstance(text, str):
        return escape(text)
    english, chinese = text.render("en"), text.render("zh")
    if english == chinese:
        return escape(english)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-CN">{}</span>').format(english, chinese)


def _words() -> dict[str, Text]:
    return {
        "intended_use": msg("For research only. Not a medical device. Not for diagnosis or treatment decisions."),
        "trial": msg("trial"),
        "trials": msg("trials"),
        "settings": msg("settings"),
        "state": msg("state"),
        "difference": msg("minus the recipe's own, 95 % interval"),
        "base_model": msg("base model"),
        "data": msg("data set"),
        "rows": msg("rows"),
        "best": msg("The recipe of the best trial: best.yaml"),
        "each_alone": msg("Each interval of the table is for its own trial; the sentence above the table counts all comparisons."),
    }

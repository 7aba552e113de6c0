"""The pictures of a sweep: ``plots/*.png``. Their words are English: matplotlib brings no font with Chinese characters."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from medtune.hpo.report import SweepReport, TrialReport
from medtune.hpo.space import yaml_text
from medtune.runs import atomic_write

__all__ = ["PLOTS", "draw_all"]

PLOTS = ("trials.png", "settings.png", "importance.png")
"""In the order of the page; the last one is there only where importance means something."""

_WIDE = 8
"""Largest over smallest mean from which on the objective is drawn logarithmically."""

_OWN, _OTHER, _BEST, _STOPPED = "#444444", "#1f77b4", "#2ca02c", "#bbbbbb"


def draw_all(report: SweepReport, folder: Path) -> None:
    """Draw what there is to draw; pictures of an earlier state are replaced."""
    _save(_trials(report), folder / PLOTS[0])
    _save(_settings(report), folder / PLOTS[1])
    if report.importance:
        _save(_importance(report), folder / PLOTS[2])
    else:
        (folder / PLOTS[2]).unlink(missing_ok=True)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic_write(path, buffer.getvalue())


def _trials(report: SweepReport) -> Any:
    """The objective of each trial with its interval; the recipe's own settings as a line; stopped trials at their last loss."""
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    for trial in report.complete:
        _dot(axes, trial.number, trial, report)
    stopped = [trial for trial in report.trials if trial.state == "pruned" and trial.losses]
    if stopped and report.objective == "validation-loss":
        last = [trial.losses[max(trial.losses)] for trial in stopped]
        axes.plot([trial.number for trial in stopped], last, "x", color=_STOPPED, label="stopped early (last loss)")
    own = next((trial for trial in report.complete if trial.number == 0), None)
    if own is not None and own.value is not None:
        axes.axhline(own.value.mean, color=_OWN, linewidth=1, linestyle=":")
    _name_colors(axes, report)
    _scale(axes, report)
    axes.set_xlabel("trial")
    axes.set_ylabel(_objective(report))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)
    _whole(axes)
    return figure


def _settings(report: SweepReport) -> Any:
    """One panel for each setting: the objective over its values. In a one-at-a-time design only this setting differs."""
    keys = list(report.space.parameters)
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = _figure(3.2 * columns, 2.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for index, panel in enumerate(grid.flat):
        if index < len(keys):
            _panel(panel, keys[index], report)
            if index % columns == 0:
                panel.set_ylabel(_objective(report), fontsize=8)
        else:
            panel.set_visible(False)
    _name_colors(grid[0, 0], report)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _panel(axes: Any, key: str, report: SweepReport) -> None:
    parameter = report.space.parameters[key]
    trials = [trial for trial in report.complete if not trial.settings or key in trial.settings]
    values: dict[int, Any] = {trial.number: trial.settings.get(key, report.own.get(key)) for trial in trials}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
    if parameter.choices is None and numbers:
        places = values
        if parameter.log:
            axes.set_xscale("log")
    else:
        order = {value: index for index, value in enumerate(sorted(set(values.values()), key=float))} if numbers else {}
        labels = [f"{value:g}" for value in order] if numbers else sorted({yaml_text(value) for value in values.values()})
        places = {number: order[value] if numbers else labels.index(yaml_text(value)) for number, value in values.items()}
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, max(0, len(labels) - 1) + 0.5)
        places = _side_by_side(places)
    for trial in trials:
        _dot(axes, places[trial.number], trial, report)
    title = key if parameter.times is None else f"{key} / {parameter.times}"
    _scale(axes, report)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def _side_by_side(places: dict[int, Any]) -> dict[int, float]:
    """Trials with the same value stand beside each other, so that no interval hides another."""
    spread: dict[int, float] = {}
    for place in set(places.values()):
        here = [number for number in places if places[number] == place]
        step = min(0.12, 0.6 / len(here))
        spread |= {number: place + step * (index - (len(here) - 1) / 2) for index, number in enumerate(here)}
    return spread


def _dot(axes: Any, place: Any, trial: TrialReport, report: SweepReport) -> None:
    value = trial.value
    assert value is not None
    color = _BEST if trial.number == report.best else _OWN if trial.number == 0 else _OTHER
    error = None if value.low is None or value.high is None else [[value.mean - value.low], [value.high - value.mean]]
    axes.errorbar([place], [value.mean], yerr=error, fmt="o", color=color, markersize=4, capsize=2, linewidth=1)


def _name_colors(axes: Any, report: SweepReport) -> None:
    """Entries of a legend, without a place in the plot: which dots are the best's, the recipe's own and the others'."""
    named = {_OWN: "the recipe's own settings", _BEST: "the best"}
    if report.best == 0:
        named = {_BEST: "the recipe's own settings: the best"}
    elif report.best is None:
        del named[_BEST]
    if any(trial.number not in (0, report.best) for trial in report.complete):
        named[_OTHER] = "other settings"
    for color, label in named.items():
        axes.plot([], [], "o", color=color, markersize=4, label=label)


def _importance(report: SweepReport) -> Any:
    ranked = sorted(report.importance.items(), key=lambda entry: entry[1])
    figure = _figure(6, 0.8 + 0.4 * len(ranked))
    axes = figure.add_subplot()
    axes.barh([key for key, _ in ranked], [share for _, share in ranked], color=_OTHER)
    axes.set_xlabel("share in what tells good trials from others (PED-ANOVA)")
    axes.set_xlim(0, 1)
    return figure


def _objective(report: SweepReport) -> str:
    bars = ", 95 % interval" if len(report.space.seeds) > 1 else ""
    name = "validation loss" if report.objective == "validation-loss" else report.objective
    return f"{name}{bars}"


def _scale(axes: Any, report: SweepReport) -> None:
    """Logarithmic where one bad trial would press all others onto a line."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    means = [trial.value.mean for trial in report.complete if trial.value is not None]
    if report.direction == "lower" and means and min(means) > 0 and max(means) > _WIDE * min(means):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _whole(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))

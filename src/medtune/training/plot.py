"""The picture of a run's losses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtune.runs import atomic_write

__all__ = ["plot_losses", "smooth"]

_WIDE = 8
"""Largest over smallest loss from which on the picture is logarithmic."""


def smooth(values: Sequence[float], weight: float = 0.7) -> list[float]:
    """Exponential moving average with the bias of the first values taken out (Kingma & Ba 2015, arXiv:1412.6980, section 3)."""
    average, result = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def plot_losses(log_history: Sequence[dict[str, Any]], path: Path, *, title: str, num_train: int, num_validation: int) -> None:
    """Draw training and validation loss over the optimizer steps into a PNG file.

    The words in the picture are English: matplotlib brings no font with Chinese characters.

    Args:
        log_history: The trainer's, with ``step`` and ``loss`` or ``eval_loss``.
        num_train: Rows trained on, for the legend.
        num_validation: Rows of the validation loss.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    train = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    validation = [(entry["step"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="#1f77b4", alpha=0.3, linewidth=1)
        axes.plot(steps, smooth(losses), color="#1f77b4", linewidth=1.8, label=f"training, smoothed (n = {num_train:,} rows)")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, color="#d62728", marker="o", markersize=4, label=f"validation (n = {num_validation:,} rows)")
        best = min(range(len(losses)), key=lambda index: losses[index])
        axes.annotate(
            f"{losses[best]:.3f}",
            (steps[best], losses[best]),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
            color="#d62728",
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per answer token)")
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    last = max((step for step, _ in (*train, *validation)), default=1)
    axes.set_xlim(0, last * 1.03)  # room for the number at the last point
    _scale_losses(axes, [loss for _, loss in (*train, *validation)])
    axes.grid(alpha=0.3)
    if train or validation:
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic_write(path, buffer.getvalue())


def _scale_losses(axes: Any, losses: Sequence[float]) -> None:
    """From zero where that shows the course; on a logarithmic scale where the beginning would flatten all that follows."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    sound = [loss for loss in losses if loss > 0]
    if not sound or len(sound) < len(losses) or max(sound) < _WIDE * min(sound):
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(min(sound) / 1.3, max(sound) * 1.3)

"""Reads the speed of a training run from its log, and puts runs beside each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

REFERENCE = "2 x 8, checkpointing on"
"""LLaMA-Factory's setting in its examples."""


COLUMNS = (
    "program",
    "setting",
    "steps",
    "samples/s",
    "s a step (least, most)",
    "tokens a row",
    "useful TFLOP/s (MFU)",
    "peak MiB",
    "waited for data",
    "loss of step 1, of the last",
    "against its best",
    "against 2 x 8",
)
"""Of the table; the last two are ratios to LLaMA-Factory."""


@dataclass(frozen=True)
class Mark:
    """A log of a run: optimizer steps done, seconds since the training began; and since the mark before, the mean loss and the
    share of the time that the model waited for data (None: not told)."""

    step: int
    seconds: float
    loss: float
    waited: float | None = None


def marks_of(events: list[dict[str, Any]]) -> list[Mark]:
    """The marks in a run's ``events.jsonl``; those before an interruption are left out."""
    marks: list[Mark] = []
    for event in events:
        if event["kind"] == "log" and "tokens_per_second" in event:
            if marks and event["done"] <= marks[-1].step:
                marks = []
            marks.append(Mark(event["done"], event["seconds"], event["loss"], event.get("data_wait_share")))
    return marks


def window(marks: list[Mark], start: int, end: int | None, *, rows_a_step: int) -> dict[str, Any]:
    """Speed from the mark of step ``start`` to that of step ``end`` (None: the last); empty when there are no two.

    ``slowest_step`` and ``fastest_step`` are seconds a step between neighbouring marks.
    """
    inside = [mark for mark in marks if mark.step >= start and (end is None or mark.step <= end)]
    if len(inside) < 2:
        return {}
    steps, seconds = inside[-1].step - inside[0].step, inside[-1].seconds - inside[0].seconds
    between = [(after.seconds - before.seconds) / (after.step - before.step) for before, after in itertools.pairwise(inside)]
    waited = [(mark.waited, mark.seconds - before.seconds) for before, mark in itertools.pairwise(inside)]
    known = [share * time for share, time in waited if share is not None]
    return {
        "data_wait_share": sum(known) / seconds if len(known) == len(waited) else None,
        "steps": [inside[0].step + 1, inside[-1].step],
        "samples_per_second": steps * rows_a_step / seconds,
        "seconds_a_step": seconds / steps,
        "fastest_step": min(between),
        "slowest_step": max(between),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one table for each model, medtune's ratio to LLaMA-Factory's best and to its reference setting, the machine."""
    lines: list[str] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        peers = {row["setting"]: row["samples_per_second"] for row in own if row["program"] != "medtune" and _measured(row)}
        best, reference = max(peers.values(), default=None), peers.get(REFERENCE)
        lines += [
            model,
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + "---|" * len(COLUMNS),
        ]
        for row in own:
            lines.append("| " + " | ".join([row["program"], row["setting"], *_figures(row), *_ratios(row, best, reference)]) + " |")
        lines += ["", *_machines(own), ""]
    return "\n".join(lines)


def _measured(row: dict[str, Any]) -> bool:
    return "samples_per_second" in row


def _figures(row: dict[str, Any]) -> list[str]:
    tokens, peak, losses = row.get("tokens_per_sample"), row.get("peak_memory_mib"), row["losses"]
    waited = row.get("data_wait_share")
    common = [
        "-" if peak is None else f"{peak:,}",
        "-" if waited is None else f"{100 * waited:.1f} %",
        f"{losses[0]:.4f}, {losses[-1]:.4f}" if losses else "-",
    ]
    if not _measured(row):
        return ["-", "-", "-", "-", "-", *common]
    mfu = "" if row.get("mfu") is None else f" ({100 * row['mfu']:.1f} %)"
    return [
        "{} to {}".format(*row["steps"]) + (", cut" if row["fault"] else ""),
        f"{row['samples_per_second']:.2f}",
        f"{row['seconds_a_step']:.3f} ({row['fastest_step']:.3f}, {row['slowest_step']:.3f})",
        "-" if tokens is None else f"{tokens:.0f}",
        f"{row['useful_tflops']:.1f}{mfu}" if "useful_tflops" in row else "-",
        *common,
    ]


def _ratios(row: dict[str, Any], best: float | None, reference: float | None) -> list[str]:
    if not _measured(row):
        return ["-", "-"]
    return ["-" if other is None else f"{row['samples_per_second'] / other:.2f}" for other in (best, reference)]


def _machines(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        versions = row["machine"] | (row.get("versions") or {})
        ceiling = f"; 8192^3 bf16: {row['ceiling'] / 1e12:.0f} TFLOP/s" if row["ceiling"] else ""
        found.append(f"{row['program']}: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ceiling)
    return list(dict.fromkeys(found))

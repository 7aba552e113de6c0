"""Draw the loss of the run that made medtune-nano, from the record that ships with its weights.

Run: ``python benchmarks/nano_loss.py docs/images/nano_loss.png``.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt


def main(path: Path) -> None:
    record = json.loads((resources.files("medtune") / "nano" / "training.json").read_text(encoding="utf-8"))
    train = [(entry["step"], entry["loss"]) for entry in record["losses"] if "loss" in entry]
    validation = [(entry["step"], entry["eval_loss"]) for entry in record["losses"] if "eval_loss" in entry]
    with plt.rc_context({"font.size": 11}):
        figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
        axes.plot(*zip(*train, strict=True), color="#1f6fb4", linewidth=1.8, label="training, mean of 50 steps")
        axes.plot(*zip(*validation, strict=True), "D", color="#c0392b", markersize=7, label="validation")
        axes.set_yscale("log")
        ticks = [0.1, 0.2, 0.5, 1, 2, 5]
        axes.set_yticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(0, record["num_steps"] * 1.03)
        axes.set_xlabel("step (256 rows each)")
        axes.set_ylabel("loss, nats per answer token")
        axes.set_title(f"medtune-nano: {record['num_steps']:,} steps in {record['seconds']:.0f} s on one H100", fontsize=12)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

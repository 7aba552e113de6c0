"""One finished run on a tiny random model, for the tests of the verbs and of the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

RECIPE = """\
# Needs: the files that the tests write.
# Start: medtune train small.yaml

title: Small
data:
  sources:
    - source: vqa-rad
      options: {path: vqa-rad}
  split:
    fractions: {train: 0.5, validation: 0.25, test: 0.25}
  num_workers: 1
model: {base: tiny, dtype: float32}
train: {max_steps: 2, batch_size: 2, gradient_accumulation_steps: 1, precision: float32, learning_rate: 1e-3, num_workers: 0}
generation: {batch_size: 4, sampling: {max_new_tokens: 4}}
evaluation: {max_samples: 6, num_resamples: 100}
"""


@dataclass(frozen=True)
class Workplace:
    """A folder with ``small.yaml``, its data, the model ``tiny`` and the finished, evaluated run ``runs/small``."""

    folder: Path
    phases: tuple[str, ...]
    """What the listener heard, in English."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    from medtune import api
    from medtune.types import Event
    from source_files import write_vqa_rad
    from tiny_models import tiny_model

    folder = tmp_path_factory.mktemp("workplace")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_vqa_rad(Path("vqa-rad"), num_images=24)
        tiny_model(Path("tiny"), "qwen2-vl")
        Path("small.yaml").write_text(RECIPE, encoding="utf-8")
        phases: list[str] = []

        def hear(event: Event) -> None:
            if event.kind == "phase" and event.text is not None:
                phases.append(event.text.render("en"))

        api.train("small.yaml", listener=hear)
        api.evaluate("small", listener=hear)
    finally:
        os.chdir(before)
    return Workplace(folder, tuple(phases))


@pytest.fixture
def workplace(finished: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The finished run, with its folder as the current directory. Write to names of your own."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("MEDTUNE_LANG", "en")
    return finished

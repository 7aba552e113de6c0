"""The loader goes on into the next epoch, gives each epoch its own steps, and draws nothing that training draws from."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from medtune.models.config import LoraSettings
from medtune.training.batches import StepSampler
from medtune.training.checkpoints import all_checkpoints
from medtune.training.data import RowSampler
from medtune.training.step_loader import StepLoader
from medtune.types import Event
from tiny_training import Setup, eval_losses, losses


class Rows(Dataset[Any]):
    """What is asked for comes back, and leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        (self.folder / f"{time.monotonic_ns()}").touch()
        return rows


def note_how_loading_ends(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each iterator with processes, once it is gone: whether its processes had been told to end before."""
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    ended: list[bool] = []
    end: Any = _MultiProcessingDataLoaderIter.__del__  # type: ignore[attr-defined]

    def noted(self: Any) -> None:
        ended.append(self._shutdown)
        end(self)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__del__", noted)
    return ended


def sampler() -> StepSampler:
    return StepSampler(RowSampler([5] * 12, seed=3), rows_per_step=4, micro_batch_tokens=10)


def test_each_iteration_is_one_epoch_and_the_next_is_begun_early(tmp_path: Path) -> None:
    steps = sampler()
    expected = []
    for epoch in range(1, 4):
        steps.order.epoch = epoch
        expected.append([list(step) for step in steps])
    assert expected[0] != expected[1]

    steps.order.epoch = 1
    state = torch.get_rng_state()
    options: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 2, "persistent_workers": True, "collate_fn": list}
    loader = StepLoader(Rows(tmp_path), steps, num_epochs=4, generator=torch.Generator(), **options)
    assert len(loader) == 3
    found = [list(iter(loader))]
    wanted = sum(map(len, expected[0])) + 2 * len(expected[1][0])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) >= sum(map(len, expected[0])) + 2 * len(expected[1][0]), (
        "nothing of the next epoch was read"
    )
    found += [list(iter(loader)), list(iter(loader))]
    assert found == expected
    assert list(iter(loader)) == [], "there are four epochs, the first of which was 0"
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_with_loading_processes_resumes_with_the_same_losses(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = note_how_loading_ends(monkeypatch)
    settings: dict[str, Any] = {
        "adapter": LoraSettings(rank=4, dropout=0.2),
        "max_steps": 8,
        "learning_rate": 5e-3,
        "save_every": 2,
        "evaluate_every": 3,
        "cache_encoded": False,
        "num_workers": 1,
    }
    alone, straight, stopped = (setup.run(tmp_path / name) for name in ("alone", "straight", "stopped"))
    setup.train(alone, **{**settings, "num_workers": 0})
    setup.train(straight, **settings)

    def stop_after_four(event: Event) -> None:
        if event.kind == "progress" and event.total == 8 and event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup.train(stopped, listener=stop_after_four, **settings)
    assert all_checkpoints(stopped.checkpoints)[-1][0] == 4
    setup.train(stopped, resume=True, **settings)
    assert losses(stopped) == pytest.approx(losses(straight), abs=1e-6)
    assert losses(alone) == pytest.approx(losses(straight), abs=1e-6)
    assert eval_losses(stopped) == pytest.approx(eval_losses(straight), abs=1e-6)
    gc.collect()
    assert len(ended) == 7, "a training and a validation loader of three runs, and one for the rest of the resumed epoch"
    assert all(ended), "a loader's processes were left to the garbage collector"

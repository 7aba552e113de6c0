"""Recipes that differ only in how the work is cut must have the same loss trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtune.models.config import LoraSettings
from medtune.training.checkpoints import all_checkpoints
from medtune.types import Event
from tiny_training import FULL, Setup, eval_losses, losses

DROPOUT = LoraSettings(rank=4, dropout=0.2)


def trajectory(setup: Setup, folder: Path, **settings: Any) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step."""
    run = setup.run(folder)
    setup.train(run, learning_rate=5e-3, warmup_steps=0, validation_rows=[], **settings)
    return [(event["loss"], event["grad_norm"]) for event in run.events() if event["kind"] == "log" and "loss" in event]


def close(first: list[tuple[float, float]], second: list[tuple[float, float]]) -> None:
    assert len(first) == len(second)
    for (loss, norm), (other_loss, other_norm) in zip(first, second, strict=True):
        assert loss == pytest.approx(other_loss, abs=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-4)


@pytest.fixture(scope="module")
def whole_batches(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, float]]:
    return trajectory(setup, tmp_path_factory.mktemp("whole") / "run", max_steps=5, batch_size=8, gradient_accumulation_steps=1)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 8), (2, 4)])
def test_cutting_a_step_into_micro_batches_changes_nothing(
    setup: Setup, tmp_path: Path, whole_batches: list[tuple[float, float]], batch_size: int, accumulation: int
) -> None:
    # 12 rows: the second step of each epoch has 4 of them, so a short last step is covered too.
    cut = trajectory(setup, tmp_path / "run", max_steps=5, batch_size=batch_size, gradient_accumulation_steps=accumulation)
    close(whole_batches, cut)
    assert whole_batches[-1][0] < whole_batches[0][0] - 0.05, "nothing was learned, so nothing was compared"


def test_the_rows_would_tell_a_mean_of_means_apart(setup: Setup) -> None:
    """Else the test above could not fail: answers must be of very different lengths."""
    import torch

    from medtune.training.data import EncodedRows
    from medtune.training.loss import TokenLoss

    model = setup.model()
    rows = EncodedRows(setup.train_rows, setup.encoder, setup.image_path)
    loss = TokenLoss(model)
    sums, counts = [], []
    for index in range(8):
        with torch.no_grad():
            losses, _ = loss(model, dict(setup.encoder.collate([rows[index]]).inputs))
        sums.append(float(losses.sum()))
        counts.append(len(losses))
    assert max(counts) > 20 * min(counts)
    means = torch.tensor(sums) / torch.tensor(counts)
    assert abs(float(means.mean()) - sum(sums) / sum(counts)) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_encoded": False},
        {"cache_encoded": False, "num_workers": 2},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": 2},
        {"gradient_checkpointing": "offload"},
        {"packing": False},
        {"packing": False, "gradient_checkpointing": "all"},
        {"micro_batch_tokens": 1},
        {"micro_batch_tokens": 300},
    ],
    ids=str,
)
def test_how_rows_are_loaded_and_activations_kept_changes_nothing(
    setup: Setup, tmp_path: Path, whole_batches: list[tuple[float, float]], settings: dict[str, Any]
) -> None:
    close(whole_batches, trajectory(setup, tmp_path / "run", max_steps=5, batch_size=8, gradient_accumulation_steps=1, **settings))


@pytest.mark.parametrize("group_by_length", [False, True])
@pytest.mark.parametrize("adapter", [DROPOUT, FULL], ids=["lora", "full"])
def test_a_resumed_run_has_the_losses_of_one_that_never_stopped(
    setup: Setup, tmp_path: Path, adapter: Any, group_by_length: bool
) -> None:
    settings: dict[str, Any] = {
        "adapter": adapter,
        "max_steps": 7,
        "learning_rate": 5e-3,
        "save_every": 2,
        "evaluate_every": 3,
        "group_by_length": group_by_length,
    }
    straight = setup.run(tmp_path / "straight")
    setup.train(straight, **settings)

    stopped = setup.run(tmp_path / "stopped")

    def stop_after_five(event: Event) -> None:
        if event.kind == "progress" and event.total == 7 and event.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup.train(stopped, listener=stop_after_five, **settings)
    assert stopped.record.status == "interrupted"
    assert all_checkpoints(stopped.checkpoints)[-1][0] == 5
    setup.train(stopped, resume=True, **settings)

    assert losses(stopped) == pytest.approx(losses(straight), abs=1e-6)
    assert eval_losses(stopped) == pytest.approx(eval_losses(straight), abs=1e-6)
    assert stopped.record.status == "trained"
    assert stopped.record.train_loss == pytest.approx(straight.record.train_loss, abs=1e-6)

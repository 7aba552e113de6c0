"""A loss or a weight that is no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.errors import TrainingError
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.divergence import DivergenceError, all_finite
from medtune.training.weights import read_weights
from tiny_training import Setup

SETTINGS: dict[str, Any] = {"max_steps": 6, "save_every": 1, "evaluate_every": "never", "max_grad_norm": 0.0}


def spoil_gradient(model: Any, *, after: int) -> None:
    """From a backward pass on, one weight's gradient is NaN; no loss shows it before the weight was changed."""
    passes = {"left": after}

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        passes["left"] -= 1
        return gradient * float("nan") if passes["left"] < 0 else gradient

    next(value for value in model.parameters() if value.requires_grad).register_hook(hook)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_single_number_is_seen(value: float) -> None:
    weights = [torch.ones(3), torch.ones(4, 4, dtype=torch.bfloat16), torch.arange(3)]
    assert all_finite(weights)
    assert all_finite([])
    weights[1][2, 3] = value
    assert not all_finite(weights)
    assert not all_finite([torch.tensor([float("inf"), -float("inf")])])


@pytest.mark.parametrize(("rank", "finite"), [(0, True), (1, False), (2, True)])
def test_of_a_weight_under_zero_3_the_share_is_looked_at(rank: int, finite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five values in shares of two: what the third process has over is nobody's value, and the weight itself is empty."""
    shares = [[1.0, 2.0], [3.0, float("inf")], [5.0, float("nan")]]
    weight: Any = torch.nn.Parameter(torch.empty(0))
    weight.ds_tensor, weight.ds_numel, weight.ds_process_group = torch.tensor(shares[rank]), 5, "all"
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group: rank if group == "all" else None)
    assert all_finite([weight]) == finite


def diverge(setup: Setup, run: Run, *, resume: bool = False, after: int) -> DivergenceError:
    model = setup.model()
    spoil_gradient(model, after=after)
    with pytest.raises(DivergenceError) as caught:
        setup.train(run, model=model, resume=resume, **SETTINGS)
    return caught.value


def test_no_checkpoint_holds_a_weight_that_is_no_number(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    error = diverge(setup, run, after=2)
    assert error.key == "train.learning_rate"
    saved = all_checkpoints(run.checkpoints)
    assert saved
    assert error.step == saved[-1][0] + 1
    assert all(torch.isfinite(value).all() for _, path in saved for value in read_weights(path).values())
    assert run.record.status == "failed"
    assert (run.record.diverged_step, run.record.num_divergences) == (error.step, 1)


def test_a_second_attempt_is_told_of_the_first_and_a_third_refused(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    first = diverge(setup, run, after=2)
    assert first.step is not None
    second = diverge(setup, run, resume=True, after=0)
    assert second.step == first.step
    notes = [event["text"] for event in run.events() if event["kind"] == "note"]
    assert any(f"The last attempt diverged after step {first.step}" in note for note in notes)
    with pytest.raises(TrainingError, match="twice") as caught:
        setup.train(run, resume=True, **SETTINGS)
    assert f"checkpoint-{first.step - 1}" in caught.value.render("en")
    assert "adapter.init_from=" in caught.value.render("en")


def test_a_fault_of_the_machine_is_forgotten_when_the_run_has_ended(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    diverge(setup, run, after=2)
    record = setup.train(run, resume=True, **SETTINGS)
    assert record.status == "trained"
    assert record.diverged_step is None
    assert record.error is None

"""Best, last and average: what is kept, and what the record says of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medtune.errors import TrainingError
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.outcome import average
from medtune.training.weights import read_weights
from tiny_training import FULL, Setup, eval_losses

RISING: dict[str, Any] = {
    # A rate this high makes the validation loss rise again after a few steps.
    "max_steps": 8,
    "learning_rate": 0.3,
    "schedule": "constant",
    "evaluate_every": 1,
    "save_every": 1,
}


def adapter(run: Run, name: str = "adapter") -> dict[str, torch.Tensor]:
    return load_file(run.folder / name / "adapter_model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def rising(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = setup.run(tmp_path_factory.mktemp("rising") / "run")
    setup.train(run, save_total_limit=3, average_last=4, **RISING)
    return run


def test_the_best_is_the_result_and_the_last_lies_beside_it(rising: Run) -> None:
    record, measured = rising.record, eval_losses(rising)
    assert record.best_step is not None
    assert record.best_step < 8, "the validation loss never rose, so best and last are one"
    assert record.kept in ("best", "average")
    assert record.validation_losses["best"] == pytest.approx(min(measured.values()))
    assert record.validation_losses["last"] == pytest.approx(measured[8])
    assert record.eval_loss == record.validation_losses[record.kept]
    assert equal(adapter(rising, "adapter_last"), read_weights(rising.checkpoints / "checkpoint-8"))
    assert (rising.folder / "adapter_last" / "contract.json").is_file()
    assert rising.adapter == rising.folder / "adapter"


def test_the_average_is_measured_and_kept_only_where_it_is_better(rising: Run) -> None:
    losses = rising.record.validation_losses
    assert set(losses) == {"best", "last", "average"}
    kept = "average" if losses["average"] < losses["best"] else "best"
    assert rising.record.kept == kept
    wanted = (
        average(rising.checkpoints, 4)[0]
        if kept == "average"
        else read_weights(rising.checkpoints / f"checkpoint-{rising.record.best_step}")
    )
    assert equal(adapter(rising), wanted)
    notes = [event["text"] for event in rising.events() if event["kind"] == "note"]
    assert any("average of the checkpoints of steps 5, 6, 7, 8" in note for note in notes)


def test_it_is_the_mean_of_as_many_checkpoints_as_were_asked_for(rising: Run) -> None:
    assert [step for step, _ in all_checkpoints(rising.checkpoints)][-4:] == [5, 6, 7, 8], "more are kept than save_total_limit"
    found, steps = average(rising.checkpoints, 4)
    assert steps == [5, 6, 7, 8]
    each = [read_weights(rising.checkpoints / f"checkpoint-{step}") for step in steps]
    for name, value in found.items():
        torch.testing.assert_close(value, sum(weights[name] for weights in each) / 4)  # type: ignore[arg-type]
    (rising.checkpoints / "checkpoint-7" / "files.json").rename(rising.checkpoints / "checkpoint-7" / "gone")
    assert average(rising.checkpoints, 4)[1] == [5, 6, 8], "a damaged one is left out"
    (rising.checkpoints / "checkpoint-7" / "gone").rename(rising.checkpoints / "checkpoint-7" / "files.json")


@pytest.mark.parametrize("kind", [None, FULL], ids=["adapter", "full"])
def test_without_validation_the_average_is_the_result(setup: Setup, tmp_path: Path, kind: Any) -> None:
    run = setup.run(tmp_path / "run")
    settings: dict[str, Any] = {"max_steps": 4, "save_every": 1, "learning_rate": 5e-3, "average_last": 3, "validation_rows": []}
    record = setup.train(run, adapter=kind, **settings)
    assert record.kept == "average"
    assert record.validation_losses == {}
    wanted, steps = average(run.checkpoints, 3)
    assert steps == [2, 3, 4]
    if kind is None:
        assert equal(adapter(run), wanted)
        assert equal(adapter(run, "adapter_last"), read_weights(run.checkpoints / "checkpoint-4"))
    else:
        saved = load_file(run.folder / "model" / "model.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in wanted.items() if name in saved)
        assert not (run.folder / "adapter_last").exists()


def test_one_folder_where_best_and_last_are_one(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    record = setup.train(run, learning_rate=1e-3, max_steps=3, evaluate_every=1)
    assert record.best_step == 3
    assert record.kept == "best"
    assert not (run.folder / "adapter_last").exists()


def test_a_damaged_best_checkpoint_leaves_the_last(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")

    def harm(event: Any) -> None:
        if event.kind == "checkpoint" and event.values["step"] == 8:
            best = run.record.best_step
            (run.checkpoints / f"checkpoint-{best}" / "optimizer.pt").write_bytes(b"")

    record = setup.train(run, listener=harm, **RISING)
    assert record.best_step is not None
    assert record.best_step < 8
    assert record.kept == "last"
    assert record.eval_loss == pytest.approx(eval_losses(run)[8])
    assert equal(adapter(run), read_weights(run.checkpoints / "checkpoint-8"))
    assert not (run.folder / "adapter_last").exists()


def test_what_cannot_be_averaged_is_refused_at_the_start(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    with pytest.raises(TrainingError, match="needs checkpoints"):
        setup.train(run, average_last=2, save_every="never")
    assert not list(run.checkpoints.iterdir())


def test_too_few_checkpoints_are_told(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    assert setup.train(run, max_steps=1, average_last=2, save_every=1).kept == "best"
    assert any("no two whole checkpoints" in event.get("text", "") for event in run.events())

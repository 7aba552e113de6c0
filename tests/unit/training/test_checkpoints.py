"""Checkpoints are whole or not there; damage is found, and the one before is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import TrainingError
from medtune.models.adapter import add_adapter
from medtune.models.config import LoraSettings, ModelSettings
from medtune.models.load import load_model
from medtune.runs import Run
from medtune.training import checkpoints
from medtune.training.checkpoints import all_checkpoints, last_sound, publish, remove_old
from medtune.training.seal import SEAL, damage, write_seal
from tiny_training import Setup, losses


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "checkpoint-4"
    (folder / "sub").mkdir(parents=True)
    save_file({"a": torch.arange(4.0)}, folder / "weights.safetensors")
    torch.save({"a": torch.arange(4.0)}, folder / "optimizer.pt")
    (folder / "sub" / "state.json").write_text('{"step": 4}')
    write_seal(folder)
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def turn_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_folder_has_no_damage(sealed: Path) -> None:
    assert damage(sealed) is None
    assert damage(sealed, contents=False) is None
    (sealed / "more.txt").write_text("what was not listed is not looked at")
    assert damage(sealed) is None


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "sub/state.json"])
@pytest.mark.parametrize(("harm", "words"), [(cut, "bytes"), (turn_a_bit, "have changed"), (Path.unlink, "missing")])
def test_damage_is_found_and_named(sealed: Path, name: str, harm: Callable[[Path], None], words: str) -> None:
    harm(sealed / name)
    problem = damage(sealed)
    assert problem is not None
    assert words in problem.render("en") or "cannot be opened" in problem.render("en")
    assert Path(name).name in problem.render("en")


@pytest.mark.parametrize("content", ["", "[]", '{"weights.safetensors": {}}', '{"a": 3}'])
def test_a_folder_whose_list_is_cut_short_is_not_finished(sealed: Path, content: str) -> None:
    (sealed / SEAL).write_text(content)
    problem = damage(sealed)
    assert problem is not None
    assert SEAL in problem.render("en")
    (sealed / SEAL).unlink()
    assert damage(sealed) is not None


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "sub/state.json"])
def test_files_that_cannot_be_opened_are_found_without_reading_all(sealed: Path, name: str) -> None:
    path = sealed / name
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert damage(sealed, contents=False) is not None


def staged(folder: Path, step: int) -> Path:
    staging = folder / ".saving"
    (staging / f"checkpoint-{step}").mkdir(parents=True)
    (staging / f"checkpoint-{step}" / "state.json").write_text(json.dumps({"step": step}))
    return staging


def test_what_cannot_be_read_back_is_told_and_no_older_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        publish(staged(tmp_path, step), tmp_path, step)
    real = checkpoints.flush_folder

    def lose(folder: Path) -> None:
        real(folder)
        cut(folder / "state.json")

    monkeypatch.setattr(checkpoints, "flush_folder", lose)
    with pytest.raises(TrainingError, match="read back"):
        publish(staged(tmp_path, 3), tmp_path, 3)
    assert [step for step, path in all_checkpoints(tmp_path) if damage(path) is None] == [1, 2]
    found, damaged = last_sound(tmp_path)
    assert found is not None
    assert found[0] == 2
    assert [path.name for path, _ in damaged] == ["checkpoint-3"]


def test_a_checkpoint_that_is_made_again_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the earlier one is deleted: it must be gone from its name by then."""
    publish(staged(tmp_path, 2), tmp_path, 2)
    seen: list[list[str]] = []
    real = shutil.rmtree

    def look(path: Path, ignore_errors: bool = False) -> None:
        seen.append([each.name for each in tmp_path.iterdir() if not each.name.startswith(".")])
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", look)
    publish(staged(tmp_path, 2), tmp_path, 2)
    assert [] in seen, "the old one was not out of sight while it was deleted"
    assert [step for step, _ in all_checkpoints(tmp_path)] == [2]


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in range(1, 6):
        publish(staged(tmp_path, step), tmp_path, step)
    remove_old(tmp_path, keep=2, best_step=1)
    assert [step for step, _ in all_checkpoints(tmp_path)] == [1, 4, 5]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# --------------------------------------------------------------------------------------------------------------------- runs

SETTINGS: dict[str, Any] = {
    "max_steps": 6,
    "learning_rate": 5e-3,
    "save_every": 2,
    "save_total_limit": 3,
    "evaluate_every": "never",
}
DROPOUT = LoraSettings(rank=4, dropout=0.2)


@pytest.fixture(scope="module")
def straight(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = setup.run(tmp_path_factory.mktemp("straight") / "run")
    setup.train(run, adapter=DROPOUT, **SETTINGS)
    return run


def unfinished(straight: Run, folder: Path) -> Run:
    shutil.copytree(straight.folder, folder)
    shutil.rmtree(folder / "adapter")
    run = Run(folder)
    run.update(status="training")
    return run


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(setup: Setup, straight: Run, tmp_path: Path) -> None:
    run = unfinished(straight, tmp_path / "run")
    cut(run.checkpoints / "checkpoint-6" / "optimizer.pt")
    turn_a_bit(run.checkpoints / "checkpoint-4" / "adapter_model.safetensors")
    setup.train(run, adapter=DROPOUT, resume=True, **SETTINGS)
    notes = [event["text"] for event in run.events() if event["kind"] == "note"]
    assert any("checkpoint-6 is damaged" in note and "optimizer.pt" in note for note in notes)
    assert any("checkpoint-4 is damaged" in note for note in notes)
    assert any("Continuing after step 2" in note for note in notes)
    assert losses(run) == losses(straight)
    assert (run.folder / "adapter" / "adapter_model.safetensors").read_bytes() == (
        straight.folder / "adapter" / "adapter_model.safetensors"
    ).read_bytes()
    assert [step for step, _ in all_checkpoints(run.checkpoints)] == [2, 4, 6]
    assert (run.checkpoints / "damaged-checkpoint-6").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_begins_again(setup: Setup, straight: Run, tmp_path: Path) -> None:
    run = unfinished(straight, tmp_path / "run")
    for _, path in all_checkpoints(run.checkpoints):
        (path / SEAL).unlink()
    setup.train(run, adapter=DROPOUT, resume=True, **SETTINGS)
    assert losses(run) == losses(straight)


def test_a_run_that_was_killed_after_its_last_step_makes_no_other(setup: Setup, straight: Run, tmp_path: Path) -> None:
    """Six steps of three an epoch; and seven, which end in the middle of one."""
    run = unfinished(straight, tmp_path / "run")
    steps = len([event for event in run.events() if event["kind"] == "log"])
    setup.train(run, adapter=DROPOUT, resume=True, **SETTINGS)
    assert len([event for event in run.events() if event["kind"] == "log"]) == steps
    assert run.record.num_steps == 6
    seven = setup.run(tmp_path / "seven")
    setup.train(seven, adapter=DROPOUT, **{**SETTINGS, "max_steps": 7})
    again = unfinished(seven, tmp_path / "again")
    setup.train(again, adapter=DROPOUT, resume=True, **{**SETTINGS, "max_steps": 7})
    assert again.record.num_steps == 7
    assert max(losses(again)) == 7


def test_a_run_that_was_killed_before_it_said_so_is_finished_at_once(setup: Setup, straight: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight.folder, run)
    Run(run).update(status="training")
    record = setup.train(Run(run), adapter=DROPOUT, resume=True, **SETTINGS)
    assert record.status == "trained"
    assert record.num_steps == 6
    assert not [event for event in Run(run).events() if event["kind"] == "note" and "Continuing" in event["text"]]


def test_early_stopping_is_not_forgotten(setup: Setup, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_steps": 60,
        "learning_rate": 0.3,
        "schedule": "constant",
        "evaluate_every": 1,
        "save_every": 1,
        "patience": 2,
    }
    run = setup.run(tmp_path / "run")
    record = setup.train(run, **settings)
    assert record.num_steps is not None
    again = unfinished(run, tmp_path / "again")
    assert setup.train(again, resume=True, **settings).num_steps == record.num_steps


def test_a_checkpoint_can_be_the_beginning_of_another_run(setup: Setup, straight: Run) -> None:
    from medtune.training.weights import read_weights

    checkpoint = straight.checkpoints / "checkpoint-4"
    model: Any = add_adapter(
        load_model(ModelSettings(base=str(setup.model_folder)), device="cpu"),
        LoraSettings(init_from=checkpoint),
        setup.encoder.family,
        contract=setup.encoder.contract(),
    )
    from peft import get_peft_model_state_dict

    saved = read_weights(checkpoint)
    assert all((value == saved[name]).all() for name, value in get_peft_model_state_dict(model).items())


def test_no_card_of_another_hub_is_written(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel

    from medtune.training.weights import save_weights

    model = setup.model()
    with monkeypatch.context() as watched:
        watched.setattr(PeftModel, "create_or_update_model_card", lambda *_: pytest.fail("PEFT writes its card"))
        save_weights(model, tmp_path / "adapter")
        with pytest.raises(pytest.fail.Exception, match="card"):
            model.create_or_update_model_card(tmp_path)  # back as it was
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}

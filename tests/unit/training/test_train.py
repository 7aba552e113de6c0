"""A run from its first row to its result, and everything that can go wrong on the way."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.errors import DataError, MedtuneError, RunError, TrainingError
from medtune.models.config import LoraSettings, ModelSettings
from medtune.models.load import load_model
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.types import Event
from tiny_training import FULL, Setup, eval_losses, losses, make_setup


def frozen_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_a_run_leaves_what_the_run_folder_promises(setup: Setup, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, heard = setup.run(tmp_path / "run"), list[Event]()
    model = setup.model()
    before = frozen_of(model)
    record = setup.train(run, model=model, max_steps=None, epochs=2, listener=heard.append, save_total_limit=1, plot=True)

    assert record.status == "trained"
    assert (record.num_steps, record.num_steps_planned, record.num_epochs) == (6, 6, 2.0)
    assert record.trainable["trainable"] == sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert record.versions.keys() >= {"torch", "transformers", "peft", "medtune"}
    files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert files >= {f"adapter/{name}" for name in ("adapter_model.safetensors", "contract.json", "adapter_report.json")}
    assert {"loss.png", "events.jsonl"} < files
    assert {path.stat().st_mode & 0o777 for path in (run.folder / "adapter").iterdir()} == {0o644}
    assert not [name for name in files if name.endswith((".bin", "training_args.bin")) or ".saving" in name]
    assert [step for step, _ in all_checkpoints(run.checkpoints)] in ([6], [3, 6])
    assert str(setup.model_folder) not in (run.folder / "adapter" / "adapter_report.json").read_text()

    kinds = [event.kind for event in heard]
    assert kinds[-1] == "finished"
    assert kinds.count("epoch") == 2
    logs = [event.values for event in heard if event.kind == "log" and "loss" in event.values]
    assert [log["step"] for log in logs] == [1, 2, 3, 4, 5, 6]
    assert set(logs[0]) == {
        "step",
        "loss",
        "learning_rate",
        "grad_norm",
        "epoch",
        "tokens_per_second",
        "data_wait_share",
        "seconds",
        "peak_memory_mib",
    }
    assert [event.done for event in heard if event.kind == "progress" and event.total == 6] == [1, 2, 3, 4, 5, 6]
    epoch = next(event for event in heard if event.kind == "epoch")
    assert epoch.text is not None
    assert epoch.text.render("en").startswith("Epoch 1 of 2: loss 6.")
    assert epoch.text.render("zh").startswith("第 1/2 轮：损失 6.")
    assert len(losses(run)) == 6
    assert set(eval_losses(run)) == {3, 6}

    assert not model.training
    for name, value in frozen_of(model).items():
        assert torch.equal(value, before[name]), name
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


def test_the_saved_adapter_is_the_model_that_was_trained(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    model = setup.model()
    setup.train(run, model=model, learning_rate=1e-2)
    assert run.adapter is not None
    loaded: Any = load_model(ModelSettings(base=str(setup.model_folder)), adapter=run.adapter, device="cpu")
    features = setup.encoder.encode(
        setup.rows[0].prompt, [__import__("PIL.Image").Image.open(setup.image_path(setup.rows[0].images[0]))]
    )
    inputs = setup.encoder.collate([features]).inputs
    inputs.pop("labels")
    with torch.no_grad():
        tuned = model(**inputs).logits
        torch.testing.assert_close(loaded(**inputs).logits, tuned)
        with model.disable_adapter():
            assert not torch.allclose(model(**inputs).logits, tuned, atol=1e-3)


def test_a_full_fine_tune_loads_in_plain_transformers(setup: Setup, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig

    run = setup.run(tmp_path / "run")
    model = setup.model(FULL)
    setup.train(run, model=model, learning_rate=1e-3)
    assert run.adapter == run.folder / "model"
    folder = run.folder / "model"
    for name in ("chat_template.jinja", "preprocessor_config.json", "tokenizer.json", "contract.json", "config.json"):
        assert (folder / name).is_file(), name
    loaded, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert AutoTokenizer.from_pretrained(folder).chat_template == setup.encoder.tokenizer.chat_template
    assert GenerationConfig.from_pretrained(folder).eos_token_id == model.generation_config.eos_token_id
    assert getattr(model.config, "use_cache", True), "generation would be slow without its cache"
    assert json.loads((folder / "config.json").read_text()).get("use_cache", True)


def test_text_only_rows(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, family="qwen3", num_rows=8)
    run = setup.run(tmp_path / "run")
    assert setup.train(run, learning_rate=1e-2).status == "trained"
    assert losses(run)[4] < losses(run)[1]


def test_mixed_batches_with_and_without_pictures(setup: Setup, tmp_path: Path) -> None:
    text = make_setup(tmp_path, family="qwen3", num_rows=6).rows
    rows = [row.model_copy(update={"id": f"text-{row.id}"}) for row in text]
    mixed = [row for pair in zip(setup.train_rows, rows, strict=False) for row in pair]
    assert setup.train(setup.run(tmp_path / "run"), train_rows=mixed, gradient_accumulation_steps=1).status == "trained"


def test_the_last_steps_count_in_the_record_too(setup: Setup, tmp_path: Path) -> None:
    """Logged every tenth step, a run of four would else have the loss of its first step as its training loss."""
    every, seldom = setup.run(tmp_path / "every"), setup.run(tmp_path / "seldom")
    setup.train(every, log_every=1, learning_rate=1e-2)
    record = setup.train(seldom, log_every=10, learning_rate=1e-2)
    assert set(losses(seldom)) == {1, 3, 4}, "the first, that before the checkpoint, the last"
    assert record.train_loss == pytest.approx(sum(losses(every).values()) / 4, abs=1e-5)
    assert record.train_loss != pytest.approx(losses(every)[1], abs=1e-3)


def test_every_epoch_has_an_order_of_its_own(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    setup.train(run, max_steps=None, epochs=2, learning_rate=1e-12, gradient_accumulation_steps=1, evaluate_every="never")
    logged = losses(run)
    first, second = [logged[step] for step in range(1, 7)], [logged[step] for step in range(7, 13)]
    assert not any(abs(one - other) < 1e-5 for one, other in zip(first, second, strict=True))


# --------------------------------------------------------------------------------------------------------- rows that do not fit


def test_rows_that_are_too_long_are_named_before_training(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    lengths = {row.id: setup.encoder.count_tokens(row.messages, [(64, 64)]) for row in setup.train_rows}
    limit = sorted(lengths.values())[-3]
    with pytest.raises(TrainingError) as caught:
        setup.train(run, max_tokens=limit)
    words = caught.value.render("en")
    for name, length in lengths.items():
        assert (f"{name} ({length})" in words) == (length > limit)
    assert caught.value.key == "train.max_tokens"
    assert run.record.status == "failed"
    assert run.record.error == caught.value.what
    assert not run.checkpoints.exists()


def test_rows_that_are_too_long_can_be_left_out_and_are_listed(setup: Setup, tmp_path: Path) -> None:
    run, heard = setup.run(tmp_path / "run"), list[Event]()
    lengths = {row.id: setup.encoder.count_tokens(row.messages, [(64, 64)]) for row in setup.rows}
    limit = sorted(lengths.values())[-3]
    record = setup.train(run, max_tokens=limit, too_long="leave-out", max_steps=None, epochs=1, listener=heard.append)
    lines = [json.loads(line) for line in (run.folder / "left_out.jsonl").read_text().splitlines()]
    assert {line["id"]: line["num_tokens"] for line in lines} == {
        name: length for name, length in lengths.items() if length > limit
    }
    assert {line["split"] for line in lines} <= {"train", "validation"}
    assert any(event.kind == "note" and "Left out" in str(event.text and event.text.render("en")) for event in heard)
    assert record.status == "trained"


def test_rows_beyond_the_model_s_context_are_too_long_whatever_the_recipe_allows(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {row.id: setup.encoder.count_tokens(row.messages, [(64, 64)]) for row in setup.rows}
    limit = sorted(lengths.values())[-3]
    monkeypatch.setattr(setup.encoder, "max_tokens", limit)
    with pytest.raises(TrainingError) as caught:
        setup.train(setup.run(tmp_path / "refused"), max_tokens=10_000)
    assert f"The model reads {limit} tokens" in caught.value.render("en")
    run = setup.run(tmp_path / "left-out")
    setup.train(run, max_tokens=10_000, too_long="leave-out", max_steps=1)
    lines = [json.loads(line) for line in (run.folder / "left_out.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {name for name, length in lengths.items() if length > limit}


def test_nothing_to_train_on(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no rows"):
        setup.train(setup.run(tmp_path / "a"), train_rows=[])
    model = setup.model()
    model.requires_grad_(False)
    with pytest.raises(TrainingError, match="No weight"):
        setup.train(setup.run(tmp_path / "b"), model=model)
    with pytest.raises(TrainingError, match="validation"):
        setup.train(setup.run(tmp_path / "c"), patience=1, validation_rows=[])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_picture_ends_the_run_with_its_sample(setup: Setup, tmp_path: Path, num_workers: int) -> None:
    run = setup.run(tmp_path / "run")
    ref = setup.rows[1].images[0].model_copy(update={"path": "images/missing.png"})
    rows = [setup.rows[0], setup.rows[1].model_copy(update={"images": (ref,)}), *setup.rows[2:6]]
    with pytest.raises(DataError) as caught:
        setup.train(run, train_rows=rows, num_workers=num_workers, cache_encoded=False)
    assert caught.value.sample == "row-01"
    assert "missing.png" in caught.value.render("en")
    assert run.record.status == "failed"


# --------------------------------------------------------------------------------------------------------- ends before the end


def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    model = setup.model()
    state = {"calls": 0}

    def poison(*call: Any) -> Any:
        state["calls"] += 1
        return call[2] * float("nan") if state["calls"] > 2 else call[2]

    model.get_output_embeddings().register_forward_hook(poison)
    with pytest.raises(TrainingError) as caught:
        setup.train(run, model=model, save_every=1, evaluate_every="never")
    assert caught.value.key == "train.learning_rate"
    assert caught.value.sample is not None
    assert caught.value.sample.count("row-") == 4, "the rows of the micro-batch"
    assert run.record.status == "failed"
    assert [step for step, _ in all_checkpoints(run.checkpoints)] == [1, 2]
    assert run.adapter is None


def test_out_of_memory_of_a_single_row_says_what_else_to_lower(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    model = setup.model()

    def exhaust(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.get_output_embeddings().register_forward_hook(exhaust)
    with pytest.raises(TrainingError) as caught:
        setup.train(run, model=model)
    assert "model.max_pixels" in caught.value.render("en")
    assert run.record.status == "failed"
    tried = [event["text"] for event in run.events() if "Memory ran out" in event.get("text", "")]
    assert "gradient_checkpointing offload" in tried[-2], "all that is smaller was tried first"


def test_an_unexpected_failure_is_noted_and_not_disguised(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    model = setup.model()

    def fail(*_: Any) -> None:
        raise RuntimeError("shape {3}")

    model.get_output_embeddings().register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="shape"):
        setup.train(run, model=model)
    assert run.record.error is not None
    assert run.record.error.render("en") == "RuntimeError: shape {3}"


def test_ctrl_c_finishes_the_step_and_saves_it(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    before = signal.getsignal(signal.SIGINT)

    def press(event: Event) -> None:
        if event.kind == "progress" and event.total == 50 and event.done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        setup.train(run, max_steps=50, save_every="never", evaluate_every="never", listener=press, plot=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert run.record.status == "interrupted"
    assert run.record.num_steps == 2
    assert [step for step, _ in all_checkpoints(run.checkpoints)] == [2]
    assert (run.folder / "loss.png").is_file()
    assert run.adapter is None


def test_early_stopping_keeps_the_best(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    model = setup.model()
    # Without decay, a learning rate this high only makes the validation loss worse after a few steps.
    record = setup.train(
        run,
        model=model,
        max_steps=60,
        learning_rate=0.3,
        schedule="constant",
        evaluate_every=1,
        save_every="never",
        patience=3,
        save_total_limit=1,
    )
    measured = eval_losses(run)
    best = min(measured, key=lambda step: measured[step])
    assert record.num_steps == best + 3 < 60
    assert record.best_step == best
    assert record.eval_loss == pytest.approx(measured[best])
    notes = [event["text"] for event in run.events() if event["kind"] == "note"]
    assert any("Stopped early" in note for note in notes)

    from safetensors.torch import load_file

    assert run.adapter is not None
    saved = load_file(run.adapter / "adapter_model.safetensors")
    kept = load_file(run.checkpoints / f"checkpoint-{best}" / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], kept[name]) for name in kept)


# --------------------------------------------------------------------------------------------------------------------- resuming


@pytest.fixture(scope="module")
def interrupted(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = setup.run(tmp_path_factory.mktemp("interrupted") / "run")

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.total == 4 and event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup.train(run, listener=stop)
    return run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 5e-5}, "train.learning_rate: 0.0001 -> 5e-05"),
        ({"train_rows": "fewer"}, "train rows"),
        ({"validation_rows": []}, "validation rows"),
        ({"adapter": LoraSettings(rank=2)}, "weights"),
    ],
    ids=["setting", "rows", "validation", "adapter"],
)
def test_a_run_resumes_only_as_it_was_started(setup: Setup, interrupted: Run, change: dict[str, Any], words: str) -> None:
    if change.get("train_rows") == "fewer":
        change = {"train_rows": setup.train_rows[:-1]}
    with pytest.raises(TrainingError) as caught:
        setup.train(interrupted, resume=True, **change)
    assert words in caught.value.render("en")


def test_starting_twice_is_refused(setup: Setup, interrupted: Run) -> None:
    with pytest.raises(TrainingError, match="--resume"):
        setup.train(interrupted)
    assert all_checkpoints(interrupted.checkpoints)


def test_a_finished_run_is_not_trained_again(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    setup.train(run, max_steps=1)
    for resume in (True, False):
        with pytest.raises(TrainingError, match="finished"):
            setup.train(run, resume=resume)
    assert run.record.status == "trained"


def test_a_run_cut_off_behind_its_last_checkpoint_tells_of_the_epoch_that_it_ended_in(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")

    class Killed(BaseException):
        pass

    def stop(event: Event) -> None:
        if event.kind == "checkpoint":
            raise Killed

    options: dict[str, Any] = {"max_steps": 1, "save_every": 1}
    with pytest.raises(Killed):
        setup.train(run, listener=stop, **options)
    assert not [event for event in run.events() if event["kind"] == "epoch"]
    record = setup.train(run, resume=True, **options)
    assert record.num_epochs is not None
    assert 0 < record.num_epochs < 1
    told = [event for event in run.events() if event["kind"] == "epoch"]
    assert [event["step"] for event in told] == [1]
    assert told[0]["loss"] == pytest.approx(record.train_loss)


def test_resuming_before_the_first_checkpoint_starts_again(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    (run.checkpoints / ".saving" / "checkpoint-2").mkdir(parents=True)
    assert setup.train(run, resume=True, max_steps=1).status == "trained"
    assert not (run.checkpoints / ".saving").exists()


def test_a_held_run_is_refused(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    with run.hold(), pytest.raises(RunError):
        setup.train(run)
    assert run.record.status == "created"


def test_every_error_of_this_room_is_one_of_medtunes(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(MedtuneError) as caught:
        setup.train(setup.run(tmp_path / "run"), hf={"optm": "x"})
    assert "optim" in caught.value.render("en")

"""Memory runs out: the work that was done stays, and the run goes on smaller, with the result that it would have had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medtune.errors import TrainingError
from medtune.runs import Run
from medtune.training.checkpoints import all_checkpoints
from medtune.training.choice import Checkpointing, EngineChoice, smaller
from medtune.training.recovery import allocator_words, is_out_of_memory
from tiny_training import Setup, eval_losses, losses

SETTINGS: dict[str, Any] = {
    "max_steps": 5,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-3,
    "evaluate_every": 3,
    "save_every": "never",
    "log_every": 2,
    "keep_best": False,
}


def all_smaller(choice: EngineChoice) -> list[EngineChoice]:
    found: list[EngineChoice] = []
    now: EngineChoice | None = choice
    while (now := smaller(now, longest_row=100, step_tokens=1000, batch_size=4)) is not None:
        found.append(now)
    return found


def test_first_fewer_tokens_then_more_layers_again() -> None:
    start = EngineChoice(packing=True, micro_batch_tokens=8192, vision_cache="memory", compile=True)
    found = all_smaller(start)
    assert [each.micro_batch_tokens for each in found] == [500, 250, 125, 100, 100, 100, 100]
    assert [(each.checkpointing.every, each.checkpointing.offload) for each in found[3:]] == [
        (0, False),
        (2, False),
        (1, False),
        (1, True),
    ]
    assert all(replace(each, micro_batch_tokens=8192, checkpointing=Checkpointing()) == start for each in found)


def test_without_packing_fewer_rows() -> None:
    assert [each.micro_batch_rows for each in all_smaller(EngineChoice())] == [2, 1, 1, 1, 1]
    thrifty = EngineChoice(checkpointing=Checkpointing(every=4))
    assert [each.checkpointing.every for each in all_smaller(replace(thrifty, micro_batch_rows=1))] == [2, 1, 1]
    assert (
        smaller(
            EngineChoice(micro_batch_rows=1, checkpointing=Checkpointing(1, offload=True)),
            longest_row=1,
            step_tokens=1,
            batch_size=1,
        )
        is None
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later."), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("DataLoader worker is killed by signal: Bus error. Your workers may be out of shared memory."), False),
        (RuntimeError("shape"), False),
        (ValueError("can't allocate memory"), False),
    ],
    ids=str,
)
def test_the_forms_of_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


class Card:
    """A card on which so many tokens have room at once, and everything in its first passes."""

    def __init__(self, model: Any, *, capacity: int, passes: int = 0) -> None:
        self.passes, self.capacity, self.refused = passes, capacity, 0
        self.hook = model.get_input_embeddings().register_forward_hook(self)

    def __call__(self, *call: Any) -> None:
        output: torch.Tensor = call[2]
        if not torch.is_grad_enabled():
            return
        self.passes -= 1
        if self.passes < 0 and output.shape[:-1].numel() > self.capacity:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture(scope="module")
def plain(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = setup.run(tmp_path_factory.mktemp("plain") / "run")
    setup.train(run, **SETTINGS)
    return run


def longest(setup: Setup) -> int:
    """Tokens of the longest row: no micro-batch need have more."""
    return max(setup.encoder.count_tokens(row.messages, [(64, 64)]) for row in setup.train_rows)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("passes", [0, 3], ids=["at the first step", "at the fourth step"])
def test_the_run_goes_on_smaller_and_ends_alike(setup: Setup, plain: Run, tmp_path: Path, packing: bool, passes: int) -> None:
    run, model = setup.run(tmp_path / "run"), setup.model()
    card = Card(model, capacity=longest(setup), passes=passes)
    record = setup.train(run, model=model, packing=packing, **SETTINGS)
    assert card.refused
    assert record.status == "trained"
    assert record.num_steps == 5
    wanted, found = losses(plain), losses(run)
    # What was not logged yet when memory ran out is logged before going on.
    assert found.keys() - wanted.keys() <= {3}
    assert found[5] == pytest.approx(wanted[5], abs=1e-5)
    assert found[2] == pytest.approx(wanted[2], abs=1e-5)
    assert eval_losses(run) == pytest.approx(eval_losses(plain), abs=1e-5)
    assert record.train_loss == pytest.approx(plain.record.train_loss, abs=1e-5)
    epochs, others = ([event["loss"] for event in each.events() if event["kind"] == "epoch"] for each in (run, plain))
    assert epochs == pytest.approx(others, abs=1e-5)
    chosen: Any = record.engine["chosen"]
    assert chosen["micro_batch_tokens"] < 2048 if packing else chosen["micro_batch_rows"] in (1, 2)
    notes = [event["text"] for event in run.events() if "Memory ran out" in event.get("text", "")]
    assert len(notes) == card.refused
    assert f"after step {passes}" in notes[0]
    assert "at once" in notes[0]


def test_no_step_is_made_twice(setup: Setup, tmp_path: Path) -> None:
    """The step that failed is the only one that is done again: the others are saved from memory, not from an old checkpoint."""
    run, model = setup.run(tmp_path / "run"), setup.model()
    Card(model, capacity=longest(setup), passes=3)
    done: list[int] = []
    setup.train(
        run,
        model=model,
        packing=False,
        listener=lambda event: done.append(event.done or 0) if event.kind == "progress" and event.total == 5 else None,
        **SETTINGS,
    )
    assert done == [1, 2, 3, 4, 5]


def test_asked_to_stop_it_stops_and_resumes_smaller(setup: Setup, plain: Run, tmp_path: Path) -> None:
    run, model = setup.run(tmp_path / "run"), setup.model()
    settings = {**SETTINGS, "on_out_of_memory": "stop", "save_every": 2}
    Card(model, capacity=longest(setup), passes=3)
    with pytest.raises(TrainingError) as caught:
        setup.train(run, model=model, **settings)
    assert "--resume` goes on with " in caught.value.render("en")
    assert "tokens at once" in caught.value.render("en")
    assert run.record.status == "failed"
    chosen: Any = run.record.engine["chosen"]
    assert chosen["micro_batch_tokens"] < 2048
    assert [step for step, _ in all_checkpoints(run.checkpoints)] == [2]
    record = setup.train(run, resume=True, **settings)
    assert record.engine["chosen"]["micro_batch_tokens"] <= chosen["micro_batch_tokens"]  # type: ignore[index,call-overload,operator]
    assert losses(run)[5] == pytest.approx(losses(plain)[5], abs=1e-5)


def test_half_an_optimizer_step_is_not_kept(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW makes its two moments in its first step: there memory runs out while some weights are changed and others are not."""
    steps = {"left": 3}
    real = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps["left"] -= 1
        if steps["left"] == 0:
            next(value for group in self.param_groups for value in group["params"]).data.add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    straight, run = setup.run(tmp_path / "straight"), setup.run(tmp_path / "run")
    settings = {**SETTINGS, "save_every": 1, "log_every": 1}
    setup.train(run, **settings)
    steps["left"] = -1
    setup.train(straight, **settings)
    assert losses(run) == pytest.approx(losses(straight), abs=1e-5)

    steps["left"] = 1
    early = setup.run(tmp_path / "early")
    with pytest.raises(TrainingError, match="while the weights were being changed"):
        setup.train(early, **settings)
    assert setup.train(early, resume=True, **settings).status == "trained"


def test_what_was_asked_for_anew_is_chosen_anew(setup: Setup, tmp_path: Path) -> None:
    from medtune.training.config import TrainSettings
    from medtune.training.recovery import note_choice, remembered

    run = setup.run(tmp_path / "run")
    small, large = EngineChoice(packing=True, micro_batch_tokens=64, checkpointing=Checkpointing(2)), EngineChoice(packing=True)
    assert remembered(run, TrainSettings(), large) == large
    note_choice(run, TrainSettings(), small)
    assert remembered(run, TrainSettings(learning_rate=1.0), large) == small
    assert remembered(run, TrainSettings(micro_batch_tokens=128), large) == large


def test_the_words_of_the_allocator_are_found_in_the_words_of_others() -> None:
    plain = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB.")
    compiled = RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n\nSet x=1")
    assert allocator_words(plain) == "CUDA out of memory"
    assert allocator_words(compiled) == "OutOfMemoryError: CUDA out of memory"
    assert allocator_words(MemoryError()) == "MemoryError"


def refuse(place: str, model: Any) -> dict[str, int]:
    """Let memory run out once, in the third optimizer step and the second of its micro-batches or in what follows them."""
    seen = {"passes": 0, "refused": 0}

    def count(*_: Any) -> None:
        seen["passes"] += torch.is_grad_enabled()

    def once(error: Exception) -> None:
        if seen["passes"] >= PASSES_BEFORE and not seen["refused"]:
            seen["refused"] = 1
            raise error

    def in_backward(gradient: torch.Tensor) -> torch.Tensor:
        once(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
        return gradient

    def in_forward(*_: Any) -> None:
        if torch.is_grad_enabled():
            once(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))

    def in_compiled_code(*_: Any) -> None:
        once(RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."))

    def in_evaluation(*_: Any) -> None:
        if not torch.is_grad_enabled():
            once(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))

    embeddings = model.get_input_embeddings()
    embeddings.register_forward_hook(count)
    if place == "backward":
        next(value for value in model.parameters() if value.requires_grad).register_hook(in_backward)
    else:
        hooks = {"forward": in_forward, "compiled code": in_compiled_code, "evaluation": in_evaluation}
        embeddings.register_forward_hook(hooks[place])
    return seen


PASSES_BEFORE = 6
"""Rows go through the model one by one, two a step: the second pass of the third step."""


@pytest.mark.parametrize("place", ["forward", "backward", "compiled code", "evaluation"])
def test_wherever_memory_runs_out_what_was_half_done_counts_nothing(setup: Setup, tmp_path: Path, place: str) -> None:
    """The gradient of a step's first micro-batch is there already when its second one fails."""
    settings = {**SETTINGS, "packing": False, "batch_size": 1, "gradient_accumulation_steps": 2, "log_every": 1}
    straight, run, model = setup.run(tmp_path / "straight"), setup.run(tmp_path / "run"), setup.model()
    setup.train(straight, **settings)
    seen = refuse(place, model)
    record = setup.train(run, model=model, **settings)
    assert seen["refused"] == 1
    assert record.status == "trained"
    assert losses(run) == pytest.approx(losses(straight), abs=1e-5)
    assert eval_losses(run) == pytest.approx(eval_losses(straight), abs=1e-5)


def test_memory_that_runs_out_while_the_model_is_loaded_says_what_to_do(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")

    def load() -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(TrainingError, match="CUDA out of memory") as caught:
        setup.train(run, model=load, **SETTINGS)
    assert "nvidia-smi" in caught.value.render("en")
    assert run.record.status == "failed"
    assert setup.train(run, **SETTINGS).status == "trained"

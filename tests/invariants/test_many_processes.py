"""Runs on several devices: the losses of one device, whatever each of them is given, and no waiting for one that has left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from medtune.models.config import LoraSettings
from medtune.runs import Run
from medtune.types import Event
from process_group import run_ranks
from tiny_training import eval_losses, losses, make_setup, with_few_pictures

SEES = LoraSettings(rank=4, targets=("language", "vision", "projector"))
STEP_ROWS = 6


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    make_setup(folder)
    return folder


def train_here(folder: Path, run: Path, rows: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One process's part. 13 rows: the last step of the epoch has one, fewer than there are devices. One validation row."""
    import torch

    setup = make_setup(folder)
    chosen = with_few_pictures(setup.rows) if rows == "mixed" else setup.rows
    if os.environ.get("ACCELERATE_USE_FSDP"):
        _let_accelerate_divide_on_a_cpu()
    settings = {"batch_size": STEP_ROWS // int(os.environ["WORLD_SIZE"]), "gradient_accumulation_steps": 1} | settings
    model = setup.model(settings.pop("adapter", None))
    if settings.pop("half", False):
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.to(torch.bfloat16)
    stop_after = settings.pop("stop_after", None)

    def listener(event: Event) -> None:
        if event.kind == "progress" and event.total == settings["max_steps"] and event.done == stop_after:
            raise KeyboardInterrupt

    settings.setdefault("max_steps", 3)
    record = setup.train(
        Run(run),
        model=model,
        listener=listener,
        train_rows=chosen[:13],
        validation_rows=chosen[13:14],
        learning_rate=2e-2,
        evaluate_every=3,
        **settings,
    )
    return {"status": record.status, "loss": losses(Run(run)), "eval_loss": eval_losses(Run(run))}


@pytest.mark.slow
@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_a_vision_tower_that_learns_may_see_nothing_on_some_devices(folder: Path, tmp_path: Path, packing: bool) -> None:
    setup = make_setup(folder)
    results = {}
    for number in (1, 2, 3):
        run = setup.run(tmp_path / str(number))
        given = {"adapter": SEES, "packing": packing, "micro_batch_tokens": 64, "vision_cache": "none"}
        results[number] = run_ranks(train_here, number, folder, run.folder, "mixed", given)[0]
    one = results[1]
    assert one["status"] == "trained"
    assert one["loss"][2] < one["loss"][1]
    for number in (2, 3):
        assert results[number]["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert results[number]["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)


def train_a_router(folder: Path, run: Path) -> dict[int, float]:
    """Each row is a micro-batch, however many devices there are: only then is the balancing loss the same to the last digit."""
    setup = make_setup(folder, family="qwen3-vl-moe")
    setup.train(
        Run(run),
        adapter=LoraSettings(rank=4, train_router=True),
        train_rows=setup.rows[:5],
        validation_rows=(),
        learning_rate=2e-2,
        max_steps=4,
        packing=False,
        batch_size=1,
        gradient_accumulation_steps=4 // int(os.environ["WORLD_SIZE"]),
        router_aux_loss=1.0,
        max_grad_norm=0,
    )
    return losses(Run(run))


@pytest.mark.slow
def test_rows_that_stand_in_for_others_do_not_count_in_the_balancing_loss(tmp_path: Path) -> None:
    """5 rows, 4 a step: in every second step the last device has none."""
    setup = make_setup(tmp_path, family="qwen3-vl-moe")
    one, two = (run_ranks(train_a_router, number, tmp_path, setup.run(tmp_path / str(number)).folder)[0] for number in (1, 2))
    assert isinstance(one, dict), one
    assert two == pytest.approx(one, abs=1e-5)


def train_until_memory_runs_out(folder: Path, run: Path, refused: str, resume: bool) -> dict[int, float]:
    """Memory runs out on the second device alone, in the third step: in a pass, or while the optimizer changes weights."""
    import torch

    setup = make_setup(folder)
    model = setup.model()
    seen = {"forward": 0, "optimizer": 0}
    step = torch.optim.AdamW.step

    def refuse(place: str) -> None:
        seen[place] += 1
        if os.environ["RANK"] == "1" and place == refused and seen[place] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def in_forward(*_: Any) -> None:
        if torch.is_grad_enabled():
            refuse("forward")

    def in_optimizer(self: Any, *given: Any, **options: Any) -> Any:
        refuse("optimizer")
        return step(self, *given, **options)

    model.get_input_embeddings().register_forward_hook(in_forward)
    torch.optim.AdamW.step = in_optimizer  # type: ignore[method-assign]
    setup.train(
        Run(run),
        model=model,
        train_rows=setup.rows[:8],
        validation_rows=(),
        max_steps=4,
        batch_size=2,
        gradient_accumulation_steps=1,
        save_every=2,
        resume=resume,
    )
    return losses(Run(run))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["forward", "optimizer"])
def test_memory_that_runs_out_on_one_device_ends_all_and_the_run_goes_on_smaller(folder: Path, tmp_path: Path, place: str) -> None:
    setup = make_setup(folder)
    straight, run = setup.run(tmp_path / "straight"), setup.run(tmp_path / "run")
    whole = run_ranks(train_until_memory_runs_out, 2, folder, straight.folder, "nowhere", False)[0]
    first, second = run_ranks(train_until_memory_runs_out, 2, folder, run.folder, place, False)
    assert "Memory ran out: CUDA out of memory" in second
    assert "RuntimeError" in first, "it waits for the other no longer than until its connection closes"
    chosen: Any = run.record.engine["chosen"]
    assert chosen["micro_batch_tokens"] < Run(straight.folder).record.engine["chosen"]["micro_batch_tokens"]  # type: ignore[index,call-overload]
    again = run_ranks(train_until_memory_runs_out, 2, folder, run.folder, "nowhere", True)[0]
    assert again == pytest.approx(whole, abs=1e-5)
    assert run.record.status == "trained"


def _let_accelerate_divide_on_a_cpu() -> None:
    """accelerate keeps FSDP for accelerators; torch's own ``fully_shard`` runs on a CPU just as well."""
    from accelerate import state
    from accelerate.utils import DistributedType

    start = state.AcceleratorState.__init__

    def divided(self: Any, *args: Any, **kwargs: Any) -> None:
        state.PartialState(cpu=True)
        state.PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        start(self, *args, **kwargs)

    state.AcceleratorState.__init__ = divided


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What ``accelerate launch`` makes of the options that :func:`medtune.training.launch.launch_command` gives it."""


@pytest.mark.slow
def test_fsdp_has_the_losses_of_ddp_before_and_after_it_was_interrupted(folder: Path, tmp_path: Path) -> None:
    """Frozen weights in 16 bits beside an adapter in 32, divided over two processes, of which one often sees no picture."""
    setup = make_setup(folder)
    given = {"packing": True, "micro_batch_tokens": 64, "vision_cache": "none", "half": True, "max_steps": 4}
    whole, divided = setup.run(tmp_path / "ddp"), setup.run(tmp_path / "fsdp")
    ddp = run_ranks(train_here, 2, folder, whole.folder, "mixed", given)[0]
    stopped = run_ranks(train_here, 2, folder, divided.folder, "mixed", {**given, "stop_after": 2}, environment=FSDP)
    assert [result.split(":")[0] for result in stopped] == ["KeyboardInterrupt"] * 2
    fsdp = run_ranks(train_here, 2, folder, divided.folder, "mixed", {**given, "resume": True}, environment=FSDP)[0]
    assert fsdp["status"] == "trained"
    assert fsdp["loss"] == pytest.approx(ddp["loss"], abs=2e-3)  # 16 bits
    assert fsdp["eval_loss"] == pytest.approx(ddp["eval_loss"], abs=2e-3)
    ours, theirs = (load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (divided, whole))
    assert ours.keys() == theirs.keys()
    ups = [name for name in theirs if "lora_B" in name]
    apart = sum(float((ours[name] - theirs[name]).abs().mean()) for name in ups)
    assert apart < 0.2 * sum(float(theirs[name].abs().mean()) for name in ups)


def train_compiled(folder: Path, run: Path, given: dict[str, Any]) -> dict[str, Any]:
    from torch._dynamo.utils import counters

    return {**train_here(folder, run, "mixed", {**given, "compile": True}), "graphs": counters["stats"]["unique_graphs"]}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_learn_the_same_where_their_weights_are_divided(folder: Path, tmp_path: Path) -> None:
    """Packed rows, of which one device often sees no picture; against one process that compiles nothing."""
    setup = make_setup(folder)
    whole, divided = setup.run(tmp_path / "one"), setup.run(tmp_path / "fsdp")
    given = {"packing": True, "micro_batch_tokens": 64, "vision_cache": "none", "max_steps": 4}
    one = run_ranks(train_here, 1, folder, whole.folder, "mixed", given)[0]
    results = run_ranks(train_compiled, 2, folder, divided.folder, given, seconds=1200, environment=FSDP)
    assert all(isinstance(result, dict) for result in results), results
    assert results[0]["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert results[0]["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)
    assert all(result["graphs"] > 0 for result in results)


def read_a_damaged_picture(folder: Path, run: Path) -> None:
    train_here(folder, run, "all", {"packing": True})


@pytest.mark.slow
def test_a_row_that_one_device_cannot_read_stops_all_of_them_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    setup = make_setup(tmp_path / "data")
    (setup.data_folder / "images" / "5.png").write_bytes(b"no picture")
    results = run_ranks(read_a_damaged_picture, 2, setup.data_folder, setup.run(tmp_path / "run").folder)
    assert all("row-05" in result for result in results), results
    assert Run(tmp_path / "run").record.status == "failed"


def train_with_common_pictures(folder: Path, run: Path, settings: dict[str, Any]) -> dict[str, Any]:
    from medtune.training import vision_cache

    made: list[vision_cache.VisionCache] = []
    start = vision_cache.VisionCache.__init__

    def remembered(self: vision_cache.VisionCache, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        made.append(self)

    vision_cache.VisionCache.__init__ = remembered  # type: ignore[method-assign]
    vision_cache.PATCHES_AT_ONCE = 32  # two pictures
    result = train_here(folder, run, "all", settings)
    files = [path for path in Path("/dev/shm").iterdir() if "medtune" in path.name]
    return {**result, "computed": [len(cache.done()) for cache in made], "pictures": len(made[0]) if made else 0, "files": files}


@pytest.mark.slow
def test_processes_share_the_vision_features_and_the_work_of_computing_them(folder: Path, tmp_path: Path) -> None:
    setup = make_setup(folder)
    given = {"packing": True, "micro_batch_tokens": 64}
    seen = run_ranks(
        train_with_common_pictures, 2, folder, setup.run(tmp_path / "seen").folder, {**given, "vision_cache": "memory"}
    )
    assert seen[0]["status"] == "trained"
    assert seen[0]["pictures"] == 14
    assert [result["computed"] for result in seen] == [[8], [6]]
    assert seen[0]["files"] == []
    again = run_ranks(
        train_with_common_pictures, 2, folder, setup.run(tmp_path / "again").folder, {**given, "vision_cache": "none"}
    )
    assert seen[0]["loss"] == pytest.approx(again[0]["loss"], abs=1e-5)
    assert seen[0]["eval_loss"] == pytest.approx(again[0]["eval_loss"], abs=1e-5)

"""Processes that torchrun or Slurm has started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medtune.errors import TrainingError
from medtune.models.config import ModelSettings
from medtune.training.config import DdpSettings, DeepSpeedSettings, FsdpSettings, TrainSettings
from medtune.training.job import TrainJob
from medtune.training.launch import launch, launch_command
from medtune.training.outer import accelerate_environment, follows, is_outer, join_slurm
from tiny_training import Setup

STEP = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NODELIST": "gpu07,gpu09",
}


def test_a_step_of_slurm_is_told_in_torchs_words() -> None:
    step = dict(STEP)
    join_slurm(step)
    told = {name: value for name, value in step.items() if not name.startswith("SLURM")}
    assert told == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "23456",
    }


def test_a_batch_script_of_slurm_is_no_launcher() -> None:
    script = {name: value for name, value in STEP.items() if not name.startswith("SLURM_STEP")} | {"SLURM_NTASKS": "8"}
    before = dict(script)
    join_slurm(script)
    assert script == before


def test_torchrun_inside_slurm_keeps_its_word() -> None:
    step = STEP | {"WORLD_SIZE": "2", "RANK": "1"}
    before = dict(step)
    join_slurm(step)
    assert step == before


def test_no_second_launcher_is_started(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_outer()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert follows()
    joined: list[TrainJob] = []
    monkeypatch.setattr("medtune.training.launch.run_job", lambda run, job, **_: joined.append(job) or run.record)
    monkeypatch.setattr("medtune.training.launch._supervise", lambda *_: pytest.fail("a second launcher"))
    run = setup.run(tmp_path / "run")
    job = TrainJob(dataset=tmp_path, model=ModelSettings(base="x"), distributed=DdpSettings(kind="ddp"))
    launch(run, job)
    assert joined == [job]
    alone = TrainJob(dataset=tmp_path, model=ModelSettings(base="x"))
    with pytest.raises(TrainingError, match="2 processes were started"):
        launch(run, alone)


@pytest.mark.parametrize(
    "distributed",
    [
        FsdpSettings(kind="fsdp"),
        FsdpSettings(kind="fsdp", reshard_after_forward=False, cpu_offload=True),
        DeepSpeedSettings(kind="deepspeed", zero_stage=2),
        DeepSpeedSettings(kind="deepspeed", zero_stage=3, offload="cpu"),
        DeepSpeedSettings(kind="deepspeed", config_file=Path("zero.json")),
    ],
    ids=str,
)
def test_the_environment_is_that_of_accelerates_launcher(
    distributed: FsdpSettings | DeepSpeedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.delenv(name)
    settings = TrainSettings(max_grad_norm=0.5)
    command = launch_command(distributed, settings, Path("run"), num_processes=2)
    parsed = launch_command_parser().parse_args(command[3:])
    parsed.deepspeed_fields_from_accelerate_config = ""  # which its main function adds
    theirs = prepare_multi_gpu_env(parsed) if isinstance(distributed, FsdpSettings) else prepare_deepspeed_cmd_env(parsed)[1]
    ours = accelerate_environment(distributed, settings)
    assert {name: theirs.get(name, "").lower() for name in ours} == {name: value.lower() for name, value in ours.items()}

"""Runs that something else has started on several devices: ``torchrun`` or Slurm's ``srun``, on one machine or many.

Every process is the same ``medtune train RECIPE``. The first prepares the data, makes the run folder and writes there what is to be
done; the others wait for that, and then all train. So the run folder, the data set and the model must be in the same place for all.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.runs import Run, atomic_write
from medtune.training.config import DdpSettings, DeepSpeedSettings, DistributedSettings, FsdpSettings, TrainSettings

__all__ = ["ANNOUNCED", "accelerate_environment", "announce", "check_kind", "follows", "is_outer", "join_slurm", "wait_for_first"]

ANNOUNCED = ".launch"
"""In the run folder, while a launcher from outside is at work: which one it is."""


def is_outer() -> bool:
    """Whether this process is one of several that a launcher has started; a second launcher must not be started then."""
    join_slurm(os.environ)
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether another process prepares the run, and this one joins it."""
    return is_outer() and int(os.environ.get("RANK", "0")) > 0


def join_slurm(environment: MutableMapping[str, str]) -> None:
    """Say in torch's words what ``srun`` says in its own (srun(1), "OUTPUT ENVIRONMENT VARIABLES"); nothing elsewhere.

    Only in a step of several tasks: within ``sbatch``, a plain ``medtune train`` is a process by itself, whatever was asked for.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "WORLD_SIZE" in environment or "SLURM_PROCID" not in environment:
        return
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = str(tasks)
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["LOCAL_WORLD_SIZE"] = str(tasks // nodes)
    environment["GROUP_RANK"] = environment.get("SLURM_NODEID", "0")
    if "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"] = _first_host(environment)
    # Jobs that share a machine must not meet: each has a port of its own.
    environment.setdefault("MASTER_PORT", str(20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000))


def _first_host(environment: Mapping[str, str]) -> str:
    names = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", "localhost"))
    if "[" not in names:
        return names.split(",")[0]
    listed = subprocess.run(["scontrol", "show", "hostnames", names], capture_output=True, text=True, check=True)
    return listed.stdout.split()[0]


def accelerate_environment(distributed: DdpSettings | DeepSpeedSettings | FsdpSettings, settings: TrainSettings) -> dict[str, str]:
    """What ``accelerate launch`` puts into the environment for :func:`medtune.training.launch.launch_command`'s options."""
    if isinstance(distributed, FsdpSettings):
        return {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
            "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
            "FSDP_RESHARD_AFTER_FORWARD": str(distributed.reshard_after_forward).lower(),
            "FSDP_OFFLOAD_PARAMS": str(distributed.cpu_offload).lower(),
            "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        }
    if isinstance(distributed, DeepSpeedSettings):
        if distributed.config_file is not None:
            return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(distributed.config_file)}
        divided = distributed.zero_stage == 3
        return {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(distributed.zero_stage),
            "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": distributed.offload,
            "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": distributed.offload if divided else "none",
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
            "ACCELERATE_GRADIENT_CLIPPING": str(settings.max_grad_norm),
            "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": str(divided).lower(),
        }
    return {}


def announce(run: Run) -> None:
    """Tell the processes that wait that the job lies ready."""
    atomic_write(run.folder / ANNOUNCED, _launch_id() + "\n")


def wait_for_first(folder: Path) -> Run:
    """The run, as soon as the first process of this launch has announced it. Preparing data may take hours; the launcher ends this
    process when the first one fails (``torchrun`` does; ``srun`` with ``--kill-on-bad-exit``)."""
    while True:
        try:
            if (folder / ANNOUNCED).read_text(encoding="utf-8").strip() == _launch_id():
                return Run.open(folder)
        except FileNotFoundError:
            pass
        time.sleep(0.2)


def check_kind(distributed: DistributedSettings) -> None:
    """Refuse several processes for a recipe that is for one.

    Raises:
        TrainingError: ``distributed.kind`` is ``none``.
    """
    if distributed.kind == "none":
        raise TrainingError(
            msg("{processes} processes were started for a recipe for one device.", processes=os.environ["WORLD_SIZE"]),
            key="distributed.kind",
            remedy=msg("Write distributed.kind=ddp (or deepspeed, fsdp), or start medtune without torchrun or srun."),
        )


def _launch_id() -> str:
    """The same in all processes of a launch, another in the next."""
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID")
    return " ".join(os.environ.get(name, "-") for name in names)

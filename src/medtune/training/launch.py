"""Training on several devices: one worker process for each, started by accelerate, heard through the run folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtune.errors import MissingDependencyError, TrainingError
from medtune.language import msg
from medtune.runs import Run
from medtune.training.config import DdpSettings, DeepSpeedSettings, FsdpSettings, NoDistribution, TrainSettings
from medtune.training.job import JOB_FILE, TrainJob, read_job, run_job, write_job
from medtune.training.outer import ANNOUNCED, accelerate_environment, announce, check_kind, is_outer, wait_for_first
from medtune.training.watch import Watch, log_file, text_from_json, text_to_json
from medtune.types import Event, Listener, RunRecord

__all__ = ["EVENTS_FILE", "LOG_FILE", "event_line", "follow", "launch", "launch_command", "read_event"]

EVENTS_FILE = ".worker_events.jsonl"
"""Events on their way from the first worker to the launcher, sentences untranslated. Gone when the workers have ended."""

LOG_FILE = log_file(0)
"""What the first worker and the launcher print, ``worker-1.log`` and so on the others: kept, for when one of them dies."""

_GRACE_SECONDS = 120.0
"""How long workers may take to finish a step and save a checkpoint after Ctrl-C."""

_END_SECONDS = 45.0
"""How long torch's agent may take to end the others when a worker has died. It gives them 30 s before it kills them."""


def launch(run: Run, job: TrainJob, *, listener: Listener | None = None) -> RunRecord:
    """Run the job as ``job.distributed`` says: in this process, or in one process per device.

    Raises:
        MedtuneError: As :func:`medtune.training.job.run_job`.
        TrainingError: A worker failed.
        KeyboardInterrupt: Ctrl-C; the workers have saved a checkpoint.
    """
    distributed = job.distributed
    if is_outer():
        return _join(run, job, listener)
    if isinstance(distributed, NoDistribution):
        return run_job(run, job, listener=listener)
    num_processes = distributed.num_processes or _num_gpus()
    if num_processes < 2:
        return run_job(run, job, listener=listener)
    if isinstance(distributed, DeepSpeedSettings) and importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError("deepspeed", needed_for=msg("distributed.kind=deepspeed"), pip="'medtune[deepspeed]'")
    if isinstance(distributed, FsdpSettings) and _num_gpus() == 0:
        raise TrainingError(
            msg("FSDP2 needs GPUs, and there are none here."), key="distributed.kind", remedy=msg("Write distributed.kind=ddp.")
        )
    on_gpu = _num_gpus() > 0
    command = launch_command(distributed, job.train, run.folder, num_processes=num_processes, on_gpu=on_gpu)
    environment = {} if on_gpu else accelerate_environment(distributed, job.train)
    if isinstance(distributed, DeepSpeedSettings):
        environment["PATH"] = _with_own_programs(os.environ.get("PATH", os.defpath))
    write_job(run, job)
    events = run.folder / EVENTS_FILE
    events.unlink(missing_ok=True)
    watch = Watch(run.folder)
    try:
        _supervise(command, environment, run.folder / LOG_FILE, events, listener, watch)
        error = watch.error()
    finally:
        watch.forget()
        events.unlink(missing_ok=True)
        (run.folder / JOB_FILE).unlink(missing_ok=True)
    record = run.record
    if record.status != "trained" and error is not None:
        run.update(status="failed", error=error.what)
        raise error
    if record.status != "trained":
        raise TrainingError(
            record.error or msg("A worker process ended without a result."),
            file=run.folder / LOG_FILE,
            remedy=msg("The end of this file says why."),
        )
    return record


def follow(folder: Path) -> Run:
    """Train beside the first process of a launch from outside, see :mod:`medtune.training.outer`.

    Raises:
        MedtuneError: As :func:`medtune.training.job.run_job`.
    """
    run = wait_for_first(folder)
    job = read_job(run)
    _join(run, job, None)
    return run


def _join(run: Run, job: TrainJob, listener: Listener | None) -> RunRecord:
    check_kind(job.distributed)
    if isinstance(job.distributed, DeepSpeedSettings | FsdpSettings):
        os.environ.update(accelerate_environment(job.distributed, job.train))
    if int(os.environ["RANK"]):
        return run_job(run, job)
    write_job(run, job)
    announce(run)
    try:
        return run_job(run, job, listener=listener)
    finally:
        for name in (ANNOUNCED, JOB_FILE):
            (run.folder / name).unlink(missing_ok=True)


def launch_command(
    distributed: DdpSettings | DeepSpeedSettings | FsdpSettings,
    settings: TrainSettings,
    folder: Path,
    *,
    num_processes: int,
    on_gpu: bool = True,
) -> list[str]:
    """The command that starts the workers, as a list of arguments.

    accelerate starts one process only on a CPU, so there torch's own launcher is used, and :func:`launch` puts what accelerate's
    options say into the environment.
    """
    worker = ["-m", "medtune.training.worker", str(folder)]
    if not on_gpu:
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", *worker]
    options = ["--num_machines=1", f"--num_processes={num_processes}", f"--main_process_port={_free_port()}"]
    options += ["--mixed_precision=no", "--dynamo_backend=no"]  # the trainer decides the precision
    if isinstance(distributed, DdpSettings):
        options += ["--multi_gpu"]
    elif isinstance(distributed, DeepSpeedSettings):
        options += ["--use_deepspeed"]
        if distributed.config_file is not None:
            options += [f"--deepspeed_config_file={distributed.config_file}"]
        else:
            options += [
                f"--zero_stage={distributed.zero_stage}",
                f"--offload_optimizer_device={distributed.offload}",
                f"--offload_param_device={distributed.offload if distributed.zero_stage == 3 else 'none'}",
                "--gradient_accumulation_steps=1",
                f"--gradient_clipping={settings.max_grad_norm}",
                f"--zero3_save_16bit_model={'true' if distributed.zero_stage == 3 else 'false'}",
            ]
    else:
        options += [
            "--use_fsdp",
            "--fsdp_version=2",
            "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP",
            "--fsdp_state_dict_type=FULL_STATE_DICT",
            # Every process has loaded the weights, which are frozen for the most part: nothing has to be sent.
            "--fsdp_cpu_ram_efficient_loading=false",
            f"--fsdp_reshard_after_forward={'true' if distributed.reshard_after_forward else 'false'}",
            f"--fsdp_offload_params={'true' if distributed.cpu_offload else 'false'}",
        ]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *worker]


def event_line(event: Event) -> str:
    """An event as one line of JSON, its sentence still translatable."""
    text = None if event.text is None else text_to_json(event.text)
    return json.dumps([event.kind, text, event.done, event.total, dict(event.values)], ensure_ascii=False) + "\n"


def read_event(line: str) -> Event:
    """The event that :func:`event_line` wrote."""
    kind, text, done, total, values = json.loads(line)
    return Event(kind, None if text is None else text_from_json(text), done, total, values)


def _supervise(
    command: list[str], environment: Mapping[str, str], log: Path, events: Path, listener: Listener | None, watch: Watch
) -> None:
    """Run the command, hand its events on, pass an interrupt to it, and end it when one of its workers has died."""
    # A session of its own: Ctrl-C in the terminal must reach the workers once, through us, not a second time directly.
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    tail = _Tail(events)
    found_dead: float | None = None
    try:
        while process.poll() is None:
            _hand_on(tail, listener)
            if found_dead is None and watch.look():
                found_dead = time.monotonic()
            if found_dead is not None and time.monotonic() - found_dead > _END_SECONDS:
                break
            time.sleep(0.1)
        watch.look()
        _hand_on(tail, listener)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        _hand_on(tail, listener)
        raise
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        watch.end_all()


class _Tail:
    """The whole lines that were added to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def __iter__(self) -> Iterator[str]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if line.endswith(b"\n"):
                    self._position += len(line)
                    yield line.decode("utf-8")


def _hand_on(tail: _Tail, listener: Listener | None) -> None:
    for line in tail:
        if listener is not None:
            listener(read_event(line))


def _with_own_programs(path: str) -> str:
    """A search path with the programs beside this Python behind it. An environment that was not activated has none of them there,
    and DeepSpeed compiles its optimizer for the main memory with ninja, one of its requirements."""
    return os.pathsep.join([*filter(None, [path]), os.path.dirname(sys.executable)])


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: Any = probe.getsockname()[1]
        return int(port)

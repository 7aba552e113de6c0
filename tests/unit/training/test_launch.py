"""Starting worker processes and hearing from them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from medtune.errors import MissingDependencyError, RunError, TrainingError
from medtune.language import msg
from medtune.models.config import ModelSettings
from medtune.training import worker
from medtune.training.config import DdpSettings, DeepSpeedSettings, FsdpSettings, TrainSettings
from medtune.training.job import TrainJob, read_job, write_job
from medtune.training.launch import _supervise, event_line, launch, launch_command, read_event
from medtune.training.watch import Watch
from medtune.types import Event
from tiny_training import Setup


def test_the_command_is_a_list_that_a_strange_folder_name_survives() -> None:
    folder = Path("/runs/my run; rm -rf $HOME")
    command = launch_command(DdpSettings(kind="ddp"), TrainSettings(), folder, num_processes=4)
    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert command[-3:] == ["-m", "medtune.training.worker", str(folder)]
    assert {"--multi_gpu", "--num_processes=4"} < set(command)


def test_each_kind_of_distribution_has_its_options() -> None:
    settings = TrainSettings(gradient_accumulation_steps=4, max_grad_norm=0.5)
    zero = DeepSpeedSettings(kind="deepspeed", zero_stage=3, offload="cpu")
    command = launch_command(zero, settings, Path("run"), num_processes=2)
    assert {"--use_deepspeed", "--zero_stage=3", "--offload_param_device=cpu", "--gradient_clipping=0.5"} < set(command)
    zero = DeepSpeedSettings(kind="deepspeed", zero_stage=2, offload="cpu")
    assert "--offload_param_device=none" in launch_command(zero, settings, Path("run"), num_processes=2)
    own = DeepSpeedSettings(kind="deepspeed", config_file=Path("zero.json"))
    command = launch_command(own, settings, Path("run"), num_processes=2)
    assert "--deepspeed_config_file=zero.json" in command
    assert not [option for option in command if "zero_stage" in option]
    command = launch_command(FsdpSettings(kind="fsdp", cpu_offload=True), settings, Path("run"), num_processes=2)
    assert {"--use_fsdp", "--fsdp_version=2", "--fsdp_offload_params=true"} < set(command)
    command = launch_command(DdpSettings(kind="ddp"), settings, Path("run"), num_processes=2, on_gpu=False)
    assert command[:5] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def test_every_option_is_one_that_accelerate_knows() -> None:
    from accelerate.commands.launch import launch_command_parser

    parser = launch_command_parser()
    for distributed in (
        DdpSettings(kind="ddp"),
        DeepSpeedSettings(kind="deepspeed", zero_stage=3, offload="cpu"),
        DeepSpeedSettings(kind="deepspeed", config_file=Path("zero.json")),
        FsdpSettings(kind="fsdp"),
    ):
        command = launch_command(distributed, TrainSettings(), Path("run"), num_processes=2)
        parsed = parser.parse_args(command[3:])
        assert parsed.num_processes == 2
        assert parsed.module
        assert parsed.training_script == "medtune.training.worker"
        assert parsed.training_script_args == ["run"]


def test_an_event_arrives_as_it_was_sent() -> None:
    event = Event("log", msg("Training: {steps} steps.", steps=3), 1, 3, {"loss": 0.5, "step": 1, "eval_loss": None})
    received = read_event(event_line(event))
    assert received == event
    assert received.text is not None
    assert received.text.render("zh") == "训练：共 3 步。"
    assert read_event(event_line(Event("progress", done=1))) == Event("progress", done=1)


def test_a_sentence_within_a_sentence_arrives_as_well() -> None:
    steps = msg("Training: {steps} steps.", steps=3)
    event = Event("note", msg("{what} {file}", what=steps, file="a.yaml"))
    received = read_event(event_line(event))
    assert received == event
    assert received.text is not None
    assert received.text.render("zh").startswith("训练：共 3 步。")


def test_deepspeed_that_is_not_installed_is_said_before_anything_starts(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    run = setup.run(tmp_path / "run")
    distributed = DeepSpeedSettings(kind="deepspeed", num_processes=2)
    with pytest.raises(MissingDependencyError, match=r"pip install 'medtune\[deepspeed\]'"):
        launch(run, TrainJob(dataset=tmp_path, model=ModelSettings(base="x"), distributed=distributed))
    assert run.record.status == "created"


def test_processes_without_a_gpu_are_told_of_deepspeed_in_the_environment(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("medtune.training.launch._num_gpus", lambda: 0)
    monkeypatch.setattr("medtune.training.launch._supervise", lambda command, environment, *_: given.append(environment))  # noqa: ARG005
    monkeypatch.setenv("PATH", "/usr/bin")
    distributed = DeepSpeedSettings(kind="deepspeed", zero_stage=3, num_processes=2)
    with pytest.raises(TrainingError, match="ended without a result"):
        launch(setup.run(tmp_path / "run"), TrainJob(dataset=tmp_path, model=ModelSettings(base="x"), distributed=distributed))
    assert given[0]["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert given[0]["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert given[0]["PATH"].split(os.pathsep) == ["/usr/bin", str(Path(sys.executable).parent)]


def test_a_job_is_read_as_it_was_written(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "run")
    job = TrainJob(dataset=tmp_path / "data", model=ModelSettings(base="x"), distributed=DdpSettings(kind="ddp"), resume=True)
    write_job(run, job)
    assert read_job(run) == job
    (run.folder / "job.json").write_text("{}")
    with pytest.raises(RunError, match="cannot be read"):
        read_job(run)


WORKER = """
import signal, sys, time
events = open(sys.argv[1], "a")
def stop(*_):
    events.write('["note", null, 7, null, {}]\\n'); events.close(); sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("a line for the log", flush=True)
events.write('["progress", null, 1, 9, {}]\\n'); events.flush()
time.sleep(60)
"""


def test_an_interrupt_is_passed_on_and_its_last_words_are_heard(tmp_path: Path) -> None:
    heard: list[Event] = []

    def listener(event: Event) -> None:
        heard.append(event)
        if event.done == 1:
            raise KeyboardInterrupt

    events = tmp_path / "events"
    with pytest.raises(KeyboardInterrupt):
        _supervise([sys.executable, "-c", WORKER, str(events)], {}, tmp_path / "log", events, listener, Watch(tmp_path))
    assert [event.done for event in heard] == [1, 7]
    assert (tmp_path / "log").read_text() == "a line for the log\n"


def test_the_worker_says_what_a_user_can_put_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main([]) == 2
    assert worker.main([str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

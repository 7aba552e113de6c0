"""A plan for real rows: counted from headers, told in both languages, compared with what is then measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.models.compiler import Missing
from medtune.models.config import FullSettings, LoraSettings, ModelSettings
from medtune.models.size import read_size
from medtune.training import forecast
from medtune.training.config import DdpSettings, NoDistribution, TrainSettings
from medtune.training.data import measure_lengths
from medtune.training.devices import DEVICES, Device
from medtune.training.forecast import Forecast, forecast_events, plan_run
from medtune.training.workload import measure_workload
from medtune.types import IGNORE_INDEX, Event, Performance
from tiny_training import Setup, make_setup

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("tiny"))


def foretell(tiny: Setup, device: Device | None = DEVICES["H100"], **changes: Any) -> Forecast:
    settings = TrainSettings(**changes.pop("train", {}))
    given: dict[str, Any] = {
        "encoder": tiny.encoder,
        "model": ModelSettings(base=str(tiny.model_folder)),
        "adapter": LoraSettings(rank=4),
        "distributed": NoDistribution(),
        **changes,
    }
    lengths = measure_lengths(tiny.train_rows, tiny.encoder)
    validation = measure_lengths(tiny.validation_rows, tiny.encoder)
    given |= {"eval_rows": tiny.validation_rows, "eval_lengths": validation}
    return plan_run(tiny.train_rows, lengths, settings=settings, device=device, **given)


def test_rows_are_counted_as_they_are_encoded(tiny: Setup) -> None:
    from PIL import Image

    rows = tiny.train_rows
    encoded = [
        tiny.encoder.encode(row.messages, [Image.open(tiny.image_path(ref)) for ref in row.images], sample_id=row.id)
        for row in rows
    ]
    lengths = measure_lengths(rows, tiny.encoder)
    settings = TrainSettings(batch_size=2, gradient_accumulation_steps=2, epochs=2.5)
    workload = measure_workload(rows, lengths, encoder=tiny.encoder, size=read_size(tiny.model_folder), settings=settings)
    assert workload.num_tokens == sum(len(row.input_ids) for row in encoded)
    assert workload.longest == max(len(row.input_ids) for row in encoded)
    assert workload.num_patches == sum(len(row.tensors["pixel_values"]) for row in encoded)
    # The line break behind an answer's end counts as supervised here: one token a row.
    assert workload.num_targets == sum(int((row.labels != IGNORE_INDEX).sum()) + 1 for row in encoded)
    assert (workload.num_pictures, workload.num_distinct) == (12, 12)
    assert workload.num_steps == 8  # 2.5 times 3
    assert workload.rows_per_step == 4
    assert workload.on(2, settings).num_steps == 5
    assert workload.on(4, settings).rows_per_step == 3, "12 rows are one step of four devices"


def test_pictures_that_stand_in_several_rows_are_one(tiny: Setup) -> None:
    rows = [tiny.rows[0], tiny.rows[0].model_copy(update={"id": "again"})]
    lengths = measure_lengths(rows, tiny.encoder)
    workload = measure_workload(rows, lengths, encoder=tiny.encoder, size=read_size(tiny.model_folder), settings=TrainSettings())
    assert (workload.num_pictures, workload.num_distinct) == (2, 1)


def test_a_cache_holds_the_pictures_of_validation_too(tiny: Setup) -> None:
    shown_in_both = [*tiny.validation_rows, tiny.train_rows[0]]
    lengths, validation = measure_lengths(tiny.train_rows, tiny.encoder), measure_lengths(shown_in_both, tiny.encoder)
    size = read_size(tiny.model_folder)
    workload = measure_workload(
        tiny.train_rows,
        lengths,
        eval_rows=shown_in_both,
        eval_lengths=validation,
        encoder=tiny.encoder,
        size=size,
        settings=TrainSettings(),
    )
    assert (workload.num_distinct, workload.eval_distinct, workload.num_kept) == (12, 4, 16)
    plan = foretell(tiny, train={"epochs": 3, "vision_cache": "memory"})
    one_picture = size.cache_bytes(workload.num_patches / workload.num_pictures, 2)
    assert plan.estimate.memory.host == 16 * one_picture
    assert "16 pictures" in "\n".join(reason.render("en") for reason in plan.chosen.reasons)


def test_a_plan_for_a_named_gpu(tiny: Setup) -> None:
    plan = foretell(tiny, price=2.5)
    assert plan.choice.packing
    assert plan.precision == "bf16"
    assert plan.estimate.memory.process == 0
    assert plan.cost == pytest.approx(2.5 * plan.hours)
    assert plan.planned.peak_gib < 1
    two = foretell(tiny, price=2.5, distributed=DdpSettings(kind="ddp"), num_devices=2)
    assert two.cost == pytest.approx(2 * 2.5 * two.hours)


def test_a_plan_for_a_cpu_is_near_what_happens(tiny: Setup, tmp_path: Path) -> None:
    """Nothing of this size is worth planning; within a factor of 20 it tells a minute from an hour."""
    settings = {"max_steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "evaluate_every": "never"}
    plan = foretell(tiny, device=None, train=settings)
    if plan.device.is_gpu:
        pytest.skip("has a GPU")
    assert plan.precision == "float32"
    assert not plan.choice.compile
    assert plan.choice.checkpointing.every == 0
    run = tiny.run(tmp_path / "run")
    tiny.train(run, **settings)
    seconds = [event["seconds"] for event in run.events() if event["kind"] == "log"]
    measured = min(later - earlier for earlier, later in pairwise(seconds))  # other work of the machine only makes steps longer
    assert 1 / 20 < plan.planned.seconds_per_step / measured < 20
    assert 0.3 < plan.planned.peak_gib < 3


def test_bf16_is_refused_where_there_is_none(tiny: Setup) -> None:
    with pytest.raises(TrainingError, match="V100 does not compute in bfloat16"):
        foretell(tiny, DEVICES["V100"], train={"precision": "bf16"})


def test_compiling_by_hand_is_refused_where_it_cannot_work(tiny: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "this_device", lambda: DEVICES["H100"])
    monkeypatch.setattr(
        forecast, "missing_for_compiling", lambda: Missing(msg("there is no C compiler"), msg("pip install {package}", package="x"))
    )
    with pytest.raises(TrainingError, match="there is no C compiler"):
        foretell(tiny, None, train={"compile": True})
    assert not foretell(tiny, None, train={"max_steps": 100_000}).choice.compile
    assert foretell(tiny, train={"max_steps": 100_000}).choice.compile, "of a GPU that is only named, nothing is known"


def test_what_does_not_fit_is_refused_with_settings_that_fit(tiny: Setup) -> None:
    """Each setting that the refusal names is then tried."""
    forced = {"gradient_checkpointing": "all", "micro_batch_tokens": 1}
    lora = foretell(tiny, adapter=LoraSettings(), train=forced).estimate
    small = replace(DEVICES["H100"], name="tiny", memory=0.6 * 1024**3 + 1.1 * lora.memory.peak / 0.92)
    with pytest.raises(TrainingError) as raised:
        foretell(tiny, small, adapter=FullSettings(freeze=()))
    assert raised.value.remedy is not None
    assert "adapter.kind=lora" in raised.value.remedy.render("en")
    assert foretell(tiny, small, adapter=LoraSettings()).estimate.fits


def test_smaller_pictures_are_counted_anew(tiny: Setup) -> None:
    """The remedy's number of pixels is one that the same call then accepts."""
    large = [row.model_copy(update={"images": tuple(ref.model_copy(update={"width": 512, "height": 512}) for ref in row.images)})
             for row in tiny.rows]  # fmt: skip
    wide = Setup(tiny.model_folder, tiny.data_folder, large, tiny.encoder)
    roomy = foretell(wide, train={"gradient_checkpointing": "none", "batch_size": 1, "gradient_accumulation_steps": 1})
    small = replace(DEVICES["H100"], memory=0.6 * 1024**3 + 0.8 * roomy.estimate.memory.peak / 0.92)
    settings = {"gradient_checkpointing": "none", "batch_size": 1, "gradient_accumulation_steps": 1}
    with pytest.raises(TrainingError) as raised:
        foretell(wide, small, train=settings)
    assert raised.value.remedy is not None
    words = raised.value.remedy.render("en")
    assert "train.gradient_checkpointing=auto" in words
    pixels = int(words.split("model.max_pixels=")[1].split()[0])
    from medtune.models.encoder import load_encoder

    model = ModelSettings(base=str(tiny.model_folder), max_pixels=pixels)
    shrunk = Setup(tiny.model_folder, tiny.data_folder, large, load_encoder(model))
    assert foretell(shrunk, small, train=settings, model=model).estimate.fits


def test_the_first_lines_of_a_run(tiny: Setup) -> None:
    events: list[Event] = list(forecast_events(foretell(tiny)))
    assert events[0].values["planned_device"] == "H100"
    assert events[0].values["gib_weights"] > 0  # type: ignore[operator]
    lines = [event.text.render("zh") for event in events if event.text is not None]
    assert lines[0].startswith("计划（1 x H100）")
    assert len(lines) == 6
    assert not any("packing" in line for line in lines)


def test_plan_and_measurement_side_by_side(tiny: Setup, tmp_path: Path) -> None:
    plan = foretell(tiny)
    run = tiny.run(tmp_path / "run")
    for event in forecast_events(plan):
        run.append(event)
    doubled = plan.planned.model_copy(
        update={"seconds_per_step": 2 * plan.planned.seconds_per_step, "peak_gib": plan.planned.peak_gib / 2}
    )
    run.update(planned=plan.planned, measured=doubled)
    command = [sys.executable, str(ROOT / "benchmarks" / "plan_accuracy.py"), str(run.folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| 0.50 |" in shown
    assert "| 2.00 |" in shown
    assert shown.count("\n") == 3
    fitted = json.loads(subprocess.run([*command, "--fit"], capture_output=True, text=True, check=True).stdout)
    assert fitted["traffic_eager"] > 20 or fitted["vision_share"] < 0.15
    assert isinstance(run.record.measured, Performance)

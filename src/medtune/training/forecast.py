"""A run foretold: what is trained, what it is fed, what the engine chose, and what that needs. No weight is read."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medtune.data.dataset import Dataset
from medtune.errors import TrainingError
from medtune.language import Text, msg
from medtune.models.adapter_size import AdapterSize, adapter_size
from medtune.models.compiler import missing_for_compiling
from medtune.models.config import AdapterSettings, FullSettings, LoraSettings, ModelSettings, QloraSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.packing import PACKED_TYPES
from medtune.models.size import ModelSize, read_size
from medtune.training.choice import EngineChoice
from medtune.training.choose import Chosen, Room, choose
from medtune.training.config import DdpSettings, DistributedSettings, FsdpSettings, NoDistribution, TrainSettings
from medtune.training.data import measure_lengths
from medtune.training.devices import Device, find_device, free_memory, this_device
from medtune.training.division import divide
from medtune.training.estimate import Estimate, Setup
from medtune.training.workload import Workload, measure_workload
from medtune.types import Event, Performance, Sample, SplitName

__all__ = ["Forecast", "forecast_events", "packs", "plan_dataset", "plan_run"]

_GIB = 1024**3

_RECOUNTED = 50_000
"""Rows that are counted again with smaller pictures, to name a value of ``model.max_pixels`` that fits."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Attributes:
    size: Of the base model.
    adapter: What is trained.
    workload: What it is fed.
    device: One of the devices.
    num_devices: That train together.
    precision: Of the computation.
    chosen: The engine's settings, what they need, and why.
    price: Of a device for an hour, in any currency; None = not asked.
    notes: What the reader should know of the figures.
    """

    size: ModelSize
    adapter: AdapterSize
    workload: Workload
    device: Device
    num_devices: int
    precision: str
    chosen: Chosen
    price: float | None = None
    notes: tuple[Text, ...] = ()

    @property
    def choice(self) -> EngineChoice:
        return self.chosen.choice

    @property
    def estimate(self) -> Estimate:
        return self.chosen.estimate

    @property
    def duration(self) -> Text:
        """Of the whole run, in words."""
        hours = self.hours
        if hours < 1:
            return msg("{minutes} minutes", minutes=f"{60 * hours:.0f}" if hours > 1 / 6 else f"{60 * hours:.1f}")
        return msg("{hours} hours", hours=f"{hours:.1f}")

    @property
    def hours(self) -> float:
        return self.estimate.seconds / 3600

    @property
    def cost(self) -> float | None:
        """Of all devices; they are paid for from the start of the process on."""
        return None if self.price is None else self.hours * self.num_devices * self.price

    @property
    def planned(self) -> Performance:
        """For ``run.json``, beside what is then measured."""
        return Performance(
            device=self.device.name,
            num_devices=self.num_devices,
            peak_gib=round(self.estimate.memory.peak / _GIB, 3),
            seconds_per_step=round(self.estimate.step.total, 5),
            tokens_per_second=round(self.estimate.tokens_per_second, 1),
            seconds=round(self.estimate.seconds, 1),
        )


def packs(size: ModelSize, model: ModelSettings) -> bool:
    """Whether rows of this model can be packed, as far as its config and the recipe say: there is no model yet to ask."""
    return size.model_type in PACKED_TYPES and model.attention != "eager"


def plan_run(
    rows: Sequence[Sample],
    lengths: Sequence[int],
    *,
    eval_rows: Sequence[Sample] = (),
    eval_lengths: Sequence[int] = (),
    encoder: Encoder,
    model: ModelSettings,
    adapter: AdapterSettings,
    settings: TrainSettings,
    distributed: DistributedSettings,
    num_devices: int = 1,
    device: Device | None = None,
    folder: Path = Path(),
    can_pack: bool | None = None,
    price: float | None = None,
    notes: Sequence[Text] = (),
) -> Forecast:
    """Choose the engine's settings for a run, and say what it will need.

    Args:
        rows: Training rows that fit into ``max_tokens``.
        lengths: Their tokens.
        eval_rows: Validation rows.
        eval_lengths: Their tokens.
        encoder: Of the base model.
        num_devices: That train together, over all machines.
        device: One of them; None = the first GPU of this machine, or its CPU.
        folder: Where the run folder will be: a cache on disk lies in it.
        can_pack: :func:`medtune.models.packing.can_pack` of the model, where it is loaded; None = :func:`packs`.
        price: Of a device for an hour.

    Raises:
        TrainingError: The run cannot fit; the remedy names what can. Or bf16 is asked for, and the device has none; or
            ``compile``, and this machine cannot.
        ModelError: The model's size cannot be told from its folder.
    """
    given = device is not None
    device = device or this_device()
    if settings.precision == "bf16" and not device.has_bf16:
        raise TrainingError(
            msg("{device} does not compute in bfloat16.", device=device.name),
            key="train.precision",
            remedy=msg("Write train.precision=auto: bfloat16 where there is such a GPU, float32 elsewhere."),
        )
    missing = missing_for_compiling() if device.is_gpu and not given else None
    if missing is not None and settings.compile is True:
        raise TrainingError(
            msg("torch.compile cannot work here: {what}.", what=missing.what), key="train.compile", remedy=missing.remedy
        )
    size = read_size(encoder.folder, model.family)

    def setup_of(adapter: AdapterSettings, distributed: DistributedSettings, num_devices: int, workload: Workload) -> Setup:
        bf16 = device.has_bf16 and settings.precision != "float32"
        return Setup(
            size=size,
            adapter=adapter_size(size, adapter, encoder.family),
            workload=workload,
            device=device,
            precision="bf16" if bf16 else "float32",
            weight_bytes=_weight_bytes(model, size, device),
            division=divide(distributed, num_devices),
            batch_size=settings.batch_size,
            num_workers=_num_workers(settings, device, num_devices, known=not given),
        )

    def count(encoder: Encoder, lengths: Sequence[int], eval_lengths: Sequence[int]) -> Workload:
        return measure_workload(
            rows,
            lengths,
            eval_rows=eval_rows,
            eval_lengths=eval_lengths,
            encoder=encoder,
            size=size,
            settings=settings,
            num_devices=num_devices,
        )

    workload = count(encoder, lengths, eval_lengths)

    def others() -> Iterator[tuple[Text, TrainSettings, Setup]]:
        yield from _freed(settings, setup_of(adapter, distributed, num_devices, workload))
        if isinstance(adapter, FullSettings):
            lora = LoraSettings()
            yield msg("{command}", command="adapter.kind=lora"), settings, setup_of(lora, distributed, num_devices, workload)
        elif not isinstance(adapter, QloraSettings) and device.is_gpu:
            qlora = QloraSettings(**{**adapter.model_dump(), "kind": "qlora"})
            yield msg("{command}", command="adapter.kind=qlora"), settings, setup_of(qlora, distributed, num_devices, workload)
        if len(rows) <= _RECOUNTED:
            for pixels in _smaller_pictures(workload, size, encoder):
                smaller = load_encoder(model.model_copy(update={"max_pixels": pixels, "min_pixels": None}))
                counted = count(smaller, measure_lengths(rows, smaller), eval_lengths)
                yield (
                    msg("{command}", command=f"model.max_pixels={pixels}"),
                    settings,
                    setup_of(adapter, distributed, num_devices, counted),
                )
        for more in (2, 4, 8, 16):
            if device.is_gpu and more > num_devices:
                fsdp = FsdpSettings(kind="fsdp", num_processes=more)
                command = f"distributed.kind=fsdp distributed.num_processes={more}"
                yield msg("{command}", command=command), settings, setup_of(adapter, fsdp, more, workload.on(more, settings))

    setup = setup_of(adapter, distributed, num_devices, workload)
    room = Room(free_memory(), _free_disk(folder), _processes_here(num_devices), None if missing is None else missing.what)
    chosen = choose(settings, setup, room, can_pack=packs(size, model) if can_pack is None else can_pack, others=others())
    return Forecast(size, setup.adapter, workload, device, num_devices, setup.precision, chosen, price, tuple(notes))


def plan_dataset(
    dataset: Dataset,
    *,
    model: ModelSettings,
    adapter: AdapterSettings,
    settings: TrainSettings,
    distributed: DistributedSettings,
    gpu: str | None = None,
    num_gpus: int | None = None,
    folder: Path = Path(),
    price: float | None = None,
    remarks: Sequence[Text] = (),
) -> Forecast:
    """:func:`plan_run` for a prepared data set.

    Args:
        gpu: A name; None = this machine.
        num_gpus: That train together; None = as ``distributed`` says.
        price: Of a device for an hour.
        remarks: What else the reader should know; they come first among the notes.

    Raises:
        TrainingError: As :func:`plan_run`, or no row can be trained on, or the GPU is not known, or number or price cannot be.
        ModelError: The model cannot be read.
    """
    if price is not None and not (price >= 0 and math.isfinite(price)):
        raise TrainingError(
            msg("A price of {price} for an hour cannot be.", price=price), remedy=msg("Give a number of at least 0, or none.")
        )
    if num_gpus is not None and num_gpus < 1:
        raise TrainingError(
            msg("A run cannot be on {count} devices.", count=num_gpus), remedy=msg("Give a number of at least 1, or none.")
        )
    device = None if gpu is None else find_device(gpu)
    encoder = load_encoder(model, adapter=adapter.init_from if isinstance(adapter, LoraSettings) else None)
    notes = list(remarks)
    limit = min(settings.max_tokens, encoder.max_tokens or settings.max_tokens)
    kept: dict[str, tuple[list[Sample], list[int]]] = {}
    splits: tuple[SplitName, ...] = ("train", "validation")
    for split in splits:
        rows = list(dataset.sequence(split))
        lengths = measure_lengths(rows, encoder)
        fitting = [index for index, length in enumerate(lengths) if length <= limit]
        kept[split] = ([rows[index] for index in fitting], [lengths[index] for index in fitting])
        if len(fitting) < len(rows):
            template = {"count": len(rows) - len(fitting), "split": split, "max_tokens": limit, "longest": max(lengths)}
            notes.append(
                msg(
                    "{count} rows of {split} are longer than {max_tokens} tokens (the longest: {longest}) and are left out.",
                    **template,
                )
                if settings.too_long == "leave-out"
                else msg(
                    "{count} rows of {split} are longer than {max_tokens} tokens (the longest: {longest}): `medtune train` will "
                    "refuse them unless train.max_tokens, model.max_pixels or train.too_long=leave-out is set. They are "
                    "not counted here.",
                    **template,
                )
            )
    if not kept["train"][0]:
        raise TrainingError(
            msg("There are no rows to train on."), key="data", remedy=msg("`medtune validate` shows what became of the rows.")
        )
    count = num_gpus or _num_devices(distributed, here=gpu is None)
    if count > 1 and isinstance(distributed, NoDistribution):
        distributed = DdpSettings(kind="ddp", num_processes=count)
        notes.append(msg("Several devices need distributed.kind in the recipe; this plan is for ddp."))
    return plan_run(
        *kept["train"],
        eval_rows=kept["validation"][0],
        eval_lengths=kept["validation"][1],
        encoder=encoder,
        model=model,
        adapter=adapter,
        settings=settings,
        distributed=distributed,
        num_devices=count,
        device=device,
        folder=folder,
        price=price,
        notes=notes,
    )


def _num_devices(distributed: DistributedSettings, *, here: bool) -> int:
    if isinstance(distributed, NoDistribution):
        return 1
    if distributed.num_processes is not None:
        return distributed.num_processes
    if not here:
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def forecast_events(forecast: Forecast) -> Iterator[Event]:
    """The plan in a few lines, as the first events of a training run."""
    estimate, workload = forecast.estimate, forecast.workload
    yield Event(
        "note",
        msg(
            "Plan for {count} x {device}: {peak} GiB of {capacity} GiB, {tokens} tokens/s, {steps} steps, {duration}.",
            count=forecast.num_devices,
            device=forecast.device.name,
            peak=f"{estimate.memory.peak / _GIB:.1f}",
            capacity=f"{estimate.capacity / _GIB:.1f}",
            tokens=f"{estimate.tokens_per_second:,.0f}",
            steps=workload.num_steps,
            duration=forecast.duration,
        ),
        values=planned_values(forecast),
    )
    for reason in forecast.chosen.reasons:
        yield Event("note", reason)


def planned_values(forecast: Forecast) -> Mapping[str, float | int | str | None]:
    """What was planned, as the values of an event."""
    choice, estimate = forecast.choice, forecast.estimate
    return {
        **{f"planned_{name}": value for name, value in forecast.planned.model_dump().items()},
        **{f"gib_{name}": round(value / _GIB, 4) for name, value in asdict(estimate.memory).items()},
        **{f"step_{name}": round(value, 6) for name, value in asdict(estimate.step).items()},
        "packing": int(choice.packing),
        "micro_batch_tokens": choice.micro_batch_tokens,
        "micro_batch_rows": choice.micro_batch_rows,
        "checkpointing_every": choice.checkpointing.every,
        "checkpointing_offload": int(choice.checkpointing.offload),
        "vision_cache": choice.vision_cache,
        "compile": int(choice.compile),
        "optimizer": choice.optimizer,
    }


def _freed(settings: TrainSettings, setup: Setup) -> Iterator[tuple[Text, TrainSettings, Setup]]:
    """What was set by hand, left to the plan: one by one, then together."""
    names = ("micro_batch_tokens", "gradient_checkpointing", "vision_cache", "packing", "optimizer")
    by_hand = [name for name in names if getattr(settings, name) != "auto"]
    for group in [*([name] for name in by_hand), *([by_hand] if len(by_hand) > 1 else [])]:
        command = " ".join(f"train.{name}=auto" for name in group)
        yield msg("{command}", command=command), settings.model_copy(update=dict.fromkeys(group, "auto")), setup


def _smaller_pictures(workload: Workload, size: ModelSize, encoder: Encoder) -> Iterator[int]:
    """Half, a quarter and an eighth of the pixels of the largest picture."""
    if encoder.pictures is None or size.vision is None or not workload.largest_patches:
        return
    least = encoder.pictures.min_pixels
    side = int(encoder.pictures.processor.patch_size)
    for share in (2, 4, 8):
        pixels = workload.largest_patches * side * side // share
        if pixels >= least:
            yield pixels


def _weight_bytes(model: ModelSettings, size: ModelSize, device: Device) -> float:
    """As :func:`medtune.models.load.load_model` loads them."""
    if model.dtype != "auto":
        return 4.0 if model.dtype == "float32" else 2.0
    return size.stored_bytes if device.is_gpu else 4.0


def _num_workers(settings: TrainSettings, device: Device, num_devices: int, *, known: bool) -> int:
    """As :func:`medtune.training.arguments.num_workers`; of a machine that is only named, 8 cores for each GPU are assumed."""
    if settings.num_workers is not None:
        return settings.num_workers
    if not device.is_gpu:
        return 0
    if not known:
        return 8
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // max(1, num_devices) - 1))


def _processes_here(num_devices: int) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "0")) or min(num_devices, 8)


def _free_disk(folder: Path) -> float:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return float(shutil.disk_usage(place).free)

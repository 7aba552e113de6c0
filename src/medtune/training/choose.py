"""The engine's settings for a recipe on a device: what was set by hand stands, the rest is the fastest that fits.

Every combination is estimated (:mod:`medtune.training.estimate`); there are some hundred. Recomputing activations costs a
third of the products and more of the rest, passes of some thousand tokens are nearly as fast as longer ones, so the fastest is
first no checkpointing with passes as long as fit, then every k-th layer, then all layers, then what is kept in main memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from medtune.errors import TrainingError
from medtune.language import Text, msg
from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.config import TrainSettings
from medtune.training.estimate import Estimate, Setup, capacity_of, estimate
from medtune.training.memory import cache_bytes, memory_of
from medtune.training.passes import num_passes

__all__ = ["Chosen", "Room", "cannot_pack", "choose", "optimizer_of"]

_GIB = 1024**3

USEFUL_TOKENS = 16_384
"""Passes with more tokens are not tried: products reach 97 % of their speed at 7,000 (calibration, ``half_tokens``)."""

STEP = 64
"""Token limits are multiples of this."""

KEPT_FREE = 0.5
"""Share of free main memory and disk that a cache may take."""

_CHECKPOINTING = (
    Checkpointing(),
    Checkpointing(every=4),
    Checkpointing(every=3),
    Checkpointing(every=2),
    Checkpointing(every=1),
    Checkpointing(every=1, offload=True),
)

AS_FAST = 1.01
"""Choices whose time is within this factor of the fastest are as fast; of those the one that needs the least memory is taken."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is beside the device.

    Attributes:
        memory: Free bytes of main memory.
        disk: Free bytes where the run folder will be.
        processes: Training processes that share them.
        no_compiler: Why nothing can be compiled there; None = it can.
    """

    memory: float
    disk: float
    processes: int = 1
    no_compiler: Text | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Attributes:
    choice: What the engine will do.
    estimate: What that needs.
    reasons: Why, a sentence for each setting.
    """

    choice: EngineChoice
    estimate: Estimate
    reasons: tuple[Text, ...]


def choose(
    settings: TrainSettings,
    setup: Setup,
    room: Room,
    *,
    can_pack: bool = True,
    others: Iterable[tuple[Text, TrainSettings, Setup]] = (),
) -> Chosen:
    """The fastest choice that fits.

    Args:
        settings: What is set by hand is not changed.
        can_pack: See :func:`medtune.models.packing.can_pack`.
        others: Other settings to name where nothing fits, the nearest first: how they are written, and what they amount to.
            They are asked one by one, until some fit.

    Raises:
        TrainingError: Nothing fits, and the remedy names the settings nearest to these that do; or packing is asked for, and
            the model cannot; or something is to be divided that cannot be.
    """
    undivided = _undivided(settings, setup)
    if undivided is not None:
        raise undivided
    if settings.packing is True and not can_pack:
        raise cannot_pack()
    found = _best(settings, setup, room, can_pack=can_pack)
    if found is None and _may_take_8_bit(settings, setup):
        found = _best(settings.model_copy(update={"optimizer": "adamw_8bit"}), setup, room, can_pack=can_pack)
    if found is None:
        raise _refusal(settings, setup, room, can_pack=can_pack, others=others)
    choice, expected = found
    return Chosen(choice, expected, tuple(_reasons(settings, setup, room, choice, expected)))


def cannot_pack() -> TrainingError:
    """Packing is asked for, and the model's attention does not take row borders."""
    return TrainingError(
        msg("The rows of this model cannot be packed."),
        key="train.packing",
        remedy=msg("Write train.packing=auto, and load the model with model.attention=auto."),
    )


def _undivided(settings: TrainSettings, setup: Setup) -> TrainingError | None:
    """What cannot be divided among devices, though it should.

    accelerate leaves bitsandbytes' 4-bit layers out of what FSDP2 divides (``accelerate/utils/fsdp_utils.py``, 1.15,
    ``fsdp2_prepare_model``), so that each device would hold all of them after all.
    """
    if setup.adapter.kind == "qlora" and setup.division.weight_share > 1:
        return TrainingError(
            msg("Weights in 4 bits cannot be divided among devices."),
            key="distributed.kind",
            remedy=msg("Write distributed.kind=ddp: every device holds all of them, in about a quarter of the memory."),
        )
    if settings.optimizer == "adamw_8bit" and setup.division.optimizer_share > 1:
        return TrainingError(
            msg("The 8-bit states of AdamW cannot be divided among devices."),
            key="train.optimizer",
            remedy=msg("Write train.optimizer=adamw, or distributed.kind=ddp, which divides none."),
        )
    return None


def _fits(settings: TrainSettings, setup: Setup, room: Room, *, can_pack: bool) -> bool:
    if _undivided(settings, setup) is not None:
        return False
    if _may_take_8_bit(settings, setup):
        settings = settings.model_copy(update={"optimizer": "adamw_8bit"})
    return _best(settings, setup, room, can_pack=can_pack) is not None


def _may_take_8_bit(settings: TrainSettings, setup: Setup) -> bool:
    """Only where the base weights are rounded already, for want of memory too, and bitsandbytes is there."""
    on_gpu, whole = setup.device.is_gpu, setup.division.optimizer_share == 1
    return settings.optimizer == "auto" and "optim" not in settings.hf and setup.adapter.kind == "qlora" and on_gpu and whole


def _best(settings: TrainSettings, setup: Setup, room: Room, *, can_pack: bool) -> tuple[EngineChoice, Estimate] | None:
    fitting = []
    for choice in _candidates(settings, setup, room, can_pack=can_pack):
        expected = estimate(setup, choice)
        if expected.fits and _fits_host(setup, choice, expected, room):
            fitting.append((choice, expected))
    if not fitting:
        return None
    # What comes before the first step anyway must not make a short run's choices look alike.
    always = min(expected.startup_seconds for _, expected in fitting)
    fastest = min(expected.seconds - always for _, expected in fitting)
    near = [found for found in fitting if found[1].seconds - always <= AS_FAST * fastest]
    return min(near, key=lambda found: (found[0].checkpointing.offload, found[1].memory.peak))


def _fits_host(setup: Setup, choice: EngineChoice, expected: Estimate, room: Room) -> bool:
    # The processes of a machine share one vision cache.
    cache = cache_bytes(setup) if choice.vision_cache == "memory" else 0.0
    return (expected.memory.host - cache) * room.processes + cache <= room.memory


def _candidates(settings: TrainSettings, setup: Setup, room: Room, *, can_pack: bool) -> Iterator[EngineChoice]:
    packing = can_pack if settings.packing == "auto" else settings.packing
    asked = settings.gradient_checkpointing
    again: tuple[Checkpointing, ...] = _CHECKPOINTING
    if not setup.device.is_gpu:
        again = again[:-1]  # main memory is all there is
    if asked != "auto":
        again = (
            Checkpointing(every=asked)
            if isinstance(asked, int)
            else {"none": Checkpointing(), "all": Checkpointing(every=1), "offload": Checkpointing(every=1, offload=True)}[asked],
        )
    can_compile = setup.device.is_gpu and not setup.division.gathers_inside and room.no_compiler is None
    compiled: tuple[bool, ...] = (False, True) if can_compile else (False,)
    if settings.compile != "auto":
        compiled = (settings.compile and not setup.division.gathers_inside,)
    limits = list(_limits(settings, setup)) if packing else [(0, rows) for rows in _rows(setup)]
    for (tokens, rows), checkpointing, compile_layers in product(limits, again, compiled):
        choice = EngineChoice(packing, tokens, rows, checkpointing, "none", compile_layers, optimizer_of(settings))
        yield replace(choice, vision_cache=_cache(settings, setup, room, choice))


def optimizer_of(settings: TrainSettings) -> str:
    """The optimizer that is asked for."""
    return str(settings.hf.get("optim", "adamw" if settings.optimizer == "auto" else settings.optimizer))


def _limits(settings: TrainSettings, setup: Setup) -> Iterator[tuple[int, int]]:
    """Tokens of a pass: the steps cut into 1, 2, 3, ... passes, down to the longest row alone."""
    workload = setup.workload
    if settings.micro_batch_tokens != "auto":
        yield settings.micro_batch_tokens, 0
        return
    seen = set()
    rows = max(1, min(workload.rows_per_step, workload.num_rows))
    for passes in range(1, rows + 1):
        # Rows are whole, so the fullest of several passes has up to half a row more than its share.
        tokens = workload.most_step_tokens / passes + (workload.mean_length / 2 if passes > 1 else 0)
        limit = max(workload.longest, math.ceil(tokens / STEP) * STEP)
        if limit not in seen and (limit <= max(USEFUL_TOKENS, workload.longest)):
            seen.add(limit)
            yield limit, 0
    if workload.longest not in seen:
        yield workload.longest, 0


def _rows(setup: Setup) -> Iterator[int]:
    """Without packing: ``batch_size`` rows (0 stands for them); fewer are tried where those do not fit."""
    yield 0
    rows = setup.batch_size
    while rows > 1:
        rows //= 2
        yield rows


def _cache(settings: TrainSettings, setup: Setup, room: Room, choice: EngineChoice) -> Literal["none", "memory", "disk"]:
    workload, adapter = setup.workload, setup.adapter
    usable = setup.size.vision is not None and workload.num_pictures > 0 and not adapter.trains_vision and choice.packing
    if settings.vision_cache != "auto":
        return settings.vision_cache if usable else "none"
    if not usable or shown_times(setup) < 1.5:
        return "none"
    needed = cache_bytes(setup)
    if needed <= KEPT_FREE * room.memory:
        return "memory"
    if needed <= KEPT_FREE * room.disk:
        on_disk, without = (estimate(setup, replace(choice, vision_cache=kept)) for kept in ("disk", "none"))
        return "disk" if on_disk.seconds < without.seconds else "none"
    return "none"


def shown_times(setup: Setup) -> float:
    """How often a picture is shown in the run."""
    workload = setup.workload
    rows = workload.num_steps * min(workload.rows_per_step, workload.num_rows) * setup.division.num_devices
    return workload.num_pictures * rows / max(1, workload.num_rows) / max(1, workload.num_distinct)


# ---------------------------------------------------------------------------------------------------------------- reasons


def _reasons(settings: TrainSettings, setup: Setup, room: Room, choice: EngineChoice, expected: Estimate) -> Iterator[Text]:
    by_hand = msg("by hand")
    if choice.packing:
        why = by_hand if settings.packing != "auto" else msg("no padding")
        yield msg("packing: yes ({why})", why=why)
        yield _tokens_reason(settings, setup, choice)
    else:
        why = by_hand if settings.packing != "auto" else msg("this model's attention does not take packed rows")
        yield msg("packing: no ({why})", why=why)
        if choice.micro_batch_rows:
            yield msg("micro-batch: {rows} rows (more do not fit)", rows=choice.micro_batch_rows)
    yield _checkpointing_reason(settings, setup, choice, expected)
    yield _cache_reason(settings, setup, room, choice)
    if setup.division.gathers_inside and settings.compile is not False:
        yield msg("compile: no (ZeRO-3 gathers weights inside the layers)")
    elif settings.compile != "auto":
        yield msg("compile: {value} ({why})", value=_yes(choice.compile), why=by_hand)
    elif setup.device.is_gpu:
        other = estimate(setup, replace(choice, compile=not choice.compile))
        minutes = f"{abs(other.seconds - expected.seconds) / 60:.1f}"
        if room.no_compiler is not None:
            yield msg("compile: {value} ({why})", value=_yes(choice.compile), why=room.no_compiler)
        elif not other.fits:
            yield msg("compile: {value} (needs less memory)", value=_yes(choice.compile))
        elif choice.compile:
            yield msg("compile: yes (saves {minutes} minutes over the run)", minutes=minutes)
        else:
            yield msg("compile: no (the run is too short: it would take {minutes} minutes longer)", minutes=minutes)
    else:
        yield msg("compile: {value} ({why})", value=_yes(choice.compile), why=msg("no GPU"))
    if settings.optimizer != "auto" or "optim" in settings.hf:
        yield msg("optimizer: {name} ({why})", name=choice.optimizer, why=by_hand)
    elif choice.optimizer != "adamw":
        least = memory_of(setup, replace(choice, optimizer="adamw")).peak
        yield msg(
            "optimizer: {name} (with its states in float32 the peak would be {peak} GiB; there are {capacity})",
            name=choice.optimizer,
            peak=f"{least / _GIB:.1f}",
            capacity=f"{expected.capacity / _GIB:.1f}",
        )


def _yes(value: bool) -> Text:
    return msg("yes") if value else msg("no")


def _tokens_reason(settings: TrainSettings, setup: Setup, choice: EngineChoice) -> Text:
    tokens, passes = f"{choice.micro_batch_tokens:,}", num_passes(setup, choice)
    if settings.micro_batch_tokens != "auto":
        return msg("micro-batch: up to {tokens} tokens, passes a step: {passes} (by hand)", tokens=tokens, passes=passes)
    return msg("micro-batch: up to {tokens} tokens, passes a step: {passes} (the fastest that fits)", tokens=tokens, passes=passes)


def _checkpointing_reason(settings: TrainSettings, setup: Setup, choice: EngineChoice, expected: Estimate) -> Text:
    again = choice.checkpointing
    kind = (
        msg("none")
        if not again.every
        else msg("all layers, what is kept rests in main memory")
        if again.offload
        else msg("all layers")
        if again.every == 1
        else msg("one layer in {number}", number=again.every)
    )
    if settings.gradient_checkpointing != "auto":
        return msg("gradient checkpointing: {kind} (by hand)", kind=kind)
    capacity = f"{expected.capacity / _GIB:.1f}"
    if not again.every:
        peak = f"{expected.memory.peak / _GIB:.1f}"
        return msg(
            "gradient checkpointing: {kind} (the peak of {peak} GiB fits into {capacity} GiB)",
            kind=kind,
            peak=peak,
            capacity=capacity,
        )
    without = memory_of(setup, replace(choice, checkpointing=Checkpointing())).peak
    return msg(
        "gradient checkpointing: {kind} (without it the peak would be {peak} GiB; there are {capacity})",
        kind=kind,
        peak=f"{without / _GIB:.1f}",
        capacity=capacity,
    )


def _cache_reason(settings: TrainSettings, setup: Setup, room: Room, choice: EngineChoice) -> Text:
    workload, kind = setup.workload, choice.vision_cache
    name = {"none": msg("none"), "memory": msg("in main memory"), "disk": msg("on disk")}[kind]
    if setup.size.vision is None or not workload.num_pictures:
        return msg("vision cache: {kind} (no pictures)", kind=name)
    if setup.adapter.trains_vision:
        return msg("vision cache: {kind} (vision tower or projector learn, so the features change)", kind=name)
    if not choice.packing:
        return msg("vision cache: {kind} (only with packing)", kind=name)
    whole = cache_bytes(setup)
    fields: dict[str, str | Text] = {
        "kind": name,
        "pictures": f"{workload.num_kept:,}",
        "each": f"{whole / max(1, workload.num_kept) / 1e6:.1f}",
        "whole": f"{whole / 1e9:.1f}",
    }
    if settings.vision_cache != "auto":
        return msg("vision cache: {kind} (by hand; {pictures} pictures x {each} MB = {whole} GB)", **fields)
    if kind != "none":
        return msg(
            "vision cache: {kind} ({pictures} pictures x {each} MB = {whole} GB; each is shown {times} times)",
            times=f"{shown_times(setup):.1f}",
            **fields,
        )
    if shown_times(setup) < 1.5:
        return msg("vision cache: {kind} (hardly a picture is shown twice)", kind=name)
    if whole > KEPT_FREE * max(room.memory, room.disk):
        return msg("vision cache: {kind} ({pictures} pictures x {each} MB = {whole} GB do not fit)", **fields)
    return msg(
        "vision cache: {kind} (reading {whole} GB from disk would be slower than the vision tower)",
        kind=name,
        whole=fields["whole"],
    )


# ---------------------------------------------------------------------------------------------------------------- refusal


def _refusal(
    settings: TrainSettings, setup: Setup, room: Room, *, can_pack: bool, others: Iterable[tuple[Text, TrainSettings, Setup]]
) -> TrainingError:
    if _may_take_8_bit(settings, setup):
        settings = settings.model_copy(update={"optimizer": "adamw_8bit"})
    least = min(
        (memory_of(setup, choice) for choice in _candidates(settings, setup, room, can_pack=can_pack)),
        key=lambda memory: memory.peak,
    )
    fitting: list[Text] = []
    for written, changed, other in others:
        if _fits(changed, other, room, can_pack=can_pack):
            fitting.append(written)
            if len(fitting) == 3:
                break
    capacity = capacity_of(setup.device)
    if least.peak <= capacity:
        what = msg(
            "This run needs {need} GiB of main memory, and {free} GiB are free.",
            need=f"{least.host * room.processes / _GIB:.1f}",
            free=f"{room.memory / _GIB:.1f}",
        )
    else:
        what = msg(
            "This run does not fit: it needs at least {need} GiB on each device, and {device} has {capacity} GiB for it.",
            need=f"{least.peak / _GIB:.1f}",
            device=setup.device.name,
            capacity=f"{capacity / _GIB:.1f}",
        )
    if not fitting:
        return TrainingError(
            what, key="model.base", remedy=msg("Nothing near it fits either: choose a smaller model or a larger GPU.")
        )
    choices = " | ".join(str(written) for written in fitting)
    return TrainingError(what, key="train", remedy=msg("What fits, nearest first: {choices}", choices=choices))

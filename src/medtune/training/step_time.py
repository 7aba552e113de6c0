"""Seconds of an optimizer step. Imports nothing heavy.

Matrix products at the speed that they reach, everything else as bytes moved, Python where it is slower than both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from medtune.training.calibration import CALIBRATION, Calibration
from medtune.training.choice import EngineChoice
from medtune.training.memory import kept_bytes, stored_bytes
from medtune.training.passes import Setup, num_passes, pass_tokens

__all__ = ["StepTime", "evaluation_seconds", "time_of"]


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of an optimizer step, on average over the run.

    Attributes:
        products: Matrix products, attention's included.
        other: Everything else that the GPU does.
        vision: The vision tower, and reading its cache.
        host: Python and launches that the GPU waits for, and the optimizer.
        data: Waiting for pictures to be read.
        communication: Waiting for other devices.
    """

    products: float
    other: float
    vision: float
    host: float
    data: float
    communication: float

    @property
    def total(self) -> float:
        return self.products + self.other + self.vision + self.host + self.data + self.communication


def time_of(setup: Setup, choice: EngineChoice, calibration: Calibration = CALIBRATION) -> StepTime:
    """Seconds of an optimizer step."""
    size, workload, device = setup.size, setup.workload, setup.device
    passes = num_passes(setup, choice)
    tokens = pass_tokens(setup, choice, at_peak=False)
    rows = min(workload.rows_per_step, workload.num_rows)
    again = (size.layers // choice.checkpointing.every / size.layers) if choice.checkpointing.every else 0.0
    # Forward, gradient of the input, and of the weights where those learn.
    times = 2.0 + again + (1.0 if setup.adapter.kind == "full" and "language" in setup.adapter.scopes else 0.0)
    best = device.flops * (1.0 if device.achieved else calibration.matmul_share)
    filled = tokens / (tokens + calibration.half_tokens * 4096 / size.hidden) if device.is_gpu else 1.0
    speed = best * calibration.model_matmul_share * filled
    experts = size.expert_flops_per_token
    products = passes * tokens * times * ((size.flops_per_token - experts) + experts / calibration.grouped_share) / speed
    head_times = 2.0 + (1.0 if setup.adapter.kind == "full" else 0.0)
    products += rows * workload.num_targets / max(1, workload.num_rows) * size.head_flops_per_token * head_times / speed
    mean_square = workload.num_squares / max(1, workload.num_rows)
    # Backward is two and a half times forward (Dao 2023, arXiv:2307.08691, section 4.1).
    attention = rows * size.attention_flops(math.sqrt(mean_square)) * (3.5 + again)
    products += attention / (best * (calibration.attention_share if device.is_gpu else 1.0))

    bandwidth = device.bandwidth * (1.0 if device.achieved else calibration.bandwidth_share)
    traffic = calibration.traffic_compiled if choice.compile else calibration.traffic_eager
    moved = kept_bytes(setup, compiled=choice.compile, calibration=calibration) * traffic
    other = passes * tokens * size.layers * moved * (1 + again / 3) / bandwidth
    if choice.checkpointing.offload and device.is_gpu:
        # There and back; neither way is counted as hidden behind the GPU's work.
        other += 2 * passes * tokens * size.layers * size.hidden * setup.value_bytes / calibration.host_bytes_per_second
    vision = _vision_seconds(setup, choice, best, calibration)

    if device.is_gpu:
        a_layer = calibration.host_layer_compiled if choice.compile else calibration.host_layer_eager
        waiting = max(0.0, passes * size.layers * a_layer * (1 + again / 3) - products - other)
        host = waiting + passes * calibration.micro_seconds * size.layers / 36 + calibration.step_seconds
    else:
        host = passes * size.layers * calibration.host_layer_cpu * (1 + again / 3) + calibration.step_seconds
    computed = products + other + vision + host
    pictures = rows * workload.num_pictures / max(1, workload.num_rows) * (1 - _cached_share(setup, choice))
    reading = pictures * calibration.picture_seconds / max(1, setup.num_workers)
    data = reading if setup.num_workers == 0 else max(0.0, reading - computed)
    communication = setup.division.seconds(
        stored=stored_bytes(setup), trained=4.0 * setup.adapter.num_trainable, passes=passes, link=device.link, computed=computed
    )
    if setup.division.gathers_inside:
        depth = 0 if size.vision is None else size.vision.depth
        blocks = size.layers + (depth if _cached_share(setup, choice) < 1 else 0)
        communication += passes * blocks * calibration.gathering_block
    return StepTime(products, other, vision, host, data, communication)


def _cached_share(setup: Setup, choice: EngineChoice) -> float:
    """Of the pictures shown in the run, those whose features are there already."""
    workload = setup.workload
    if choice.vision_cache == "none" or not workload.num_pictures:
        return 0.0
    rows = workload.num_steps * min(workload.rows_per_step, workload.num_rows) * setup.division.num_devices
    shown = workload.num_pictures * rows / max(1, workload.num_rows)
    return max(0.0, 1 - workload.num_distinct / max(shown, 1e-9))


def _vision_seconds(setup: Setup, choice: EngineChoice, best: float, calibration: Calibration) -> float:
    size, workload = setup.size, setup.workload
    if size.vision is None or not workload.num_pictures:
        return 0.0
    rows = min(workload.rows_per_step, workload.num_rows)
    patches = workload.num_patches / workload.num_rows * rows
    square = math.sqrt(workload.num_patch_squares / workload.num_pictures)
    pictures = workload.num_pictures / workload.num_rows * rows
    flops = size.vision_flops_per_patch * patches + size.vision.attention_flops(square) * pictures
    share = calibration.model_matmul_share
    if setup.device.is_gpu:
        # A tower whose output is kept is not compiled (medtune.training.engine).
        is_compiled = choice.compile and choice.vision_cache == "none"
        share = calibration.vision_share_compiled if is_compiled else calibration.vision_share
    speed = best * share
    cached = _cached_share(setup, choice)
    times = 1 - cached
    if setup.adapter.trains_tower:
        times = 3.0 if setup.adapter.kind == "full" else 2.0
    seconds = flops / speed * times
    if choice.vision_cache == "disk":
        seconds += cached * size.cache_bytes(patches, setup.value_bytes) / calibration.disk_bytes_per_second
    return seconds


def evaluation_seconds(setup: Setup, step: StepTime) -> float:
    """Forward only: of the products a half (a third of a full fine-tune's), of the rest a third."""
    workload = setup.workload
    if not workload.num_evaluations:
        return 0.0
    times = 3.0 if setup.adapter.kind == "full" else 2.0
    a_token = (step.products / times + step.other / 3 + step.vision + step.host / 3) / max(1.0, workload.step_tokens)
    return workload.num_evaluations * workload.eval_tokens * a_token / setup.division.num_devices

"""Settings of a training run. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from medtune.language import msg
from medtune.types import Settings

__all__ = [
    "DEFAULT_WARMUP_RATIO",
    "FREE_ON_RESUME",
    "OWNED_BY_MEDTUNE",
    "DdpSettings",
    "DeepSpeedSettings",
    "DistributedSettings",
    "FsdpSettings",
    "NoDistribution",
    "TrainSettings",
]

DEFAULT_WARMUP_RATIO = 0.03
"""Share of the steps for warm-up; LLaVA-1.5's value (Liu et al. 2023, arXiv:2310.03744, appendix table of hyper-parameters)."""

FREE_ON_RESUME = frozenset(
    {
        "cache_encoded",
        "compile",
        "gradient_checkpointing",
        "keep_best",
        "log_every",
        "micro_batch_tokens",
        "num_workers",
        "on_out_of_memory",
        "patience",
        "save_every",
        "save_total_limit",
        "trackers",
        "trackers_online",
        "vision_cache",
    }
)
"""Settings of the section ``train`` that a resumed run may change: beyond rounding, no optimizer step computes anything else."""

OWNED_BY_MEDTUNE: dict[str, str] = {
    "activation_checkpointing": "train.gradient_checkpointing",
    "bf16": "train.precision",
    "data_seed": "train.seed",
    "dataloader_num_workers": "train.num_workers",
    "dataloader_pin_memory": "train.num_workers",
    "deepspeed": "distributed",
    "disable_tqdm": "",
    "eval_steps": "train.evaluate_every",
    "eval_strategy": "train.evaluate_every",
    "fp16": "train.precision",
    "fsdp": "distributed",
    "fsdp_config": "distributed",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "learning_rate": "train.learning_rate",
    "load_best_model_at_end": "train.keep_best",
    "logging_steps": "train.log_every",
    "logging_strategy": "train.log_every",
    "lr_scheduler_type": "train.schedule",
    "max_grad_norm": "train.max_grad_norm",
    "max_steps": "train.max_steps",
    "metric_for_best_model": "train.keep_best",
    "num_train_epochs": "train.epochs",
    "output_dir": "run.folder",
    "per_device_eval_batch_size": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "remove_unused_columns": "",
    "report_to": "train.trackers",
    "resume_from_checkpoint": "",
    "save_steps": "train.save_every",
    "save_strategy": "train.save_every",
    "save_total_limit": "train.save_total_limit",
    "seed": "train.seed",
    "train_sampling_strategy": "train.group_by_length",
    "use_cpu": "",
    "warmup_ratio": "train.warmup_ratio",
    "warmup_steps": "train.warmup_steps",
    "weight_decay": "train.weight_decay",
}
"""Arguments of ``TrainingArguments`` that ``train.hf`` may not set -> the recipe key that does ("" = none)."""


class TrainSettings(Settings):
    """How the model is tuned.

    The loss is the mean over the supervised tokens of an optimizer step, all micro-batches and devices together, so
    ``batch_size`` x ``gradient_accumulation_steps`` may be cut in any way without changing the result.
    """

    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows. ``max_steps`` wins where it is set."""
    max_steps: Annotated[int, Field(gt=0)] | None = None
    """Optimizer steps, instead of ``epochs``."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate."""
    batch_size: Annotated[int, Field(gt=0)] = 2
    """Times ``gradient_accumulation_steps``: the rows of an optimizer step on each device."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 8
    """Times ``batch_size``: the rows of an optimizer step on each device. How many go through the model at once is
    ``micro_batch_tokens``; without packing it is ``batch_size``."""
    packing: Literal["auto"] | bool = "auto"
    """Put rows one behind the other, without padding and without attention across rows. ``auto``: where the family can."""
    micro_batch_tokens: Literal["auto"] | Annotated[int, Field(gt=0)] = "auto"
    """Tokens that go through the model at once, with packing. The rows of an optimizer step are spread over as few passes as
    that allows, evenly, and a row with more tokens goes alone; the result does not depend on it. ``auto``: as many as fit the
    memory."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up; cosine and linear end at zero."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of all steps in which the learning rate rises from zero. Without this and ``warmup_steps``: 0.03."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Number of steps in which the learning rate rises from zero, instead of ``warmup_ratio``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101); never on biases and norms."""
    optimizer: Literal["auto", "adamw", "adamw_8bit"] = "auto"
    """AdamW with its two states in float32, or in 8 bits with a scale for each 256 values (Dettmers et al. 2022,
    arXiv:2110.02861; needs bitsandbytes): a quarter of the memory, and steps that differ by the rounding of the states. ``auto``:
    float32, but where QLoRA fits the card in no other way. ``train.hf.optim`` names any other optimizer of transformers."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this global 2-norm; 0 = never."""
    router_aux_loss: Annotated[float, Field(gt=0)] | None = None
    """Weight of the loss that keeps the experts of a mixture evenly used (Fedus et al. 2021, arXiv:2101.03961; there 0.01), for
    ``adapter.train_router`` or a full fine-tune. It is measured in each micro-batch, padding left out, and averaged over the
    micro-batches of a step on all devices: unlike the token loss it depends a little on how a step is cut. Not given: none."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Of the computation. ``auto``: bf16 on a GPU that has it, float32 on a CPU."""
    gradient_checkpointing: Literal["auto", "none", "all", "offload"] | Annotated[int, Field(gt=1)] = "auto"
    """Compute activations again in the backward pass: far less memory, up to a third more time. ``all`` layers, a number k (of
    each k layers the first one, in groups counted from the last layer; with fewer than k layers none), or ``offload``: all
    layers, and what is kept of each rests in the main memory. ``auto``: as little as the memory asks for. ``true`` and 1 are
    read as ``all``, ``false`` and 0 as ``none``."""
    vision_cache: Literal["auto", "none", "memory", "disk"] = "auto"
    """Keep what a frozen vision tower makes of a picture, in the main memory or in the run folder, so that later epochs do not
    compute it again. Only with packing, and while tower and projector do not learn; else nothing is kept. ``auto``: when it is
    used again and fits."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the decoder layers with ``torch.compile``. ``auto``: on a GPU, when the run is long enough to win back the half
    minute that it takes."""
    max_tokens: Annotated[int, Field(gt=0)] = 2048
    """Longest row, image tokens included. Nothing is ever cut: see ``too_long``."""
    too_long: Literal["error", "leave-out"] = "error"
    """What to do with rows longer than ``max_tokens``; those left out are listed in the run's ``left_out.jsonl``."""
    group_by_length: bool = False
    """Put rows of similar length into one batch: less padding, a less random order. Packed rows have no padding to save."""
    evaluate_every: Literal["epoch", "never"] | Annotated[int, Field(gt=0)] = "epoch"
    """When the validation loss is measured: every so many steps, after each epoch, or never."""
    patience: Annotated[int, Field(gt=0)] | None = None
    """Stop after this many validation losses in a row that are not a new best."""
    keep_best: bool = True
    """End with the weights of the lowest validation loss instead of the last ones."""
    average_last: Annotated[int, Field(gt=1)] | None = None
    """Also make the mean of the weights at the last so many checkpoints, and keep it where its validation loss is lower than
    what would be kept else (without validation rows: in any case). The averaging of checkpoints of Vaswani et al. 2017
    (arXiv:1706.03762, section 6.1); Izmailov et al. 2018 (arXiv:1803.05407) say why it generalises."""
    save_every: Literal["epoch", "never"] | Annotated[int, Field(gt=0)] = "epoch"
    """When a checkpoint to resume from is saved. The best is saved in any case if ``keep_best``."""
    save_total_limit: Annotated[int, Field(gt=0)] = 2
    """Checkpoints kept: the newest ones. The best is kept besides them."""
    on_out_of_memory: Literal["smaller", "stop"] = "smaller"
    """When memory runs out: go on from the last optimizer step with fewer tokens at once, then with more layers computed
    again (no result changes beyond rounding), or stop; ``--resume`` then goes on that way."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "swanlab"], ...] = ()
    """Also write the losses for these programs, into ``trackers`` in the run folder. Nothing is sent."""
    trackers_online: bool = False
    """Let the trackers send to their services, as their own settings and environment variables say."""
    log_every: Annotated[int, Field(gt=0)] = 10
    """Steps between two log events."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that read and encode rows, per device. Default: 0 on a CPU, else up to 8 of its cores."""
    cache_encoded: bool | Literal["auto"] = "auto"
    """Keep encoded rows in memory, so that pictures are read only once. ``auto``: when they fit into 2 GB."""
    seed: int = 0
    """Of the order of the rows, of dropout and of everything else that is drawn."""
    hf: dict[str, JsonValue] = Field(default_factory=dict)
    """Further arguments of ``transformers.TrainingArguments``, checked by name. None that medtune sets itself."""

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        names: dict[int, str] = {0: "none", 1: "all"}  # False == 0, True == 1
        return names.get(value, value) if isinstance(value, int) else value

    @field_validator("warmup_steps", mode="before")
    @classmethod
    def _whole_steps(cls, value: Any) -> Any:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value
        if not number.is_integer():
            raise ValueError(
                msg("warmup_steps counts optimizer steps; for a share of all steps write warmup_ratio: {share}", share=str(value))
            )
        return int(number)

    @model_validator(mode="after")
    def _one_meaning(self) -> TrainSettings:
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise ValueError(msg("warmup_ratio and warmup_steps exclude each other; remove one"))
        if self.patience is not None and self.evaluate_every == "never":
            raise ValueError(msg("patience needs validation losses, but evaluate_every is never"))
        if self.optimizer != "auto" and "optim" in self.hf:
            raise ValueError(msg("optimizer and hf.optim exclude each other; remove one"))
        for name in self.hf:
            if name in OWNED_BY_MEDTUNE:
                owner = OWNED_BY_MEDTUNE[name]
                raise ValueError(
                    msg("hf.{name} is set by medtune through {owner}", name=name, owner=owner)
                    if owner
                    else msg("hf.{name} is set by medtune itself", name=name)
                )
        return self


class NoDistribution(Settings):
    """One device: the first GPU, or the CPU."""

    kind: Literal["none"] = "none"


class DdpSettings(Settings):
    """PyTorch DistributedDataParallel: a whole model on every device, gradients averaged."""

    kind: Literal["ddp"]
    num_processes: Annotated[int, Field(gt=0)] | None = None
    """Devices of this machine. Default: all GPUs."""


class DeepSpeedSettings(Settings):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). Needs the package ``deepspeed``."""

    kind: Literal["deepspeed"]
    num_processes: Annotated[int, Field(gt=0)] | None = None
    """Devices of this machine. Default: all GPUs."""
    zero_stage: Literal[1, 2, 3] = 2
    """What is divided among the devices: 1 optimizer states, 2 also gradients, 3 also weights. The loss is the same."""
    offload: Literal["none", "cpu"] = "none"
    """Where optimizer states (and weights under stage 3) rest."""
    config_file: Path | None = None
    """A DeepSpeed JSON file of your own, instead of the two settings above."""


class FsdpSettings(Settings):
    """PyTorch FSDP2 (Zhao et al. 2023, arXiv:2304.11277): weights, gradients and optimizer states divided."""

    kind: Literal["fsdp"]
    num_processes: Annotated[int, Field(gt=0)] | None = None
    """Devices of this machine. Default: all GPUs."""
    reshard_after_forward: bool = True
    """Free the gathered weights after the forward pass: less memory, more communication."""
    cpu_offload: bool = False
    """Weights rest in the main memory."""


DistributedSettings = Annotated[
    NoDistribution | DdpSettings | DeepSpeedSettings | FsdpSettings,
    Field(discriminator="kind"),
]
"""One device or many. Read the launch line of a run in its first event."""

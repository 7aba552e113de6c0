"""A small subclass of Hugging Face's ``Trainer``: token-weighted loss, exact order, checkpoints that are complete or absent."""

from __future__ import annotations

import itertools
import math
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from medtune.errors import TrainingError
from medtune.language import msg
from medtune.training.checkpoints import STAGING, load_weights, publish, remove_old, save_weights, write_description
from medtune.training.data import Collator, EncodedRows, RowSampler
from medtune.training.loss import TokenLoss

__all__ = ["TokenWeightedTrainer", "best_step"]


def best_step(log_history: Sequence[dict[str, Any]]) -> int | None:
    """The step with the lowest validation loss so far, the earliest of equals."""
    measured = [(entry["eval_loss"], int(entry["step"])) for entry in log_history if "eval_loss" in entry]
    return min(measured)[1] if measured else None


class TokenWeightedTrainer(Trainer):
    """``Trainer`` whose loss is the sum over all supervised tokens of an optimizer step, divided by their number.

    All micro-batches and all devices count together, so how a step is cut into micro-batches does not matter. Where the
    parent would average batch means (evaluation), tokens are weighted alike too.

    Args:
        sampler: The order of the training rows.
        eval_lengths: Tokens of each validation row; long rows go first and rows of similar length together.
        description: Saved with each checkpoint, see :func:`medtune.training.checkpoints.describe`.
        save_total_limit: Newest checkpoints that are kept, besides the best.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: EncodedRows,
        eval_dataset: EncodedRows | None,
        collator: Collator,
        sampler: RowSampler,
        eval_lengths: Sequence[int],
        callbacks: list[TrainerCallback],
        description: dict[str, Any],
        save_total_limit: int,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # The loss below is summed and divided here; the parent must not divide by the number of micro-batches again.
        self.model_accepts_loss_kwargs = True
        self.tuned = model
        self.rows, self.eval_rows = train_dataset, eval_dataset
        self.folder = Path(args.output_dir or "")
        self.sampler = sampler
        self.eval_lengths = eval_lengths
        self.description = description
        self.save_total_limit = save_total_limit
        self.token_loss = TokenLoss(model)
        self.meter = Meter()
        self._loaders: list[DataLoader[Any]] = []
        self._eval_loader: DataLoader[Any] | None = None
        self._unchecked: list[tuple[tuple[str, ...], Tensor]] = []
        self._staging: Path | None = None

    def close(self) -> None:
        """End the loading processes and take the hook off the model."""
        self.token_loss.close()
        for loader in self._loaders:
            # Left to the garbage collector, each process would be waited for 5 s: the collector closes the queue that tells
            # them to end before it runs the code that tells them.
            iterator: Any = getattr(loader, "_iterator", None)
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()
        self._loaders, self._eval_loader = [], None

    # ------------------------------------------------------------------------------------------------------------- data

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.rows, self.sampler, self._train_batch_size)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:  # noqa: ARG002
        if self._eval_loader is None:
            assert self.eval_rows is not None
            order = sorted(range(len(self.eval_lengths)), key=lambda index: -self.eval_lengths[index])
            self._eval_loader = self._loader(self.eval_rows, order, self.args.eval_batch_size)
        return self._eval_loader

    def _loader(self, rows: EncodedRows, sampler: Any, batch_size: int) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            rows,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=_start_worker,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        # accelerate wraps, and builds a second loader inside.
        self._loaders.append(getattr(prepared, "base_dataloader", prepared))
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The micro-batches of one optimizer step, and the supervised tokens in all of them on all devices."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        for batch in batches:
            if "error" in batch:
                raise batch["error"]
        self.meter.add_tokens(sum(batch["num_tokens"] for batch in batches))
        num_targets = torch.tensor(sum(batch["num_target_tokens"] for batch in batches), device=device, dtype=torch.float32)
        if self.accelerator.num_processes > 1:
            num_targets = self.accelerator.reduce(num_targets, reduction="sum")
        return batches, num_targets

    # ------------------------------------------------------------------------------------------------------------- loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        sample_ids: tuple[str, ...] = inputs.pop("sample_ids", ())
        positions: Tensor | None = inputs.pop("positions", None)
        for name in ("num_target_tokens", "num_tokens"):
            inputs.pop(name, None)
        sums, counts, outputs = self.token_loss(model, inputs, positions)
        total = sums.sum()
        self._remember(sample_ids, total.detach())
        self.meter.add_loss(total.detach(), counts.sum())
        # DDP averages gradients over the processes; the factor turns that into the sum that the common divisor needs.
        loss = total * self.accelerator.num_processes / (counts.sum() if num_items_in_batch is None else num_items_in_batch)
        loss = loss + self._router_loss(outputs)
        return (loss, outputs) if return_outputs else loss

    def _router_loss(self, outputs: Any) -> Tensor | float:
        """The balancing loss of a mixture of experts whose config asks for router logits, averaged over the micro-batches."""
        router_loss = outputs.get("aux_loss") if isinstance(outputs, dict) else None
        if router_loss is None:
            return 0.0
        config = self.accelerator.unwrap_model(self.model).config.get_text_config()
        coefficient: float = getattr(config, "router_aux_loss_coef", 0.0)
        return coefficient * router_loss / self.current_gradient_accumulation_steps  # type: ignore[no-any-return]

    def _remember(self, sample_ids: tuple[str, ...], total: Tensor) -> None:
        self._unchecked.append((sample_ids, total))
        if total.device.type == "cpu":
            self.check_finite()

    def check_finite(self) -> None:
        """Look at the losses since the last look. On a GPU this waits for it, hence only when something is logged or saved.

        Raises:
            TrainingError: A loss is NaN or infinite.
        """
        seen, self._unchecked = self._unchecked, []
        if not seen:
            return
        finite = torch.isfinite(torch.stack([total for _, total in seen])).tolist()
        if not all(finite):
            sample_ids = seen[finite.index(False)][0]
            raise _diverged(self.state.global_step, sample=", ".join(sample_ids))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        # The parent walks over all parameters at every micro-batch for a number that nobody reads.
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.check_finite()
            if not math.isfinite(logs.get("grad_norm") or 0.0):
                raise _diverged(self.state.global_step)
            logs = {**logs, **self.meter.read(self.accelerator.num_processes)}
        super().log(logs, start_time)

    # ------------------------------------------------------------------------------------------------------- evaluation

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,  # noqa: ARG002
        prediction_loss_only: bool | None = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Token-weighted mean loss; the rows that pad the last batch of several devices are not counted twice."""
        self.check_finite()
        model = self.model_wrapped
        model.eval()
        total, num_targets = 0.0, 0
        started = time.monotonic()
        with torch.no_grad():
            for batch in dataloader:
                if "error" in batch:
                    raise batch["error"]
                inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
                sums, counts, _ = self.token_loss(model, inputs, inputs.pop("positions"))
                if self.accelerator.num_processes > 1:
                    sums, counts = self.accelerator.gather_for_metrics((sums, counts))
                total += float(sums.sum(dtype=torch.float64))
                num_targets += int(counts.sum())
        self.meter.pause(time.monotonic() - started)
        metrics = {f"{metric_key_prefix}_loss": total / max(1, num_targets)}
        return EvalLoopOutput(predictions=np.empty(0), label_ids=None, metrics=metrics, num_samples=len(self.eval_lengths))

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_finite()
        folder, staging = self.folder, self.folder / STAGING
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step = int(self.state.global_step)
            write_description(staging / f"checkpoint-{step}", self.description)
            publish(staging, folder, step)
            remove_old(folder, keep=self.save_total_limit, best_step=best_step(self.state.log_history))
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            save_weights(self.tuned, Path(output_dir) if output_dir else self.folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.tuned, Path(resume_from_checkpoint))

    def load_best(self, checkpoint: Path) -> None:
        """Put the weights of a checkpoint back into the model."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            self.state.best_model_checkpoint = str(checkpoint)
            self._load_best_model()
        else:
            load_weights(self.tuned, checkpoint)

    def gathered_weights(self) -> dict[str, Tensor] | None:
        """The whole state dict where the weights are spread over devices (every process must ask), else None."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            weights: dict[str, Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
            return weights
        return None


class Meter:
    """Adds up losses and tokens without waiting for the device, and reads the clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = 0
        self.started = self._since = clock()
        self._loss: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add_tokens(self, num_tokens: int) -> None:
        self._tokens += num_tokens

    def add_loss(self, total: Tensor, num_targets: Tensor) -> None:
        self._loss.append(total)
        self._targets.append(num_targets)

    def pause(self, seconds: float) -> None:
        """Take time out that was not spent on training."""
        self._since += seconds

    def read(self, num_processes: int) -> dict[str, float]:
        """Speed since the last reading (this process's tokens, times the processes), time since the start, peak memory."""
        now = self._clock()
        tokens_per_second = self._tokens * num_processes / max(1e-9, now - self._since)
        self._tokens, self._since = 0, now
        return {
            "tokens_per_second": round(tokens_per_second, 1),
            "seconds": round(now - self.started, 2),
            "peak_memory_mib": peak_memory_mib(),
        }

    def epoch_totals(self) -> Tensor:
        """(2,) float64: summed loss and supervised tokens since the last call."""
        if not self._loss:
            return torch.zeros(2, dtype=torch.float64)
        totals = torch.stack([torch.stack(self._loss).double().sum(), torch.stack(self._targets).double().sum()])
        self._loss, self._targets = [], []
        return totals


def peak_memory_mib() -> int:
    """Most memory in use so far: of the GPU's allocator, or of the process where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    # ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2) of each).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def _start_worker(worker: int) -> None:  # noqa: ARG001
    # A forked process inherits the handlers of StopRequest. Ctrl-C is for the trainer alone; SIGTERM must end the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _diverged(step: int, *, sample: str | None = None) -> TrainingError:
    return TrainingError(
        msg("The loss is no longer a number after step {step}: the training has diverged.", step=step),
        sample=sample,
        key="train.learning_rate",
        remedy=msg(
            "Lower train.learning_rate, lengthen the warm-up or set train.max_grad_norm=1.0, and look at the samples named here."
        ),
    )

"""A small subclass of Hugging Face's ``Trainer``: token-weighted loss, exact order, checkpoints that are complete or absent."""

from __future__ import annotations

import contextlib
import gc
import math
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, save_fsdp_optimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_utils import EvalLoopOutput

from medtune.errors import TrainingError
from medtune.training.agreement import Agreement
from medtune.training.batches import EvalBatches, StepSampler
from medtune.training.checkpoints import STAGING, publish, remove_old, write_description
from medtune.training.data import EncodedRows, MicroBatches, StepCollator
from medtune.training.divergence import all_finite, diverged
from medtune.training.loss import TokenLoss
from medtune.training.meter import Meter
from medtune.training.sharding import gather_trained, put_trained, weights_are_divided
from medtune.training.step_loader import StepLoader
from medtune.training.weights import load_weights, other_weights, read_weights, save_weights
from medtune.types import AdapterContract

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
        sampler: The micro-batches of each optimizer step. To the parent, a step is one batch.
        eval_batches: Those of the validation loss.
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
        collator: StepCollator,
        sampler: StepSampler,
        eval_batches: EvalBatches,
        callbacks: list[TrainerCallback],
        description: dict[str, Any],
        save_total_limit: int,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=MicroBatches(train_dataset),
            eval_dataset=None if eval_dataset is None else MicroBatches(eval_dataset),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # The loss below is summed and divided here; the parent must not divide by the number of micro-batches again.
        self.model_accepts_loss_kwargs = True
        self.tuned = model
        self.rows, self.eval_rows = train_dataset, eval_dataset
        self.folder = Path(args.output_dir or "")
        self.sampler = sampler
        self.collator, self.eval_batches = collator, eval_batches
        self.description = description
        self.save_total_limit = save_total_limit
        self.token_loss = TokenLoss(model)
        self.meter = Meter()
        self.agreement = Agreement(self.accelerator.num_processes, seconds=args.ddp_timeout)
        self._loaders: list[DataLoader[Any]] = []
        self._eval_loader: DataLoader[Any] | None = None
        self._reading: Any = None
        self._unchecked: list[tuple[tuple[str, ...], Tensor]] = []
        self._staging: Path | None = None
        self._collector_spared = False
        self.contract: AdapterContract | None = None
        self.updating = False
        """The optimizer is changing weights: what is in memory is no whole step."""

    def spare_the_collector(self) -> None:
        """Take what is there now out of the garbage collector's sight until :meth:`close`.

        A whole collection looks at each of some million objects of torch, transformers and compiled code: half a second in
        which a GPU runs dry (seen as one step of 1.2 s among steps of 0.45 s, Qwen3-VL-8B on an H100).
        """
        if not self._collector_spared:
            gc.collect()
            gc.freeze()
            self._collector_spared = True

    def close(self) -> None:
        """End the loading processes and take the hook off the model."""
        self.token_loss.close()
        if self._collector_spared:
            gc.unfreeze()
            self._collector_spared = False
        for loader in self._loaders:
            _end_loading(getattr(loader, "_iterator", None))
        self._loaders, self._eval_loader = [], None
        self._read(None)

    def _read(self, iterator: Any) -> None:
        """From now on steps come from ``iterator``: of a loader of ours, or of one that the parent makes for a resumed epoch."""
        if iterator is not self._reading:
            if not any(self._reading is getattr(loader, "_iterator", None) for loader in self._loaders):
                _end_loading(self._reading)
            self._reading = iterator

    # ------------------------------------------------------------------------------------------------------------- data

    def get_train_dataloader(self) -> DataLoader[Any]:
        if not self.args.dataloader_num_workers:
            return self._loader(self.rows, self.sampler)
        num_epochs = math.ceil(self.args.max_steps / max(1, len(self.sampler)))
        loader = StepLoader(MicroBatches(self.rows), self.sampler, num_epochs=num_epochs, **self._loading())
        self._loaders.append(loader)
        return loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:  # noqa: ARG002
        if self._eval_loader is None:
            assert self.eval_rows is not None
            self._eval_loader = self._loader(self.eval_rows, self.eval_batches)
        return self._eval_loader

    def _loader(self, rows: EncodedRows, sampler: Any) -> DataLoader[Any]:
        # Not given to accelerate, which would deal batches out to the devices: the sampler has dealt them out already.
        loader: DataLoader[Any] = DataLoader(MicroBatches(rows), batch_sampler=sampler, **self._loading())
        self._loaders.append(loader)
        return loader

    def _loading(self) -> dict[str, Any]:
        return {
            "collate_fn": self.collator,
            "num_workers": self.args.dataloader_num_workers,
            "persistent_workers": self.args.dataloader_persistent_workers,
            "prefetch_factor": self.args.dataloader_prefetch_factor,
            "pin_memory": self.args.dataloader_pin_memory,
            "worker_init_fn": _start_worker,
            # The seed of the processes is drawn from a generator of its own: else how often they are started, which a resumed run
            # does at other times, would decide what dropout draws.
            "generator": torch.Generator(),
        }

    def get_batch_samples(
        self,
        epoch_iterator: Iterator[dict[str, Any]],
        num_batches: int,  # noqa: ARG002
        device: torch.device,
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The next optimizer step, and the supervised tokens in it on all devices.

        Raises:
            MedtuneError: A row is at fault, on this device or on another.
        """
        self._read(epoch_iterator)
        started = time.monotonic()
        step = next(epoch_iterator)
        self.meter.waited(time.monotonic() - started)
        num_targets, num_micro_batches = self.agreement.check(
            step.get("error"), step.get("num_target_tokens", 0), step.get("num_micro_batches", 0)
        )
        step["num_micro_batches"] = num_micro_batches
        self.meter.add_tokens(step["num_tokens"])
        # Filled there: a number that is copied to a GPU waits for all that the GPU has been given to do.
        return [step], torch.full((), float(num_targets), device=device)

    # ------------------------------------------------------------------------------------------------------------- loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Forward and backward pass of every micro-batch of a step. Gradients of several devices meet at the last one."""
        model.train()
        micro_batches = inputs["micro_batches"]
        total = torch.zeros((), device=self.args.device)
        for number, micro_batch in enumerate(micro_batches):
            is_last = number == len(micro_batches) - 1
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            waiting = contextlib.nullcontext() if is_last or self._shards_by_deepspeed else self.accelerator.no_sync(model)
            with waiting:
                with self.compute_loss_context_manager():
                    loss = self._loss(model, self._to_device(micro_batch), num_items_in_batch, inputs["num_micro_batches"])
                options = {"scale_wrt_gas": False} if self._shards_by_deepspeed else {}
                self.accelerator.backward(loss, **options)
            total += loss.detach()
        return total

    @property
    def _shards_by_deepspeed(self) -> bool:
        return bool(self.accelerator.distributed_type == DistributedType.DEEPSPEED)

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self.args.device, non_blocking=True)
        if isinstance(value, dict):
            return {name: self._to_device(item) for name, item in value.items()}
        return value

    def _loss(
        self, model: nn.Module, micro_batch: dict[str, Any], num_targets: Tensor | int | None, num_micro_batches: float
    ) -> Tensor:
        losses, outputs = self.token_loss(model, micro_batch["inputs"], micro_batch["positions"], micro_batch["targets"])
        total = losses.sum()
        count = len(losses)
        self._remember(micro_batch["sample_ids"], total.detach())
        self.meter.add_loss(total.detach(), count)
        # DDP averages gradients over the processes; the factor turns that into the sum that the common divisor needs.
        loss: Tensor = total * self.accelerator.num_processes / (count if num_targets is None else num_targets)
        return loss + self._router_loss(outputs, num_micro_batches)

    def _router_loss(self, outputs: Any, num_micro_batches: float) -> Tensor | float:
        """The balancing loss of a mixture of experts that returns one, averaged over the micro-batches of all devices."""
        router_loss = outputs.get("aux_loss") if isinstance(outputs, dict) else None
        if router_loss is None:
            return 0.0
        config = self.accelerator.unwrap_model(self.model).config.get_text_config()
        coefficient: float = getattr(config, "router_aux_loss_coef", 0.0)
        # As above, DDP's average is turned into a sum. Micro-batches that stand in for others add nothing and are not counted.
        return coefficient * router_loss * self.accelerator.num_processes / num_micro_batches  # type: ignore[no-any-return]

    def _remember(self, sample_ids: tuple[str, ...], total: Tensor) -> None:
        self._unchecked.append((sample_ids, total))
        if total.device.type == "cpu" and self.accelerator.num_processes == 1:
            self.check_finite()

    def check_finite(self) -> None:
        """Look at the losses since the last look. On a GPU this waits for it, and among several processes it is a meeting, hence
        only when something is logged or saved.

        Raises:
            TrainingError: A loss is NaN or infinite, on this device or on another.
        """
        seen, self._unchecked = self._unchecked, []
        error: TrainingError | None = None
        finite = torch.isfinite(torch.stack([total for _, total in seen])).tolist() if seen else []
        if not all(finite):
            sample_ids = seen[finite.index(False)][0]
            error = diverged(self.state.global_step, sample=", ".join(sample_ids))
        self.agreement.check(error)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        # The parent walks over all parameters at every micro-batch for a number that nobody reads.
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.check_finite()
            if not math.isfinite(logs.get("grad_norm") or 0.0):
                raise diverged(self.state.global_step)
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
        """Token-weighted mean loss; every row is on one device only."""
        self.check_finite()
        model = self.model_wrapped
        model.eval()
        totals = torch.zeros(2, device=self.args.device, dtype=torch.float64)
        started = time.monotonic()
        with torch.no_grad():
            for step in dataloader:
                self.agreement.check(step.get("error"))
                for item in step["micro_batches"]:
                    micro_batch = self._to_device(item)
                    losses, _ = self.token_loss(model, micro_batch["inputs"], micro_batch["positions"], micro_batch["targets"])
                    totals += torch.stack([losses.sum(dtype=torch.float64), totals.new_full((), len(losses))])
        if self.accelerator.num_processes > 1:
            totals = self.accelerator.reduce(totals, reduction="sum")
        total, num_targets = totals.tolist()
        self.meter.pause(time.monotonic() - started)
        metrics = {f"{metric_key_prefix}_loss": total / max(1, num_targets)}
        num_rows = len(self.eval_rows) if self.eval_rows is not None else 0
        return EvalLoopOutput(predictions=np.empty(0), label_ids=None, metrics=metrics, num_samples=num_rows)

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_finite()
        # A gradient that was not finite spoils the weights one step before any loss shows it.
        if self.agreement.sum(float(not all_finite(self._trained_weights())))[0]:
            raise diverged(self.state.global_step)
        started = time.monotonic()
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
        totals = self._keep_epoch_totals()
        if self.args.should_save:
            step = int(self.state.global_step)
            write_description(staging / f"checkpoint-{step}", {**self.description, "epoch": totals}, self.contract)
            publish(staging, folder, step)
            remove_old(folder, keep=self.save_total_limit, best_step=best_step(self.state.log_history))
        self.accelerator.wait_for_everyone()
        self.meter.pause(time.monotonic() - started)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        weights = self.gathered_weights()
        if self.args.should_save:
            save_weights(self.tuned, Path(output_dir) if output_dir else self.folder, weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # The parent would also save the weights a second time, pickled.
        save_fsdp_optimizer(self.accelerator.state.fsdp_plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            scheduler: Any = self.lr_scheduler
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        if not self.is_deepspeed_enabled:  # which reads a checkpoint of its own
            self.load_best(Path(resume_from_checkpoint))

    def save_now(self) -> None:
        """Save a checkpoint of the last whole step, after an error has ended the loop in the next one."""
        self._unchecked = []
        self.meter.forget_unfinished()
        self.tuned.zero_grad(set_to_none=True)
        num_steps = self.state.global_step - self._globalstep_last_logged
        if num_steps:
            self.log({"loss": float(self._tr_loss) / num_steps, "learning_rate": self._get_learning_rate()})
        self.save_again()

    def save_again(self) -> None:
        """Save a checkpoint of this step outside of the loop, in place of one that is there already."""
        self._save_checkpoint(self.model_wrapped, None)
        self.callback_handler.on_save(self.args, self.state, self.control)

    def _keep_epoch_totals(self) -> dict[str, float]:
        """The summed loss and the tokens of the epoch so far, on all devices; :meth:`resume_epoch_totals` brings them back."""
        totals = self.meter.epoch_totals().to(self.args.device)
        if self.accelerator.num_processes > 1:
            totals = self.accelerator.reduce(totals, reduction="sum")
        loss, num_targets = totals.tolist()
        kept = {"loss": loss, "targets": num_targets}
        self.resume_epoch_totals(kept)
        return kept

    def resume_epoch_totals(self, totals: dict[str, float]) -> None:
        """Begin with the totals of a checkpoint. They are of all devices, so one of them counts them."""
        if self.is_world_process_zero():
            self.meter.add_loss(torch.tensor(totals["loss"], device=self.args.device, dtype=torch.float64), int(totals["targets"]))
            self.meter.finish_step()

    def _trained_weights(self) -> list[Tensor]:
        return [parameter for parameter in self.model_wrapped.parameters() if parameter.requires_grad]

    def load_best(self, checkpoint: Path) -> None:
        """Put the weights of a checkpoint back into the model."""
        if not weights_are_divided():
            load_weights(self.tuned, checkpoint)
        elif not put_trained(self.tuned, read_weights(checkpoint)):
            raise other_weights(checkpoint)

    def gathered_weights(self) -> dict[str, Tensor] | None:
        """What is trained, put together where it is divided among devices (every process must ask), else None."""
        return gather_trained(self.tuned) if weights_are_divided() else None


def _end_loading(iterator: Any) -> None:
    """End the loading processes of a loader's iterator, where it has some.

    Left to the garbage collector, each process would be waited for 5 s: the collector closes the queue that tells them to end
    before it runs the code that tells them.
    """
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def _start_worker(worker: int) -> None:  # noqa: ARG001
    # A forked process inherits the handlers of StopRequest. Ctrl-C is for the trainer alone; SIGTERM must end the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

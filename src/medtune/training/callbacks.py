"""When to evaluate, save and stop; and the events that tell of it."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medtune.language import Text, msg
from medtune.runs import Run
from medtune.training.config import TrainSettings
from medtune.training.trainer import TokenWeightedTrainer, best_step
from medtune.types import Event, Listener

__all__ = ["EventCallback", "Journal", "NothingLeft", "ScheduleCallback", "StopRequest", "out_of_patience"]


class StopRequest:
    """Whether somebody asked the run to stop: by Ctrl-C, by SIGTERM, or a listener that raised KeyboardInterrupt.

    The first request lets the current step end, so that a checkpoint can be saved; a second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._heard = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block. Only the main thread of a process may; elsewhere this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # A launcher passes on the signal that the terminal has sent already: two within a second are one request.
        if self.requested and number == signal.SIGINT and time.monotonic() - self._heard > 1.0:
            raise KeyboardInterrupt
        self.requested = True
        self._heard = time.monotonic()


class Journal:
    """Sends events to the listener and appends them to the run folder. Silent on all but the first process."""

    MIN_SECONDS_BETWEEN_PROGRESS = 1.0
    """Progress comes at every step; the file gets it no more often than this."""

    def __init__(self, run: Run, listener: Listener | None, stop: StopRequest, *, silent: bool = False) -> None:
        self._run = run
        self._listener = listener
        self._stop = stop
        self._silent = silent
        self._last_progress = 0.0

    def __call__(self, event: Event) -> None:
        if self._silent:
            return
        if event.kind != "progress" or event.done == event.total or self._progress_due():
            self._run.append(event)
        if self._listener is not None:
            try:
                self._listener(event)
            except KeyboardInterrupt:
                self._stop.requested = True

    def _progress_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_progress < self.MIN_SECONDS_BETWEEN_PROGRESS:
            return False
        self._last_progress = now
        return True


class NothingLeft(Exception):
    """A resumed run had made its last step already. The trainer holds all of the checkpoint when this is raised."""


def out_of_patience(settings: TrainSettings, log_history: Sequence[dict[str, Any]]) -> bool:
    """Whether early stopping ends a run with these validation losses."""
    best = best_step(log_history)
    if settings.patience is None or best is None:
        return False
    worse = {entry["step"] for entry in log_history if "eval_loss" in entry and entry["step"] > best}
    return len(worse) >= settings.patience


class ScheduleCallback(TrainerCallback):
    """Decides when to evaluate, to save and to stop. Keeps no state of its own: a resumed run decides alike.

    All of it happens at the end of a step, and a step's validation comes before its checkpoint. So a checkpoint lies between
    two steps, with nothing of the one before it left to do: whoever goes on from it repeats nothing and misses nothing. The one
    exception is a checkpoint that was saved because memory ran out in a validation, which is then made up for.
    """

    def __init__(self, settings: TrainSettings, *, has_validation: bool, stop: StopRequest) -> None:
        self._settings = settings
        self._has_validation = has_validation
        self._stop = stop
        self.trainer: TokenWeightedTrainer | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        if state.global_step and self._validates_after(state) and not _is_validated(state) and self.trainer is not None:
            self.trainer.evaluate()
            if self.trainer.control.should_save:
                self.trainer.save_again()
        if state.global_step and (state.global_step >= state.max_steps or out_of_patience(self._settings, state.log_history)):
            # The trainer would make one more step before it looks.
            raise NothingLeft

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        if self.trainer is not None:
            self.trainer.updating = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:  # noqa: ARG002
        if self.trainer is not None:
            self.trainer.updating = False
            self.trainer.meter.finish_step()
            self.trainer.meter.count_step()
            if self.trainer.meter.is_warm:
                self.trainer.spare_the_collector()
        last = state.global_step >= state.max_steps
        if self._has_validation:
            control.should_evaluate = self._validates_after(state)
        if self._settings.save_every != "never":
            control.should_save = last or _is_due(self._settings.save_every, state)
        if self._asked_to_stop():
            control.should_training_stop = True
            control.should_save = True
        # The loss since the last log is in no checkpoint, so it is logged before one. A validation may lead to one.
        control.should_log = control.should_log or last or control.should_save or control.should_evaluate
        return control

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:  # noqa: ARG002
        if self._settings.keep_best and best_step(state.log_history) == state.global_step:
            control.should_save = True
        if out_of_patience(self._settings, state.log_history):
            control.should_training_stop = True
        return control

    def _validates_after(self, state: TrainerState) -> bool:
        last = state.global_step >= state.max_steps
        return self._has_validation and (last or _is_due(self._settings.evaluate_every, state))

    def _asked_to_stop(self) -> bool:
        trainer = self.trainer
        if trainer is not None and trainer.accelerator.num_processes > 1:
            # A signal reaches the processes at different steps; all must stop at the same one.
            self._stop.requested = trainer.agreement.sum(float(self._stop.requested))[0] > 0
        return self._stop.requested


def _is_validated(state: TrainerState) -> bool:
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def _is_due(every: str | int, state: TrainerState) -> bool:
    if isinstance(every, int):
        return state.global_step % every == 0
    # Exact: the trainer adds (step + 1) / steps to the number of the epoch, which is 1.0 at the last one.
    return every == "epoch" and float(state.epoch or 0.5).is_integer()


class EventCallback(TrainerCallback):
    """Turns what the trainer does into events."""

    def __init__(self, journal: Journal, run: Run, *, seconds_before: float) -> None:
        self._journal = journal
        self._run = run
        self._seconds_before = seconds_before
        self._epoch: int | None = None
        self._epoch_loss: float | None = None
        self._epoch_speed: float | None = None
        self._first_step = 0
        self.trainer: TokenWeightedTrainer | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._first_step = state.global_step
        self._journal(Event("phase", msg("Training: {steps} steps.", steps=state.max_steps), state.global_step, state.max_steps))

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        assert self.trainer is not None
        if state.global_step == self._first_step:
            self.tell_resumed_epoch(args, state)
        self._tell_epoch(state)
        # A fraction of an epoch that was resumed still has that epoch's order; the tolerance is for 2.9999999.
        self.trainer.sampler.order.epoch = int((state.epoch or 0.0) + 1e-6)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._journal(Event("progress", done=state.global_step, total=state.max_steps))

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, float] | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        if logs is None or ("loss" not in logs and "eval_loss" not in logs):
            return
        names = (
            "loss",
            "eval_loss",
            "learning_rate",
            "grad_norm",
            "epoch",
            "tokens_per_second",
            "data_wait_share",
            "seconds",
            "peak_memory_mib",
        )
        values: dict[str, float | int | str | None] = {"step": state.global_step}
        values |= {name: logs[name] for name in names if name in logs}
        self._journal(Event("log", done=state.global_step, total=state.max_steps, values=values))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._end_epoch(args, state)

    def tell_resumed_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        """Tell of the epoch that ends with the checkpoint a run goes on from: the run before it may not have come to it."""
        ended = float(state.epoch or 0.5).is_integer() or state.global_step >= state.max_steps
        if state.global_step and ended:
            told = any(event["kind"] == "epoch" and event["step"] == state.global_step for event in self._run.events())
            self._end_epoch(args, state)
            if told:
                self._epoch = None
            self._tell_epoch(state)

    def _end_epoch(self, args: TrainingArguments, state: TrainerState) -> None:
        assert self.trainer is not None
        epoch = state.epoch or 0.0
        if abs(epoch - round(epoch)) > 1e-6 and state.global_step < state.max_steps:
            return  # stopped in the middle
        totals = self.trainer.meter.epoch_totals().to(args.device)
        if self.trainer.accelerator.num_processes > 1:
            totals = self.trainer.accelerator.reduce(totals, reduction="sum")
        total, num_targets = totals.tolist()  # waits for the device, so the clock is read after it
        self._epoch_speed = self.trainer.meter.epoch_speed(self.trainer.accelerator.num_processes)
        self._epoch_loss = total / num_targets if num_targets else None
        # Told later: the validation loss of this epoch is measured after this hook.
        self._epoch = math.ceil(epoch - 1e-6)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._tell_epoch(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero:
            return
        self._run.update(
            num_steps=state.global_step,
            num_epochs=state.epoch,
            best_step=best_step(state.log_history),
            seconds=round(self.seconds, 2),
        )
        self._journal(
            Event(
                "checkpoint",
                msg("Saved a checkpoint after step {step}.", step=state.global_step),
                values={"step": state.global_step},
            )
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self._tell_epoch(state)

    @property
    def seconds(self) -> float:
        """Time spent on the run, earlier parts of it included."""
        assert self.trainer is not None
        return self._seconds_before + time.monotonic() - self.trainer.meter.started

    def _tell_epoch(self, state: TrainerState) -> None:
        if self._epoch is None:
            return
        epoch, self._epoch = self._epoch, None
        losses = [entry for entry in state.log_history if "eval_loss" in entry and entry["step"] == state.global_step]
        eval_loss = losses[-1]["eval_loss"] if losses else None
        is_best = eval_loss is not None and best_step(state.log_history) == state.global_step
        self._journal(
            Event(
                "epoch",
                _epoch_line(
                    epoch=epoch,
                    total=max(epoch, round(state.num_train_epochs)),
                    loss=self._epoch_loss,
                    eval_loss=eval_loss,
                    is_best=is_best,
                    speed=self._epoch_speed,
                    seconds_left=self._seconds_left(state),
                ),
                done=epoch,
                values={
                    "step": state.global_step,
                    "loss": self._epoch_loss,
                    "eval_loss": eval_loss,
                    "seconds": round(self.seconds, 2),
                },
            )
        )

    def _seconds_left(self, state: TrainerState) -> float:
        assert self.trainer is not None
        done = state.global_step - self._first_step
        elapsed = time.monotonic() - self.trainer.meter.started
        return elapsed / max(1, done) * max(0, state.max_steps - state.global_step)


def _epoch_line(
    *, epoch: int, total: int, loss: float | None, eval_loss: float | None, is_best: bool, speed: float | None, seconds_left: float
) -> Text:
    fields: dict[str, str | int] = {
        "epoch": epoch,
        "total": total,
        "loss": "-" if loss is None else f"{loss:.4f}",
        "speed": "-" if speed is None else f"{speed:,.0f}",
        "left": clock(seconds_left),
    }
    if eval_loss is None:
        return msg("Epoch {epoch} of {total}: loss {loss}; {speed} tokens/s, {left} left.", **fields)
    fields["eval_loss"] = f"{eval_loss:.4f}"
    if is_best:
        return msg(
            "Epoch {epoch} of {total}: loss {loss}, validation loss {eval_loss} (best so far); {speed} tokens/s, {left} left.",
            **fields,
        )
    return msg("Epoch {epoch} of {total}: loss {loss}, validation loss {eval_loss}; {speed} tokens/s, {left} left.", **fields)


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

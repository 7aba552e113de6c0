"""One training run, from rows and a model to an adapter in the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from medtune import __version__
from medtune.errors import TrainingError
from medtune.language import msg
from medtune.models.adapter import num_elements
from medtune.models.router_loss import router_loss
from medtune.runs import Run
from medtune.training.build import decide, make_trainer
from medtune.training.callbacks import EventCallback, Journal, NothingLeft, StopRequest
from medtune.training.checkpoints import all_checkpoints, read_description, set_aside
from medtune.training.choice import EngineChoice
from medtune.training.config import TrainSettings
from medtune.training.data import RowEncoder
from medtune.training.divergence import check_worth_resuming
from medtune.training.engine import engine
from medtune.training.finish import conclude, finish, save, save_last
from medtune.training.forecast import Forecast, forecast_events
from medtune.training.outcome import check_average
from medtune.training.plan import Measured, Plan, make_plan, measure
from medtune.training.recovery import (
    allocator_words,
    free_memory,
    is_out_of_memory,
    make_smaller,
    memory_explained,
    note_choice,
    remembered,
)
from medtune.training.session import cpu_threads, failures_noted, left_as_it_came, quiet_libraries
from medtune.training.space import check_space, full_disk_explained
from medtune.training.trackers import tracked
from medtune.training.trainer import TokenWeightedTrainer
from medtune.training.vision_cache import keep_features, remove_features
from medtune.training.weights import load_weights
from medtune.types import AdapterContract, Event, ImageRef, Listener, RunRecord, Sample

__all__ = ["train"]


def train(
    run: Run,
    *,
    model: nn.Module | Callable[[], nn.Module],
    encoder: RowEncoder,
    train_rows: Sequence[Sample],
    validation_rows: Sequence[Sample] = (),
    picture: Callable[[ImageRef], Path | bytes],
    settings: TrainSettings,
    contract: AdapterContract | None = None,
    foretell: Callable[[Measured], Forecast | None] | None = None,
    listener: Listener | None = None,
    resume: bool = False,
) -> RunRecord:
    """Tune ``model`` on ``train_rows`` and leave the result in the run folder.

    Writes ``adapter/`` (``model/`` when the weights themselves are tuned) with ``contract.json`` and
    ``adapter_report.json``, ``loss.png``, ``checkpoints/``, ``events.jsonl``, ``run.json``, and ``left_out.jsonl`` where
    rows were left out. On return ``model`` holds the saved weights and is in eval mode.

    Takes hold of the run (:meth:`medtune.runs.Run.hold`) itself; the caller must not hold it. Under a launcher of several
    processes every process calls this with the same arguments, and the first one writes.

    Args:
        run: An existing run folder.
        model: With its adapter, as :func:`medtune.models.adapter.add_adapter` returns it; some parameters must require a
            gradient. Or a function that loads it: it is called when the rows are measured and the run is known to fit.
        encoder: Turns rows into tensors.
        train_rows: Rows to tune on.
        validation_rows: Rows for the validation loss; empty = none is measured.
        picture: The file or the bytes of a picture.
        settings: The recipe's section ``train``.
        contract: Saved beside the adapter; ``encoder.contract()`` when not given. Give one that holds the transforms of the
            data set.
        foretell: Chooses the engine's settings from the measured rows and says what the run will need, before the model is
            loaded. Without it what the recipe leaves open is chosen without regard to memory.
        listener: Hears every event. It may raise ``KeyboardInterrupt`` to stop the run after the current step.
        resume: Go on from the last complete checkpoint, with the same losses as if the run had never stopped. Starts from
            the beginning where there is none yet.

    Returns:
        The run's record, with status ``trained``.

    Raises:
        TrainingError: There is nothing to train on, a row is longer than ``max_tokens``, the loss became NaN, memory ran
            out, or the checkpoint was made by other settings, rows or weights. The run is marked ``failed``.
        RecipeError: ``settings.hf`` holds an unknown argument.
        RunError: The run is held by another process.
        DataError: A picture or a row cannot be read.
        KeyboardInterrupt: Ctrl-C, SIGTERM or the listener. The step was finished, a checkpoint saved, and the run marked
            ``interrupted``.
    """
    is_first = int(os.environ.get("RANK", "0")) == 0
    stop = StopRequest()
    journal = Journal(run, listener, stop, silent=not is_first)
    with run.hold() if is_first else contextlib.nullcontext():
        _check_startable(run, resume)
        if _result_is_saved(run):
            load_weights(model if isinstance(model, nn.Module) else model(), run.folder / "adapter")
            return conclude(run, journal) if is_first else run.record
        if resume:
            check_worth_resuming(run, journal)
        noted = failures_noted(run, enabled=is_first)
        with noted, memory_explained(run), quiet_libraries(), cpu_threads(), tracked(run, settings), stop.listening():
            measured = measure(
                run,
                encoder=encoder,
                train_rows=train_rows,
                validation_rows=validation_rows,
                settings=settings,
                journal=journal,
            )
            forecast = foretell(measured) if foretell is not None else None
            if forecast is not None:
                for event in forecast_events(forecast):
                    journal(event)
                if is_first:
                    run.update(planned=forecast.planned)
            if not isinstance(model, nn.Module):
                model = model()
            plan = make_plan(
                run,
                measured,
                model=model,
                encoder=encoder,
                picture=picture,
                settings=settings,
                journal=journal,
                resume=resume,
            )
            counts = _count_parameters(model)
            if is_first:
                _clean(run.checkpoints)
                check_space(run, model)
                run.update(status="training", error=None, num_steps_planned=plan.num_steps, trainable=counts, versions=_versions())
            journal(
                Event(
                    "note",
                    msg(
                        "Training {trainable} of {total} parameters ({percent} %).",
                        trainable=f"{counts['trainable']:,}",
                        total=f"{counts['total']:,}",
                        percent=f"{100 * counts['trainable'] / counts['total']:.2f}",
                    ),
                    values=counts,
                )
            )
            choice = decide(settings, model, forecast)
            return _fit(run, plan, model, settings, choice, contract or encoder.contract(), journal, stop, is_first=is_first)


def _fit(
    run: Run,
    plan: Plan,
    model: nn.Module,
    settings: TrainSettings,
    choice: EngineChoice,
    contract: AdapterContract,
    journal: Journal,
    stop: StopRequest,
    *,
    is_first: bool,
) -> RunRecord:
    if plan.checkpoint is not None:
        choice = remembered(run, settings, choice)
        # The states in the checkpoint are this optimizer's.
        choice = dataclasses.replace(choice, optimizer=read_description(plan.checkpoint).get("optimizer", choice.optimizer))
    plan.description["optimizer"] = choice.optimizer
    base = plan.train.encoder.folder
    while True:
        if is_first:
            note_choice(run, settings, choice)
        with left_as_it_came(model), full_disk_explained(run, model), contextlib.ExitStack() as stack:
            stack.enter_context(engine(model, choice))
            stack.enter_context(router_loss(model, settings.router_aux_loss))
            trainer, events = make_trainer(run, plan, model, settings, choice, journal, stop)
            stack.enter_context(contextlib.closing(trainer))
            trainer.contract = contract
            check_average(settings, trainer)
            _begin(trainer, plan, is_first=is_first)
            if choice.vision_cache != "none" and plan.train.vision is None:
                keep_features(
                    run,
                    model,
                    [plan.train, plan.validation],
                    choice.vision_cache,
                    num_workers=trainer.args.dataloader_num_workers,
                    journal=journal,
                    agreement=trainer.agreement,
                )
            ran_out = _train(trainer, events, plan)
            if ran_out is None:
                last = functools.partial(save_last, run, trainer, contract, base)
                outcome = finish(run, plan, trainer, settings, journal, stop, last)
            else:
                free_memory()
                choice, checkpoint = make_smaller(run, plan, trainer, settings, choice, journal, ran_out)
                plan = dataclasses.replace(plan, checkpoint=checkpoint)
        if ran_out is None:
            if is_first:
                remove_features(run.folder)
            with full_disk_explained(run, model):
                return save(run, trainer, events, outcome, contract, base, journal)
        # The next one must not find the memory taken by the optimizer of this one.
        del trainer, events, stack
        free_memory()


def _begin(trainer: TokenWeightedTrainer, plan: Plan, *, is_first: bool) -> None:
    trainer.accelerator.wait_for_everyone()  # all have looked at the checkpoints
    if is_first:
        for damaged in plan.damaged:
            if damaged.exists():
                set_aside(damaged)
    if plan.checkpoint is not None:
        trainer.resume_epoch_totals(read_description(plan.checkpoint)["epoch"])


def _train(trainer: TokenWeightedTrainer, events: EventCallback, plan: Plan) -> str | None:
    """Run the training loop to its end. Returns the allocator's words when memory ran out, else None."""
    try:
        trainer.train(resume_from_checkpoint=str(plan.checkpoint) if plan.checkpoint else None)
        trainer.check_finite()
    except NothingLeft:
        events.tell_resumed_epoch(trainer.args, trainer.state)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return allocator_words(error)
    return None


def _result_is_saved(run: Run) -> bool:
    """Whether a run was killed in the moment between saving its adapter, which is the last thing it does, and saying so."""
    return (run.folder / "adapter").is_dir() and run.record.status != "trained"


def _check_startable(run: Run, resume: bool) -> None:
    if run.adapter is not None and (run.record.status == "trained" or not resume):
        raise TrainingError(
            msg("This run has finished training already."),
            file=run.folder,
            remedy=msg("Start another run with run.name=..., or continue from its adapter with adapter.init_from=..."),
        )
    if not resume and all_checkpoints(run.checkpoints):
        raise TrainingError(
            msg("This run was started before and has checkpoints."),
            file=run.folder,
            remedy=msg("Continue it with --resume, or start another run with run.name=..."),
        )


def _clean(checkpoints: Path) -> None:
    """Take away what a crash left half-written."""
    if checkpoints.is_dir():
        for path in checkpoints.iterdir():
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)


def _count_parameters(model: nn.Module) -> dict[str, int]:
    counts = {"trainable": 0, "total": 0}
    for parameter in model.parameters():
        counts["total"] += num_elements(parameter)
        counts["trainable"] += num_elements(parameter) if parameter.requires_grad else 0
    return counts


def _versions() -> dict[str, str]:
    import accelerate
    import peft
    import transformers

    return {
        "medtune": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }

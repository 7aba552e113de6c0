"""A training run as data: what a worker process needs to know, written into the run folder for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medtune.data.dataset import Dataset
from medtune.errors import ModelError, RunError
from medtune.language import msg
from medtune.models.adapter import add_adapter
from medtune.models.config import AdapterSettings, LoraSettings, ModelSettings, QloraSettings
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.runs import Run, atomic_write
from medtune.schema import read_fault
from medtune.training.config import DistributedSettings, NoDistribution, TrainSettings
from medtune.training.forecast import Forecast, plan_run
from medtune.training.locality import locked_by, refuse_sending
from medtune.training.plan import Measured, world_size
from medtune.training.train import train
from medtune.types import Document, Listener, RunRecord

__all__ = ["JOB_FILE", "TrainJob", "read_job", "run_job", "write_job"]

JOB_FILE = "job.json"


class TrainJob(Document):
    """What :func:`run_job` does.

    Attributes:
        dataset: The data set's folder, with the splits ``train`` and ``validation``.
        box_convention: How the rows write boxes, for the adapter contract; None = as the base model does.
        resume: Go on from the last checkpoint.
    """

    dataset: Path
    model: ModelSettings
    adapter: AdapterSettings = Field(default_factory=LoraSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    distributed: DistributedSettings = Field(default_factory=NoDistribution)
    box_convention: Literal["relative-1000", "pixels", "none"] | None = None
    resume: bool = False


def write_job(run: Run, job: TrainJob) -> None:
    """Put ``job.json`` into the run folder."""
    atomic_write(run.folder / JOB_FILE, job.model_dump_json(indent=2) + "\n")


def read_job(run: Run) -> TrainJob:
    """``job.json`` of a run folder.

    Raises:
        RunError: It is missing or damaged.
    """
    path = run.folder / JOB_FILE
    try:
        return TrainJob.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            msg("{name} cannot be read: {error}", name=JOB_FILE, error=read_fault(error)),
            file=path,
            remedy=msg("Start the training with `medtune train`, which writes it."),
        ) from error


def run_job(run: Run, job: TrainJob, *, listener: Listener | None = None) -> RunRecord:
    """Load data set, encoder and model, and train in this process.

    Raises:
        MedtuneError: As the rooms that it goes through, and as :func:`medtune.training.train.train`.
        KeyboardInterrupt: As :func:`medtune.training.train.train`.
    """
    import torch

    # Segments that grow: rows of changing lengths would else leave holes of several GiB. Read when CUDA is first used.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    dataset = Dataset.open(job.dataset)
    lock = locked_by(dataset, job.adapter)
    refuse_sending(job.train, lock)
    # What the recipe leaves open (pixel limits, system prompt) is then as the adapter to continue from had it.
    encoder = load_encoder(job.model, adapter=job.adapter.init_from if isinstance(job.adapter, LoraSettings) else None)
    manifest = dataset.manifest
    contract = encoder.contract(transforms=manifest.transforms, displays=manifest.displays, box_convention=job.box_convention)
    contract = contract.model_copy(update={"local_only": lock is not None})
    quantization = job.adapter if isinstance(job.adapter, QloraSettings) else None

    def load() -> torch.nn.Module:
        base: Any = load_model(job.model, device=_own_device(), quantization=quantization)
        torch.manual_seed(job.train.seed)  # an adapter's first weights are drawn
        return add_adapter(base, job.adapter, encoder.family, contract=contract)

    def foretell(measured: Measured) -> Forecast | None:
        try:
            return plan_run(
                measured.train,
                measured.lengths,
                eval_rows=measured.validation,
                eval_lengths=measured.eval_lengths,
                encoder=encoder,
                model=job.model,
                adapter=job.adapter,
                settings=job.train,
                distributed=job.distributed,
                num_devices=world_size(),
                folder=run.folder,
            )
        except ModelError:
            return None  # a model whose size cannot be told from its folder may train all the same

    return train(
        run,
        model=load,
        foretell=foretell,
        encoder=encoder,
        contract=contract,
        train_rows=dataset.sequence("train"),
        validation_rows=dataset.sequence("validation"),
        picture=dataset.picture,
        settings=job.train,
        listener=listener,
        resume=job.resume,
    )


def _own_device() -> str | None:
    """The device of this process under a launcher; None leaves the choice to the loader."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    if rank is None:
        return None
    return f"cuda:{rank}" if torch.cuda.is_available() else "cpu"

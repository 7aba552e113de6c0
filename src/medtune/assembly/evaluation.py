"""What an evaluation checks and writes down of a run before its questions are asked."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from medtune.assembly.listener import say
from medtune.errors import PluginError, RunError
from medtune.language import msg
from medtune.plugins import resolve, resolve_stored
from medtune.recipe import Recipe
from medtune.runs import Run
from medtune.types import Event, Listener

if TYPE_CHECKING:
    from medtune.data.dataset import Dataset


def trained(run: Run) -> Path:
    """The adapter of a run, or the tuned model of a full fine-tune.

    Raises:
        RunError: The run has not been trained to its end.
    """
    if run.adapter is None:
        raise RunError(
            msg("This run has not been trained: it has no adapter."),
            file=run.folder,
            remedy=msg("Go on with `medtune train {folder} --resume`.", folder=run.folder),
        )
    return run.adapter


def check_metrics(recipe: Recipe) -> None:
    """Look for the metrics that the recipe names before the questions are asked.

    Raises:
        PluginError: There is no such metric.
    """
    for name in recipe.evaluation.metrics or ():
        try:
            resolve("metric", name)
        except PluginError as error:
            error.key = "evaluation.metrics"
            raise


def provenance(run: Run, overrides: Sequence[str], *, overwrite: bool) -> dict[str, JsonValue]:
    """What a report says about where its numbers come from: the command, and what the tuned model was made with."""
    record = run.record
    # A folder given in full may name a person; the run's name says enough for a report that is handed on.
    place = run.folder.name if run.folder.is_absolute() else str(run.folder)
    words = ["medtune", "evaluate", place, *overrides, *(["--overwrite"] if overwrite else [])]
    base = record.base_model if record.base_revision is None else f"{record.base_model} ({record.base_revision})"
    return {"command": shlex.join(words), "base_model": base, "trained_with": dict(record.versions)}


def identities(recipe: Recipe, tuned: Path) -> dict[str, str]:
    """What names the weights behind each label of :func:`generators`, so that answers of two models are never mixed."""
    generator = recipe.generation.generator
    if generator.kind == "hf":
        return {"tuned": weights_hash(tuned)}
    if generator.kind == "vllm":  # its kernels round otherwise, so its answers do not stand beside those of hf
        return {"base": "vllm", "tuned": f"vllm: {weights_hash(tuned)}"}
    return {"tuned": f"openai: {generator.model}" if generator.kind == "openai" else generator.kind}


def weights_hash(folder: Path) -> str:
    """First 16 hexadecimal digits of a sha256 over the weight files of an adapter or a model."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def check_transforms(dataset: Dataset, tuned: Path, listener: Listener | None = None) -> None:
    """Pictures that a model is asked about must have gone through what its training pictures went through.

    Raises:
        ModelError: The data set was prepared with other transforms, or shows measured values in other colours.
    """
    from medtune.imaging.display import compare_displays
    from medtune.models.contract import check_contract, read_contract

    contract, manifest = read_contract(tuned), dataset.manifest
    now = contract.model_copy(update={"transforms": manifest.transforms, "displays": manifest.displays})
    check_contract(contract, now, tuned)
    if compare_displays(contract.displays, manifest.displays) == "greys":
        shown = {"trained": ", ".join(contract.displays), "asked": ", ".join(manifest.displays)}
        say(
            listener,
            Event("note", msg("The model was trained on pictures shown as {trained}; these are shown as {asked}.", **shown)),
        )


def tell_of_boxes(dataset: Dataset, tuned: Path, listener: Listener | None) -> None:
    """Say when the base model was taught to write boxes in another unit than the questions ask for."""
    from medtune.models.contract import read_contract

    family = resolve_stored("family", read_contract(tuned).family)
    if "detection" in dataset.manifest.tasks and family.box_convention == "pixels":
        what = msg(
            "{family} was taught boxes in pixels of the resized picture, and is asked for 0 to 1000: low box scores of the base "
            "model may be its unit, not its eyes.",
            family=family.name,
        )
        say(listener, Event("note", what))

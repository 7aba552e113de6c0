"""TensorBoard, Weights & Biases, MLflow and SwanLab, through the Trainer's own integrations: set up to write here and send nothing.

The integrations read environment variables, so those are what this module sets, for as long as a run trains. What a variable
does is said by the trackers' own pages: https://docs.wandb.ai/ref/python/environment-variables,
https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html,
https://docs.swanlab.cn/en/api/environment-variable.html, and transformers' ``integration_utils``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtune.errors import MissingDependencyError
from medtune.language import msg
from medtune.runs import Run
from medtune.training.config import TrainSettings

__all__ = ["FOLDER", "check_trackers", "environment", "recipe_hash", "tracked"]

FOLDER = "trackers"
"""In the run folder; one folder below it for each tracker."""

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "swanlab": "swanlab"}

_NEVER_WEIGHTS = {
    "WANDB_LOG_MODEL": "false",
    "WANDB_WATCH": "false",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_MLFLOW_LOG_ARTIFACTS": "FALSE",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Numbers and settings are tracked: never weights, sources, or reports to the trackers' makers."""


def check_trackers(settings: TrainSettings) -> None:
    """Look for the packages before hours go into a run.

    Raises:
        MissingDependencyError: A tracker is not installed.
    """
    for name in settings.trackers:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise MissingDependencyError(_PACKAGES[name], needed_for=msg("train.trackers={name}", name=name))


@contextlib.contextmanager
def tracked(run: Run, settings: TrainSettings) -> Iterator[None]:
    """Inside, the Trainer's integrations find what they need; afterwards the environment is as it was."""
    changes = environment(run, settings)
    before = {name: os.environ.get(name) for name in changes}
    begun = [name for name in settings.trackers if _is_recording(name)]
    os.environ.update(changes)
    try:
        yield
    finally:
        # Else the next run of this process would be written into the record of this one.
        for name in settings.trackers:
            if name not in begun and _is_recording(name):
                getattr(sys.modules[name], _END[name])()
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def environment(run: Run, settings: TrainSettings) -> dict[str, str]:
    """The variables for the trackers of a run. Online, only what the user has not set is set, and nothing that forbids sending."""
    # Inside a Kubeflow job transformers reports to its controller without being asked.
    values = {} if settings.trackers_online else {"DISABLE_KUBEFLOW_INTEGRATION": "TRUE"}
    if not settings.trackers:
        return values
    values |= _NEVER_WEIGHTS
    folder = run.folder.absolute() / FOLDER
    digest = recipe_hash(run)
    recipe = run.record.recipe
    places = {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "WANDB_PROJECT": "medtune",
        "WANDB_DIR": _made(folder / "wandb") if "wandb" in settings.trackers else str(folder),
        "WANDB_TAGS": f"{recipe},recipe-{digest}",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "medtune",
        "MLFLOW_TAGS": json.dumps({"recipe": recipe, "recipe_hash": digest}),
        "SWANLAB_PROJECT": "medtune",
        "SWANLAB_LOG_DIR": _made(folder / "swanlab") if "swanlab" in settings.trackers else str(folder),
        "SWANLAB_TAGS": f"{recipe},recipe-{digest}",
    }
    if "mlflow" in settings.trackers:
        _made(folder / "mlflow")
    if settings.trackers_online:
        # Files of a tracker that sends are its own affair; what the user has said of server and project stays.
        del places["MLFLOW_TRACKING_URI"]
        return values | {name: value for name, value in places.items() if name not in os.environ}
    return values | places | {"WANDB_MODE": "offline", "SWANLAB_MODE": "offline"}


def recipe_hash(run: Run) -> str:
    """First 12 hexadecimal digits of the sha256 of the run's ``recipe.yaml``: runs with the same tag differ in nothing."""
    return hashlib.sha256(run.recipe_path.read_bytes()).hexdigest()[:12]


_END = {"wandb": "finish", "mlflow": "end_run", "swanlab": "finish"}


def _is_recording(name: str) -> bool:
    """Whether a tracker that was imported has a run open in this process."""
    module: Any = sys.modules.get(name)
    if module is None or name not in _END:
        return False
    found = {"wandb": "run", "mlflow": "active_run", "swanlab": "get_run"}[name]
    run = getattr(module, found, None)
    return (run() if callable(run) and name != "wandb" else run) is not None


def _made(folder: Path) -> str:
    # A tracker that cannot find its folder writes into a temporary one, or into the current one.
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)

"""From the name of a base model to a folder on this machine."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from medtune.errors import MissingDependencyError, ModelError
from medtune.language import msg
from medtune.models.config import ModelSettings
from medtune.schema import read_fault

EMBEDDED = "medtune-nano"
"""The small model in the package's folder ``nano``."""

_UNWANTED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*")


def base_folder(settings: ModelSettings, *, weights: bool = True) -> Path:
    """The folder of ``settings.base``, fetched from the hub when it is not here yet.

    Args:
        weights: False fetches only the small files (config, tokenizer, processor).

    Raises:
        ModelError: There is no such folder or model, it is not a model, or the hub cannot be reached.
        MissingDependencyError: ModelScope is asked for and its package is not installed.
    """
    base = settings.base
    local = Path(base).expanduser()
    if settings.hub == "local" or (settings.hub == "auto" and (local.is_dir() or base == EMBEDDED or _looks_like_path(base))):
        folder = Path(str(resources.files("medtune") / "nano")) if base == EMBEDDED and not local.is_dir() else local
        if not folder.is_dir():
            raise ModelError(
                msg("There is no such model folder."),
                file=folder,
                key="model.base",
                remedy=msg("Give the folder of a model, or an id such as Qwen/Qwen3-VL-4B-Instruct."),
            )
    elif settings.hub == "modelscope":
        folder = _from_modelscope(settings, weights)
    else:
        folder = _from_huggingface(settings, weights)
    read_config(folder)
    if weights:
        require_safetensors(folder)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model folder.

    Raises:
        ModelError: The folder is not a model.
    """
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            msg("This folder is not a model: it has no config.json."),
            file=folder,
            key="model.base",
            remedy=msg("Give the folder that holds config.json and *.safetensors."),
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            msg("config.json cannot be read: {error}", error=read_fault(error)), file=path, key="model.base"
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(msg("This folder is not a model: its config.json names no model_type."), file=path, key="model.base")
    return config


def config_hash(folder: Path) -> str:
    """sha256 of ``config.json``'s bytes."""
    return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()


def _looks_like_path(base: str) -> bool:
    return base.startswith((".", "/", "~")) or base.count("/") != 1 or "\\" in base


def require_safetensors(folder: Path) -> None:
    """Check that a model folder has weights, and none but safetensors would be read.

    Raises:
        ModelError: It has pickled weights only, or none.
    """
    if any(folder.glob("*.safetensors")):
        return
    if any(path.suffix in (".bin", ".pt", ".pth", ".ckpt") for path in folder.iterdir()):
        raise ModelError(
            msg("The weights are pickle files (.bin, .pt), which can run code when they are read."),
            file=folder,
            key="model.base",
            remedy=msg("Use a copy of the model with *.safetensors."),
        )
    raise ModelError(
        msg("This model folder has no weights: no *.safetensors."),
        file=folder,
        key="model.base",
        remedy=msg("Fetch the whole model again; the download may have been cut off."),
    )


def _from_huggingface(settings: ModelSettings, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    unwanted = list(_UNWANTED) if weights else [*_UNWANTED, "*.safetensors"]
    try:
        return Path(snapshot_download(settings.base, revision=settings.revision, ignore_patterns=unwanted))
    except RevisionNotFoundError as error:
        raise ModelError(
            msg("The model {base} has no revision {revision}.", base=settings.base, revision=settings.revision or "main"),
            key="model.revision",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            msg("Hugging Face has no model {base}, and there is no folder of that name.", base=settings.base),
            key="model.base",
            remedy=msg("Check the spelling; for a private or gated model run `hf auth login` first."),
        ) from error
    except Exception as error:  # connection errors are of whichever HTTP library the hub client uses this year
        raise ModelError(
            msg("The model {base} is not on this machine, and Hugging Face cannot be reached.", base=settings.base),
            key="model.base",
            remedy=msg(
                "Go online once, set HF_ENDPOINT to a mirror, use model.hub=modelscope, or copy the model here and give its folder."
            ),
        ) from error


def _from_modelscope(settings: ModelSettings, weights: bool) -> Path:
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise MissingDependencyError("modelscope", needed_for=msg("model.hub=modelscope"), pip="'medtune[modelscope]'") from error
    unwanted = list(_UNWANTED) if weights else [*_UNWANTED, "*.safetensors"]
    try:
        return Path(snapshot_download(settings.base, revision=settings.revision, ignore_file_pattern=unwanted))
    except Exception as error:  # modelscope raises a dozen unrelated classes for "not found" and "not reachable"
        raise ModelError(
            msg("ModelScope did not give the model {base}: {error}", base=settings.base, error=str(error).splitlines()[0]),
            key="model.base",
            remedy=msg("Check the spelling and the connection, or copy the model here and give its folder."),
        ) from error

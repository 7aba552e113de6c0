"""The adapter contract: written beside an adapter, and enforced wherever the adapter is used."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from medtune.errors import ModelError
from medtune.imaging.display import compare_displays
from medtune.language import Text, msg
from medtune.models.config import ModelSettings
from medtune.models.family import BoxConvention, Family
from medtune.models.hub import config_hash
from medtune.plugins import resolve_stored
from medtune.runs import atomic_write
from medtune.schema import read_fault
from medtune.types import AdapterContract, TransformRecord

FILE_NAME = "contract.json"


def build_contract(
    settings: ModelSettings,
    folder: Path,
    *,
    family: Family,
    template: str,
    limits: tuple[int, int] | None,
    resize_backend: str | None,
    transforms: tuple[TransformRecord, ...],
    displays: tuple[str, ...],
    box_convention: BoxConvention | None,
) -> AdapterContract:
    """The contract of what is trained with these settings on the model in ``folder``."""
    # A hub's snapshot folder is named by its commit, which says more than the branch that was asked for.
    revision = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else settings.revision
    return AdapterContract(
        base_model=settings.base,
        base_revision=revision,
        base_config_hash=config_hash(folder),
        family=family.name,
        chat_template_hash=hashlib.sha256(template.encode("utf-8")).hexdigest(),
        min_pixels=limits[0] if limits else None,
        max_pixels=limits[1] if limits else None,
        resize_backend=resize_backend,
        transforms=transforms,
        displays=displays,
        box_convention=box_convention or family.box_convention,
        system_prompt=settings.system_prompt,
    )


def write_contract(contract: AdapterContract, adapter: Path) -> None:
    """Write ``contract.json`` into an adapter folder."""
    atomic_write(adapter / FILE_NAME, contract.model_dump_json(indent=2) + "\n")


def read_contract(adapter: Path) -> AdapterContract:
    """``contract.json`` of an adapter folder.

    Raises:
        ModelError: There is no such folder, or its contract is missing or damaged.
    """
    path = adapter / FILE_NAME
    if not adapter.is_dir():
        raise ModelError(msg("There is no such adapter folder."), file=adapter, remedy=msg("`medtune runs list` shows the runs."))
    try:
        return AdapterContract.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            msg("The adapter has no contract.json, so nobody knows how its pictures and prompts were made."),
            file=adapter,
            remedy=msg("Use an adapter that medtune trained."),
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(msg("contract.json cannot be read: {error}", error=read_fault(error)), file=path) from error


def with_contract(settings: ModelSettings, contract: AdapterContract | None, adapter: Path | None) -> ModelSettings:
    """The settings, with what they leave open filled in from the contract.

    Raises:
        ModelError: They set a system prompt other than the contract's.
        PluginError: The contract names a family that is not known here.
    """
    if contract is None:
        return settings
    if settings.system_prompt is not None and settings.system_prompt != contract.system_prompt:
        raise _broken(
            adapter,
            "model.system_prompt",
            contract.system_prompt or "-",
            settings.system_prompt,
            msg("Leave model.system_prompt out."),
        )
    if settings.family is None:
        resolve_stored("family", contract.family)
    return ModelSettings.model_validate(
        {
            **settings.model_dump(),
            "min_pixels": settings.min_pixels or contract.min_pixels,
            "max_pixels": settings.max_pixels or contract.max_pixels,
            "resize_backend": settings.resize_backend or contract.resize_backend,
            "system_prompt": contract.system_prompt,
            "family": settings.family or contract.family,
        }
    )


def check_contract(trained: AdapterContract, now: AdapterContract, adapter: Path) -> None:
    """Compare the contract an adapter was trained under with what it is about to be used with.

    ``base_model`` may differ: the same model has one name on a hub and another as a folder. The hash of its config says
    whether it is the same.

    Raises:
        ModelError: They differ; the first difference is named with both values and what to do.
    """
    checks: tuple[tuple[str, str, object, object, Text], ...] = (
        (
            "model.base",
            "config.json",
            trained.base_config_hash[:12],
            now.base_config_hash[:12],
            msg("Use the base model that the adapter was trained on: {base}.", base=trained.base_model),
        ),
        ("model.family", "family", trained.family, now.family, msg("Leave model.family out.")),
        (
            "model.base",
            "chat template",
            trained.chat_template_hash[:12],
            now.chat_template_hash[:12],
            msg(
                "Use the revision of the base model that the adapter was trained on: {revision}.",
                revision=trained.base_revision or "-",
            ),
        ),
        ("model.min_pixels", "min_pixels", trained.min_pixels, now.min_pixels, msg("Leave model.min_pixels out.")),
        ("model.max_pixels", "max_pixels", trained.max_pixels, now.max_pixels, msg("Leave model.max_pixels out.")),
        (
            "model.resize_backend",
            "resize_backend",
            trained.resize_backend,
            now.resize_backend,
            msg("Leave model.resize_backend out."),
        ),
        (
            "data.transforms",
            "transforms",
            _names(trained.transforms),
            _names(now.transforms),
            msg("Prepare the data with the transforms that the adapter was trained with."),
        ),
    )
    for key, name, was, is_now, remedy in checks:
        if was != is_now:
            raise _broken(adapter, key, was, is_now, remedy, name=name)
    if compare_displays(trained.displays, now.displays) == "colours":
        remedy = msg("Show the values through the windows that the adapter was trained with.")
        raise _broken(adapter, "data.sources", ", ".join(trained.displays), ", ".join(now.displays), remedy, name="windows")


def _names(transforms: tuple[TransformRecord, ...]) -> str:
    """Transforms as a reader sees them: ``letterbox(size=448, fill=0)``."""
    shown = (f"{each.name}({', '.join(f'{key}={value}' for key, value in sorted(each.parameters.items()))})" for each in transforms)
    return " ".join(shown) or "-"


def _broken(
    adapter: Path | None, key: str, was: object, is_now: object, remedy: Text, *, name: str = "system_prompt"
) -> ModelError:
    return ModelError(
        msg("The adapter was trained with {name} {was}, but here it is {now}.", name=name, was=str(was), now=str(is_now)),
        file=adapter,
        key=key,
        remedy=remedy,
    )

"""Weights: the base model, with an adapter when one is given."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import MissingDependencyError, ModelError
from medtune.language import msg
from medtune.models.config import ModelSettings, QloraSettings
from medtune.models.contract import check_contract, read_contract, with_contract
from medtune.models.family import Family, find_family
from medtune.models.hub import base_folder, config_hash, read_config, require_safetensors
from medtune.models.patch_embedding import use_matrix_product
from medtune.models.vision_attention import use_grouped_attention

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_model(
    settings: ModelSettings,
    *,
    adapter: Path | None = None,
    device: str | torch.device | None = None,
    quantization: QloraSettings | None = None,
) -> PreTrainedModel | PeftModel:
    """The base model in eval mode, with an adapter on top.

    Args:
        adapter: A PEFT adapter's folder, or the ``model/`` folder of a full fine-tune; either with ``contract.json``.
        device: None = the first accelerator, else the CPU.
        quantization: Load the base weights in 4 bits.

    Raises:
        ModelError: There is no such model or adapter, the adapter is another model's, or weights are missing.
        MissingDependencyError: bitsandbytes is needed and not installed.
    """
    _name_the_cpu_to_deepspeed()
    contract = read_contract(adapter) if adapter is not None else None
    settings = with_contract(settings, contract, adapter)
    folder = base_folder(settings)
    family = find_family(read_config(folder), settings.family)
    if contract is not None and adapter is not None:
        # The text and picture half of the contract is the encoder's to keep; this half is what the weights depend on.
        now = contract.model_copy(update={"base_config_hash": config_hash(folder), "family": family.name})
        check_contract(contract, now, adapter)
    target = default_device() if device is None else device
    full = adapter if adapter is not None and not is_peft(adapter) else None
    if full is not None:
        read_config(full)
        require_safetensors(full)
    model = _load_base(full or folder, settings, family, target, quantization)
    if adapter is None or full is not None:
        return model.eval()  # type: ignore[no-any-return]
    return load_adapter(model, adapter, trainable=False).eval()


def _name_the_cpu_to_deepspeed() -> None:
    """transformers and accelerate import DeepSpeed where it is installed, and left to itself it prints among a program's output
    that it has found no GPU (``deepspeed/accelerator/real_accelerator.py``, 0.19.8)."""
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def load_adapter(model: Any, adapter: Path, *, trainable: bool) -> PeftModel:
    """Put a saved PEFT adapter onto a base model; its weights are float32, whatever the base's are.

    Raises:
        ModelError: The adapter does not fit the model, or is not stored as safetensors.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    from medtune.models.expert_lora import keep_low_rank
    from medtune.models.four_bit import as_plain_parameters

    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(
            msg("The adapter folder has no adapter_model.safetensors."),
            file=adapter,
            remedy=msg("Pickled adapters (.bin) are not read. Use an adapter that medtune trained."),
        )
    try:
        with quiet_peft(), as_plain_parameters(model):
            adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable, autocast_adapter_dtype=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            msg("The adapter does not fit the model: {error}", error=str(error).splitlines()[0]),
            file=adapter,
            remedy=msg("Use the base model that the adapter was trained on."),
        ) from error
    keep_low_rank(adapted)
    return adapted


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT asks models for ``is_gradient_checkpointing``, a name that transformers 5.2x warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def is_peft(adapter: Path) -> bool:
    """Whether a folder holds a PEFT adapter; a full fine-tune's holds whole weights."""
    return (adapter / "adapter_config.json").is_file()


def default_device() -> str:
    """The first accelerator, else ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _load_base(
    folder: Path, settings: ModelSettings, family: Family, device: str | torch.device, quantization: QloraSettings | None
) -> Any:
    import torch
    import transformers
    from safetensors import SafetensorError

    dtype: Any = settings.dtype
    if dtype == "auto" and torch.device(device).type == "cpu":
        dtype = "float32"
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if settings.attention != "auto":
        options["attn_implementation"] = settings.attention
    if quantization is not None:
        options["quantization_config"] = _quantization_config(quantization, family, folder, options["dtype"])
        options["device_map"] = {"": device}
    loader = getattr(transformers, family.auto_class)
    try:
        with no_progress_bars():
            model, info = loader.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=settings.trust_remote_code, output_loading_info=True, **options
            )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            msg("The model cannot be loaded: {error}", error=str(error).splitlines()[0]),
            file=folder,
            key="model.base",
            remedy=msg(
                "Check that the folder is whole and that this transformers ({version}) knows the model.",
                version=transformers.__version__,
            ),
        ) from error
    # transformers fills weights that the files do not have with random numbers, and only logs it.
    missing = sorted(info["missing_keys"]) or sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise ModelError(
            msg("The model's files lack {count} weights; the first is {first}.", count=len(missing), first=missing[0]),
            file=folder,
            key="model.base",
            remedy=msg("Fetch the whole model again."),
        )
    use_matrix_product(model)
    if settings.attention == "auto":
        use_grouped_attention(model)
    return model if quantization is not None else model.to(device)


def _quantization_config(settings: QloraSettings, family: Family, folder: Path, dtype: Any) -> Any:
    import importlib.util

    import torch

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError("bitsandbytes", needed_for=msg("adapter.kind=qlora"), pip="'medtune[qlora]'")
    if "quantization_config" in read_config(folder):
        # Packed by others already: transformers reads how from the folder.
        return None
    from medtune.models.four_bit_load import FourBitConfig

    return FourBitConfig(settings, family, torch.bfloat16 if dtype == "auto" else dtype)


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without transformers' own progress bars: whoever called draws one, or none."""
    from transformers import utils

    logging: Any = utils.logging
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()

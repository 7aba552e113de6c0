"""What is trained: low-rank adapters or the weights themselves, and the report of what that touches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from medtune.errors import RecipeError
from medtune.language import Text, msg
from medtune.models.config import AdapterSettings, FullSettings, LoraSettings
from medtune.models.contract import check_contract, read_contract
from medtune.models.family import Family, find_family
from medtune.models.load import load_adapter, quiet_peft
from medtune.types import AdapterContract

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def add_adapter(
    model: PreTrainedModel, settings: AdapterSettings, family: Family, *, contract: AdapterContract | None = None
) -> PreTrainedModel | PeftModel:
    """Make the chosen parts of ``model`` trainable, and nothing else.

    LoRA goes to every ``nn.Linear`` of the target scopes except the output layer, and to the fused weights of experts when
    ``experts`` is among the targets. What is trained is float32, also beside 16-bit weights that are not.

    Args:
        contract: What is about to be trained under; compared with the contract of ``init_from``.

    Raises:
        RecipeError: A target has nothing to adapt in this model, or settings contradict each other.
        ModelError: ``init_from`` does not fit.
    """
    if isinstance(settings, FullSettings):
        _train_weights(model, settings, family)
        return model
    if settings.init_from is not None:
        return _continue(model, settings, family, contract)
    from peft import LoraConfig, get_peft_model

    from medtune.models.expert_lora import keep_low_rank
    from medtune.models.four_bit import as_plain_parameters

    if ("experts" in settings.targets or settings.train_router) and (settings.dropout or settings.dora):
        raise RecipeError(
            msg("Adapters on experts and routers take neither dropout nor DoRA."),
            key="adapter.dropout" if settings.dropout else "adapter.dora",
            remedy=msg("Set adapter.dropout=0 and adapter.dora=false, or leave experts and router as they are."),
        )
    modules = target_modules(model, settings, family)
    parameters = target_parameters(model, settings, family)
    if not modules and not parameters:
        raise RecipeError(
            msg("adapter.exclude leaves nothing to adapt."), key="adapter.exclude", remedy=msg("Make the patterns narrower.")
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha if settings.alpha is not None else 2 * settings.rank,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=modules,
        target_parameters=parameters or None,
        task_type="CAUSAL_LM",
    )
    with quiet_peft(), as_plain_parameters(model):
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    keep_low_rank(adapted)
    return adapted


def target_modules(model: torch.nn.Module, settings: LoraSettings, family: Family) -> list[str]:
    """Full names of the linear modules that get an adapter, in the model's order.

    Raises:
        RecipeError: A target scope or an ``extra`` pattern matches no linear module.
    """
    import torch

    chosen: list[str] = []
    found: set[str] = set()
    output = _output_layer(model)
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        scope = family.scope_of(name)
        extra = [pattern for pattern in settings.extra if re.search(pattern, name)]
        found.update(extra)
        if not extra and (scope not in settings.targets or module is output):
            continue
        if scope is not None:
            found.add(scope)
        if extra or not any(re.search(pattern, name) for pattern in settings.exclude):
            chosen.append(name)
    for scope in settings.targets:
        if scope not in found and scope != "experts":
            raise _nothing(scope, family)
    for pattern in settings.extra:
        if pattern not in found:
            raise RecipeError(
                msg("No linear module's name matches {pattern}.", pattern=pattern),
                key="adapter.extra",
                remedy=msg("The names are those of model.named_modules(), such as {example}.", example=(chosen or ["-"])[0]),
            )
    return chosen


def target_parameters(model: torch.nn.Module, settings: LoraSettings, family: Family) -> list[str]:
    """Full names of the parameters outside of linear modules that get an adapter: fused expert weights, (num_experts, ..., ...),
    with ``experts`` among the targets, and the weights of routers, (num_experts, hidden), with ``train_router``.

    Raises:
        RecipeError: What is asked for is not in the model.
    """
    return [*_expert_weights(model, settings, family), *_router_weights(model, settings)]


def _expert_weights(model: torch.nn.Module, settings: LoraSettings, family: Family) -> list[str]:
    if "experts" not in settings.targets:
        return []
    chosen = [name for name, is_fused in _weights(model) if is_fused and family.scope_of(name) == "experts"]
    # Experts that are a list of linear layers are modules like any other.
    if not chosen and not any(family.scope_of(name) == "experts" for name, _ in model.named_modules()):
        raise _nothing("experts", family)
    return [name for name in chosen if not any(re.search(pattern, name) for pattern in settings.exclude)]


def _router_weights(model: torch.nn.Module, settings: LoraSettings) -> list[str]:
    if not settings.train_router:
        return []
    routers = _routers([name for name, _ in _weights(model)])
    if not routers:
        raise RecipeError(
            msg("This model has no router to train."),
            key="adapter.train_router",
            remedy=msg("Only a mixture of experts has one: leave adapter.train_router out."),
        )
    return [f"{name}.weight" for name in routers]


def _weights(model: torch.nn.Module) -> list[tuple[str, bool]]:
    """(name, whether it is a fused expert weight) of every parameter, as it would be called without adapter and packing."""
    return [(_plain_name(name), _is_fused(name, parameter)) for name, parameter in model.named_parameters()]


def _routers(names: Iterable[str]) -> list[str]:
    """The modules beside experts that choose among them."""
    names = list(names)
    blocks = {name[: name.index(".experts.")] for name in names if ".experts." in name}
    return [name.removesuffix(".weight") for name in names if re.sub(r"\.(gate|router)\.weight$", "", name) in blocks]


class AdapterRow(NamedTuple):
    """One line of the report: a kind of module (layer numbers as ``*``), its trained parameters, their share of the model."""

    module: str
    num_parameters: int
    share: float


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """What training touches. Iterating gives the rows.

    Attributes:
        rows: In the model's order.
        num_trainable: Parameters that are trained.
        num_total: All parameters, those of the adapter included.
        notes: What stays as it is, one sentence for each part of the model.
    """

    rows: tuple[AdapterRow, ...]
    num_trainable: int
    num_total: int
    notes: tuple[Text, ...]

    def __iter__(self) -> Iterator[AdapterRow]:
        return iter(self.rows)


def adapter_report(model: torch.nn.Module) -> AdapterReport:
    """What of ``model`` is trained, by kind of module, and what is left alone: whole parts, and within the others every kind
    of module that holds 1 % of the model or more."""
    config: Any = model.config
    family = find_family({"model_type": config.model_type}, None)
    total = trainable = 0
    counts: dict[str, int] = {}
    base: dict[str, tuple[str | None, int]] = {}
    touched: set[str] = set()
    routers = set(_routers(name for name, _ in _weights(model)))
    for full_name, parameter in model.named_parameters():
        count = num_elements(parameter)
        total += count
        module = _module_name(model, full_name, parameter)
        kind = re.sub(r"\.\d+\b", ".*", module)
        if ".lora_" not in full_name:
            part = "router" if module in routers else family.scope_of(module)
            base[kind] = (part, base.get(kind, (None, 0))[1] + count)
        if parameter.requires_grad:
            trainable += count
            touched.add(kind)
            counts[kind] = counts.get(kind, 0) + count
    rows = tuple(AdapterRow(kind, count, count / total) for kind, count in counts.items())
    return AdapterReport(rows, trainable, total, tuple(_untouched(base, touched, total)))


def _untouched(base: dict[str, tuple[str | None, int]], touched: set[str], total: int) -> Iterator[Text]:
    touched_scopes = {scope for kind, (scope, _) in base.items() if kind in touched}
    left: dict[str, int] = {}
    for kind, (scope, count) in base.items():
        if kind in touched:
            continue
        if scope not in touched_scopes:
            part: str = scope or "other"
            left[part] = left.get(part, 0) + count
        elif count >= 0.01 * total:
            left[kind] = count
    for part, count in left.items():
        percent = f"{100 * count / total:.1f}"
        yield msg(
            "{part}: {count} parameters ({percent} % of the model) stay as they are.",
            part=part,
            count=f"{count:,}",
            percent=percent,
        )


def _train_weights(model: PreTrainedModel, settings: FullSettings, family: Family) -> None:
    import torch

    for name, parameter in model.named_parameters():
        parameter.requires_grad_(family.scope_of(name) not in settings.freeze)
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            # An optimizer's step is mostly smaller than 1/256 of a weight, and bfloat16 would round it away (Micikevicius et
            # al. 2018, arXiv:1710.03740, section 3.1). The saved model has the base's type again.
            parameter.data = parameter.data.float()


def _continue(model: PreTrainedModel, settings: LoraSettings, family: Family, contract: AdapterContract | None) -> PeftModel:
    assert settings.init_from is not None
    earlier = read_contract(settings.init_from)
    if contract is not None:
        check_contract(earlier, contract, settings.init_from)
    wanted: set[str] | None = None
    if settings.model_fields_set & {"targets", "exclude", "extra", "train_router"}:
        parameters = (name.removesuffix(".weight") for name in target_parameters(model, settings, family))
        wanted = {*target_modules(model, settings, family), *parameters}
    adapted = load_adapter(model, settings.init_from, trainable=True)
    config: Any = adapted.peft_config["default"]
    held = (
        ("rank", settings.rank, config.r),
        ("alpha", settings.alpha, config.lora_alpha),
        ("dropout", settings.dropout, config.lora_dropout),
        ("rslora", settings.rslora, config.use_rslora),
        ("dora", settings.dora, config.use_dora),
    )
    for name, value, found in held:
        if name in settings.model_fields_set and value is not None and value != found:
            raise RecipeError(
                msg(
                    "adapter.{name} is {wanted}, but the adapter to continue from has {found}.",
                    name=name,
                    wanted=value,
                    found=found,
                ),
                key=f"adapter.{name}",
                remedy=msg("Leave adapter.{name} out, or start a new adapter without adapter.init_from.", name=name),
            )
    if wanted is not None:
        present = {_module_name(adapted, name, value) for name, value in adapted.named_parameters() if ".lora_" in name}
        if other := sorted(wanted ^ present):
            raise RecipeError(
                msg(
                    "The adapter to continue from is on other modules than adapter.targets, exclude and extra name; the first is"
                    " {module}.",
                    module=other[0],
                ),
                key="adapter.targets",
                remedy=msg("Leave adapter.{name} out, or start a new adapter without adapter.init_from.", name="targets"),
            )
    return adapted


def _nothing(scope: str, family: Family) -> RecipeError:
    return RecipeError(
        msg("There is nothing to adapt under {scope} in this model (family {family}).", scope=scope, family=family.name),
        key="adapter.targets",
        remedy=msg("This family has: {scopes}.", scopes=", ".join(family.scopes)),
    )


def _output_layer(model: torch.nn.Module) -> torch.nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def _module_name(model: torch.nn.Module, full_name: str, parameter: torch.nn.Parameter) -> str:
    """The base model's name of the module that a parameter belongs to, or that an adapter parameter adapts. A fused expert
    weight, (num_experts, ..., ...), counts as a module of its own."""
    name = _plain_name(full_name)
    if ".lora_" not in full_name:
        return name if _is_fused(full_name, parameter) else name.rpartition(".")[0]
    owner: Any = model.get_submodule(full_name[: full_name.index(".lora_")])
    fused = getattr(owner, "parameter_name", "weight")
    module = name[: name.index(".lora_")]
    return module if fused == "weight" else f"{module}.{fused}"


def _plain_name(full_name: str) -> str:
    """Without what PEFT's wrapping and 4-bit packing put into the name of a parameter."""
    name = full_name.removeprefix("base_model.model.").replace(".base_layer", "")
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name)


def _is_fused(full_name: str, parameter: torch.nn.Parameter) -> bool:
    # Packed, it is a column of bytes.
    return parameter.ndim == 3 or full_name.endswith(".original")


def num_elements(parameter: torch.nn.Parameter) -> int:
    """Numbers that a parameter holds on all devices; 4-bit weights are packed, two in a byte. Between its uses, one that ZeRO-3
    divides is empty and keeps the number in ``ds_numel``."""
    import torch

    count = int(getattr(parameter, "ds_numel", parameter.numel()))
    return count * 2 if parameter.dtype == torch.uint8 else count

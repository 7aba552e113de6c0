"""What an adapter will touch, before there is a model: the counts of :func:`medtune.models.adapter.adapter_report`, from shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from medtune.models.adapter import AdapterRow
from medtune.models.config import AdapterSettings, FullSettings, LoraSettings, QloraSettings, Scope
from medtune.models.family import Family
from medtune.models.size import ModelSize
from medtune.models.weights import Weight, read_headers

__all__ = ["AdapterSize", "adapter_size"]


@dataclass(frozen=True, slots=True)
class AdapterSize:
    """Attributes:
    kind: ``lora``, ``qlora`` or ``full``.
    rows: Kind of module (layer numbers as ``*``), its trained parameters, their share of model and adapter.
    num_trainable: Parameters that are trained.
    num_total: All parameters, those of the adapter included.
    scopes: Parts of the model that are touched.
    double_quantization: With ``qlora``.
    """

    kind: str
    rows: tuple[AdapterRow, ...]
    num_trainable: int
    num_total: int
    scopes: frozenset[Scope]
    double_quantization: bool = True

    @property
    def trains_vision(self) -> bool:
        """What the language model is given of a picture changes with training."""
        return bool(self.scopes & {"vision", "projector"})

    @property
    def trains_tower(self) -> bool:
        """Gradients go through the vision tower, not only through the projector behind it."""
        return "vision" in self.scopes

    @property
    def trains_experts(self) -> bool:
        return "experts" in self.scopes


def adapter_size(size: ModelSize, settings: AdapterSettings, family: Family) -> AdapterSize:
    """Count what :func:`medtune.models.adapter.add_adapter` will make trainable.

    An adapter to continue from (``init_from``) is counted from the header of its own file.

    Raises:
        ModelError: The header of ``init_from`` cannot be read.
    """
    counts: dict[str, int] = {}
    scopes: set[Scope] = set()

    def add(module: str, count: int) -> None:
        kind = re.sub(r"\.\d+\b", ".*", module)
        counts[kind] = counts.get(kind, 0) + count
        scope = family.scope_of(module)
        if scope is not None:
            scopes.add(scope)

    total = size.num_parameters
    if isinstance(settings, FullSettings):
        for weight in size.weights:
            if family.scope_of(weight.name) not in settings.freeze:
                add(_module(weight), weight.size)
    elif settings.init_from is not None:
        for name, (_, shape) in read_headers(settings.init_from).items():
            add(name.removeprefix("base_model.model.").partition(".lora_")[0], math.prod(shape))
    else:
        for weight in _adapted(size, settings, family):
            add(_module(weight), _low_rank(weight, settings))
    trainable = sum(counts.values())
    total += 0 if isinstance(settings, FullSettings) else trainable
    rows = tuple(AdapterRow(kind, count, count / total) for kind, count in counts.items())
    double = settings.double_quantization if isinstance(settings, QloraSettings) else True
    return AdapterSize(settings.kind, rows, trainable, total, frozenset(scopes), double)


def _adapted(size: ModelSize, settings: LoraSettings, family: Family) -> Iterator[Weight]:
    """As ``target_modules`` and ``target_parameters`` of :mod:`medtune.models.adapter` choose."""
    blocks = {weight.name[: weight.name.index(".experts.")] for weight in size.weights if ".experts." in weight.name}
    for weight in size.weights:
        module = _module(weight)
        scope = family.scope_of(module)
        if settings.train_router and re.sub(r"\.(gate|router)\.weight$", "", weight.name) in blocks:
            yield weight
            continue
        excluded = any(re.search(pattern, module) for pattern in settings.exclude)
        if len(weight.shape) == 3 and scope == "experts":
            if "experts" in settings.targets and not excluded:
                yield weight
            continue
        if not weight.is_linear:
            continue
        if any(re.search(pattern, module) for pattern in settings.extra) or (
            scope in settings.targets and weight.part != "head" and not excluded
        ):
            yield weight


def _low_rank(weight: Weight, settings: LoraSettings) -> int:
    """Values of A and B: r x (in + out), for each expert of a fused weight; DoRA adds a magnitude for each output."""
    *experts, out, inner = weight.shape
    return math.prod(experts) * settings.rank * (inner + out) + (out if settings.dora else 0)


def _module(weight: Weight) -> str:
    return weight.name if len(weight.shape) == 3 else weight.name.rpartition(".")[0]

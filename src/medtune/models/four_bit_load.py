"""Loading a model in 4 bits: every weight is packed as it comes from the file, so that neither the GPU nor the main memory
ever holds more than one of them in 16 bits.

transformers' loader does the reading. It is given a quantizer that packs, beside the linear layers that bitsandbytes knows,
the fused weights of experts.

What stays as it is stored: embeddings, the output layer, norms, routers, the vision tower and the projector. Together they are
small (8B: a fifth of the 16-bit memory; 30B-A3B: a twentieth), errors in them reach every token (the output layer and the
routers decide by small differences), and the tower computes far more with each of its weights than a packed one would save.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.utils.quantization_config import QuantizationMethod

from medtune.models.config import QloraSettings
from medtune.models.family import Family
from medtune.models.four_bit import BLOCK_SIZE, Packed, attach, pack

__all__ = ["FourBitConfig"]

_METHOD = "medtune-4bit"


@register_quantization_config(_METHOD)
class FourBitConfig(BitsAndBytesConfig):  # type: ignore[misc, unused-ignore]
    """What ``from_pretrained`` takes as ``quantization_config``. The loaded model has bitsandbytes' own instead.

    Args:
        family: Says which weights are the language model's and its experts'.
        compute_dtype: In which packed linear layers compute.
    """

    def __init__(self, settings: QloraSettings, family: Family, compute_dtype: torch.dtype) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.quantization,
            bnb_4bit_use_double_quant=settings.double_quantization,
            bnb_4bit_compute_dtype=compute_dtype,
        )
        self.quant_method: Any = _METHOD
        self.family = family

    def plain(self) -> BitsAndBytesConfig:
        """The same without what transformers does not know."""
        plain: Any = BitsAndBytesConfig
        return plain(  # type: ignore[no-any-return]
            load_in_4bit=True,
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=self.bnb_4bit_compute_dtype,
        )


@register_quantizer(_METHOD)
class FourBitQuantizer(Bnb4BitHfQuantizer):  # type: ignore[misc, unused-ignore]
    """transformers' quantizer for bitsandbytes, with another choice of linear layers, and with fused experts."""

    def __init__(self, quantization_config: FourBitConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        self.settings = quantization_config
        self.experts: dict[str, dict[str, Packed]] = defaultdict(dict)
        """Module of experts -> its packed weights."""

    def _process_model_before_weight_loading(self, model: Any, *_: Any, **__: Any) -> None:
        from transformers.integrations.bitsandbytes import replace_with_bnb_linear

        output = model.get_output_embeddings()
        self.modules_to_not_convert = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and (module is output or not self._packs_linear(name, module))
        ]
        replace_with_bnb_linear(
            model, modules_to_not_convert=self.modules_to_not_convert, quantization_config=self.quantization_config
        )

    def _packs_linear(self, name: str, module: nn.Linear) -> bool:
        # Rows of whole blocks only: see four_bit.pack.
        return self.settings.family.scope_of(name) in ("language", "experts") and module.in_features % BLOCK_SIZE == 0

    def param_needs_quantization(self, model: Any, param_name: str, **options: Any) -> bool:
        return self._is_fused_expert(model, param_name) or bool(super().param_needs_quantization(model, param_name, **options))

    def _is_fused_expert(self, model: Any, name: str) -> bool:
        if self.settings.family.scope_of(name) != "experts":
            return False
        module, _, parameter = name.rpartition(".")
        return bool(getattr(model.get_submodule(module), parameter).ndim == 3)

    def get_quantize_ops(self) -> ConversionOps:
        return _Pack(self, super().get_quantize_ops())  # type: ignore[no-untyped-call]

    def _process_model_after_weight_loading(self, model: Any, **options: Any) -> Any:
        for name, weights in self.experts.items():
            attach(model.get_submodule(name), weights)
        self.experts.clear()
        # To transformers, PEFT and accelerate this is a model of bitsandbytes from here on.
        self.quantization_config = model.config.quantization_config = self.settings.plain()
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
        return super()._process_model_after_weight_loading(model, **options)

    def is_serializable(self) -> bool:
        return False


class _Pack(ConversionOps):  # type: ignore[misc, unused-ignore]
    """The last step of a weight's way from the file into the model."""

    def __init__(self, quantizer: FourBitQuantizer, linear: ConversionOps) -> None:
        self.quantizer, self.linear = quantizer, linear

    def convert(self, input_dict: dict[str, Any], *args: Any, model: Any = None, **options: Any) -> Any:
        (name, value), *others = input_dict.items()
        if others or not self.quantizer._is_fused_expert(model, name):
            return self.linear.convert(input_dict, *args, model=model, **options)
        config = self.quantizer.settings
        packed = pack(
            value[0] if isinstance(value, list) else value,
            quantization=config.bnb_4bit_quant_type,
            double_quantization=config.bnb_4bit_use_double_quant,
        )
        module, _, parameter = name.rpartition(".")
        self.quantizer.experts[module][parameter] = packed
        return {name: packed.values}

"""A fresh LoRA adapter that reaches fused experts, for LLaMA-Factory to train on.

Runs in LLaMA-Factory's own environment: ``python expert_adapter.py MODEL OUT``. Its ``lora_target: all`` finds linear layers, and
the experts of a mixture are 3-D parameters, so they stay as they were. But it goes on with an adapter that lies in a folder
(``adapter_name_or_path``), and PEFT makes one for parameters (``target_parameters``): so it can be led to the same work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from stand_in import stand_in

stand_in()

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: E402

PROJECTIONS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    options = parser.parse_args()
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(options.model))
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=PROJECTIONS,
        target_parameters=EXPERTS,
    )
    adapted = get_peft_model(model, settings)
    draw = torch.Generator().manual_seed(0)
    # As LoRA begins: one factor random, the other zero.
    weights = {
        name: torch.zeros(value.shape) if "lora_B" in name else torch.randn(value.shape, generator=draw) / value.shape[-1] ** 0.5
        for name, value in get_peft_model_state_dict(adapted).items()
    }
    adapted.peft_config["default"].save_pretrained(str(options.out))
    save_file(weights, options.out / "adapter_model.safetensors")
    print(f"{len(weights)} weights, {sum(value.numel() for value in weights.values()):,} values")


if __name__ == "__main__":
    main()

"""What rounding to bfloat16 does to the first steps of an adapter: float32, bfloat16 with compiled layers, bfloat16 without.

Run: ``python benchmarks/rounding.py``; on a CPU a few minutes, most of them compiling. A small Qwen3 with random weights (the same
in all three, and whole numbers of bfloat16), the same synthetic tokens in the same order, LoRA of rank 8 that starts at nothing. So
the losses differ by rounding alone: a compiled layer rounds when a fused kernel writes its result, one that is not compiled after
every operation, and what a new adapter adds is less than one such rounding. Random weights and random tokens: the differences tell
of arithmetic, not of a model's quality.
"""

from __future__ import annotations

import argparse

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from medtune.training.choice import Checkpointing, EngineChoice
from medtune.training.engine import engine

VOCABULARY, ROWS, LENGTH = 2048, 8, 192


def make_model(layers: int) -> nn.Module:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).to(torch.bfloat16)


def losses(layers: int, steps: int, *, dtype: torch.dtype, compiled: bool) -> list[float]:
    """Mean cross entropy in nats of every step."""
    base = make_model(layers).to(dtype)
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", exclude_modules=["lm_head"]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4)
    draw = torch.Generator().manual_seed(2)
    frequencies = 1 / torch.arange(1, 301).float()
    tokens = torch.multinomial(frequencies.expand(steps, -1), ROWS * LENGTH, replacement=True, generator=draw)
    found = []
    with engine(model, EngineChoice(packing=False, checkpointing=Checkpointing(), compile=compiled)):
        for batch in tokens.view(steps, ROWS, LENGTH):
            logits = model(input_ids=batch).logits[:, :-1].float()
            loss = nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            found.append(loss.item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {options.layers} layers\n\n| | "
        + " | ".join(str(step + 1) for step in range(options.steps))
        + " |"
    )
    print("|---|" + "---|" * options.steps)
    for name, dtype, compiled in (
        ("float32", torch.float32, False),
        ("bfloat16, compiled", torch.bfloat16, True),
        ("bfloat16, not compiled", torch.bfloat16, False),
    ):
        row = losses(options.layers, options.steps, dtype=dtype, compiled=compiled)
        print(f"| {name} | " + " | ".join(f"{loss:.4f}" for loss in row) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Whether the fast path answers as transformers' ``generate`` does, on this device: ``python agreement.py RUN OUT.json``.

Asks the run's base and tuned model the same questions by both roads, greedily, and compares the texts. The adapter's second factors
are drawn anew, because after a step or two of training they are so near zero that an adapter which is left out would not be seen.
In float32 the texts should be equal. In bfloat16 the rounding of either road may decide between two tokens that are nearly as
likely, and a text goes its own way from there: ``shared`` is how much of the shorter text two roads have in common from the start,
``shared_exact`` the same of the fast path and float32, ``plain_shared_exact`` of transformers in this type and float32: the fast
path is as exact as transformers where those two are as large. ``tuned_differs`` says how many of the tuned model's answers are not
the base model's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from medtune import assembly
from medtune.data.dataset import Dataset
from medtune.generation.hf import HfGenerator
from medtune.recipe import dataset_folder, load_recipe
from medtune.runs import find_run
from medtune.types import Request, Sampling


def draw_second_factors(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def equal(some: list[str], others: list[str]) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))


def shared(some: list[str], others: list[str]) -> float:
    """Mean share of the shorter text that both begin with."""
    shares = []
    for one, other in zip(some, others, strict=True):
        shortest = min(len(one), len(other))
        same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), shortest)
        shares.append(same / shortest if shortest else float(one == other))
    return sum(shares) / max(1, len(shares))


def answered(generator: HfGenerator, requests: list[Request]) -> list[str]:
    texts = {answer.id: answer.text for answer in generator.generate(requests) if answer.error is None}
    return [texts.get(request.id, "") for request in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "bfloat16"], help="float32 first: the others are compared with it"
    )
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # or the patch embedding of one road alone would be rounded
    opened = find_run(options.run)
    found: list[dict[str, Any]] = []
    exact: dict[bool, list[str]] = {}
    for dtype in options.dtype:
        recipe = load_recipe(opened.recipe_path, [f"model.dtype={dtype}"])
        dataset = Dataset.open(dataset_folder(recipe))
        samples = list(dataset.rows("test"))[: options.samples]
        sampling = Sampling(max_new_tokens=options.new_tokens)
        requests = [Request(each.id, each.prompt, tuple(map(dataset.picture, each.images)), sampling) for each in samples]
        model, encoder = assembly.load(recipe, assembly.trained(opened))
        draw_second_factors(model)
        base: list[str] = []
        for use_adapter in (False, True):
            plain = answered(HfGenerator(model, encoder, use_adapter=use_adapter, fast=False, batch_size=options.samples), requests)
            if dtype == "float32":
                exact[use_adapter] = plain
            generator = HfGenerator(model, encoder, use_adapter=use_adapter, batch_size=options.samples)
            assert generator.fast is not None
            fast = answered(generator, requests)
            base = base or fast
            row = {
                "model_asked": "tuned" if use_adapter else "base",
                "dtype": dtype,
                "device": torch.cuda.get_device_name() if model.device.type == "cuda" else model.device.type,
                "operations": type(generator.fast._decoder().operations).__name__,
                "answers": len(fast),
                "empty": sum(not text for text in (*fast, *plain)),
                "equal": equal(fast, plain),
                "shared": shared(fast, plain),
                "shared_exact": shared(fast, exact[use_adapter]) if use_adapter in exact else None,
                "plain_shared_exact": shared(plain, exact[use_adapter]) if use_adapter in exact else None,
                "tuned_differs": len(fast) - equal(fast, base),
            }
            found.append(row)
            print(json.dumps(row), flush=True)
            options.out.write_text(json.dumps(found), encoding="utf-8")
        del model, generator


if __name__ == "__main__":
    main()

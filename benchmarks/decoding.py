"""Where the generator's time goes, for ``benchmarks/generate.py``: ``python decoding.py RUN OUT.json --rows 16 64``.

Asks the run's tuned and base model about the pictures of the test split, once for each number of rows, all rows at the same time.
``step_ms`` are whole steps as the generator makes them, CUDA graphs and looks at the tokens included, captures not.
``eager_step_ms`` are steps without graphs: what Python and kernel launches cost. ``attention_ms`` is the attention of one step
alone, in all layers, over as many tokens as there are on average. ``OUT.json`` is written anew after every measurement.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from medtune import assembly
from medtune.data.dataset import Dataset
from medtune.generation.ahead import EncodedRequest, Encoding
from medtune.generation.hf import HfGenerator
from medtune.generation.sight import Sight
from medtune.models.decoder import Decoder
from medtune.recipe import dataset_folder, load_recipe
from medtune.runs import find_run
from medtune.types import Request, Sampling


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy within the card's memory, reading and writing counted; on a CPU of one in main memory."""
    size = 2**32 if device.type == "cuda" else 2**26
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    wait(device)
    started = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    wait(device)
    return 10 * 2 * size / (time.perf_counter() - started)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def each_ms(device: torch.device, work: Any, times: int) -> float:
    work()
    wait(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    wait(device)
    return 1000 * (time.perf_counter() - started) / times


def kernel_table(work: Any) -> list[tuple[float, int, str]]:
    """Milliseconds, launches and name of each kernel that ``work`` runs, the most expensive first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    rows = [(row.self_device_time_total / 1000, row.count, row.key[:120]) for row in seen.key_averages()]
    return sorted(rows, reverse=True)[:40]


@torch.inference_mode()
def steps_alone(generator: HfGenerator, rows: int, tokens: int, *, kernels: bool) -> dict[str, Any]:
    """Steps without graphs, and attention alone, over ``tokens`` slots; with ``kernels`` also what the GPU ran in a step."""
    assert generator.fast is not None
    with generator._ready():
        decoder = Decoder(generator._model, use_adapter=generator._use_adapter)
        device, slots = decoder.device, -(-tokens // 128) * 128
        cache = decoder.cache(rows, slots)
        ids = torch.zeros(rows, dtype=torch.int64, device=device)
        where = torch.full_like(ids, tokens - 1)
        times = 5 if device.type == "cuda" else 2
        found: dict[str, Any] = {"eager_step_ms": each_ms(device, lambda: decoder.step(cache, ids, where, where, slots), times)}
        heads = (rows, decoder.num_key_heads, decoder.num_heads // decoder.num_key_heads, decoder.head_dim)
        query = torch.zeros(heads, device=device, dtype=decoder.dtype)
        mask = torch.zeros(rows, 1, 1, slots, device=device, dtype=decoder.dtype)

        def attention() -> None:
            for keys, values in zip(cache.keys, cache.values, strict=True):
                scaled_dot_product_attention(query, keys, values, attn_mask=mask)

        def products() -> None:
            for keys, values in zip(cache.keys, cache.values, strict=True):
                weights = (query @ keys.transpose(-1, -2) + mask).float().softmax(-1)
                weights.to(values.dtype) @ values

        found["attention_ms"] = each_ms(device, attention, times)
        found["attention_by_products_ms"] = each_ms(device, products, times)
        if kernels and device.type == "cuda":
            found["kernels"] = kernel_table(lambda: decoder.step(cache, ids, where, where, slots))
        last = torch.zeros(rows, decoder._text.config.hidden_size, device=device, dtype=decoder.dtype)
        found["head_ms"] = each_ms(device, lambda: decoder._scores(last).argmax(-1), times)
    return found


@torch.inference_mode()
def reading_alone(generator: HfGenerator, requests: list[Request], *, kernels: bool) -> dict[str, Any]:
    """One reading of prompts, as many as are read at once: their encoding, the vision tower alone, and all of it on the device."""
    assert generator.fast is not None
    requests = requests[:28]
    encoder, device = generator._encoder, generator._model.device
    started = time.perf_counter()
    with Encoding(encoder, requests, ahead=len(requests), dtype=generator._model.dtype, device=device) as encoding:
        encoded = [taken for _ in requests if isinstance(taken := encoding.take(), EncodedRequest)]
    found: dict[str, Any] = {"encode_ms": 1000 * (time.perf_counter() - started) / len(encoded)}
    longest = max(len(each.features.input_ids) for each in encoded) + 1
    decoder = generator.fast._decoder()
    once = Sampling(max_new_tokens=1)  # an answer is done with its first token, so that rows are free again
    batch = generator.fast.batch(decoder, lambda _: 1, len(encoded), longest, once)
    times = 3 if device.type == "cuda" else 1
    found["read_ms"] = each_ms(device, lambda: batch.admit(encoded), times) / len(encoded)
    pictures = [picture for each in encoded for picture in each.pictures]
    if pictures:
        sight = Sight(generator._model, lambda _: 1)
        with generator.fast._working(decoder):
            found["tower_ms"] = each_ms(device, lambda: sight.features(pictures, device), times) / len(pictures)
    if kernels and device.type == "cuda":
        found["read_kernels"] = kernel_table(lambda: batch.admit(encoded))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--kernels", action="store_true", help="write down the kernels of a step too")
    options = parser.parse_args()
    opened = find_run(options.run)
    recipe = load_recipe(opened.recipe_path, [])
    dataset = Dataset.open(dataset_folder(recipe))
    started = time.perf_counter()
    model, encoder = assembly.load(recipe, assembly.trained(opened))
    load_seconds = time.perf_counter() - started
    samples = list(dataset.rows("test"))
    found: list[dict[str, Any]] = []
    speed = bandwidth(model.device)
    for use_adapter in (True, False):
        for rows in options.rows:
            sampling = Sampling(max_new_tokens=options.new_tokens)
            requests = [
                Request(sample.id, sample.prompt, tuple(map(dataset.picture, sample.images)), sampling) for sample in samples[:rows]
            ]
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            generator = HfGenerator(model, encoder, batch_size=rows, use_adapter=use_adapter)
            # Triton builds a kernel when it first meets a shape, once on a machine: not what is measured here.
            list(generator.generate([replace(request, sampling=Sampling(max_new_tokens=2)) for request in requests]))
            generator = HfGenerator(model, encoder, batch_size=rows, use_adapter=use_adapter)
            started = time.perf_counter()
            answers = list(generator.generate(requests))
            seconds = time.perf_counter() - started
            assert generator.fast is not None
            spent = generator.fast.report
            peak = torch.cuda.max_memory_allocated() / 2**30 if model.device.type == "cuda" else 0.0
            decoding = spent["decode_seconds"] - spent["capture_seconds"]
            row: dict[str, Any] = {
                "model_asked": "tuned" if use_adapter else "base",
                "rows": len(requests),
                "new_tokens": sum(answer.num_generated_tokens or 0 for answer in answers) / len(answers),
                "prompt_tokens": sum(answer.num_prompt_tokens or 0 for answer in answers) / len(answers),
                "seconds": seconds,
                "samples_per_second": len(answers) / seconds,
                "step_ms": 1000 * decoding / spent["steps"],
                "bandwidth": speed,
                "bytes_per_slot": Decoder(model, use_adapter=False).bytes_per_slot,
                "load_seconds": load_seconds,
                "peak_gib": peak,
                **spent,
            }
            row |= steps_alone(
                generator, len(requests), round(row["prompt_tokens"]) + options.new_tokens // 2, kernels=options.kernels
            )
            row |= reading_alone(generator, requests, kernels=options.kernels)
            row["operations"] = type(generator.fast._decoder().operations).__name__
            found.append(row)
            print(json.dumps(row), flush=True)
            options.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

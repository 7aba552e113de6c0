"""Peak memory of a QLoRA run: loading, and optimizer steps through ``medtune.training.train`` on rows as long as allowed.

    python benchmarks/memory.py MODEL --tokenizer TOKENIZER [--targets language experts] [--rank 8] [--limit-gib 24]
                                [--optim adamw_8bit]

MODEL is a model folder. Without safetensors in it, weights are drawn: each as the loader asks for it, packed at once, so that no
model of the full size has to be on a disk. Such weights measure memory and speed, never quality. Prints one line of JSON.

With ``--limit-gib`` torch may take no more than that of the card: what fits in the printed peak then fits the smaller card,
but for what CUDA itself takes (about half a GiB, printed as ``outside``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medtune.models.adapter import add_adapter
from medtune.models.config import ModelSettings, QloraSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.family import find_family
from medtune.models.hub import read_config
from medtune.models.load import load_model
from medtune.runs import Run, now
from medtune.training.config import TrainSettings
from medtune.training.train import train
from medtune.types import ImageRef, Message, RunRecord, Sample

GIB = 2**30


class Drawn:
    """A weight that is drawn when the loader reads it."""

    def __init__(self, name: str, shape: torch.Size, device: torch.device) -> None:
        self.name, self.shape, self.device = name, shape, device

    def __getitem__(self, _: Any) -> torch.Tensor:
        if len(self.shape) == 1:
            fill = torch.zeros if self.name.endswith("bias") else torch.ones
            return fill(self.shape, device=self.device, dtype=torch.bfloat16)
        return torch.empty(self.shape, device=self.device, dtype=torch.bfloat16).normal_(std=0.02)


def drawn_model(folder: Path, device: torch.device, settings: QloraSettings) -> Any:
    """The model of ``folder/config.json`` with drawn weights in 4 bits, through transformers' own loader."""
    import transformers

    from medtune.models.four_bit_load import FourBitConfig
    from medtune.models.patch_embedding import use_matrix_product
    from medtune.models.vision_attention import use_grouped_attention

    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    with torch.device("meta"):
        skeleton = model_class(config)
    tied = set(getattr(skeleton, "all_tied_weights_keys", {}))
    weights = {name: Drawn(name, value.shape, device) for name, value in skeleton.state_dict().items() if name not in tied}
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    family = find_family(read_config(folder), None)
    model = model_class.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        device_map={"": device},
        quantization_config=FourBitConfig(settings, family, dtype),
    )
    use_matrix_product(model)
    use_grouped_attention(model)
    return model.eval()


def long_rows(encoder: Encoder, folder: Path, count: int, max_tokens: int) -> list[Sample]:
    """Rows of one 512 x 512 picture and an answer that fills them up to ``max_tokens``."""
    file = folder / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    image = ImageRef(path=file.name, sha256="0" * 64, width=512, height=512)

    def row(number: int, words: int) -> Sample:
        answer = " ".join(["lesion"] * words)
        messages = (Message(role="user", content="<image>What is shown?"), Message(role="assistant", content=answer))
        return Sample(
            id=str(number), task="caption", images=(image,), messages=messages, target=answer, group=str(number), source="drawn"
        )

    low, high = 1, max_tokens
    while low < high:
        middle = (low + high + 1) // 2
        if encoder.count_tokens(row(0, middle).messages, [(512, 512)]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return [row(number, low) for number in range(count)]


def peaks(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {"allocated": 0.0, "reserved": 0.0}
    return {
        "allocated": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "reserved": round(torch.cuda.max_memory_reserved() / GIB, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, where the model's has none")
    parser.add_argument("--targets", nargs="+", default=["language"])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--checkpointing", default="all")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--limit-gib", type=float)
    parser.add_argument("--optim", choices=("adamw", "adamw_8bit"), default="adamw", help="AdamW's states in 32 or 8 bits")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and options.limit_gib:
        torch.cuda.set_per_process_memory_fraction(options.limit_gib * GIB / torch.cuda.get_device_properties(0).total_memory)
    adapter = QloraSettings(targets=tuple(options.targets), rank=options.rank)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        base = work / "model"
        has_weights = any(options.model.glob("*.safetensors"))
        if has_weights:
            base = options.model
        else:
            base.mkdir()
            for source in (options.tokenizer, options.model):
                for file in source.glob("*") if source else ():
                    if file.is_file():
                        shutil.copyfile(file, base / file.name)
        settings = ModelSettings(base=str(base))
        encoder = load_encoder(settings)
        started = time.monotonic()
        torch.manual_seed(0)
        quantized: Any = (
            load_model(settings, device=device, quantization=adapter) if has_weights else drawn_model(base, device, adapter)
        )
        result: dict[str, Any] = {
            "model": options.model.name,
            "load_s": round(time.monotonic() - started, 1),
            "load": peaks(device),
        }
        if device.type == "cuda":
            torch.cuda.empty_cache()
            result["weights_gib"] = round(torch.cuda.memory_allocated() / GIB, 2)
        model = add_adapter(quantized, adapter, encoder.family)
        rows = long_rows(encoder, work, options.accumulation, options.max_tokens)
        result["tokens_per_row"] = encoder.count_tokens(rows[0].messages, [(512, 512)])
        moment = now()
        record = RunRecord(
            name="memory", status="created", created=moment, updated=moment, recipe="memory", base_model=str(base), seed=0
        )
        run = Run.create(work / "run", recipe_text="name: memory\n", record=record)
        started = time.monotonic()
        # As a recipe would say it, so that pydantic reads "all" and "2" alike.
        train_settings = TrainSettings.model_validate(
            {
                "max_steps": options.steps,
                "batch_size": 1,
                "gradient_accumulation_steps": options.accumulation,
                "micro_batch_tokens": options.max_tokens,
                "max_tokens": options.max_tokens,
                "gradient_checkpointing": options.checkpointing,
                "compile": options.compile,
                "optimizer": options.optim,
                "on_out_of_memory": "stop",
                "save_every": "never",
                "evaluate_every": "never",
                "log_every": 1,
                "num_workers": 0,
            }
        )
        done = train(
            run,
            model=model,
            encoder=encoder,
            train_rows=rows,
            picture=lambda ref: work / ref.path,
            settings=train_settings,
        )
        result |= {
            "train_s": round(time.monotonic() - started, 1),
            "train": peaks(device),
            "train_loss": done.train_loss,
            "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "settings": {name: getattr(options, name) for name in ("targets", "rank", "checkpointing", "optim")},
        }
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info()
            result["outside"] = round((total - free - torch.cuda.memory_reserved()) / GIB, 2)
            result["device"] = torch.cuda.get_device_name()
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""``medtune-nano``: how the embedded model is made, from its vocabulary to its packed weights.

Qwen3-VL's architecture as transformers has it, with 5.8 million parameters: pictures of 128 x 128 pixels become 256 patches
of 8 x 8 and 64 tokens. Its vocabulary is a byte-level BPE trained on medtune's own synthetic texts; special tokens and chat
format are Qwen's. Three steps make it again::

    python -m medtune.models.nano init build/nano-init          # vocabulary, configuration, random weights
    medtune train nano_pretrain                                  # recipes/nano_pretrain.yaml
    python -m medtune.models.nano pack runs/nano_pretrain build/nano

It has seen synthetic pictures and everyday words only. It shows that the tools work; it is of no medical use.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from medtune.errors import MedtuneError, ModelError, RunError
from medtune.language import msg
from medtune.models.load import no_progress_bars
from medtune.plugins import resolve
from medtune.runs import Run, atomic_folder
from medtune.types import Record

VOCABULARY_SIZE: Final = 1024
SPECIAL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

_COPIED: Final = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja")

# Qwen's pre-tokenisation splits digits one by one and keeps a leading space with its word (Qwen technical report,
# arXiv:2309.16609, section 2.2): numbers of boxes become digit tokens.
_SPLIT: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE: Final = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'text' -%}{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def initialise(folder: Path, *, seed: int = 0) -> None:
    """Write a model folder with the vocabulary, the configuration and random weights drawn with ``seed``.

    Raises:
        ModelError: ``folder`` exists.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    _refuse_existing(folder)
    tokenizer = train_vocabulary()
    config = configuration({token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}, tokenizer.get_vocab_size())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = Qwen3VLForConditionalGeneration(config)
    model = model.to(torch.float32)
    with atomic_folder(folder) as temporary, no_progress_bars():
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save(str(temporary / "tokenizer.json"))
        for name, content in _small_files().items():
            _write_json(temporary / name, content)
        (temporary / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def configuration(ids: dict[str, int], vocabulary_size: int) -> Any:
    """The ``Qwen3VLConfig``: 4 decoder layers of width 256, a vision tower of 6 layers of width 160, one DeepStack level."""
    from transformers import Qwen3VLConfig

    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [12, 10, 10], "mrope_interleaved": True}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": vocabulary_size,
            "hidden_size": 256,
            "intermediate_size": 640,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 2048,
            "rope_parameters": rope,
            "tie_word_embeddings": True,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 6,
            "hidden_size": 160,
            "intermediate_size": 480,
            "num_heads": 5,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 256,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [3],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def train_vocabulary() -> Any:
    """A ``tokenizers.Tokenizer``: byte-level BPE over the texts of both phantom sources. Deterministic."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _texts() -> Iterator[str]:
    """Questions and answers as the tasks put them, of a few patients and pictures outside those that anything is trained on."""
    phantom = resolve("source", "phantom")(num_patients=150, first_patient=900_000)
    general = resolve("source", "phantom-general")(num_pictures=1500, questions_per_picture=10, seed=900_000)
    for record in itertools.chain(phantom.samples(), general.samples()):
        metadata = {**record.metadata, "width": 128, "height": 128}
        asked = Record(record.id, record.task, record.pictures, record.target, record.group, record.question, (), metadata)
        for message in resolve("task", record.task)().messages(asked):
            yield message.content


def _small_files() -> dict[str, dict[str, Any]]:
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": [*SPECIAL_TOKENS],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
        },
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen3VLProcessor",
            "size": {"shortest_edge": 112 * 112, "longest_edge": 128 * 128},
            "patch_size": 8,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    }


def pack(run_folder: Path, folder: Path) -> None:
    """Write the trained weights of a run as bfloat16 with the record of the run: what ships in the package.

    ``training.json`` is the record of the run without times and folders, with the losses as they were logged;
    ``recipe.yaml`` is the run's recipe without folders of the machine.

    Raises:
        RunError: ``run_folder`` is no run, or the run holds no fully tuned model.
        ModelError: ``folder`` exists.
    """
    import torch
    from safetensors.torch import load_file, save_file

    run = Run.open(run_folder)
    model = run.adapter
    if model is None or not all((model / name).is_file() for name in (*_COPIED, "config.json", "model.safetensors")):
        raise RunError(
            msg("The run holds no whole model to pack: it has not been trained to its end, or it trained an adapter."),
            file=run.folder,
            remedy=msg("Pack a finished run of the recipe nano_pretrain (adapter.kind=full)."),
        )
    _refuse_existing(folder)
    with atomic_folder(folder) as temporary:
        for name in _COPIED:
            shutil.copyfile(model / name, temporary / name)
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("torch_dtype", None)
            part["dtype"] = "bfloat16"
        _write_json(temporary / "config.json", config)
        weights = {name: value.to(torch.bfloat16).contiguous() for name, value in load_file(model / "model.safetensors").items()}
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        record = run.record.model_dump(mode="json", exclude={"created", "updated", "base_model", "error"})
        kept = ("step", "loss", "eval_loss", "learning_rate", "epoch")
        record["losses"] = [
            {name: event[name] for name in kept if name in event} for event in run.events() if event["kind"] == "log"
        ]
        _write_json(temporary / "training.json", record)
        recipe = yaml.safe_load(run.recipe_path.read_text(encoding="utf-8"))
        text = yaml.safe_dump(_without_folders(recipe), sort_keys=False, allow_unicode=True, width=120)
        (temporary / "recipe.yaml").write_text(text, encoding="utf-8")


def _without_folders(value: Any) -> Any:
    """A recipe's values with the last name of each absolute path in place of the path."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise ModelError(
            msg("The folder exists already."), file=folder, remedy=msg("Name another folder, or delete this one first.")
        )


def main(arguments: list[str]) -> int:
    """``init FOLDER`` or ``pack RUN FOLDER``; returns the exit code."""
    try:
        match arguments:
            case ["init", folder]:
                initialise(Path(folder))
            case ["pack", run, folder]:
                pack(Path(run), Path(folder))
            case _:
                sys.stderr.write((__doc__ or "") + "\n")
                return 2
    except MedtuneError as error:
        sys.stderr.write(f"{error.render()}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

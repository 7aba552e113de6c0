"""What a finished run leaves, read by programs that do not know medtune."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medtune.models.config import FullSettings, LoraSettings, ModelSettings
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.models.pictures import PatchPictures, write_limits
from tiny_training import Setup, make_setup

PICTURE = Image.linear_gradient("L").resize((300, 200)).convert("RGB")


def inputs_of(setup: Setup) -> dict[str, torch.Tensor]:
    features = [setup.encoder.encode(row.messages, [PICTURE] * len(row.images), sample_id=row.id) for row in setup.rows[:2]]
    inputs = setup.encoder.collate(features).inputs
    inputs.pop("labels")
    return inputs


ELSEWHERE = """
import sys

sys.modules["medtune"] = None
import torch
from safetensors.torch import load_file, save_file
from transformers import {auto_class}

arguments = sys.argv[1:]
model = {auto_class}.from_pretrained(arguments[0], dtype=torch.float32).eval()
if arguments[1] != "-":
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, arguments[1]).eval()
with torch.no_grad():
    logits = model(**load_file(arguments[2])).logits
save_file({{"logits": logits.contiguous()}}, arguments[3])
assert not [name for name in sys.modules if name.startswith("medtune.")]
"""


def logits_elsewhere(tmp_path: Path, setup: Setup, *, base: Path, adapter: Path | None) -> torch.Tensor:
    """What plain transformers, and plain PEFT, make of the same inputs in a process that cannot import medtune."""
    from safetensors.torch import load_file, save_file

    inputs = {name: value.contiguous() for name, value in inputs_of(setup).items()}
    # The collator's positions are medtune's own: without them the model finds its own.
    inputs.pop("position_ids", None)
    save_file(inputs, tmp_path / "inputs.safetensors")
    script = ELSEWHERE.format(auto_class=setup.encoder.family.auto_class)
    command = [sys.executable, "-c", script, str(base), str(adapter or "-"), str(tmp_path / "inputs.safetensors")]
    done = subprocess.run(
        [*command, str(tmp_path / "logits.safetensors")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(tmp_path / "logits.safetensors")["logits"]


def test_an_adapter_on_experts_loads_in_plain_peft_and_gives_the_same_logits(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, family="qwen3-vl-moe", num_rows=8)
    run = setup.run(tmp_path / "run")
    model = setup.model(LoraSettings(rank=2, targets=("language", "vision", "projector", "experts")))
    setup.train(run, model=model, learning_rate=1e-2, max_steps=2)
    assert run.adapter is not None
    found = logits_elsewhere(tmp_path, setup, base=setup.model_folder, adapter=run.adapter)
    with torch.no_grad():
        torch.testing.assert_close(found, model(**inputs_of(setup)).logits, atol=2e-5, rtol=1e-4)
        with model.disable_adapter():
            assert not torch.allclose(found, model(**inputs_of(setup)).logits, atol=1e-2)
    config = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert {name.rpartition(".")[2] for name in config["target_parameters"]} == {"gate_up_proj", "down_proj"}


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3"])
def test_a_full_fine_tune_gives_the_same_logits_in_plain_transformers(tmp_path: Path, family: str) -> None:
    setup = make_setup(tmp_path, family=family, num_rows=8)
    run = setup.run(tmp_path / "run")
    model = setup.model(FullSettings(freeze=()))
    setup.train(run, model=model, learning_rate=1e-3, max_steps=2)
    found = logits_elsewhere(tmp_path, setup, base=run.folder / "model", adapter=None)
    with torch.no_grad():
        torch.testing.assert_close(found, model(**inputs_of(setup)).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen3-vl"])
def test_plain_transformers_sees_the_pixel_limits_that_were_trained_with(tmp_path: Path, family: str) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    setup = make_setup(tmp_path, family=family, num_rows=8)
    own = setup.encoder.pixel_limits
    setup.encoder = load_encoder(ModelSettings(base=str(setup.model_folder), min_pixels=8_192, max_pixels=40_000))
    run = setup.run(tmp_path / "run")
    setup.train(run, adapter=FullSettings(), max_steps=1)
    folder = run.folder / "model"
    processor: Any = Qwen2VLImageProcessorPil.from_pretrained(folder)
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (8_192, 40_000) != own
    for size in ((300, 200), (64, 64), (1500, 900)):
        picture = PICTURE.resize(size)
        ours = setup.encoder.pictures.tensors([picture])  # type: ignore[union-attr]
        theirs = processor(images=[picture], return_tensors="pt")
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
        torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"])
    # And the tuned model as a base of its own is asked at the resolution it was trained at.
    assert load_encoder(ModelSettings(base=str(folder))).pixel_limits == (8_192, 40_000)


def test_limits_reach_both_places_where_processors_keep_them(tmp_path: Path) -> None:
    values = {
        "patch_size": 16,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 1,
        "max_pixels": 2,
        "image_mean": [0.5] * 3,
    }
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": values, "processor_class": "P"}))
    write_limits(tmp_path, min_pixels=4096, max_pixels=65536)
    pictures = PatchPictures(tmp_path, min_pixels=None, max_pixels=None, backend="pil")
    assert (pictures.min_pixels, pictures.max_pixels) == (4096, 65536)
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == "P"
    # Unchanged limits leave the file as it was, to the byte.
    before = (tmp_path / "processor_config.json").read_bytes()
    write_limits(tmp_path, min_pixels=4096, max_pixels=65536)
    assert (tmp_path / "processor_config.json").read_bytes() == before
    # A processor's file of names alone is none of an image processor's.
    (tmp_path / "processor_config.json").write_text('{"processor_class": "P"}')
    write_limits(tmp_path, min_pixels=1, max_pixels=2)
    assert (tmp_path / "processor_config.json").read_text() == '{"processor_class": "P"}'


def test_a_model_of_16_bits_is_trained_in_32_and_saved_in_16(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, family="qwen3", num_rows=8)
    settings = ModelSettings(base=str(setup.model_folder), dtype="bfloat16")
    before = load_model(settings, device="cpu").state_dict()
    from medtune.models.adapter import add_adapter

    model: Any = add_adapter(load_model(settings, device="cpu"), FullSettings(freeze=()), setup.encoder.family)
    run = setup.run(tmp_path / "run")
    setup.train(run, model=model, learning_rate=1e-3, max_steps=2, save_every=1)
    from safetensors.torch import load_file

    saved = load_file(run.folder / "model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    assert json.loads((run.folder / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    assert any(not torch.equal(saved[name], before[name]) for name in saved)
    # A checkpoint keeps all bits, or resuming would go another way.
    kept = load_file(run.checkpoints / "checkpoint-2" / "trainable.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float32}


def test_gathered_weights_of_32_bits_are_saved_in_the_base_s_16(tmp_path: Path) -> None:
    """Where the weights are spread over devices, what is saved is a state dict and not the model's own weights."""
    from safetensors.torch import load_file

    from medtune.models.adapter import add_adapter
    from medtune.training.result import save_result

    setup = make_setup(tmp_path, family="qwen3", num_rows=8)
    model: Any = add_adapter(
        load_model(ModelSettings(base=str(setup.model_folder), dtype="bfloat16"), device="cpu"),
        FullSettings(freeze=()),
        setup.encoder.family,
    )
    run = setup.run(tmp_path / "run")
    gathered = {name: value + 1 for name, value in model.state_dict().items()}
    folder = save_result(run, model, setup.encoder.contract(), setup.model_folder, weights=gathered)
    saved = load_file(folder / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    assert torch.equal(saved["model.norm.weight"], gathered["model.norm.weight"].to(torch.bfloat16))
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert next(model.parameters()).dtype == torch.float32, "spread weights are left alone"


def test_records_of_an_earlier_training_do_not_come_along(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, family="qwen3", num_rows=8)
    for name in ("adapter_report.json", "training.json", "contract.json"):
        (setup.model_folder / name).write_text('{"of": "the base"}')
    run = setup.run(tmp_path / "run")
    setup.train(run, adapter=FullSettings(freeze=()), max_steps=1)
    folder = run.folder / "model"
    assert not (folder / "training.json").exists()
    assert "of" not in json.loads((folder / "adapter_report.json").read_text())
    assert "of" not in json.loads((folder / "contract.json").read_text())

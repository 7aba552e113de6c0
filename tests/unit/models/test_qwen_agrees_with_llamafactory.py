"""Token counts, prompts and labels with the real Qwen tokenizer, templates and processor settings.

The expected numbers were produced with LLaMA-Factory's resizing and transformers' ``smart_resize``; the ``direct`` ones with
the limits given straight to the processor, which is what medtune does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from medtune.models.config import ModelSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.load import load_model
from medtune.models.pictures import PatchPictures
from medtune.types import IGNORE_INDEX, Message
from tiny_models import tiny_model

QWEN2, QWEN3 = "qwen2-vl-2b", "qwen3-vl-4b"
SIZES = [(1024, 1024), (3056, 2544), (1500, 1100), (640, 480), (512, 512), (336, 336), (224, 224), (64, 64), (4096, 100)]
# model -> max_pixels -> tokens for SIZES, the limits given straight to the processor.
DIRECT = {
    (QWEN2, 262_144): [324, 320, 315, 315, 324, 144, 64, 4, 234],
    (QWEN3, 262_144): [256, 238, 234, 234, 256, 100, 64, 64, 204],
    (QWEN3, 589_824): [576, 546, 560, 300, 256, 100, 64, 64, 384],
}
# LLaMA-Factory's numbers; None where it exceeds the limit or rounds twice, which medtune does not.
LLAMA_FACTORY = {
    (QWEN2, 262_144): [324, None, None, None, 324, 144, 64, 4, None],
    (QWEN2, 589_824): [729, None, None, 391, 324, 144, 64, 4, 584],
    (QWEN3, 262_144): [256, None, None, None, 256, 100, 64, 64, 204],
    (QWEN3, 589_824): [576, None, None, 300, 256, 100, 64, 64, 384],
}


@pytest.mark.parametrize(("model", "max_pixels"), DIRECT)
def test_tokens_of_a_picture(shared: Path, model: str, max_pixels: int) -> None:
    pictures = PatchPictures(shared / "model-configs" / model, min_pixels=None, max_pixels=max_pixels, backend="pil")
    assert [pictures.num_tokens(*size) for size in SIZES] == DIRECT[model, max_pixels]
    side = 28 if model == QWEN2 else 32
    assert all(pictures.num_tokens(*size) * side * side <= max_pixels for size in SIZES)


@pytest.mark.parametrize(("model", "max_pixels"), LLAMA_FACTORY)
def test_tokens_where_llamafactory_agrees(shared: Path, model: str, max_pixels: int) -> None:
    pictures = PatchPictures(shared / "model-configs" / model, min_pixels=None, max_pixels=max_pixels, backend="pil")
    expected = LLAMA_FACTORY[model, max_pixels]
    found = [pictures.num_tokens(*size) for size in SIZES]
    assert [count if wanted is not None else None for count, wanted in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize("size", [(640, 480), (61, 300), (64, 64)])
@pytest.mark.parametrize("model", [QWEN2, QWEN3])
def test_the_pixels_are_as_many_as_were_counted(shared: Path, model: str, size: tuple[int, int]) -> None:
    pictures = PatchPictures(shared / "model-configs" / model, min_pixels=None, max_pixels=100_000, backend="pil")
    grid = pictures.tensors([Image.new("RGB", size)])["image_grid_thw"]
    assert int(grid.prod()) // 4 == pictures.num_tokens(*size)


@pytest.fixture(scope="module")
def encoders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    """The real Qwen-VL folders without their weights; all of them have the same tokenizer."""
    found = {}
    for name in ("qwen2-vl-2b", "qwen3-vl-4b", "qwen3-vl-30b-a3b"):
        folder = tmp_path_factory.mktemp(name)
        for source in (shared / "tokenizers" / "qwen3", shared / "model-configs" / name):
            for path in source.iterdir():
                if path.suffix in (".json", ".jinja"):
                    shutil.copyfile(path, folder / path.name)
        found[name] = load_encoder(ModelSettings(base=str(folder), max_pixels=262_144))
    return found


TURNS = [
    Message(role="user", content="<image>\nWhat is seen?  "),
    Message(role="assistant", content="右肺上叶可见结节。"),
    Message(role="user", content="\n\nWhere, at 5.2 cm?"),
    Message(role="assistant", content="Upper right."),
]


@pytest.mark.parametrize("name", ["qwen2-vl-2b", "qwen3-vl-4b", "qwen3-vl-30b-a3b"])
def test_prompt_reads_as_llamafactory_writes_it(encoders: dict[str, Encoder], name: str) -> None:
    encoder = encoders[name]
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" if name == "qwen2-vl-2b" else ""
    num_tokens = encoder.count_tokens([TURNS[0]], [(512, 512)])
    features = encoder.encode([TURNS[0]], [Image.new("RGB", (512, 512))])
    pads = "<|image_pad|>" * (324 if name == "qwen2-vl-2b" else 256)
    text = f"{system}<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>\nWhat is seen?  <|im_end|>\n<|im_start|>assistant\n"
    assert encoder.tokenizer.decode(features.input_ids) == text
    # The tokens are those of the whole text at once, as a server that gets only the text would make them.
    assert features.input_ids.tolist() == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(features.input_ids) == num_tokens


def test_labels_end_with_the_end_token_and_no_line_break(encoders: dict[str, Encoder]) -> None:
    """LLaMA-Factory from 0.9.2 trains ``<|im_end|>\\n``; medtune trains ``<|im_end|>`` only."""
    encoder = encoders["qwen3-vl-4b"]
    features = encoder.encode(TURNS, [Image.new("RGB", (512, 512))])
    labels = [int(label) for label in features.labels if label != IGNORE_INDEX]
    pieces = [encoder.tokenizer(message.content, add_special_tokens=False)["input_ids"] for message in (TURNS[1], TURNS[3])]
    end = encoder.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert labels == [*pieces[0], end, *pieces[1], end]
    assert int(features.labels[-1]) == IGNORE_INDEX
    assert encoder.tokenizer.decode(features.input_ids[-1:]) == "\n"


def test_every_turn_is_tokenised_as_the_whole_text_would_be(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["qwen3-vl-4b"]
    features = encoder.encode(TURNS, [Image.new("RGB", (512, 512))])
    text = encoder.tokenizer.decode(features.input_ids)
    assert features.input_ids.tolist() == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_end_tokens(encoders: dict[str, Encoder]) -> None:
    assert {encoder.end_token_ids for encoder in encoders.values()} == {(151645,)}


@pytest.fixture(scope="module")
def qwen3(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("qwen3")
    for path in (shared / "tokenizers" / "qwen3").glob("*.json"):
        shutil.copyfile(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}), encoding="utf-8")
    return load_encoder(ModelSettings(base=str(folder)))


def test_the_empty_thought_is_prompt_not_answer(qwen3: Encoder) -> None:
    turns = [Message(role=message.role, content=message.content.removeprefix("<image>")) for message in TURNS]
    features = qwen3.encode(turns)
    text = qwen3.tokenizer.decode(features.input_ids)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nUpper right.<|im_end|>\n")
    # Only the last answer gets one: the template drops thoughts from earlier turns.
    assert text.count("<think>") == 1
    assert "think" not in qwen3.tokenizer.decode([int(label) for label in features.labels if label != IGNORE_INDEX])
    prompt = qwen3.encode(turns[:-1])
    assert qwen3.tokenizer.decode(prompt.input_ids).endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("family", "name"), [("qwen2-vl", "qwen2-vl-2b"), ("qwen3-vl", "qwen3-vl-4b"), ("qwen3-vl-moe", "qwen3-vl-30b-a3b")]
)
def test_a_tiny_model_with_the_real_tokenizer_and_processor(shared: Path, tmp_path: Path, family: str, name: str) -> None:
    folder = tiny_model(tmp_path / "base", family, tokenizer=shared / "tokenizers" / "qwen3")
    for file in ("chat_template.jinja", "preprocessor_config.json"):
        shutil.copyfile(shared / "model-configs" / name / file, folder / file)
    settings = ModelSettings(base=str(folder))
    encoder, model = load_encoder(settings), load_model(settings, device="cpu")
    features = encoder.encode(TURNS, [Image.linear_gradient("L").resize((300, 200)).convert("RGB")])
    with torch.no_grad():
        output = model(**encoder.collate([features]).inputs)
    assert output.logits.shape[1] == len(features.input_ids) == encoder.count_tokens(TURNS, [(300, 200)])
    assert 0 < float(output.loss) < 20

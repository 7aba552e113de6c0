"""The ``auto`` family with processors that work differently from LLaVA's: tiles, and a picture mark that is not the pad token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medtune.errors import DataError, ModelError, RecipeError
from medtune.models.config import ModelSettings
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.types import IGNORE_INDEX, Message
from tiny_models import CHAT_TEMPLATES, tiny_model

TEXT = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}


def llava_next(base: Path, folder: Path) -> None:
    import transformers
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    grid = [[56, 112], [112, 56], [112, 112]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=grid
    )
    transformers.LlavaNextProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    config = transformers.LlavaNextConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer)},
        vision_config={"model_type": "clip_vision_model", "projection_dim": 16, **VISION},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_grid_pinpoints=grid,
    )
    transformers.LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATES["llava"], encoding="utf-8")


def gemma3(base: Path, folder: Path) -> None:
    import transformers
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    names = {"image_token": "<image>", "boi_token": "<|vision_start|>", "eoi_token": "<|vision_end|>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(base / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=names
    )
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    transformers.Gemma3Processor(images, tokenizer, image_seq_length=4).save_pretrained(folder)
    config = transformers.Gemma3Config(
        text_config={**TEXT, "model_type": "gemma3_text", "vocab_size": len(tokenizer), "head_dim": 8, "sliding_window": 64},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(
        CHAT_TEMPLATES["llava"].replace("'<image>\\n'", "'<|vision_start|>'"), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llava") / "base", "llava")


@pytest.mark.parametrize("build", [llava_next, gemma3])
def test_other_processors(build: Callable[[Path, Path], None], llava: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build(llava, tmp_path)
    settings = ModelSettings(base=str(tmp_path))
    encoder, model = load_encoder(settings), load_model(settings, device="cpu")
    assert encoder.family.name == "auto"
    square, wide = Image.new("RGB", (112, 112), (9, 80, 7)), Image.linear_gradient("L").resize((100, 50)).convert("RGB")
    two = [Message(role="user", content="<image>A, <image>B?"), Message(role="assistant", content="Yes <|im_end|>.")]
    one = [Message(role="user", content="<image>A?"), Message(role="assistant", content="No.")]
    text = [Message(role="user", content="A?"), Message(role="assistant", content="Ok")]
    rows = [encoder.encode(two, [square, wide]), encoder.encode(one, [wide]), encoder.encode(text)]
    for messages, images, row in ((two, [square, wide], rows[0]), (one, [wide], rows[1]), (text, [], rows[2])):
        prompt = encoder.encode(messages[:-1], images)
        assert row.input_ids[: len(prompt.input_ids)].tolist() == prompt.input_ids.tolist()
        assert encoder.count_tokens(messages, [image.size for image in images]) == len(row.input_ids)
        labels = [int(label) for label in row.labels if label != IGNORE_INDEX]
        assert encoder.tokenizer.decode(labels) == messages[-1].content + "<|im_end|>"
    if build is llava_next:
        assert rows[0].tensors["pixel_values"].shape[1] != rows[1].tensors["pixel_values"].shape[1]
    with torch.no_grad():
        together = model(**encoder.collate(rows).inputs).logits
        for index, row in enumerate(rows):
            alone = model(**encoder.collate([row]).inputs).logits[0]
            torch.testing.assert_close(together[index, : len(alone)], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("key", ["min_pixels", "max_pixels"])
def test_pixel_limits_are_refused(llava: Path, key: str) -> None:
    with pytest.raises(RecipeError, match=f"auto does not know {key}"):
        load_encoder(ModelSettings.model_validate({"base": str(llava), key: 10_000}))


def test_a_processor_without_pictures(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "base", "qwen3")
    with pytest.raises(ModelError, match=r"no picture token|cannot be loaded"):
        load_encoder(ModelSettings(base=str(folder), family="auto"))


def test_a_row_that_the_processor_refuses(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load_encoder(ModelSettings(base=str(llava)))

    def refuse(**_: Any) -> None:
        raise ValueError("too small")

    monkeypatch.setattr(encoder, "processor", refuse)
    monkeypatch.setattr(type(encoder), "image_token", "<image>")
    with pytest.raises(DataError, match="refuses the row: too small") as caught:
        encoder.encode([Message(role="user", content="?")], sample_id="s")
    assert caught.value.sample == "s"

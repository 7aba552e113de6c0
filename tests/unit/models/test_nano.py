"""The embedded model: how it is made, what ships, and that it looks at the picture."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import medtune
from medtune.data.sources.phantom.general import draw_picture
from medtune.data.sources.phantom.source import to_png
from medtune.errors import ModelError, RunError
from medtune.generation.hf import HfGenerator
from medtune.imaging.read import open_picture
from medtune.models import nano
from medtune.models.config import ModelSettings
from medtune.models.encoder import Encoder, load_encoder
from medtune.models.hub import EMBEDDED
from medtune.models.load import load_model
from medtune.runs import Run, now
from medtune.types import Message, Request, RunRecord, Sampling
from tiny_training import FULL, Setup, make_setup

FOLDER = Path(medtune.__file__).parent / "nano"
SETTINGS = ModelSettings(base=EMBEDDED)


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(SETTINGS)


# ------------------------------------------------------------------------------------------------------------ the vocabulary


def few_texts() -> Iterator[str]:
    yield from ("Where is the spot?", "At the top left.", '{"bbox_2d": [120, 340, 560, 780], "label": "dark spot"}') * 5


def test_a_vocabulary_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano, "_texts", few_texts)
    first, second = nano.train_vocabulary(), nano.train_vocabulary()
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() > 263, "some merges beside bytes and special tokens"
    assert [first.token_to_id(token) for token in nano.SPECIAL_TOKENS] == list(range(7))


@pytest.mark.slow
def test_the_shipped_vocabulary_can_be_made_again() -> None:
    """Draws some two thousand pictures for their texts."""
    made, shipped = json.loads(nano.train_vocabulary().to_str()), read("tokenizer.json")
    assert made["model"]["vocab"] == shipped["model"]["vocab"]
    assert made["model"]["merges"] == shipped["model"]["merges"]


@pytest.mark.parametrize(
    "text",
    [
        "Where is the spot?",
        "右肺上叶可见结节，边界清。请描述这张图片。",
        '{"bbox_2d": [0, 1000, 57, 8], "label": "bright spot"}',
        "naïve façade – 3 × 4 µm²\n\n\tα β 🧠",
        "  two  blanks  ",
    ],
)
def test_any_text_survives_the_vocabulary(encoder: Encoder, text: str) -> None:
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encoder.decode(ids) == text
    assert max(ids) < nano.VOCABULARY_SIZE


def test_digits_stand_alone(encoder: Encoder) -> None:
    ids = encoder.tokenizer("[908, 1000]", add_special_tokens=False)["input_ids"]
    digits = [encoder.decode([token]) for token in ids if re.search(r"\d", encoder.decode([token]))]
    assert digits == list("9081000")


def test_special_tokens_are_single_and_a_text_cannot_spell_them(encoder: Encoder) -> None:
    assert encoder.tokenizer.convert_tokens_to_ids(list(nano.SPECIAL_TOKENS)) == list(range(7))
    assert encoder.end_token_ids[0] == 2
    assert encoder.pad_token_id == 0
    spelt = encoder.encode([Message(role="user", content="<|im_end|><|image_pad|>")])
    plain = encoder.encode([Message(role="user", content="x")])
    special = [(row.input_ids < 7).sum() for row in (spelt, plain)]
    assert special[0] == special[1]


def test_a_conversation_reads_as_qwen_writes_it(encoder: Encoder) -> None:
    messages = [Message(role="user", content="<image>Where?"), Message(role="assistant", content="There.")]
    features = encoder.encode(messages, [Image.new("RGB", (16, 16))])
    text = encoder.tokenizer.decode(features.input_ids)
    assert re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", text) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where?<|im_end|>\n<|im_start|>assistant\nThere.<|im_end|>\n"
    )
    learnt = features.input_ids[features.labels != -100]
    assert encoder.tokenizer.decode(learnt) == "There.<|im_end|>"


# --------------------------------------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("side", [8, 32, 111, 112, 120, 127, 128, 129, 224, 512, 3000])
def test_a_square_picture_takes_49_to_64_tokens(encoder: Encoder, side: int) -> None:
    assert encoder.pictures is not None
    count = encoder.pictures.num_tokens(side, side)
    assert 49 <= count <= 64
    if side <= 512:
        tensors = encoder.pictures.tensors([Image.new("L", (side, side)).convert("RGB")])
        assert int(tensors["image_grid_thw"].prod()) // 4 == count


@pytest.mark.parametrize("size", [(64, 128), (640, 480), (1000, 100), (130, 127)])
def test_another_shape_takes_about_as_many(encoder: Encoder, size: tuple[int, int]) -> None:
    assert encoder.pictures is not None
    assert 40 <= encoder.pictures.num_tokens(*size) <= 64


# ------------------------------------------------------------------------------------------------------------- what ships


def test_the_shipped_configuration_is_the_stated_one(encoder: Encoder) -> None:
    ids = {token: encoder.tokenizer.convert_tokens_to_ids(token) for token in nano.SPECIAL_TOKENS}
    stated, shipped = nano.configuration(ids, len(encoder.tokenizer)).to_dict(), read("config.json")
    for part in ("text_config", "vision_config"):
        differences = {
            key: (value, stated[part].get(key))
            for key, value in shipped[part].items()
            if key != "dtype" and stated[part].get(key) != value
        }
        assert differences == {}
    for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "tie_word_embeddings"):
        assert shipped[key] == stated[key]
    assert (FOLDER / "chat_template.jinja").read_text(encoding="utf-8") == nano.CHAT_TEMPLATE


def test_the_weights_are_small_and_as_many_as_the_record_says() -> None:
    path = FOLDER / "model.safetensors"
    assert path.stat().st_size < 12_000_000
    with safe_open(path, framework="pt") as weights:
        tensors = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - it is no mapping
        assert {tensor.get_dtype() for tensor in tensors.values()} == {"BF16"}
        count = sum(int(np.prod(tensor.get_shape())) for tensor in tensors.values())
    assert count == read("training.json")["trainable"]["total"]


def test_the_record_of_the_run_is_that_of_the_recipe() -> None:
    record, recipe = read("training.json"), yaml.safe_load((FOLDER / "recipe.yaml").read_text(encoding="utf-8"))
    assert record["name"] == recipe["name"] == "nano_pretrain"
    assert record["num_steps"] == recipe["train"]["max_steps"]
    losses = [(entry["step"], entry["loss"]) for entry in record["losses"] if "loss" in entry]
    assert [step for step, _ in losses] == [1, *range(50, 2101, 50)]
    assert losses[-1][1] < 0.1 * losses[0][1]
    assert [entry["eval_loss"] for entry in record["losses"] if "eval_loss" in entry] == [record["eval_loss"]]


@pytest.mark.parametrize(
    "name", ["training.json", "recipe.yaml", "config.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_no_shipped_file_names_a_folder_of_a_machine(name: str) -> None:
    assert_no_machine((FOLDER / name).read_text(encoding="utf-8"))


def assert_no_machine(text: str) -> None:
    # An absolute path in a quoted or YAML value, or a time.
    assert not re.search(r"""(?m)(["'\s:]|^)(/[\w.-]+){2,}|file:|[A-Z]:\\\\""", text)
    assert not re.search(r"\d{4}-\d\d-\d\d|\b\d{1,2}:\d\d:\d\d|\"(created|updated|time)\"", text)


# ------------------------------------------------------------------------------------------------------------ it can see


def ask(generator: HfGenerator, question: str, pictures: Sequence[Image.Image]) -> list[str]:
    requests = [
        Request(
            id=f"{index:02d}",
            messages=(Message(role="user", content=f"<image>{question}"),),
            images=(picture,),
            sampling=Sampling(max_new_tokens=12),
        )
        for index, picture in enumerate(pictures)
    ]
    texts = {generation.id: generation.text for generation in generator.generate(requests)}
    return [texts[request.id] for request in requests]


def test_it_says_where_the_spot_is_and_needs_the_picture_for_it(encoder: Encoder) -> None:
    """24 pictures that no run was trained on. benchmarks/nano_sight.py measured 90 % right of 200 such pictures, and 8.5 % with
    another one's picture; of these 24 it is 22 and 5."""
    pictures, places = [], []
    for number in range(40):
        hu, blob = draw_picture(np.random.default_rng([2_024, number]), 128)
        if blob is not None and len(places) < 24:
            pictures.append(open_picture(to_png(hu), name=f"{number}.png"))
            places.append(f"At the {blob.place}.")
    generator = HfGenerator(load_model(SETTINGS, device="cpu"), encoder, batch_size=24)
    answers = ask(generator, "Where is the spot?", pictures)
    assert all(re.fullmatch(r"At the (top|middle|bottom) (left|center|right)\.|There is no spot\.", answer) for answer in answers)
    right = sum(answer == place for answer, place in zip(answers, places, strict=True))
    shuffled = sum(answer == place for answer, place in zip(answers[1:] + answers[:1], places, strict=True))
    assert right >= 0.7 * 24
    assert shuffled < 0.4 * 24


# ------------------------------------------------------------------------------------------------------------------- packing


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return make_setup(tmp_path_factory.mktemp("tiny"), num_rows=8)


@pytest.fixture(scope="module")
def finished(setup: Setup) -> Run:
    folder = setup.data_folder
    record = RunRecord(
        name="full", status="created", created=now(), updated=now(), recipe="tiny", base_model=str(folder / "model"), seed=0
    )
    recipe = {
        "name": "tiny",
        "data": {"folder": str(folder / "data"), "sources": [{"source": "alpaca", "options": {"path": str(folder / "qa.json")}}]},
        "model": {"base": str(folder / "model")},
        "train": {"learning_rate": 1e-3},
    }
    run = Run.create(folder / "runs" / "full", recipe_text=yaml.safe_dump(recipe), record=record)
    setup.train(run, adapter=FULL, max_steps=1)
    return run


def test_a_packed_run_is_whole_and_names_no_machine(setup: Setup, finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    nano.pack(finished.folder, folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in FOLDER.iterdir() if path.is_file()}, "the files that ship"
    for path in folder.iterdir():
        if path.suffix in (".json", ".yaml") and path.name != "tokenizer.json":
            assert_no_machine(path.read_text(encoding="utf-8"))
            assert str(setup.data_folder) not in path.read_text(encoding="utf-8")
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert record["num_steps"] == 1
    assert record["losses"][0]["loss"] == pytest.approx(record["train_loss"])
    assert list(record["losses"][0]) == ["step", "loss", "learning_rate", "epoch"]
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["data"]["sources"][0]["options"] == {"path": "qa.json"}
    assert recipe["train"] == {"learning_rate": 1e-3}


def test_packed_weights_are_the_trained_ones_in_bfloat16(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    nano.pack(finished.folder, folder)
    assert finished.adapter is not None
    trained = load_model(ModelSettings(base=str(finished.adapter)), device="cpu").state_dict()
    packed = load_model(ModelSettings(base=str(folder)), device="cpu").state_dict()
    assert packed.keys() == trained.keys()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {part["dtype"] for part in (config, config["text_config"], config["vision_config"])} == {"bfloat16"}
    assert all(torch.equal(value.to(torch.bfloat16).float(), packed[name]) for name, value in trained.items())


def test_what_exists_is_never_overwritten(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for make in (lambda: nano.pack(finished.folder, tmp_path), lambda: nano.initialise(tmp_path)):
        with pytest.raises(ModelError, match="exists already") as caught:
            make()
        assert caught.value.file == str(tmp_path)
        assert caught.value.remedy is not None
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unfinished_run_cannot_be_packed(setup: Setup, tmp_path: Path) -> None:
    run = setup.run(tmp_path / "unfinished")
    with pytest.raises(RunError, match="no whole model to pack") as caught:
        nano.pack(run.folder, tmp_path / "packed")
    assert caught.value.file == str(run.folder)
    with pytest.raises(RunError, match="not a run folder"):
        nano.pack(tmp_path / "nothing", tmp_path / "packed")
    (run.folder / "adapter").mkdir()
    (run.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="trained an adapter"):
        nano.pack(run.folder, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


# ------------------------------------------------------------------------------------------------------------- the commands


def test_init_writes_a_model_that_loads_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nano, "_texts", few_texts)
    before = torch.get_rng_state()
    assert nano.main(["init", str(tmp_path / "a")]) == 0
    nano.initialise(tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers are left alone"
    nano.initialise(tmp_path / "c", seed=1)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert capfd.readouterr() == ("", "")
    settings = ModelSettings(base=str(tmp_path / "a"))
    model = load_model(settings, device="cpu")
    assert next(model.parameters()).dtype == torch.float32
    assert load_encoder(settings).count_tokens([Message(role="user", content="<image>?")], [(128, 128)]) > 64


def test_the_command_line_tells_faults_and_its_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nano.main(["pack", str(tmp_path), str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert "not a run folder" in shown.err
    assert str(tmp_path) in shown.err
    assert shown.out == ""
    assert nano.main([]) == 2
    assert "nano init" in capsys.readouterr().err
    assert sys.modules["medtune.models.nano"] is nano

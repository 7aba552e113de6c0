"""From a name to a model, and everything that can be wrong on the way."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from medtune.errors import MissingDependencyError, ModelError
from medtune.models.config import ModelSettings, QloraSettings
from medtune.models.encoder import load_encoder
from medtune.models.hub import EMBEDDED, base_folder
from medtune.models.load import load_model
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "base", "qwen3-vl")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "base"))


def test_a_folder(folder: Path) -> None:
    for hub in ("auto", "local"):
        assert base_folder(ModelSettings(base=str(folder), hub=hub)) == folder  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "hub"),
    [("./nowhere", "auto"), ("/nowhere/at/all", "auto"), ("~/nowhere-x", "auto"), ("a/b/c", "auto"), ("some/id", "local")],
)
def test_no_such_folder(base: str, hub: Any) -> None:
    with pytest.raises(ModelError, match="no such model folder") as caught:
        base_folder(ModelSettings(base=base, hub=hub))
    assert caught.value.key == "model.base"
    assert caught.value.remedy is not None


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    settings = ModelSettings(base=str(tmp_path))
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(settings)
    (tmp_path / "config.json").write_text("{broken", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        load_encoder(settings)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="names no model_type"):
        load_model(settings)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        load_model(ModelSettings(base=str(folder)))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(ModelSettings(base=str(folder)))


def test_missing_weights_are_not_filled_with_random_numbers(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.visual.merger.linear_fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 weights; the first is model\.visual\.merger\.linear_fc1\.weight"):
        load_model(ModelSettings(base=str(folder)), device="cpu")


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(ModelSettings(base=str(folder)), device="cpu")


def test_a_model_type_nobody_knows(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no_such_type"}), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(ModelSettings(base=str(folder)), device="cpu")


def test_a_family_that_does_not_answer(folder: Path) -> None:
    with pytest.raises(ModelError, match="qwen3_vl, which the family qwen2-vl does not read"):
        load_encoder(ModelSettings(base=str(folder), family="qwen2-vl"))


def test_missing_parts_of_the_folder(folder: Path) -> None:
    settings = ModelSettings(base=str(folder))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        load_encoder(settings)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        load_encoder(settings)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_encoder(settings)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "image_token_id": 7}), encoding="utf-8")
    with pytest.raises(ModelError, match="config says 7"):
        load_encoder(ModelSettings(base=str(folder)))


def test_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        load_encoder(ModelSettings(base="Qwen/Qwen3-VL-4B-Instruct"))
    assert "HF_ENDPOINT" in str(caught.value.remedy)


def test_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(base: str, **options: Any) -> str:
        asked.append({"base": base, **options})
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    settings = ModelSettings(base="Qwen/tiny", revision="0123")
    load_encoder(settings)
    base_folder(settings)
    assert [request["base"] for request in asked] == ["Qwen/tiny", "Qwen/tiny"]
    assert all(request["revision"] == "0123" and "*.bin" in request["ignore_patterns"] for request in asked)
    # Only the weights' own turn fetches them.
    assert ["*.safetensors" in request["ignore_patterns"] for request in asked] == [True, False]


def test_modelscope_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> ModuleType:
        if name == "modelscope":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'medtune\[modelscope\]'"):
        base_folder(ModelSettings(base="Qwen/tiny", hub="modelscope"))


def test_modelscope_when_it_is_there(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    import sys

    def refuse(*_: Any, **__: Any) -> str:
        raise RuntimeError("404 not found\nand more")

    fake = ModuleType("modelscope")
    fake.snapshot_download = lambda *_, **__: str(folder)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", fake)
    settings = ModelSettings(base="Qwen/tiny", hub="modelscope")
    assert base_folder(settings) == folder
    fake.snapshot_download = refuse  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="404 not found"):
        base_folder(settings)


def test_the_embedded_model_is_found_or_missed_clearly() -> None:
    import medtune

    folder = Path(medtune.__file__).parent / "nano"
    if folder.is_dir():
        assert base_folder(ModelSettings(base=EMBEDDED)) == folder
    else:
        with pytest.raises(ModelError, match="no such model folder"):
            base_folder(ModelSettings(base=EMBEDDED))


def test_dtype(folder: Path) -> None:
    assert load_model(ModelSettings(base=str(folder)), device="cpu").dtype == torch.float32
    model = load_model(ModelSettings(base=str(folder), dtype="bfloat16"), device="cpu")
    assert model.dtype == torch.bfloat16
    assert not model.training


def test_qlora_says_what_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"adapter\.kind=qlora needs the package bitsandbytes"):
        load_model(ModelSettings(base=str(folder)), device="cpu", quantization=QloraSettings())


def test_torchvision_backend_says_what_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="torchvision"):
        load_encoder(ModelSettings(base=str(folder), resize_backend="torchvision"))


@pytest.mark.parametrize("place", ["chat_template.json", "processor_config.json", "tokenizer_config.json"])
def test_where_a_chat_template_may_stand(folder: Path, place: str) -> None:
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    expected = load_encoder(ModelSettings(base=str(folder))).contract().chat_template_hash
    (folder / "chat_template.jinja").unlink()
    path = folder / place
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**values, "chat_template": template}), encoding="utf-8")
    assert load_encoder(ModelSettings(base=str(folder))).contract().chat_template_hash == expected


@pytest.mark.parametrize(
    "limits", [{"min_pixels": 4096, "max_pixels": 65536}, {"size": {"shortest_edge": 4096, "longest_edge": 65536}}]
)
def test_both_ways_to_write_pixel_limits(folder: Path, limits: dict[str, Any]) -> None:
    path = folder / "preprocessor_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("size")
    path.write_text(json.dumps({**values, **limits}), encoding="utf-8")
    assert load_encoder(ModelSettings(base=str(folder))).pixel_limits == (4096, 65536)
    assert load_encoder(ModelSettings(base=str(folder), max_pixels=9999)).pixel_limits == (4096, 9999)
    with pytest.raises(ModelError, match="min_pixels"):
        load_encoder(ModelSettings(base=str(folder), max_pixels=1000))
    path.write_text(json.dumps({"image_processor": {**values, **limits}}), encoding="utf-8")
    path.rename(folder / "processor_config.json")
    assert load_encoder(ModelSettings(base=str(folder))).pixel_limits == (4096, 65536)


def test_a_picture_too_thin(folder: Path) -> None:
    from PIL import Image

    from medtune.errors import DataError
    from medtune.types import Message

    encoder = load_encoder(ModelSettings(base=str(folder)))
    messages = [Message(role="user", content="<image>?")]
    for run in (
        lambda: encoder.count_tokens(messages, [(10, 2001)], sample_id="thin"),
        lambda: encoder.encode(messages, [Image.new("RGB", (10, 2001))], sample_id="thin"),
    ):
        with pytest.raises(DataError, match="10 x 2001 pixels is too thin") as caught:
            run()
        assert caught.value.sample == "thin"

"""With vLLM where it is installed, else with a stand-in of its interface on transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stand_in_vllm
from medtune.errors import GenerationError, MissingDependencyError, ModelError
from medtune.generation import vllm as module
from medtune.generation.config import VllmSettings
from medtune.generation.hf import HfGenerator
from medtune.generation.vllm import Engine, VllmGenerator
from medtune.generation.vllm_adapter import AdapterFacts, check_adapter, make_reference
from medtune.generation.vllm_models import vllm_models
from medtune.models.adapter import add_adapter
from medtune.models.config import LoraSettings, ModelSettings
from medtune.models.contract import write_contract
from medtune.models.encoder import load_encoder
from medtune.models.load import load_model
from medtune.types import Event, Message, Request, Sampling
from tiny_models import tiny_model

INSTALLED = importlib.util.find_spec("vllm") is not None
SETTINGS = VllmSettings(max_model_len=512, max_num_seqs=2, enforce_eager=True, dtype="float32")
SAMPLING = Sampling(max_new_tokens=6)


@pytest.fixture(autouse=True)
def options(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    for name, value in module._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)  # what the engine sets would outlive the test
    return [] if INSTALLED else stand_in_vllm.install(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[ModelSettings, Path]]:
    """A tiny model of a family, and an adapter on some of its parts that really does something."""
    folder = tmp_path_factory.mktemp("models")

    def make(family: str, *targets: str, strength: float = 0.2) -> tuple[ModelSettings, Path]:
        settings = ModelSettings(base=str(folder / family))
        if not (folder / family).is_dir():
            tiny_model(folder / family, family, wide=True)
        adapter = folder / f"{family}-{'-'.join(targets)}-{strength}"
        if not adapter.is_dir():
            encoder = load_encoder(settings)
            torch.manual_seed(1)
            tuned = add_adapter(load_model(settings, device="cpu"), LoraSettings(rank=4, targets=targets), encoder.family)
            for name, parameter in tuned.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=strength)
            tuned.save_pretrained(adapter)
            write_contract(encoder.contract(), adapter)
        return settings, adapter

    return make


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in ((100, 70), (60, 200))]


def requests(*, with_pictures: bool) -> list[Request]:
    first, second = pictures()

    def ask(name: str, text: str, *images: Image.Image) -> Request:
        return Request(name, (Message(role="user", content=text),), images, SAMPLING, ("e", "yes"))

    found = [ask("text", "Is there a lesion?"), ask("more", "What does this image show? " * 3), ask("short", "a")]
    if with_pictures:
        found += [ask("one", "<image>What is this?", first), ask("two", "<image>Compare with <image>", first, second)]
    return found


@pytest.mark.parametrize("family", ["qwen3", "qwen2-vl", "qwen3-vl"])
def test_writes_what_hf_writes(family: str, made: Any, options: list[dict[str, Any]]) -> None:
    settings, adapter = made(family, "language")
    encoder = load_encoder(settings, adapter=adapter)
    model = load_model(settings, adapter=adapter, device="cpu")
    engine = Engine(Path(settings.base), encoder, SETTINGS, dtype="float32", adapter=AdapterFacts.read(adapter, encoder.family))
    asked = requests(with_pictures=family != "qwen3")
    texts = []
    for use_adapter in (False, True):
        vllm = VllmGenerator(engine, encoder, adapter=adapter if use_adapter else None)
        expected = {g.id: g for g in HfGenerator(model, encoder, batch_size=2, use_adapter=use_adapter).generate(asked)}
        found = {g.id: g for g in vllm.generate(asked)}
        assert found.keys() == expected.keys()
        for name, generation in found.items():
            hf = expected[name]
            assert generation.text == hf.text
            assert generation.finish_reason == hf.finish_reason
            assert (generation.num_prompt_tokens, generation.num_generated_tokens) == (
                hf.num_prompt_tokens,
                hf.num_generated_tokens,
            )
            assert generation.first_token_logprobs is not None
            assert generation.first_token_logprobs["e"] < 0
            assert generation.seconds is not None
            if hf.first_token_logprobs is not None:
                assert generation.first_token_logprobs == pytest.approx(hf.first_token_logprobs, abs=1e-4)
        assert "".join(vllm.stream(asked[-1])) == expected[asked[-1].id].text
        texts.append({name: generation.text for name, generation in found.items()})
    assert texts[0] != texts[1], "the adapter changes what is written"
    if options:
        assert options[0]["generation_config"] == "vllm"
        assert options[0]["max_lora_rank"] == 8
        assert "enable_tower_connector_lora" not in options[0]
    engine.close()


def test_a_reader_who_leaves_and_a_damaged_picture(made: Any, tmp_path: Path) -> None:
    settings, _ = made("qwen2-vl", "language")
    encoder = load_encoder(settings)
    engine = Engine(Path(settings.base), encoder, SETTINGS, dtype="float32")
    generator = VllmGenerator(engine, encoder, owns_engine=True)
    whole = tmp_path / "torn.png"
    pictures()[0].save(whole)
    whole.write_bytes(whole.read_bytes()[:-5000])
    torn = Request("torn", (Message(role="user", content="<image>?"),), (whole,), SAMPLING)
    found = {g.id: g for g in generator.generate([torn, *requests(with_pictures=False)])}
    assert found["torn"].finish_reason == "error"
    assert "torn.png" in (found["torn"].error or "")
    assert len(found) == 4
    generations = generator.generate(requests(with_pictures=False))
    next(generations)
    generations.close()  # type: ignore[attr-defined]
    assert not engine._inbox
    assert len(list(generator.generate(requests(with_pictures=True)))) == 5
    long = Request("long", (Message(role="user", content="?"),), sampling=Sampling(max_new_tokens=600))
    with pytest.raises(GenerationError, match="context of 512"):
        generator.generate([long])
    generator.close()
    generator.close()


# ------------------------------------------------------------------------------------------------------- does it act


def guarded(settings: ModelSettings, adapter: Path) -> tuple[AdapterFacts, Any, VllmGenerator, VllmGenerator]:
    encoder = load_encoder(settings, adapter=adapter)
    facts = AdapterFacts.read(adapter, encoder.family)
    reference = make_reference(load_model(settings, adapter=adapter, device="cpu"), encoder, facts)
    engine = Engine(Path(settings.base), encoder, SETTINGS, dtype="float32", adapter=facts)
    return facts, reference, VllmGenerator(engine, encoder), VllmGenerator(engine, encoder, adapter=adapter)


def test_an_adapter_that_acts_on_all_its_parts_passes(made: Any, options: list[dict[str, Any]]) -> None:
    facts, reference, base, tuned = guarded(*made("qwen2-vl", "language", "vision", "projector"))
    assert facts.doubtful == ("vision", "projector")
    assert check_adapter(facts, reference, base, tuned) is None
    if options:
        assert options[0]["enable_tower_connector_lora"] is True


@pytest.mark.skipif(INSTALLED, reason="the stand-in can be made to leave parts out")
@pytest.mark.parametrize("deaf", [(".visual.blocks.",), (".visual.merger.",), ("lora",)])
def test_an_adapter_that_is_left_out_in_silence_is_refused(
    deaf: tuple[str, ...], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_vllm.install(monkeypatch, deaf=deaf)
    with pytest.raises(GenerationError, match=r"does not use this adapter|too little to tell"):
        check_adapter(*guarded(*made("qwen2-vl", "language", "vision", "projector")))


def test_an_adapter_that_changes_next_to_nothing_is_doubted(made: Any) -> None:
    doubt = check_adapter(*guarded(*made("qwen3", "language", strength=1e-8)))
    assert doubt is not None
    assert "could not be told" in doubt.render("en")
    with pytest.raises(GenerationError, match="too little to tell"):
        check_adapter(*guarded(*made("qwen2-vl", "vision", strength=1e-8)))


def test_the_reference_leaves_the_adapter_as_it_was(made: Any) -> None:
    settings, adapter = made("qwen2-vl", "language", "vision", "projector")
    encoder = load_encoder(settings, adapter=adapter)
    model = load_model(settings, adapter=adapter, device="cpu")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    reference = make_reference(model, encoder, AdapterFacts.read(adapter, encoder.family))
    assert set(reference.without) == {"vision", "projector"}
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    for others in (reference.base, *reference.without.values()):
        assert np.abs(others[0] - reference.tuned[0]).max() > 0.01


# ------------------------------------------------------------------------------------------------------------- assembly


def test_base_and_tuned_share_an_engine_after_the_comparison(made: Any, options: list[dict[str, Any]]) -> None:
    settings, adapter = made("qwen3", "language")
    heard: list[Event] = []

    def load(folder: Path | None) -> Any:
        return load_model(settings, adapter=folder, device="cpu"), load_encoder(settings, adapter=folder)

    models = vllm_models(settings, SETTINGS, adapter, load=load, listener=heard.append)
    asked = requests(with_pictures=False)
    texts = [{g.id: g.text for g in models[label]().generate(asked)} for label in ("base", "tuned")]
    assert texts[0] != texts[1]
    assert len(options) == (0 if INSTALLED else 1)
    assert [event.kind for event in heard] == ["phase", "phase"]


def test_what_cannot_be_compared_is_refused_where_parts_may_be_left_out(made: Any) -> None:
    heard: list[Event] = []

    def no_room(_: Path | None) -> Any:
        raise torch.OutOfMemoryError("no room")

    settings, adapter = made("qwen3", "language")
    vllm_models(settings, SETTINGS, adapter, load=no_room, listener=heard.append)["tuned"]()
    assert "could not be checked" in "".join(str(event.text) for event in heard if event.kind == "note")
    settings, adapter = made("qwen2-vl", "vision")
    with pytest.raises(GenerationError, match="was not compared"):
        vllm_models(settings, SETTINGS, adapter, load=no_room)["tuned"]()
    unchecked = SETTINGS.model_copy(update={"check_adapter": False})
    with pytest.raises(GenerationError, match="part on vision"):
        vllm_models(settings, unchecked, adapter, load=no_room)["base"]()


def test_adapters_that_vllm_cannot_use(made: Any, tmp_path: Path) -> None:
    import json
    import shutil

    settings, adapter = made("qwen3", "language")
    family = load_encoder(settings).family
    assert AdapterFacts.read(adapter, family) == AdapterFacts(adapter, frozenset({"language"}), 4)
    for changes, words in (({"use_dora": True}, "use_dora"), ({"r": 1024}, "rank 512 at most")):
        other = tmp_path / words.split()[0]
        shutil.copytree(adapter, other)
        config = json.loads((other / "adapter_config.json").read_text())
        (other / "adapter_config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ModelError, match=words):
            AdapterFacts.read(other, family)


def test_families_whose_pictures_cannot_be_handed_over(tmp_path: Path) -> None:
    settings = ModelSettings(base=str(tiny_model(tmp_path, "llava")))
    with pytest.raises(ModelError, match="reads the Qwen families"):
        Engine(tmp_path, load_encoder(settings), SETTINGS)


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_without_vllm_the_pip_line_is_given(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stand_in_vllm.sys.modules, "vllm", None)
    settings, _ = made("qwen3", "language")
    with pytest.raises(MissingDependencyError, match="pip install vllm"):
        Engine(Path(settings.base), load_encoder(settings), SETTINGS)
